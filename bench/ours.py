"""vs-tools, installed, with its files below a directory of the bench (VS_TOOLS_ROOT)."""

import os
import shutil
from pathlib import Path

from bench import watch
from bench.contestant import folder
from bench.inside import BRIDGE, GATEWAY, NETWORK, disk
from bench.place import note_cgroup
from bench.programs import PATH, BenchError, run
from vstools.paths import Paths

FIRST_CONTEXT = 45100
"""Far from the host's own guests: contexts belong to the kernel, wherever the files are."""
_FIRST_HOST = 10  # the first guest's address in NETWORK


def command(name: str) -> Path:
    """The script of one of our commands, from VS_TOOLS_BIN or the PATH; raises BenchError."""
    folder = os.environ.get("VS_TOOLS_BIN")
    found = shutil.which(name, path=folder or PATH)
    if not found:
        raise BenchError(f"{name} is not installed: run install.sh first, or set VS_TOOLS_BIN to its folder")
    return Path(found).resolve()


class Ours:
    """An installation on the bench's disk whose guests are on its bridge."""

    name = "ours"

    def __init__(self, work: Path, template: Path | None, scripts: Path) -> None:
        self._root = folder(disk(work), "ours")
        note_cgroup(work, Paths(self._root).cgroup)
        self._template = template
        self._scripts = scripts
        self._guests: list[str] = []
        (self._root / "etc/vs-tools").mkdir(parents=True)
        self.configure("create.conf", f"DEFAULT_DEVICE={BRIDGE}\n")
        self.configure("networks.conf", f"0:{NETWORK},{GATEWAY}\n")
        defaults = self._root / "etc/vservers/.defaults"
        defaults.mkdir(parents=True)
        (defaults / "context.next").write_text(f"{FIRST_CONTEXT}\n")

    @property
    def root(self) -> Path:
        """Where its files are."""
        return self._root

    @property
    def environment(self) -> dict[str, str]:
        return {"VS_TOOLS_ROOT": str(self._root)}

    def configure(self, name: str, text: str) -> None:
        """Write a file of /etc/vs-tools."""
        (self._root / "etc/vs-tools" / name).write_text(text)

    def argv(self, script: str, guest: str, *options: str) -> list[str]:
        return [str(self._scripts / script), "--name", guest, *options]

    def start(self, guest: str) -> watch.Started:
        return watch.time_start(
            self.argv("vs-create", guest, *self._interface(), "--template", str(self._template), "--start"),
            self.environment,
        )

    def make(self, guest: str, *options: str) -> None:
        """Make a guest, untimed."""
        run(self.argv("vs-create", guest, *self._interface(), *options), env=self.environment)

    def _interface(self) -> tuple[str, str]:
        address = NETWORK[_FIRST_HOST + len(self._guests)]
        self._guests.append(address.compressed)
        return "--interface", address.compressed

    def stop(self, guest: str, pid: int) -> float:
        return watch.time_stop(self.argv("vs-control", guest, "--stop"), pid, self.environment)

    def remove(self, guest: str) -> None:
        run(self.argv("vs-remove", guest, "--yes"), env=self.environment)

    def facts(self) -> dict[str, str]:
        return {}

    def close(self) -> None:
        """Nothing of it runs beside guests."""

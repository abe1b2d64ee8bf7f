"""Real guests on this kernel: an installation of its own below /var/tmp, in the network namespace of the test run.

Every test is checked for what it leaves: guests, namespaces, links, mounts, cgroups, hidden files.
"""

import os
import shlex
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from tests.templates import BIN, debian_template, small_template

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell without job control lets what it starts in the background ignore Ctrl-C, and all that this starts as well
    signal.signal(signal.SIGINT, signal.default_int_handler)

NET = "10.99.7"
NETWORKS = f"0:{NET}.0/24,{NET}.1,test.internal,{NET}.53\n0:fd99:7::/64,fd99:7::1\n"
OPEN = f"""enable
allow from any,{NET}.1,fd99:7::1 to all
allow to any,{NET}.1,fd99:7::1 to all
"""
"""A firewall.conf for tests that are about something else: everybody and, by its addresses, the host."""


@dataclass
class Done:
    """What a command left."""

    code: int
    out: str
    err: str


class Host:
    """One installation of vs-tools, and its commands."""

    proc = Path("/proc/self")
    """A process that sees the installation's mounts and links."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.chmod(0o711)  # LXC enters the runtime directory as the guest's root
        self.conf, self.guests = root / "etc/vs-tools", root / "etc/vservers"
        self.trees, self.run = root / "var/lib/vservers", root / "run/vs-tools"
        self.conf.mkdir(parents=True)
        (self.guests / ".defaults").mkdir(parents=True)
        for folder in (self.trees, self.trees / "TEMPLATES"):
            folder.mkdir(parents=True, mode=0o700)
            folder.chmod(0o700)
        (self.guests / ".defaults/context.next").write_text("60000\n")
        self.configure()

    def configure(self, networks: str = NETWORKS, **settings: str) -> None:
        """Write networks.conf, create.conf and an open firewall.conf."""
        (self.conf / "networks.conf").write_text(networks)
        (self.conf / "firewall.conf").write_text(OPEN)
        values = {"DEFAULT_DEVICE": "vsbr0", "STOP_TIMEOUT": "30", **settings}
        (self.conf / "create.conf").write_text("".join(f"{key}={value}\n" for key, value in values.items()))

    def start(self, *argv: str, **env: str) -> "subprocess.Popen[str]":
        """Start a command of ours and return it running."""
        return subprocess.Popen(
            [BIN / argv[0], *argv[1:]],
            env={**os.environ, "VS_TOOLS_ROOT": str(self.root), **env},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip

    def vs(self, *argv: str, timeout: float = 300, **env: str) -> Done:
        """Run a command of ours to its end."""
        process = self.start(*argv, **env)
        out, err = process.communicate(timeout=timeout)
        return Done(process.returncode, out, err)

    def ok(self, *argv: str, **env: str) -> str:
        """Run a command that must succeed; its output."""
        done = self.vs(*argv, **env)
        assert done.code == 0, f"{argv}: {done}"
        return done.out

    def inside(self, name: str, script: str) -> Done:
        """Run a shell script in a guest."""
        return self.vs("vs-enter", "--name", name, "--", "sh", "-c", script)

    def leftovers(self) -> list[str]:
        """Everything that should not be there while no guest runs."""
        found = [str(path) for folder in (self.guests, self.trees) for path in folder.glob(".new-*")]
        found += [str(path) for folder in (self.guests, self.trees) for path in folder.glob(".old-*")]
        found += [str(path) for path in self.guests.glob("*/.made")]
        found += [str(path) for path in (self.run / "guests").glob("*")]
        found += [f"namespace {name}" for name in os.listdir(self.proc / "root/run/netns") if name.startswith("vs6")]
        names = [line.partition(":")[0].strip() for line in (self.proc / "net/dev").read_text().splitlines()]
        found += [f"link {name}" for name in names if name.startswith("vs6")]
        mounts = (self.proc / "mountinfo").read_text().splitlines()
        found += [f"mount {line.split(' ')[4]}" for line in mounts if f" {self.root}/" in line]
        group = f"vs-tools-{zlib.crc32(os.fsencode(self.root)):08x}"
        for line in mounts:
            if " - cgroup" in line:
                found += [str(path) for path in Path(line.split(" ")[4], group).glob("*") if path.is_dir()]
        return found

    def state(self) -> dict[str, bytes]:
        """Every file of the configuration and every name among the trees, to see whether a command changed one."""
        files = {str(path): path.read_bytes() for path in sorted(self.root.glob("etc/**/*")) if path.is_file()}
        return files | {str(path): b"" for path in self.trees.glob("*")}


H = TypeVar("H", bound=Host)


def _networks() -> None:
    """The test run's own network: no bridge is left of the test before, nor the rules for it."""
    subprocess.run(["ip", "link", "delete", "vsbr0"], stderr=subprocess.DEVNULL, check=False)
    subprocess.run(["nft", "delete", "table", "ip", "vs_local"], stderr=subprocess.DEVNULL, check=False)


@pytest.fixture
def host() -> Iterator[Host]:
    """A fresh installation; what a test leaves running is ended, and then the test has failed."""
    with installation() as host:
        yield host


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A template of one program: busybox is its init, its shell and its poweroff. Starts in an instant."""
    return small_template(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def debian() -> Path:
    """A Debian template with systemd, made by vs-template once and kept as long as its recipe stays the same."""
    return debian_template("trixie")


def create(host: Host, name: str, number: int, template: Path, *more: str, **env: str) -> Done:
    """vs-create with its two arguments and a template."""
    words = ("--name", name, "--interface", f"{NET}.{number}", "--template", str(template), *more)
    return host.vs("vs-create", *words, **env)


def wait(condition: Callable[[], bool], patience: float = 60) -> None:
    """Wait until the condition holds; fail when it never does."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """All that is in a directory of the host's, to see whether anything touched it."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        state = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(state.st_mode) else b""
        found[str(path)] = (state.st_mode, state.st_uid, state.st_gid, state.st_mtime_ns, content)
    return found


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host's that no guest has any business with; anything changed there fails the test."""
    folder = tmp_path / "outside"
    for name in ("systemd/system", "network", "dev", "default"):
        (folder / name).mkdir(parents=True)
    for name in ("hosts", "hostname", "resolv.conf", "shadow", "kept"):
        (folder / name).write_text(f"secret of the host in {name}\n")
    folder.chmod(0o777)  # whoever comes here as the guest's root could write
    before = snapshot(folder)
    yield folder
    assert snapshot(folder) == before
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()


def busybox(host: Host, name: str) -> None:
    """Put busybox into the tree of a guest that has no such programs."""
    target = host.trees / name / "usr/local/bin/busybox"
    shutil.copy("/bin/busybox", target)
    target.chmod(0o755)


def attempts(host: Host, name: str, scripts: dict[str, str]) -> dict[str, int]:
    """Try each script as root in the guest, in a shell of its own; the exit status of each.

    A program that is missing there would look like a refusal: that is an error of the test.
    """
    lines = [f"( {script}\n) > /dev/null 2>&1; echo $? {shlex.quote(what)}" for what, script in scripts.items()]
    done = host.inside(name, "\n".join(lines))
    found = {what: int(code) for code, _, what in (line.partition(" ") for line in done.out.splitlines())}
    assert found.keys() == scripts.keys(), done
    missing = [what for what, code in found.items() if code == 127]
    assert not missing, f"programs not found for: {missing}"
    return found


def drop_cgroups(root: Path) -> None:
    """Remove the empty cgroups of an installation."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup" in line:
            group = Path(line.split(" ")[4], f"vs-tools-{zlib.crc32(os.fsencode(root)):08x}")
            if group.is_dir():
                group.rmdir()


@contextmanager
def installation(kind: type[H] = Host) -> Iterator[H]:  # type: ignore[assignment]
    """An installation of vs-tools; at the end its guests are stopped, and whatever is left of them is an error."""
    root = Path(tempfile.mkdtemp(prefix="vs-test-", dir="/var/tmp"))
    host = kind(root)
    try:
        yield host
        host.vs("vs-control", "--all", "--stop")
        left = host.leftovers()
        assert not left, f"left behind: {left}"
    finally:
        host.vs("vs-control", "--all", "--stop")
        _networks()
        subprocess.run(["rm", "-rf", "--one-file-system", root], check=True)
        drop_cgroups(root)

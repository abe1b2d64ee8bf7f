"""systemd, where it is PID 1: a guest is the unit ``vs-guest@NAME.service`` and starts with the host by its link."""

import os
from pathlib import Path

from vstools import run
from vstools.errors import VsError
from vstools.files import directory, write
from vstools.paths import Paths

SLICE = "vsguests.slice"
_DEADLINE = 4000.0  # past the unit's own deadlines


def unit(name: str) -> str:
    """The unit of a guest (guest names need no escaping)."""
    return f"vs-guest@{name}.service"


def cgroup(name: str) -> str:
    """The unit's cgroup, from the root of the v2 tree, without the leading slash."""
    return f"{SLICE}/{unit(name)}"


def start(name: str) -> bool:
    """Start the unit and wait; False when it failed (the phases left their reason in ``failures``)."""
    reset(name)
    return not run.run(["systemctl", "start", unit(name)], timeout=_DEADLINE, check=False).code


def reset(name: str) -> None:
    """Let systemd forget that the unit failed."""
    run.run(["systemctl", "reset-failed", unit(name)], check=False)


def main_has_ended() -> bool:
    """Whether the unit's main process is gone, asked by one of its own commands (``man 5 systemd.exec``, MAINPID)."""
    return not Path("/proc", os.environ.get("MAINPID") or "none").exists()


def stop(name: str) -> None:
    """Stop the unit and wait for its end, clean-up included; a start that is cut short so is no failure."""
    run.run(["systemctl", "stop", unit(name)], timeout=_DEADLINE)
    reset(name)


def is_idle(name: str) -> bool:
    """Whether the unit is neither running nor on its way: then nothing of the guest should be left."""
    state = run.run(["systemctl", "show", "-P", "ActiveState", unit(name)], check=False).out.strip()
    return state in ("inactive", "failed")


def enable(paths: Paths, name: str, depends: tuple[str, ...]) -> None:
    """Let the guest start with the host, after those it depends on where they start with it, too."""
    folder = paths.root / "etc/systemd/system" / f"{unit(name)}.d"
    if depends:
        others = " ".join(unit(other) for other in depends)
        write(directory(folder) / "depends.conf", f"[Unit]\nAfter={others}\n")
    else:
        _drop(paths, name)
    run.run(["systemctl", "daemon-reload"])
    run.run(["systemctl", "enable", "--quiet", unit(name)])


def disable(paths: Paths, name: str) -> None:
    """Let the guest no longer start with the host."""
    _drop(paths, name)
    run.run(["systemctl", "disable", "--quiet", unit(name)])


def _drop(paths: Paths, name: str) -> None:
    folder = paths.root / "etc/systemd/system" / f"{unit(name)}.d"
    (folder / "depends.conf").unlink(missing_ok=True)
    try:
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        if (folder / "depends.conf").exists():
            raise VsError(f"{folder} could not be removed", str(error)) from error

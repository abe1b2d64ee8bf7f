"""LXC: its configuration, its state, its start and its stop. Nothing of networks, trees or limits is decided here."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vstools import run
from vstools.alive import has_monitor, is_running, monitor_pid
from vstools.errors import VsError
from vstools.files import wait_until
from vstools.guest import Guest
from vstools.paths import Paths

__all__ = [
    "Runner",
    "Stop",
    "Surroundings",
    "attach",
    "console",
    "forget",
    "has_monitor",
    "init_pid",
    "is_running",
    "kill",
    "last_words",
    "launch",
    "printable",
    "reset_logs",
    "settle",
    "state",
    "write_config",
]  # fmt: skip

_SECCOMP = "guest.seccomp"
"""LXC's own denials (its common.seccomp), and key rings: their memory is on no guest's account, and each of a guest's
65536 ids has a quota of its own. Guests see a kernel without them, and without the four calls that make subvolumes of
btrfs (SUBVOL_CREATE, SNAP_CREATE and their second versions): a snapshot of a guest would leave those out."""
_IDLE = "vs-guest-idle"
_APPARMOR_NAMESPACES = Path("/sys/kernel/security/apparmor/policy/namespaces")
_SYSTEMD_HALT = signal.SIGRTMIN + 3  # ``man 1 systemd``, SIGNALS: halt.target
_OPTIONAL = "/dev/.lxc/"
"""With AppArmor LXC tries mounts there that a guest can do without, and calls their failure an error."""
_REMARK = re.compile(r"lxc-start \S+ [0-9.]+ (INFO|NOTICE|WARN) ")
"""LXC says how a guest's init ended as a remark; the error of a failed start is among others of its kind."""
_START_PATIENCE = 120.0
Runner = subprocess.Popen[bytes]
_KILL_PATIENCE = 30.0
_LISTEN_PATIENCE = 10.0
_ASK_AGAIN = 2.0


@dataclass(frozen=True)
class Surroundings:
    """What other rooms made for the guest: names and paths that LXC is told."""

    netns: str
    cgroup: str
    tmpfs: bool
    limits: tuple[tuple[str, str], ...]
    lxcfs: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    """Values of ``lxc.mount.entry``: what of the host the guest is given."""
    idle: bool = False
    """Whether nothing of the guest's own shall run: then a script of ours is its init."""


def write_config(paths: Paths, guest: Guest, around: Surroundings) -> Path:
    """Write the guest's LXC configuration for this start and return its path."""
    from vstools.files import write
    from vstools.render import data_file, render

    log = paths.log_of(guest.name)
    if around.idle:
        write(paths.runtime_of(guest.name) / "idle", data_file(_IDLE).read_text(), 0o644)
    text = render(
        "lxc.conf",
        nodename=guest.nodename,
        tree=paths.tree_of(guest.name),
        id_base=guest.id_base,
        netns=around.netns,
        runtime=paths.runtime_of(guest.name),
        tmpfs=around.tmpfs,
        lxcfs=paths.lxcfs,
        lxcfs_files=around.lxcfs,
        seccomp=data_file(_SECCOMP),
        apparmor=_has_apparmor(),
        console=log / "console",
        cgroup=around.cgroup,
        limits=around.limits,
        idle=around.idle,
        mounts=around.mounts,
        reboot_hook=f"/bin/sh {data_file('vs-guest-reboot')}",
    )
    path = paths.runtime_of(guest.name) / "config"
    write(path, text, 0o600)
    return path


def _has_apparmor() -> bool:
    try:
        enabled = Path("/sys/module/apparmor/parameters/enabled").read_text().startswith("Y")
    except OSError:
        return False
    return enabled and any(Path(folder, "apparmor_parser").exists() for folder in ("/usr/sbin", "/sbin"))


def runner(paths: Paths, name: str, phase: str, token: str) -> list[str]:
    """The command line that keeps the guest running until its end (templates/vs-guest-run)."""
    from vstools.render import data_file

    return ["/bin/sh", str(data_file("vs-guest-run")), phase, name, str(paths.runtime), str(_log(paths, name)), token]


def launch(paths: Paths, name: str, phase: str, token: str) -> Runner:
    """Start the guest's runner in a session of its own; ``settle`` waits for the guest."""
    return run.start(runner(paths, name, phase, token), stdout=run.DEVNULL, stderr=run.DEVNULL, detached=True)


def reset_logs(paths: Paths, name: str) -> None:
    """Begin new logs for a start; the last console is kept as ``console.1``."""
    folder = paths.log_of(name)
    console = folder / "console"
    if console.exists():
        console.replace(folder / "console.1")
    _log(paths, name).unlink(missing_ok=True)


def forget(paths: Paths, name: str) -> None:
    """Take away what a killed monitor leaves: the guest's AppArmor profile, its namespace and LXC's files of both."""
    folder = paths.runtime_of(name) / "apparmor"
    if not folder.is_dir():
        return
    for profile in folder.glob("lxc-*"):
        run.run(["apparmor_parser", "--remove", str(profile)], check=False)
        with suppress(OSError):
            (_APPARMOR_NAMESPACES / profile.name).rmdir()
    shutil.rmtree(folder)


def _log(paths: Paths, name: str) -> Path:
    return paths.log_of(name) / "lxc"


def settle(paths: Paths, name: str, ended: Callable[[], bool]) -> None:
    """Wait until the guest's init runs; raises VsError with LXC's own words when it does not.

    ``ended`` tells whether the guest's runner is gone: then nothing is left to wait for.
    """

    def begun() -> bool:
        return has_monitor(paths, name) or ended()

    if wait_until(begun, patience=_START_PATIENCE, pause=0.005) and has_monitor(paths, name):
        run.run(_lxc("lxc-wait", paths, name, "-s", "RUNNING|STOPPED|ABORTING", "-t", "60"), check=False)
        if has_monitor(paths, name) and state(paths, name) == "RUNNING":
            return
    raise VsError(f"guest {name} did not start", last_words(paths, name))


def last_words(paths: Paths, name: str, lines: int = 5) -> str:
    """The ends of LXC's log and of the guest's console, for the error of a failed start."""
    words: list[str] = []
    for path in (_log(paths, name), paths.log_of(name) / "console"):
        try:
            with path.open("rb") as handle:
                handle.seek(max(0, path.stat().st_size - 16384))
                text = handle.read().decode("utf-8", "replace")
        except OSError:
            continue
        said = [line for line in text.splitlines() if line.strip() and _OPTIONAL not in line]
        said = [line for line in said if not _REMARK.match(line)]
        words += [printable(line) for line in said][-lines:]
    return "\n  ".join(["LXC and the console said:", *words]) if words else "LXC said nothing"


def printable(line: str) -> str:
    """A line of a guest's output without what a terminal would obey."""
    return "".join(char if char.isprintable() or char == "\t" else "\N{REPLACEMENT CHARACTER}" for char in line)


def state(paths: Paths, name: str) -> str:
    """LXC's word for the guest's state: RUNNING, STARTING, STOPPING, STOPPED, ABORTING, FROZEN."""
    return run.run(_lxc("lxc-info", paths, name, "-s", "-H"), timeout=30, check=False).out.strip()


def init_pid(paths: Paths, name: str) -> int | None:
    """The host's pid of the guest's init, None when it has none: the monitor's child that is pid 1 of its namespace."""
    monitor = monitor_pid(paths, name)
    if monitor is None:
        return None
    with suppress(OSError):  # it ended meanwhile
        for child in Path(f"/proc/{monitor}/task/{monitor}/children").read_text().split():
            if _pids_of(int(child))[1:] == ["1"]:
                return int(child)
    return None


def _pids_of(pid: int) -> list[str]:
    """A process's ids from our namespace inwards (``man 5 proc``, NSpid)."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return line.split()[1:]
    return []


class Stop:
    """A guest that is asked to shut down: systemd by SIGRTMIN+3, any other init by its ``poweroff`` run inside.

    Entering it asks, without waiting; ``wait`` waits for the guest's end.
    """

    def __init__(self, paths: Paths, name: str, patience: float) -> None:
        self._paths, self._name = paths, name
        self._deadline = time.monotonic() + patience
        self._mark = paths.runtime_of(name) / "stopping"
        self._asked: int | None = None
        self._poweroff: Runner | None = None
        self._meanwhile: Callable[[], None] | None = None

    def __enter__(self) -> "Stop":
        try:
            with suppress(FileNotFoundError):  # it just ended by itself
                self._mark.write_text(f"{os.getpid()}\n")  # a guest that is restarting itself ends, too
            self._ask()
        except BaseException:
            self._mark.unlink(missing_ok=True)
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self._mark.unlink(missing_ok=True)
        if self._poweroff is not None:
            self._poweroff.kill()
            self._poweroff.wait()

    def _ask(self) -> None:
        self._asked = init_pid(self._paths, self._name)
        self._again = time.monotonic() + _ASK_AGAIN
        if self._asked is None:
            return
        if "systemd" in _program(self._asked):
            _signal(self._asked, _SYSTEMD_HALT)
        else:
            argv = attach(self._paths, self._name, ["/sbin/poweroff"])
            self._poweroff = run.start([*run.TIED, *argv], stdout=run.DEVNULL, stderr=run.DEVNULL)

    def _is_gone(self) -> bool:
        """Whether nothing of the guest is left; asks again where it had restarted itself in the last moment."""
        if not is_running(self._paths, self._name):
            return True
        if self._poweroff is not None and self._poweroff.poll():
            self._poweroff = None  # it has none, or no process left for it
            _signal(self._asked, signal.SIGPWR)
        if not Path(f"/proc/{self._asked}").exists():
            if self._asked is not None and self._meanwhile is not None:
                self._meanwhile()
                self._meanwhile = None
            if time.monotonic() >= self._again:
                self._ask()
        return False

    def wait(self, meanwhile: Callable[[], None]) -> bool:
        """Whether the guest went by itself; when its time is over it is killed.

        ``meanwhile`` is called when its init is gone and LXC still cleans up. Raises VsError when the guest is still
        there after the kill.
        """
        self._meanwhile = meanwhile
        by_itself = wait_until(self._is_gone, patience=self._deadline - time.monotonic(), pause=0.002)
        if not by_itself:
            kill(self._paths, self._name)
        return by_itself


def _program(pid: int) -> str:
    """What a process runs, empty when it is gone."""
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def _signal(pid: int | None, number: int) -> None:
    """Send a signal to a guest's init where it still lives."""
    with suppress(ProcessLookupError):
        if pid is not None:
            os.kill(pid, number)


def kill(paths: Paths, name: str) -> None:
    """End the guest at once. Raises VsError when it is still there after SIGKILL."""
    if not is_running(paths, name):
        return
    with suppress(FileNotFoundError):  # the runner is told that this end was asked for
        (paths.runtime_of(name) / "stopping").write_text(f"{os.getpid()}\n")
    with suppress(VsError):
        run.run(_lxc("lxc-stop", paths, name, "-k"), timeout=_KILL_PATIENCE, check=False)
    if wait_until(lambda: not is_running(paths, name), patience=_LISTEN_PATIENCE):
        return
    _kill_monitor(paths, name)
    if not wait_until(lambda: not is_running(paths, name), patience=_KILL_PATIENCE):
        raise VsError(f"guest {name} does not stop", "even SIGKILL did not end it; dmesg may tell why")


def _kill_monitor(paths: Paths, name: str) -> None:
    """End a monitor that does not listen, being stuck in a start, and what it has started so far."""
    mark = os.fsencode(f"\0-f\0{paths.runtime_of(name)}/config\0")
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes()
            if words.startswith(b"lxc-start\0") and mark in words:
                os.kill(int(entry.name), signal.SIGKILL)


def attach(paths: Paths, name: str, words: list[str], *, rescue: bool = False) -> list[str]:
    """The command line that runs ``words`` (none: root's shell) inside; ``rescue`` stays outside the guest's limits."""
    argv = _lxc("lxc-attach", paths, name, "--clear-env")
    for variable in ("HOME=/root", "USER=root", f"PATH={run.PATH}", "LANG=C.UTF-8"):
        argv += ["-v", variable]
    if "TERM" in os.environ:
        argv += ["-v", f"TERM={os.environ['TERM']}"]
    if rescue:
        argv += ["--elevated-privileges=CGROUP"]
    return [*argv, "--", *words] if words else argv


def console(paths: Paths, name: str) -> list[str]:
    """The command line that connects this terminal to the guest's login console."""
    return _lxc("lxc-console", paths, name, "-t", "0")


def _lxc(program: str, paths: Paths, name: str, *rest: str) -> list[str]:
    return [program, "-n", name, "-P", str(paths.runtime), *rest]

"""lxcfs: files of /proc and /sys as a guest's limits have them, from a file system that a daemon of the host's serves.

Debian's package mounts it at /var/lib/lxcfs. It goes by the cgroup of the reader's init and takes the least limit from
there upwards. A guest keeps the mounts of an lxcfs that has ended: they fail (ENOTCONN) until they are exchanged.
Nothing is read through a guest's mounts: its root could mount a file system of its own there, and let the reader wait.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from vstools import libc, log, run
from vstools.errors import Refused, VsError

FILES = (
    *(f"proc/{name}" for name in ("cpuinfo", "diskstats", "loadavg", "meminfo", "slabinfo", "stat", "swaps", "uptime")),
    "sys/devices/system/cpu/online",
)
"""What Debian 12's and 13's lxcfs serve; below its mount they have the places that they have in a guest."""
_KIND = "fuse.lxcfs"
_ANSWER = 5.0  # seconds
_FRESH = 10.0  # seconds
_EXCHANGE = 30.0  # seconds


def mounts(mountinfo: str) -> dict[str, str]:
    """Device ``MAJOR:MINOR`` -> where it is mounted, of each lxcfs (``man 5 proc``, mountinfo)."""
    found: dict[str, str] = {}
    if _KIND not in mountinfo:
        return found
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        words = before.split(" ")
        if after.split(" ", 1)[0] == _KIND and len(words) > 4:
            found.setdefault(words[2], words[4])
    return found


def is_gone(guest: str, host: str) -> tuple[bool, str]:
    """From mountinfo of the guest's init and of the host: whether what the guest uses is no longer the host's.

    Where it is, the second value is where the host has it, to be asked whether it answers; empty: it is not used.
    """
    used, there = mounts(guest), mounts(host)
    if not used:
        return False, ""
    common = used.keys() & there.keys()
    return not common, there[min(common)] if common else ""


class Inquiry:
    """Asks an lxcfs whether it answers, by a program: who reads may be stuck in the kernel, out of reach of SIGKILL.

    So nobody waits for it beyond its time, the answer counts for some seconds, and no second one is sent meanwhile.
    """

    def __init__(self) -> None:
        self._asked: dict[str, tuple[float, bool]] = {}
        self._stuck: dict[str, subprocess.Popen[bytes]] = {}

    def answers(self, where: str | Path) -> bool:
        """Whether the lxcfs that is mounted at ``where`` lets its files be read."""
        place = str(where)
        at, said = self._asked.get(place, (-_FRESH, False))
        if time.monotonic() - at >= _FRESH:
            said = self._ask(place)
            self._asked[place] = (time.monotonic(), said)
        return said

    def _ask(self, where: str) -> bool:
        if where in self._stuck and self._stuck[where].poll() is None:
            return False
        argv = ["head", "--bytes=1", "--", f"{where}/proc/meminfo"]
        process = run.start(argv, stdout=run.DEVNULL, stderr=run.DEVNULL)
        try:
            return process.wait(_ANSWER) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            self._stuck[where] = process
            return False


def usable(where: Path, guest: str) -> bool:
    """Whether an lxcfs is mounted at ``where`` and answers; one that does not is said in a warning, a guest starts all
    the same."""
    if str(where) not in mounts(Path("/proc/self/mountinfo").read_text()).values():
        return False
    if Inquiry().answers(where):
        return True
    log.warn(f"guest {guest}: lxcfs does not answer, /proc shows the host's memory and CPUs")
    return False


def exchange(where: Path, init: int) -> None:
    """Give a running guest the lxcfs that is at ``where`` now, for the one that it had or had not.

    A child enters the mount namespace of the guest's init. Nothing is written, and whatever the guest's root has
    mounted over its /proc is in that child's way alone. Raises Refused where no lxcfs answers.
    """
    if str(where) not in mounts(Path("/proc/self/mountinfo").read_text()).values() or not Inquiry().answers(where):
        raise Refused(f"no lxcfs answers at {where}", "systemctl status lxcfs may tell why")
    copies = dict(_copies(where))
    try:
        with open(f"/proc/{init}/ns/mnt", "rb") as namespace, open(f"/proc/{init}/mountinfo") as table:  # noqa: PTH123
            done = run.forked(lambda: _replace(namespace.fileno(), table, copies), timeout=_EXCHANGE)
    finally:
        for copy in copies.values():
            os.close(copy)
    if not done:
        raise VsError("lxcfs could not be mounted in the guest", "a restart of the guest does it")


def _copies(where: Path) -> Iterator[tuple[str, int]]:
    """(Path in a guest, handle of a mount of its own) for each file that this lxcfs has."""
    for name in FILES:
        try:
            yield f"/{name}", libc.copy_mount(where / name)
        except FileNotFoundError:
            continue


def _replace(namespace: int, table: IO[str], copies: dict[str, int]) -> None:
    """The child's part; ``table`` is mountinfo of the guest's init, which cannot be opened from inside.

    From there every path leads into the guest's tree: this process must load no module any more, and cannot.
    """
    sys.meta_path.clear()
    libc.enter_mounts(namespace)
    for target, copy in copies.items():
        while target in _places(table):
            libc.unmount_lazily(Path(target))
        libc.attach_mount(copy, Path(target))


def _places(table: IO[str]) -> set[str]:
    """Where an lxcfs is mounted now; a second one over a first has the same place."""
    table.seek(0)
    return {line.split(" ")[4] for line in table if f" - {_KIND} " in line}

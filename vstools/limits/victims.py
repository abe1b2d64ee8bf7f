"""Who of a guest ends when its limit of memory falls below what is in use: one process after the other, never its init.

The kernel would see to it when memory.max is written, but it goes on to the next process as soon as it may leave one
out (MMF_OOM_SKIP), and that is before the last pages of that one count as free (exit_mmap of mm/mmap.c). Where the
host is busy or the guest's CPU share is used up, it ends several for one, init among them. So they are ended here,
each is gone before the next is looked for, and memory.max is written when nothing is left to kill for. Nothing is
noted meanwhile in the kernel or in a file: who is killed in between leaves nothing that has to be put back.
"""

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vstools import libc, log
from vstools.limits.processes import Process

_PATIENCE = 60.0
_EXIT = 10.0
"""Seconds for one process to be gone: one that waits for a disk ends later, and the next has its turn."""
_UNKILLABLE = -1000  # OOM_SCORE_ADJ_MIN


def weight(status: str, adjustment: int, limit: int) -> int | None:
    """Bytes by which the kernel compares a process with others (oom_badness of mm/oom_kill.c); None: it never ends it.

    ``status`` is its /proc/PID/status: memory, swap and page tables count. ``adjustment`` is its oom_score_adj, so many
    thousandths of the limit more or less.
    """
    if adjustment == _UNKILLABLE:
        return None
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    kib = sum(int(fields[key].split()[0]) for key in ("VmRSS", "VmSwap", "VmPTE") if key in fields)
    return (kib << 10) + adjustment * limit // 1000


class Victims:
    """The processes of a running guest that may end for memory: all but ``init``.

    ``members`` lists the guest's processes; ``group`` is their cgroup.
    """

    def __init__(self, guest: str, group: str, init: int, members: Callable[[], set[int]]) -> None:
        self._guest, self._group, self._init, self._members = guest, group, init, members
        self._ended: set[tuple[int, str]] = set()
        self._deadline = time.monotonic() + _PATIENCE

    def end_one(self, limit: int) -> bool:
        """End the process that weighs most, and wait until it is gone; false when none is left, or new ones never end.

        ``limit`` is what the guest shall have, in bytes.
        """
        if time.monotonic() > self._deadline:
            return False
        weights = {pid: self._weigh(pid, limit) for pid in self._members() if pid != self._init}
        ranked = sorted((heavy, pid) for pid, heavy in weights.items() if heavy is not None)
        return any(self._end(pid) for _, pid in reversed(ranked))

    def _weigh(self, pid: int, limit: int) -> int | None:
        with suppress(ProcessLookupError, FileNotFoundError):
            adjustment = int(Path(f"/proc/{pid}/oom_score_adj").read_text())
            return weight(_status(pid), adjustment, limit)
        return None

    def _end(self, pid: int) -> bool:
        """Whether it was one to end: not one that has ended already, that does not end, or that is somebody else."""
        with suppress(ProcessLookupError, FileNotFoundError), Process(pid) as process:
            key = (pid, process.beginning)
            if key in self._ended or not process.is_in(self._group):
                return False
            self._ended.add(key)
            words = _words(_status(pid))
            signal.pidfd_send_signal(process.fd, signal.SIGKILL)
            with suppress(OSError):  # kernels before 5.15; shared memory; it is freed by its own end then
                libc.free_memory_of(process.fd)
            gone = process.has_ended(patience=_EXIT)
            log.warn(f"guest {self._guest}: killed process {pid} {words}{'' if gone else ', which does not end yet'}")
            return True
        return False


def _status(pid: int) -> str:
    """One line for each field, whatever its name holds: the kernel escapes line ends."""
    return Path(f"/proc/{pid}/status").read_bytes().decode("latin-1")


def _words(status: str) -> str:
    """A process as the admin is told of it; its name is the guest's choice."""
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    name = fields["Name"].strip().encode("unicode_escape").decode()
    return f"({name}), {int(fields.get('VmRSS', '0').split()[0]) >> 10} MiB"

"""Limits of single processes (``man 2 prlimit``), set on every process of a running guest.

The guest forks meanwhile, and a child has what its parent had at the moment of the fork. So it is done again until a
whole round finds nothing to do. No process of a guest can raise a hard limit again: that needs CAP_SYS_RESOURCE of the
host.
"""

import os
import resource
import select
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vstools import log
from vstools.errors import VsError
from vstools.guest import Rlimit

Pair = tuple[int, int]
_NUMBERS = {"locks": 10}  # Python knows no RLIMIT_LOCKS (include/uapi/asm-generic/resource.h)
_CALM = 2
_PATIENCE = 10.0
NR_OPEN = Path("/proc/sys/fs/nr_open")


def most_files() -> int:
    """fs.nr_open: no process may have a limit of open files above it."""
    return int(NR_OPEN.read_text())


class Change:
    """Limits that are being set on a guest's processes, and what they were before.

    ``members`` lists the processes of the guest; ``group`` is their cgroup.
    """

    def __init__(self, group: str, members: Callable[[], set[int]]) -> None:
        self._group, self._members = group, members
        self._old: dict[tuple[int, int, str], Pair] = {}
        """(number, resource, beginning of the process) -> its limits before."""

    def put(self, limits: tuple[tuple[str, Rlimit], ...], patience: float = _PATIENCE) -> None:
        """Set ``limits``; raises VsError when the guest forks so fast that it never ends."""
        wanted = [(_number(name), _pair(limit)) for name, limit in limits]
        deadline = time.monotonic() + patience
        calm = 0
        while wanted and calm < _CALM:
            changed = False
            for pid in self._members():
                changed |= self._put_one(pid, wanted)
            calm = 0 if changed else calm + 1
            if changed and time.monotonic() > deadline:
                raise VsError("the guest's processes fork faster than their limits can be set", "lower --proc first")

    def back(self) -> None:
        """Give each process that still lives what it had; what is refused now is said, once."""
        refused = ""
        for (pid, number, beginning), pair in self._old.items():
            with suppress(ProcessLookupError, FileNotFoundError), Process(pid) as process:
                if process.is_in(self._group) and process.beginning == beginning:
                    try:
                        _set(pid, number, pair)
                    except VsError as error:
                        refused = str(error)
        if refused:
            log.warn(f"{self._group}: limits of processes could not be put back: {refused}")

    def _put_one(self, pid: int, wanted: list[tuple[int, Pair]]) -> bool:
        """Whether something had to be changed. A process that is none of the guest's any more is left alone."""
        changed = False
        with suppress(ProcessLookupError, FileNotFoundError), Process(pid) as process:
            if not process.is_in(self._group):
                return False
            for number, pair in wanted:
                old = resource.prlimit(pid, number)
                key = (pid, number, process.beginning)
                if old == pair or (key in self._old and _is_within(old, pair)):
                    continue
                _set(pid, number, pair)
                if process.has_ended():
                    self._undo_stranger(pid, number, pair, old)
                    break
                self._old.setdefault(key, old)
                changed = True
        return changed

    def _undo_stranger(self, pid: int, number: int, new: Pair, old: Pair) -> None:
        """The process ended in that moment: who has its number now may be somebody else."""
        with suppress(OSError), Process(pid) as process:
            if not process.is_in(self._group) and resource.prlimit(pid, number) == new:
                resource.prlimit(pid, number, old)


class Process:
    """A process that is held by a pidfd: its number means nobody else as long as ``has_ended`` is false."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def __enter__(self) -> "Process":
        self.fd = os.pidfd_open(self._pid)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def is_in(self, group: str) -> bool:
        """Whether it is in a cgroup or below it, in any tree."""
        lines = Path(f"/proc/{self._pid}/cgroup").read_text().splitlines()
        inside = any(f"{line.split(':', 2)[2]}/".startswith(f"/{group}/") for line in lines)
        return inside and not self.has_ended()

    @property
    def beginning(self) -> str:
        """When it began, in ticks since the boot (``man 5 proc``, stat)."""
        return Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()[19]

    def has_ended(self, patience: float = 0) -> bool:
        """Whether it is gone with all its threads, and has given back its memory; waits ``patience`` seconds for it."""
        return bool(select.select([self.fd], [], [], patience)[0])


def _set(pid: int, number: int, pair: Pair) -> None:
    try:
        resource.prlimit(pid, number, pair)
    except (PermissionError, ValueError) as error:
        words = ":".join("inf" if value == resource.RLIM_INFINITY else str(value) for value in pair)
        hint = "only root with CAP_SYS_RESOURCE raises a hard limit"
        raise VsError(f"the kernel refuses limits {words} for process {pid}: {error}", hint) from error


def _number(name: str) -> int:
    return _NUMBERS.get(name) or int(getattr(resource, f"RLIMIT_{name.upper()}"))


def _pair(limit: Rlimit) -> Pair:
    soft, hard = (resource.RLIM_INFINITY if value is None else value for value in (limit.soft, limit.hard))
    return soft, hard


def _is_within(old: Pair, new: Pair) -> bool:
    """Whether a process that was given ``new`` has since restricted itself to ``old``."""
    return all(value <= most for value, most in zip(map(_height, old), map(_height, new), strict=True))


def _height(value: int) -> float:
    return float("inf") if value == resource.RLIM_INFINITY else value

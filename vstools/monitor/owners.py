"""Whose a socket is: the process that has it open, found by /proc/PID/fd. The work is bounded."""

import os
from collections.abc import Collection
from dataclasses import dataclass

PROCESSES, DESCRIPTORS = 2048, 16384
"""Processes and open files of one guest that are looked at; a socket that is in none of these has no known owner."""


@dataclass(frozen=True)
class Owner:
    """A process with a socket: the host's pid, and its executable as the kernel names it, in the guest's tree."""

    pid: int
    executable: str

    @property
    def path(self) -> str:
        """What programs are compared by. The kernel appends `` (deleted)`` where the file was replaced, by an upgrade.

        Who can name another file so could as well have put it at the path itself, or seen to it in a mount namespace
        of his own: a path says no more than that.
        """
        return self.executable.removesuffix(" (deleted)")


UNKNOWN = Owner(0, "?")


def find(pids: Collection[int], inodes: Collection[int], proc: str = "/proc") -> tuple[dict[int, Owner], bool]:
    """The first process, by number, of each socket; those that were not found are missing.

    And whether all processes and files were looked at, or all sockets found.
    """
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, Owner] = {}
    left = DESCRIPTORS
    for pid in sorted(pids)[:PROCESSES]:
        if not wanted or left < 0:
            break
        names = _names(f"{proc}/{pid}/fd")
        for name in names[:left]:
            inode = wanted.pop(_target(f"{proc}/{pid}/fd/{name}"), None)
            if inode is not None:
                found[inode] = Owner(pid, _target(f"{proc}/{pid}/exe") or "?")
        left -= len(names)
    return found, not wanted or (left >= 0 and len(pids) <= PROCESSES)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""

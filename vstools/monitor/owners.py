"""Whose a socket is: the process that has it open, found by /proc/PID/fd. The work is bounded."""

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass

PROCESSES, DESCRIPTORS = 2048, 16384
"""Processes and open files of one guest that are looked at; a socket that is in none of these has no known owner."""


@dataclass(frozen=True)
class Owner:
    """A process with a socket: the host's pid, and its executable as the kernel names it, in the guest's tree."""

    pid: int
    executable: str


UNKNOWN = Owner(0, "?")


def find(pids: Iterable[int], inodes: Collection[int], proc: str = "/proc") -> dict[int, Owner]:
    """The first process, by number, of each socket; those that were not found are missing."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, Owner] = {}
    left = DESCRIPTORS
    for pid in sorted(pids)[:PROCESSES]:
        if not wanted or left <= 0:
            break
        for name in _names(f"{proc}/{pid}/fd")[:left]:
            left -= 1
            inode = wanted.pop(_target(f"{proc}/{pid}/fd/{name}"), None)
            if inode is not None:
                found[inode] = Owner(pid, _target(f"{proc}/{pid}/exe") or "?")
    return found


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

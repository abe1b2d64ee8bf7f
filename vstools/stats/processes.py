"""Which processes belong to which guest, by their cgroup: the one thing about a process that a guest cannot change.

A guest's root moves its processes about below ``payload/guest``, and never out of it; name and command line of a
process are whatever it likes to be called (``man 2 prctl``, PR_SET_NAME, PR_SET_MM_ARG_START).
"""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vstools.stats.parse import number

_TICKS = os.sysconf("SC_CLK_TCK")
_IDS = 65536
_DEPTH = 8
_MOST = 1 << 16
_COMMAND = 4096  # bytes of a command line


@dataclass(frozen=True)
class Process:
    """One process. ``guest`` is empty for one of the host; ``uid`` and ``guest_pid`` are those inside.

    ``name`` (at most 15 bytes) and ``words`` are the process's own claims, as bytes that may be anything.
    """

    guest: str
    pid: int
    guest_pid: int | None
    uid: int | None
    state: str
    threads: int | None
    memory_bytes: int | None
    cpu_seconds: float
    uptime_seconds: float
    name: bytes
    words: tuple[bytes, ...] | None = None


def pids() -> Iterator[int]:
    """Every process of this host."""
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def look(pid: int, owners: Mapping[str, str], *, command: bool = False) -> Process | None:
    """A process; None when it has ended. ``owners``: cgroup of a guest's payload, without leading slash -> guest.

    All is read through one descriptor of its directory: a pid that is given to another process meanwhile does no harm.
    ``command`` reads the command line as well, which lies in memory of the process's own: that can be made to wait.
    """
    try:
        folder = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        guest = owner(_read(folder, "cgroup").decode("utf-8", "surrogateescape"), owners)
        stat, status = _read(folder, "stat"), _read(folder, "status")
        words = _read(folder, "cmdline", _COMMAND) if command else None
    except OSError:
        return None
    finally:
        os.close(folder)
    return _process(guest, pid, stat, status, words)


def _read(folder: int, name: str, most: int = _MOST) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        found = b""
        while len(found) < most and (part := os.read(descriptor, most - len(found))):
            found += part
        return found
    finally:
        os.close(descriptor)


def owner(text: str, owners: Mapping[str, str]) -> str:
    """The guest whose payload cgroup a process is in or below, by any hierarchy (``man 7 cgroups``); else nothing.

    A line is ``ID:CONTROLLERS:/path``; the kernel allows no newline in a cgroup's name.
    """
    for line in text.split("\n"):
        parts = line.partition(":")[2].partition(":")[2].split("/", _DEPTH)[1:]
        for depth in range(1, len(parts) + 1):
            if (guest := owners.get("/".join(parts[:depth]))) is not None:
                return guest
    return ""


def _process(guest: str, pid: int, stat: bytes, status: bytes, words: bytes | None) -> Process | None:
    """``man 5 proc``: the name in stat stands between the first and the last parenthesis, and may hold any byte."""
    head, _, tail = stat.rpartition(b")")
    fields = tail.decode("ascii", "replace").split()
    if len(fields) < 20:
        return None
    said = dict(line.partition(b":\t")[::2] for line in status.split(b"\n"))
    ids = _numbers(said.get(b"Uid", b""))
    inner = _numbers(said.get(b"NSpid", b""))
    memory = _numbers(said.get(b"VmRSS", b"").removesuffix(b" kB"))
    begun = (number(fields[19]) or 0) / _TICKS
    return Process(
        guest=guest,
        pid=pid,
        guest_pid=inner[1] if guest and len(inner) > 1 else None,
        uid=ids[0] % _IDS if guest and ids else ids[0] if ids else None,
        state=fields[0][:1],
        threads=number(fields[17]),
        memory_bytes=memory[0] * 1024 if memory else 0,
        cpu_seconds=((number(fields[11]) or 0) + (number(fields[12]) or 0)) / _TICKS,
        uptime_seconds=max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - begun),
        name=head.partition(b"(")[2],
        words=None if words is None else tuple(words.rstrip(b"\0").split(b"\0")) if words.strip(b"\0") else (),
    )


def _numbers(text: bytes) -> list[int]:
    return [value for word in text.split() if (value := number(word.decode("ascii", "replace"))) is not None]

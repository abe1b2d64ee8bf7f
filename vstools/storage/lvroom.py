"""The room that a snapshot of a volume has: chosen from what its group has free, watched while it is used, extended.

A thick snapshot takes what its origin's old content takes while new is written; when it is full it is worth nothing.
A thin one takes no room of its own: the pool may fill up.
"""

import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from vstools import run
from vstools.errors import Refused, VsError
from vstools.storage import devicemapper, volumes
from vstools.storage.devicemapper import Space
from vstools.storage.volumes import Group, Volume

_MIB = 1 << 20
_LEAST = 64 * _MIB
"""What a snapshot begins with at least: less would be full before it could be extended."""
_FASTEST = 1 << 30
"""Bytes a second that are written at most: how soon is looked again follows from it."""
_PAUSES = 0.05, 1.0
_AFTER_FAILURE = 5.0


@dataclass(frozen=True)
class Growth:
    """A space is extended when more than ``used`` of it is used, by ``more`` of what it has at least."""

    used: float
    more: float


_GROWTH = {"snapshot": Growth(0.5, 0.5), "data": Growth(0.9, 0.1), "metadata": Growth(0.9, 0.1)}
"""A snapshot's room is given back soon: much of it costs nothing. A pool's stays with the pool."""


def _most(origin: int) -> int:
    """What a snapshot can use at most: its origin's size, and 16 bytes for each chunk of 4 KiB."""
    return origin + origin // 256 + _MIB


def first_extents(origin: Volume, group: Group) -> int:
    """How many extents a snapshot of ``origin`` begins with. Pure; raises Refused when the group has too few.

    Half of what is free, if it can use that: the rest is for a second snapshot, and for extending this one. What is not
    used costs nothing and is given back soon.
    """
    most = _most(origin.size)
    least = min(_LEAST, most)
    wanted = max(least, min(most, group.free // 2))
    if group.free < least:
        raise Refused(
            f"volume group {group.name} has {group.free // _MIB} MiB free, and a snapshot of {origin.full_name}"
            f" needs {least // _MIB}",
            f"make room in it (lvs {group.name}), or add a disk (vgextend)",
        )
    return min(-(-wanted // group.extent), group.free // group.extent)


def is_due(space: Space, most: int) -> bool:
    """Whether a space that can use ``most`` bytes should be extended. Pure."""
    return space.used > space.size * _GROWTH[space.name].used and space.size < most


def more_extents(space: Space, group: Group, most: int) -> int:
    """How many extents to extend a space by that is due. Pure.

    Fewer than it needs when the group has no more; 1 at least, so that LVM says why that cannot be.
    """
    growth = _GROWTH[space.name]
    needed = max(space.size * growth.more, space.used / growth.used - space.size)
    wanted = min(int(needed), most - space.size)
    return max(1, min(-(-wanted // group.extent), group.free // group.extent))


def waiting(meminfo: str) -> int:
    """Bytes that wait to be written, to whatever disk (``man 5 proc``, meminfo). Pure."""
    fields = dict(line.split(":", 1) for line in meminfo.splitlines() if ":" in line)
    return sum(int(fields[name].split()[0]) * 1024 for name in ("Dirty", "Writeback"))


def pause(spaces: tuple[Space, ...]) -> float:
    """Seconds until the spaces are looked at again: the fastest disk fills no half of what is left meanwhile. Pure."""
    least, longest = _PAUSES
    return max(least, min(longest, min(space.left for space in spaces) / 2 / _FASTEST))


class Watch:
    """Looks at a snapshot from a thread of its own, as long as the block lasts, and extends what fills up.

    The thread is begun among the host's mounts. ``verdict`` says at the end whether the snapshot held.
    """

    def __init__(self, origin: Volume, name: str) -> None:
        self._origin, self._name = origin, name
        path = f"/dev/{origin.group}/{name}"
        self._uuid = devicemapper.uuid(devicemapper.number(path))
        if not self._uuid:
            raise VsError(f"{path} did not appear", "is udev running?")
        self._pool = devicemapper.pool_of(devicemapper.table(uuid=self._uuid)) if origin.pool else 0
        self._failure = ""
        self._not_before = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def verdict(self) -> VsError | None:
        """The error that makes a copy of the snapshot worth nothing; None when it held to its end."""
        try:
            if self._spaces() is not None:
                return None
        except OSError as error:
            return VsError(f"the snapshot of {self._origin.full_name} cannot be asked", str(error.strerror))
        if self._origin.pool:
            pool = f"{self._origin.group}/{self._origin.pool}"
            said = f"the thin pool {pool} has filled up: the snapshot of {self._origin.full_name} does not count"
            return VsError(said, self._failure or f"lvextend {pool}")
        said = f"the snapshot of {self._origin.full_name} has overflowed, more was written meanwhile than it could hold"
        hint = f"keep more of volume group {self._origin.group} free, or copy while less is written"
        return VsError(said, f"{hint} ({self._failure})" if self._failure else hint)

    def _spaces(self) -> tuple[Space, ...] | None:
        """What may fill up; None when it did. Raises OSError.

        What waits to be written takes its part of a snapshot for certain, and at once when the snapshot is extended:
        the file system is brought to the disk for that.
        """
        if not self._origin.pool:
            space = devicemapper.snapshot_space(devicemapper.status(uuid=self._uuid))
            if space is None:
                return None
            coming = waiting(Path("/proc/meminfo").read_text())
            return (replace(space, used=space.used + coming),)
        if devicemapper.status(uuid=self._uuid).words[:1] in ((), ("Fail",)):
            return None
        pool = self._pool
        return devicemapper.pool_spaces(devicemapper.status(device=pool), devicemapper.table(device=pool))

    def _work(self) -> None:
        seconds = 0.0
        while not self._end.wait(seconds):
            try:
                spaces = self._spaces()
                if spaces is None:
                    return
                seconds = pause(spaces)
                if time.monotonic() >= self._not_before:
                    for space in spaces:
                        self._extend(space)
            except (VsError, OSError) as error:
                self._failure = str(error)
                self._not_before = time.monotonic() + _AFTER_FAILURE

    def _extend(self, space: Space) -> None:
        most = _most(self._origin.size) if space.name == "snapshot" else 1 << 62
        if not is_due(space, most):
            return
        group = volumes.group(self._origin.group)
        extents = more_extents(space, group, most)
        grown = f"{group.name}/{self._origin.pool or self._name}"
        how = ["--extents", f"+{extents}"]
        if space.name == "metadata":
            how = ["--poolmetadatasize", f"+{extents * group.extent}b"]
        run.unbroken(["lvextend", "--quiet", "--yes", *how, grown])

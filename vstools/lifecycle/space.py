"""What the guests' trees lie on: what it can do, what is left of it, and of what snapshots are made from."""

from dataclasses import dataclass

from vstools import log
from vstools.errors import VsError
from vstools.paths import Paths
from vstools.storage import choose, counted
from vstools.storage.protocol import Space

_FEW = 0.1
"""The part of a volume group that should be free: below it, snapshots overflow soon."""


@dataclass(frozen=True)
class Report:
    """One storage; sizes in bytes. ``free`` is for others than root, ``limits`` whether disk limits are enforced."""

    kind: str
    path: str
    device: str
    filesystem: str
    size: int
    used: int
    free: int
    snapshots: bool
    clones: bool
    limits: bool
    group: str | None
    group_size: int | None
    group_free: int | None


def report(paths: Paths) -> Report:
    """What the storage of this host's guests is; warns where its volume group is nearly full."""
    storage = choose.of(paths)
    mount, space = storage.mount, storage.space()
    _warn(space)
    return Report(
        kind=storage.kind, path=str(paths.trees), device=mount.source, filesystem=mount.kind,
        size=space.size, used=space.used, free=space.free,
        snapshots=storage.snapshots, clones=storage.clones, limits=counted.is_on(paths.trees),
        group=space.group or None, group_size=space.group_size, group_free=space.group_free,
    )  # fmt: skip


def reports(paths: Paths) -> list[Report]:
    """The storage of this host's guests, and each volume group that has guests' own volumes."""
    first, found = report(paths), []
    for own in choose.owns(paths):
        try:
            found.append(own.space())
        except VsError as error:
            log.warn(str(error))
    for space in found:
        if space.group != first.group:
            _warn(space)
    return [first, *(_of_group(paths, space) for space in found)]


def _of_group(paths: Paths, space: Space) -> Report:
    return Report(
        kind="lvm", path=str(paths.trees), device=space.group, filesystem="ext4",
        size=space.size, used=space.used, free=space.free, snapshots=True, clones=False, limits=True,
        group=space.group, group_size=space.group_size, group_free=space.group_free,
    )  # fmt: skip


def _warn(space: Space) -> None:
    if space.group_size and space.group_free is not None and space.group_free < _FEW * space.group_size:
        percent = 100 * space.group_free / space.group_size
        log.warn(
            f"volume group {space.group} has {percent:.1f} % free: snapshots need {_FEW:.0%}; add a disk (vgextend)"
        )

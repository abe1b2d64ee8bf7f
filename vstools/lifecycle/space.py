"""What the guests' trees lie on: what it can do, what is left of it, and of what snapshots are made from."""

from dataclasses import dataclass

from vstools import log
from vstools.paths import Paths
from vstools.storage import choose, counted

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
    if space.group_size and space.group_free is not None and space.group_free < _FEW * space.group_size:
        percent = 100 * space.group_free / space.group_size
        log.warn(
            f"volume group {space.group} has {percent:.1f} % free: snapshots need {_FEW:.0%}; add a disk (vgextend)"
        )
    return Report(
        kind=storage.kind, path=str(paths.trees), device=mount.source, filesystem=mount.kind,
        size=space.size, used=space.used, free=space.free,
        snapshots=storage.snapshots, clones=storage.clones, limits=counted.is_on(paths.trees),
        group=space.group or None, group_size=space.group_size, group_free=space.group_free,
    )  # fmt: skip

"""Where a guest's own volume is made: whether a group or a thin pool can take it, and the words that LVM is given."""

from vstools.errors import Refused, VsError
from vstools.guest import OwnVolume, Place
from vstools.storage import volumes
from vstools.storage.volumes import Group, Pool

_MIB = 1 << 20
_LEAST = 32
"""MiB: a smaller ext4 has hardly room for its own journal."""
_SOME = 64 * _MIB
"""What a thin pool must be able to take at once: a small guest's files."""


def rounded(size: int, extent: int) -> int:
    """Bytes of a volume of at least ``size`` MiB: whole extents. Pure."""
    return -(-size * _MIB // extent) * extent


def check(place: Place, size: int | None) -> None:
    """Raise Refused where a volume of ``size`` MiB cannot be made."""
    if size is None:
        raise Refused(
            f"a volume of the guest's own ({place}) needs a disk limit, which is its size",
            "give --disk MIB, or DEFAULT_DISK_LIMIT in create.conf",
        )
    if size < _LEAST:
        raise Refused(f"a volume of {size} MiB is too small for a file system", f"give at least {_LEAST} MiB")
    group = _group(place.group)
    if not place.pool:
        check_room(group, rounded(size, group.extent))
    elif (pool := volumes.pool(place.group, place.pool)) is None:
        raise Refused(
            f"volume group {place.group} has no thin pool {place.pool}", f"lvs {place.group} lists what it has"
        )
    elif said := objection(place, rounded(size, group.extent), pool):
        raise Refused(said, f"lvextend {place.group}/{place.pool}")


def left(place: Place) -> int:
    """Bytes that are left for volumes: of a thin pool for what is written to them. None of what is not there."""
    try:
        if not place.pool:
            return volumes.group(place.group).free
        pool = volumes.pool(place.group, place.pool)
    except VsError:
        return 0
    return max(0, pool.size - pool.used) if pool else 0


def _group(name: str) -> Group:
    try:
        return volumes.group(name)
    except VsError as error:
        raise Refused(f"there is no volume group {name} that LVM can use", "vgs lists them") from error


def check_room(group: Group, size: int) -> None:
    """Raise Refused where a group has not so many bytes free."""
    if size > group.free:
        raise Refused(
            f"volume group {group.name} has {group.free // _MIB} MiB free, and {-(-size // _MIB)} are needed",
            "make room in it (lvs), or add a disk (vgextend)",
        )


def objection(place: Place, size: int, pool: Pool) -> str:
    """Why a thin volume of so many bytes is not made in a pool; empty: nothing speaks against it. Pure.

    Volumes of a pool together may be larger than it: that is what thin ones are for.
    """
    if size > pool.size:
        return f"thin pool {place.group}/{place.pool} has {pool.size // _MIB} MiB in all, less than {size // _MIB}"
    if pool.size - pool.used < min(size, _SOME):
        return f"thin pool {place.group}/{place.pool} is full: {max(0, pool.size - pool.used) // _MIB} MiB are left"
    return ""


def words(volume: OwnVolume, place: Place, size: int) -> list[str]:
    """What lvcreate is told of a volume of so many bytes (``man 8 lvcreate``). Pure."""
    if place.pool:
        return ["--thin", "--virtualsize", f"{size}b", "--thinpool", place.pool, "--name", volume.name, volume.group]
    return ["--size", f"{size}b", "--wipesignatures", "y", "--name", volume.name, volume.group]

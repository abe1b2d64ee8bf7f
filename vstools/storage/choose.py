"""Which kind of storage trees lie on: what is mounted there decides, nobody has to say it. A guest may have its own."""

from typing import TYPE_CHECKING

from vstools.config import registry
from vstools.errors import BadFiles
from vstools.guest import parse_volume
from vstools.paths import DOOMED, STAGED, Paths
from vstools.storage import devicemapper, mounts
from vstools.storage.plain import Plain
from vstools.storage.protocol import Storage

if TYPE_CHECKING:
    from vstools.storage.own import Own


def of(paths: Paths) -> Storage:
    """The storage of an installation's trees."""
    mount = mounts.of(paths.trees)
    if mount.kind == "btrfs":
        from vstools.storage.btrfs import Btrfs

        return Btrfs(paths, mount)
    if devicemapper.is_volume(mount.source):
        from vstools.storage.lvm import Lvm

        return Lvm(paths, mount)
    return Plain(paths, mount)


def own(paths: Paths, entry: str) -> "Own | None":
    """The volume that a guest has for itself, by its directory (``entry``, maybe a hidden one); None: it has none."""
    text = registry.storage(paths, entry)
    if not text:
        return None
    from vstools.storage.own import Own

    try:
        volume = parse_volume(text)
    except ValueError as error:
        raise BadFiles((f"{paths.config_of(entry) / registry.STORAGE}:1:1: {error}",)) from None
    return Own(paths, volume, entry.removeprefix(STAGED).removeprefix(DOOMED))


def of_guest(paths: Paths, entry: str) -> Storage:
    """The storage of one guest's tree, by its directory."""
    return own(paths, entry) or of(paths)


def owns(paths: Paths) -> "tuple[Own, ...]":
    """A guest's own volume from each volume group that has some."""
    found: dict[str, Own] = {}
    for name in registry.names(paths):
        if (each := own(paths, name)) is not None:
            found.setdefault(each.volume.group, each)
    return tuple(found[group] for group in sorted(found))

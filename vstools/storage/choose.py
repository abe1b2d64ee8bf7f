"""Which kind of storage the trees lie on: what is mounted there decides, nobody has to say it."""

from vstools.paths import Paths
from vstools.storage import devicemapper, mounts
from vstools.storage.plain import Plain
from vstools.storage.protocol import Storage


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

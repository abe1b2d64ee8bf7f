"""A new guest's tree out of an archive: unpacked, or cloned from what was unpacked before."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vstools import files, log
from vstools.errors import Refused
from vstools.faults import checkpoint
from vstools.guest import Guest
from vstools.inside import Inside
from vstools.lifecycle import disk
from vstools.lifecycle.leftovers import UNPACKED, UNPACKING
from vstools.paths import STAGED, Paths
from vstools.storage import cache, plain
from vstools.storage.protocol import Storage
from vstools.tree import layers, oci, unpack
from vstools.tree.stream import Progress


class Source:
    """Where a new guest's tree comes from, if that is an archive: the archive, or its kept copy."""

    def __init__(self, paths: Paths, archive: Path | None, storage: Storage) -> None:
        self._paths, self._trees = paths, paths.trees
        self._archive, self._storage = archive, storage
        self._content = ""
        self._kept: cache.Kept | None = None
        self._cache = cache.Cache(paths, self._storage)

    def stage(self, guest: Guest) -> Path:
        """The directory in which the tree is made: empty, or a clone of what the archive holds."""
        if self._archive is not None and self._storage.clones:
            is_folder = self._archive.is_dir()
            self._content = oci.image(self._archive).digest if is_folder else self._cache.content(self._archive)
            tree = self._trees / f"{STAGED}{guest.name}"
            self._kept = self._cache.clone(self._content, tree)
            if self._kept is not None:
                return tree
        tree = self._storage.stage(guest.name)
        disk.begin(guest, tree)
        return tree

    def fill(self, tree: Path, progress: Progress) -> None:
        """Unpack the archive where the tree is no clone; keep a copy where the storage can."""
        assert self._archive is not None  # noqa: S101 - asked for where there is one
        devices = self._kept.devices if self._kept else self._unpack(self._archive, tree, progress)
        if devices:
            log.note(f"{devices} device nodes of the template were left out (LXC makes /dev)")
        if self._content and not self._kept:
            self._cache.keep(self._content, tree, devices)

    def _unpack(self, archive: Path, tree: Path, progress: Progress) -> int:
        if not oci.is_image(archive):
            devices = unpack.unpack(archive, tree, progress)
            if (tree / "oci-layout").is_file():
                raise Refused(f"{archive} is a compressed image layout", "take the compression away, and give the tar")
            return devices
        if archive.is_dir():
            devices = layers.apply(archive, tree, _bounded(self._paths))
        else:
            with unpacked(self._paths, archive) as layout:
                devices = layers.apply(layout, tree, _bounded(self._paths))
        with Inside(tree) as inside:
            if not inside.exists("sbin/init"):
                log.warn("the image has no /sbin/init: it is one of a program, and a guest made from it does not start")
        return devices


@contextmanager
def unpacked(paths: Paths, archive: Path) -> Iterator[Path]:
    """What an archive holds, checked as a template is, beside the trees for the time of a block."""
    plain.barrier(paths)
    with files.scratch(paths.trees / UNPACKED, UNPACKING) as folder:
        unpack.unpack(archive, folder, _bounded(paths))
        checkpoint("template:unpacked")
        yield folder


def _bounded(paths: Paths) -> Progress:
    """What ends an archive that expands until the disk is full."""
    check = disk.room(paths)
    return lambda _: check()

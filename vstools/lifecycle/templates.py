"""A new guest's tree out of an archive: unpacked, or cloned from what was unpacked before."""

from pathlib import Path

from vstools import log
from vstools.guest import Guest
from vstools.lifecycle import disk
from vstools.paths import STAGED, Paths
from vstools.storage import cache, choose
from vstools.tree import unpack
from vstools.tree.stream import Progress


class Source:
    """Where a new guest's tree comes from, if that is an archive: the archive, or its kept copy."""

    def __init__(self, paths: Paths, archive: Path | None) -> None:
        self._trees, self._archive, self._storage = paths.trees, archive, choose.of(paths)
        self._content = ""
        self._kept: cache.Kept | None = None
        self._cache = cache.Cache(paths, self._storage)

    def stage(self, guest: Guest) -> Path:
        """The directory in which the tree is made: empty, or a clone of what the archive holds."""
        if self._archive is not None and self._storage.clones:
            self._content = self._cache.content(self._archive)
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
        devices = self._kept.devices if self._kept else unpack.unpack(self._archive, tree, progress)
        if devices:
            log.note(f"{devices} device nodes of the template were left out (LXC makes /dev)")
        if self._content and not self._kept:
            self._cache.keep(self._content, tree, devices)

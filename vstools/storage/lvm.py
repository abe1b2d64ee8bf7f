"""Trees in directories of one file system on a logical volume, as in 2008: snapshots are the volume's."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from vstools.errors import VsError
from vstools.files import directory
from vstools.storage import lvsnapshot, volumes
from vstools.storage.plain import Plain
from vstools.storage.protocol import Space
from vstools.storage.volumes import Volume


class Lvm(Plain):
    """Directories, whose file system can be held still for an instant."""

    kind = "lvm"
    snapshots = True

    @cached_property
    def _volume(self) -> Volume:
        found = volumes.of_device(self.mount.source)
        if found is None:
            raise VsError(f"LVM knows nothing of {self.mount.source}", "lvs lists its volumes")
        return found

    @contextmanager
    def snapshot(self, tree: Path) -> Iterator[Path]:
        """A snapshot of the volume, mounted for this thread and the programs that it starts."""
        inside = (self.mount.root / tree.relative_to(self.mount.point)).relative_to("/")
        where = directory(self._paths.snapshot, 0o700)
        with lvsnapshot.snapshot(self._volume, self.mount.kind, where, self._paths.mark, self._paths.locks) as there:
            yield there / inside

    def sweep(self) -> None:
        """Remove the volumes that killed commands left."""
        lvsnapshot.sweep(self._volume.group, self._paths.mark, self._paths.locks)

    def space(self) -> Space:
        """Of the file system, and of the volume group."""
        group = volumes.group(self._volume.group)
        return replace(super().space(), group=group.name, group_size=group.size, group_free=group.free)

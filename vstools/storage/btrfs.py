"""Trees that are subvolumes of btrfs: a snapshot, a clone and a removal take an instant, whatever is in them.

Guests make no subvolumes (templates/guest.seccomp): what is one subvolume is one tree. Numbers of subvolumes are never
used twice. Formats: linux/btrfs.h (struct btrfs_ioctl_get_subvol_info_args).
"""

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import ioctl
from pathlib import Path
from typing import NamedTuple

from vstools import log, run
from vstools.errors import Refused, VsError
from vstools.faults import checkpoint
from vstools.files import sync_directory
from vstools.storage import owners
from vstools.storage.plain import DELETE_DEADLINE, Plain

SNAPSHOT = ".snap-"
"""Names of snapshots begin with this, in the directory of trees; the rest is the owner's token."""
_ROOT = 256  # BTRFS_FIRST_FREE_OBJECTID, the inode of each subvolume's root
_GET_INFO = 0x81F8943C  # BTRFS_IOC_GET_SUBVOL_INFO, Linux 4.18
_INFO = struct.Struct("=Q256x4Q48xQ")
"""Number; past the name: parent, its directory, generation, flags; past three UUIDs: the last change of content."""
_INFO_SIZE = 504
_READ_ONLY = 1  # BTRFS_ROOT_SUBVOL_RDONLY


class Subvolume(NamedTuple):
    """What btrfs says of a subvolume; ``changed`` is the transaction that changed its content last."""

    number: int
    flags: int
    changed: int


def subvolume(folder: Path) -> Subvolume | None:
    """The subvolume whose root a directory is, None where it is none."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_ino != _ROOT:
            return None
        number, _, _, _, flags, changed = _INFO.unpack_from(ioctl(descriptor, _GET_INFO, bytes(_INFO_SIZE)))
        return Subvolume(number, flags, changed)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL):
            return None
        raise
    finally:
        os.close(descriptor)


def _enclosing(tree: Path) -> Path:
    """The root of the subvolume that a directory lies in: itself, or one above it."""
    for folder in (tree, *tree.parents):
        if folder.stat(follow_symlinks=False).st_ino == _ROOT and subvolume(folder) is not None:
            return folder
    raise VsError(f"{tree} lies in no subvolume of btrfs")


class Btrfs(Plain):
    """A subvolume a guest. A tree that was put there as a plain directory works as well, and is removed slowly."""

    kind = "btrfs"
    snapshots = True
    clones = True

    def _make(self, tree: Path) -> None:
        run.run(["btrfs", "subvolume", "create", str(tree)])

    def identity(self, tree: Path) -> str:
        """The subvolume's number: the device's and the inode's numbers of a subvolume say nothing."""
        found = subvolume(tree)
        return super().identity(tree) if found is None else f"subvolume:{found.number}"

    def _delete(self, path: Path) -> None:
        is_one = not path.is_symlink() and path.is_dir() and subvolume(path) is not None
        delete = ["btrfs", "subvolume", "delete", "--commit-after", str(path)]  # else the space comes back 30 s later
        if not is_one or run.run(delete, check=False).code:
            # a directory, or subvolumes in a subvolume: those are other devices to rm
            run.run(["rm", "-rf", "--", str(path)], timeout=DELETE_DEADLINE)

    def clone(self, source: Path, target: Path, *, sealed: bool = False) -> None:
        """A snapshot of a subvolume; read-only where it is sealed."""
        words = ["-r"] if sealed else []
        run.run(["btrfs", "subvolume", "snapshot", *words, str(source), str(target)])
        sync_directory(target.parent)

    def seal(self, tree: Path) -> str:
        """Number and last change of a read-only subvolume."""
        found = subvolume(tree) if tree.is_dir() else None
        return f"{found.number}:{found.changed}" if found is not None and found.flags & _READ_ONLY else ""

    @contextmanager
    def snapshot(self, tree: Path) -> Iterator[Path]:
        """A read-only snapshot, hidden among the trees. All that was written is in it: btrfs flushes it first."""
        source = _enclosing(tree)
        inside = tree.relative_to(source)
        self._refuse_nested(source, inside)
        with owners.owned(self._paths.locks) as token:
            self.sweep()
            checkpoint("snapshot:locked")
            path = self._trees / f"{SNAPSHOT}{token}"
            try:
                self.clone(source, path, sealed=True)
                checkpoint("snapshot:made")
                yield path / inside
                checkpoint("snapshot:used")
            finally:
                self.clear(path.name)
                checkpoint("snapshot:removed")

    def _refuse_nested(self, source: Path, inside: Path) -> None:
        """A snapshot holds an empty directory where another subvolume is: refuse to call that a copy."""
        for line in run.run(["btrfs", "subvolume", "list", "-o", str(source)]).out.splitlines():
            path = f"/{line.partition(' path ')[2]}"
            if inside == Path() or f"/{inside}/" in path:
                raise Refused(
                    f"{source / inside} holds a subvolume of its own: {path}, which a snapshot would leave out",
                    "make it a directory, or delete it",
                )

    def sweep(self) -> None:
        """Delete the snapshots whose owners are dead."""
        for name in os.listdir(self._trees):
            if name.startswith(SNAPSHOT) and owners.is_dead(self._paths.locks, name.removeprefix(SNAPSHOT)):
                log.debug(f"sweeping {name}")
                with suppress(FileNotFoundError):
                    self.clear(name)

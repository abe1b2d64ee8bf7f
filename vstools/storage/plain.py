"""Trees in plain directories below /var/lib/vservers. Cannot snapshot.

A tree is made under a hidden name and renamed into place when it is whole and on the disk. A tree is removed under
another hidden name. Whoever finds a hidden name whose owner is dead removes it (lifecycle/sweep.py).
"""

import os
from contextlib import AbstractContextManager
from pathlib import Path

from vstools import log, run
from vstools.errors import Refused, VsError
from vstools.files import directory, sync_directory
from vstools.paths import DOOMED, STAGED, Paths
from vstools.storage import mounts
from vstools.storage.mounts import Mount
from vstools.storage.protocol import Space

DELETE_DEADLINE = 3600.0


def barrier(paths: Paths) -> None:
    """Make sure that nobody but root can enter the directory of trees.

    A setuid file that a guest's root makes is setuid root on the host's disk: this directory's mode is what keeps
    the host's users from running it.
    """
    for path in (paths.trees, paths.templates):
        if path.exists() and path.stat().st_mode & 0o7777 != 0o700:
            log.warn(f"{path} was open to others (mode {path.stat().st_mode & 0o7777:04o}): set to 0700")
        directory(path, 0o700)


def hidden(paths: Paths) -> tuple[str, ...]:
    """The hidden names among the trees: what is being made or removed, and leftovers."""
    try:
        return tuple(sorted(name for name in os.listdir(paths.trees) if name.startswith((STAGED, DOOMED))))
    except FileNotFoundError:
        return ()


class Plain:
    """A storage (protocol.py) of directories; what other kinds have in common with it, they inherit."""

    kind = "plain"
    snapshots = False
    clones = False

    def __init__(self, paths: Paths, mount: Mount) -> None:
        self._paths = paths
        self._trees = paths.trees
        self.mount = mount

    def stage(self, name: str) -> Path:
        """An empty directory in which the tree of ``name`` is made."""
        tree = self._trees / f"{STAGED}{name}"
        self._make(tree)
        tree.chmod(0o755)
        return tree

    def _make(self, tree: Path) -> None:
        tree.mkdir()

    def settle(self, name: str) -> None:
        """Give the staged tree its name."""
        target = self._trees / name
        if os.path.lexists(target):
            raise VsError(f"{target} is in the way", "it belongs to no guest: move it away")
        (self._trees / f"{STAGED}{name}").rename(target)
        sync_directory(self._trees)

    def identity(self, tree: Path) -> str:
        """``device:inode``."""
        state = tree.stat(follow_symlinks=False)
        return f"{state.st_dev}:{state.st_ino}"

    def doom(self, name: str) -> None:
        """Take a tree's name away."""
        if os.path.lexists(self._trees / name):
            self.clear(f"{DOOMED}{name}")
            (self._trees / name).rename(self._trees / f"{DOOMED}{name}")
            sync_directory(self._trees)

    def clear(self, entry: str) -> None:
        """Delete a hidden directory of trees. No link is followed; nothing that is mounted there is deleted."""
        path = self._trees / entry
        if os.path.lexists(path):
            for where in mounts.below(path):  # rm's --one-file-system sees no bind mount of the same file system
                raise VsError(f"{where} is mounted in a tree that is being removed", f"umount {where}")
            self._delete(path)

    def _delete(self, path: Path) -> None:
        run.run(["rm", "-rf", "--one-file-system", "--", str(path)], timeout=DELETE_DEADLINE)

    def clone(self, source: Path, target: Path, *, sealed: bool = False) -> None:
        """Directories are not cloned."""
        raise NotImplementedError

    def seal(self, tree: Path) -> str:  # noqa: ARG002 - the protocol's
        """Directories are never sealed."""
        return ""

    def snapshot(self, tree: Path) -> AbstractContextManager[Path]:  # noqa: ARG002 - the protocol's
        """Directories have no snapshots."""
        raise Refused(
            f"{self._trees} lies on {self.mount.kind}, which cannot snapshot", "LVM and btrfs can; or stop the guest"
        )

    def sweep(self) -> None:
        """There are no snapshots."""

    def space(self) -> Space:
        """Of the file system that the trees lie on."""
        state = os.statvfs(self.mount.point)
        unit = state.f_frsize
        return Space(
            state.f_blocks * unit, (state.f_blocks - state.f_bfree) * unit, state.f_bavail * unit,
        )  # fmt: skip

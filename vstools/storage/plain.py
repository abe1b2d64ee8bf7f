"""Trees in plain directories below /var/lib/vservers. Cannot snapshot.

A tree is made under a hidden name and renamed into place when it is whole and on the disk. A tree is removed under
another hidden name. Whoever finds a hidden name whose owner is dead removes it (lifecycle/sweep.py).
"""

import os
import threading
import time
from pathlib import Path

from vstools import log, run
from vstools.errors import VsError
from vstools.files import directory, sync_directory
from vstools.libc import sync_filesystem
from vstools.paths import DOOMED, STAGED, Paths
from vstools.storage import mounts

_DELETE_DEADLINE = 3600.0
_FLUSH_PAUSE = 0.2


def barrier(paths: Paths) -> None:
    """Make sure that nobody but root can enter the directory of trees.

    A setuid file that a guest's root makes is setuid root on the host's disk: this directory's mode is what keeps
    the host's users from running it.
    """
    for path in (paths.trees, paths.templates):
        if path.exists() and path.stat().st_mode & 0o7777 != 0o700:
            log.warn(f"{path} was open to others (mode {path.stat().st_mode & 0o7777:04o}): set to 0700")
        directory(path, 0o700)


def stage(paths: Paths, name: str) -> Path:
    """An empty directory in which the tree of ``name`` is made."""
    tree = paths.trees / f"{STAGED}{name}"
    tree.mkdir(mode=0o755)
    return tree


class Flusher:
    """Brings a tree to the disk while it is being written, so that ``finish`` finds little left to do.

    What one sync takes passes before the next one: a slow disk is not kept busy by it.
    """

    def __init__(self, tree: Path) -> None:
        self._descriptor = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._end = threading.Event()
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._flush, daemon=True)

    def __enter__(self) -> "Flusher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        os.close(self._descriptor)

    def finish(self) -> None:
        """Bring the rest to the disk; raises the OSError of any write of the whole time."""
        self._stop()
        if self._failure is not None:
            raise self._failure
        sync_filesystem(self._descriptor)

    def _stop(self) -> None:
        self._end.set()
        self._thread.join()

    def _flush(self) -> None:
        pause = _FLUSH_PAUSE
        while not self._end.wait(pause):
            begun = time.monotonic()
            try:
                sync_filesystem(self._descriptor)
            except OSError as error:  # it is told once: the next sync would know nothing of it
                self._failure = error
                return
            pause = max(_FLUSH_PAUSE, time.monotonic() - begun)


def settle(paths: Paths, name: str) -> None:
    """Give the staged tree its name."""
    target = paths.tree_of(name)
    if os.path.lexists(target):
        raise VsError(f"{target} is in the way", "it belongs to no guest: move it away")
    (paths.trees / f"{STAGED}{name}").rename(target)
    sync_directory(paths.trees)


def identity(tree: Path) -> str:
    """What tells this tree from another of the same name: ``device:inode``."""
    state = tree.stat(follow_symlinks=False)
    return f"{state.st_dev}:{state.st_ino}"


def doom(paths: Paths, name: str) -> None:
    """Take a tree's name away, so that it is gone at once; ``clear`` frees the space."""
    if os.path.lexists(paths.tree_of(name)):
        clear(paths, f"{DOOMED}{name}")
        paths.tree_of(name).rename(paths.trees / f"{DOOMED}{name}")
        sync_directory(paths.trees)


def clear(paths: Paths, entry: str) -> None:
    """Delete a hidden directory of trees. ``rm`` follows no link; nothing that is mounted there is deleted."""
    path = paths.trees / entry
    if os.path.lexists(path):
        for where in mounts.below(path):  # rm's --one-file-system sees no bind mount of the same file system
            raise VsError(f"{where} is mounted in a tree that is being removed", f"umount {where}")
        run.run(["rm", "-rf", "--one-file-system", "--", str(path)], timeout=_DELETE_DEADLINE)


def hidden(paths: Paths) -> tuple[str, ...]:
    """The hidden names among the trees: what is being made or removed, and leftovers."""
    try:
        return tuple(sorted(name for name in os.listdir(paths.trees) if name.startswith((STAGED, DOOMED))))
    except FileNotFoundError:
        return ()

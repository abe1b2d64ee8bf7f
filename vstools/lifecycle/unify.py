"""Identical files of this host's guests share their blocks, whether the guests run or not.

No guest is locked: a guest that starts, stops or is removed meanwhile does not wait. Killed, nothing is left: what
shares by then shares, and the next run goes on.
"""

import os
import sqlite3
from collections.abc import Callable
from typing import NamedTuple

from vstools import files, libc, log, run
from vstools.errors import Refused, VsError
from vstools.paths import Paths
from vstools.storage import disks, extents, twins
from vstools.storage import unify as sharing
from vstools.storage.unify import Tree

Tell = Callable[[str, int], None]
"""Is given what is being done, and how many bytes of it were done now."""


class Saved(NamedTuple):
    """What became of a guest."""

    guest: str
    files: int
    """How many files of it share blocks now that did not before."""
    bytes: int
    """What these files need no longer."""


def able(paths: Paths, names: tuple[str, ...]) -> dict[str, Tree]:
    """The trees of those guests whose files can share blocks; a guest without a tree is left out.

    Raises Refused where none of them can, and warns where some cannot.
    """
    found: dict[str, Tree] = {}
    unable: dict[str, str] = {}
    answers: dict[str, bool] = {}
    for name in names:
        path = paths.tree_of(name)
        try:
            root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            number, kind = disks.filesystem(root)
            state = os.fstatvfs(root)
        finally:
            os.close(root)
        if number not in answers:
            answers[number] = extents.can_share(path)
        if answers[number]:
            found[name] = Tree(path, list(answers).index(number), state.f_blocks * state.f_frsize)
        else:
            unable[name] = f"{path} lies on {kind or 'a file system'}, where files cannot share blocks"
    for name, sentence in unable.items():
        if not found:
            raise Refused(sentence, "btrfs and XFS can")
        log.warn(f"guest {name}: {sentence}")
    return found


def unify(paths: Paths, trees: dict[str, Tree], tell: Tell, *, dry_run: bool) -> tuple[list[Saved], int]:
    """Let identical files of these trees (``able``) share blocks; returns a row for each guest, and the exit status.

    With ``dry_run`` the rows hold what would be done. Raises Busy while another one is at it.
    """
    with files.lock(paths.locks / "_unify", what="unification", patience=0):
        _be_kind()
        try:
            with twins.Catalogue() as catalogue:
                status = _look(trees, catalogue, tell)
                catalogue.gather()
                every = list(trees.values())
                sharing.read(every, catalogue, lambda size: tell("read", size))
                sharing.share(every, catalogue, lambda size: tell("saved", size), dry_run=dry_run)
        except sqlite3.Error as error:
            raise VsError(f"the list of files cannot be kept: {error}", "it may need space in /var/tmp") from error
        finally:
            if not dry_run:
                _audit(trees)
    return [Saved(name, tree.files, tree.saved) for name, tree in trees.items()], _faults(trees) or status


def _be_kind() -> None:
    """Guests come first, at the CPU and at the disk (``man 1 ionice``).

    Not by the lowest there is: while a file's blocks are shared its writers wait, and they would wait for everybody.
    """
    os.nice(10)
    run.run(["ionice", "--class", "best-effort", "--classdata", "7", "--pid", str(os.getpid())], check=False)


def _look(trees: dict[str, Tree], catalogue: twins.Catalogue, tell: Tell) -> int:
    status, every = 0, list(trees.values())
    synced: set[int] = set()
    for number, (name, tree) in enumerate(trees.items()):
        tell(f"looking at {name}", 0)
        try:
            if tree.filesystem not in synced:
                _sync(tree)
                synced.add(tree.filesystem)
            sharing.look(every, number, catalogue)
        except FileNotFoundError:  # it was removed
            continue
        except OSError as error:
            log.warn(f"guest {name}: its tree was not read to the end: {error.strerror or error}")
            status = 1
    return status


def _sync(tree: Tree) -> None:
    """What was written just now has no place on the disk yet."""
    root = os.open(tree.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        libc.sync_filesystem(root)
    finally:
        os.close(root)


def _audit(trees: dict[str, Tree]) -> None:
    for name, tree in trees.items():
        if tree.files:
            log.audit(f"unify {tree.files} files, {tree.saved} bytes", name, "ok")


def _faults(trees: dict[str, Tree]) -> int:
    """Say what was left out; 1 where something failed."""
    for name, tree in trees.items():
        if tree.is_cut:
            log.warn(f"guest {name}: not all of its files were looked at: they are too many, or move about")
        if tree.faults:
            log.warn(f"guest {name}: {tree.faults} files could not be read or shared (the first: {tree.fault})")
    return int(any(tree.faults for tree in trees.values()))

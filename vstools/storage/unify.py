"""Identical files of several trees share their blocks: looked for, read and shared while guests run and write.

Trees are hostile. What is found in them is kept as handles, not as names: a file is opened again as the very file that
was looked at, whatever its guest has put in its place. Files come and go meanwhile, trees as well; that is no error.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from vstools import libc
from vstools.storage import extents, walk
from vstools.storage.extents import Extent
from vstools.storage.twins import Catalogue, File, Layout

SMALLEST = 4096
"""Bytes: what is smaller has no block of its own, or not more than one."""
ENTRIES, WAITING = 1 << 22, 1 << 17
"""How many entries of a tree are looked at, and how many directories wait at once: their names are in memory."""
_LOOKS = 3
"""How often a tree is looked at again when directories of it are moved meanwhile, and how many files of a layout are
tried when they change meanwhile."""
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOATIME
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
_LEFT_ALONE = (
    errno.EAGAIN,  # leased: somebody wants to be asked first
    errno.ENXIO,  # a socket by now
    errno.EPERM,  # immutable
    errno.ETXTBSY,  # in use as swap
    errno.EINVAL,  # one of them without copy on write (chattr +C), or shorter than it was
    errno.EROFS,  # a snapshot that the guest made
    errno.EDQUOT,
)


@dataclass
class Tree:
    """A guest's tree, and what became of it."""

    path: Path
    filesystem: int
    capacity: int
    """Bytes of its file system. No more is read of one tree: with shared blocks a guest makes any amount of data."""
    files: int = 0
    """How many files share blocks now that did not before."""
    saved: int = 0
    """Bytes of blocks that nobody needs any more."""
    faults: int = 0
    """How many files could not be read or shared."""
    fault: str = ""
    """Why the first of them could not."""
    is_cut: bool = False
    """Whether there is more in it than was looked at."""


def look(trees: Sequence[Tree], number: int, catalogue: Catalogue) -> None:
    """Note the files of the tree of that number. Raises OSError."""
    tree = trees[number]

    def each(descriptor: int, *, directory: bool) -> None:
        if not directory:
            with _tallied(tree):
                file = _file(descriptor, number, tree.filesystem)
                if file is not None:
                    catalogue.add(file)

    with _root(tree) as root:
        if root is None:
            return
        for _ in range(_LOOKS):
            try:
                walk.walk(root, each, walk.Room(ENTRIES, WAITING), lambda error: _tally(tree, error))
            except walk.TooMany:
                break
            except walk.Moved:
                continue
            return
    tree.is_cut = True


def _file(descriptor: int, guest: int, filesystem: int) -> File | None:
    """What is noted of an open file; None where it cannot have twins that are worth it."""
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode) or state.st_size < SMALLEST or not state.st_blocks:
        return None
    found = extents.extents(descriptor)
    if not found or not extents.ranges(found, state.st_size):
        return None
    handle, shared = libc.file_handle(descriptor), all(extent.shared for extent in found)
    layout, place = extents.layout(found), found[0].physical
    return File(guest, filesystem, state.st_size, layout, handle, shared, len(found), place)


@contextmanager
def _root(tree: Tree) -> Iterator[int | None]:
    """The tree's root, open; None where the guest was removed."""
    try:
        root = os.open(tree.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in _GONE:
            raise
        yield None
        return
    try:
        yield root
    finally:
        os.close(root)


@contextmanager
def _opened(tree: Tree, handle: bytes, layout: Layout) -> Iterator[tuple[int, tuple[Extent, ...]] | None]:
    """A file and its extents; None where it is gone or has changed since it was looked at.

    The root is not held: between two files nothing of the tree is in use.
    """
    descriptor = None
    with _root(tree) as root:
        try:
            if root is not None:
                descriptor = libc.open_handle(root, handle, _OPEN)
        except OSError as error:
            if error.errno not in _GONE:
                raise
    if descriptor is None:
        yield None
        return
    is_cached = extents.is_cached(descriptor)
    try:
        found = extents.extents(descriptor)
        same = found and os.fstat(descriptor).st_size == layout.size and extents.layout(found) == layout.layout
        yield (descriptor, found) if found and same else None
    finally:
        if not is_cached:
            extents.forget(descriptor)
        os.close(descriptor)


@contextmanager
def _tallied(tree: Tree) -> Iterator[None]:
    """A file that cannot be read or changed stops nothing; it is counted unless its guest wants it so."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        _tally(tree, error)


def _tally(tree: Tree, error: OSError) -> None:
    if error.errno not in _LEFT_ALONE:
        tree.faults += 1
        tree.fault = tree.fault or (error.strerror or str(error))


def read(trees: Sequence[Tree], catalogue: Catalogue, tell: Callable[[int], None]) -> None:
    """Read what may have twins, once for each layout; ``tell`` is given how many bytes were read."""
    spent = [0] * len(trees)
    for layout in catalogue.unread():
        for guest, handle in islice(catalogue.files(layout), _LOOKS):
            tree, found = trees[guest], None
            with _tallied(tree), _opened(tree, handle, layout) as file:
                if file is not None:
                    parts = extents.ranges(file[1], layout.size)
                    size = sum(end - start for start, end in parts)
                    if spent[guest] + size > tree.capacity:
                        tree.is_cut = True
                        continue
                    spent[guest] += size
                    found = extents.digest(file[0], parts)
                    tell(size)
            if found is not None:
                catalogue.note(layout, found)
                break


def share(trees: Sequence[Tree], catalogue: Catalogue, tell: Callable[[int], None], *, dry_run: bool) -> None:
    """Let twins share their blocks; ``tell`` is given how many bytes became free. Raises OSError on a full disk.

    With ``dry_run`` nothing is changed, and the trees hold what would have been saved.
    """
    for stays, takes in catalogue.pairs():
        left = takes.files
        for guest, handle in catalogue.files(takes):
            tree = trees[guest]
            left -= 1
            with _tallied(tree), _opened(tree, handle, takes) as target:
                if target is None:
                    continue
                if dry_run:
                    shared, freed = _would(target[1], takes, last=not left)
                else:
                    shared, freed = _share(trees, catalogue, stays, target)
                tree.files += bool(shared)
                tree.saved += freed
                tell(freed)


def _would(found: tuple[Extent, ...], takes: Layout, *, last: bool) -> tuple[int, int]:
    """What sharing this file would give, as ``_share`` does. What several have becomes free with the last of them."""
    inside = [extent for extent in found if extent.logical < takes.size]
    blocks = sum(extent.length for extent in inside)
    if takes.files > 1:
        return blocks, blocks if last else 0
    return blocks, sum(extent.length for extent in inside if not extent.shared)


def _share(
    trees: Sequence[Tree], catalogue: Catalogue, stays: Layout, target: tuple[int, tuple[Extent, ...]]
) -> tuple[int, int]:
    """Bytes that this file shares now with one that stays, and bytes of blocks that became free."""
    for guest, handle in islice(catalogue.files(stays), _LOOKS):
        with _opened(trees[guest], handle, stays) as source:
            if source is not None:
                pieces = extents.apart(source[1], target[1], stays.size)
                return extents.share(source[0], target[0], pieces, stays.size)
    return 0, 0

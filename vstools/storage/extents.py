"""Where the blocks of a file lie, and two files that share theirs: FIEMAP and FIDEDUPERANGE.

What is read here of hostile files harms nothing: the kernel locks both ranges, compares them itself and shares them
only where they are the same at that moment. Nobody's content changes, whatever is written meanwhile.

Formats: linux/fiemap.h (struct fiemap, struct fiemap_extent), linux/fs.h (struct file_dedupe_range and its _info),
``man 2 ioctl_fideduperange``. The file that changes need not be open for writing: the kernel takes CAP_SYS_ADMIN for it
(fs/remap_range.c, allow_file_dedupe; all kernels since 4.5).
"""

import errno
import os
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fcntl import ioctl
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from vstools import libc

_MAP, _DEDUPE = 0xC020660B, 0xC0189436  # FS_IOC_FIEMAP, FIDEDUPERANGE
_REQUEST = struct.Struct("=QQIIII")
"""``struct fiemap``: start, length, flags, how many extents were found, how many fit in, reserved."""
_EXTENT = struct.Struct("=QQQ16xI12x")
"""``struct fiemap_extent``: logical, physical, length in bytes, flags."""
_RANGE = struct.Struct("=QQHHIqQQiI")
"""``struct file_dedupe_range`` with one ``_info``: source offset, length, how many, reserved twice; then destination,
its offset, bytes that are shared now, status, reserved."""
_AT_ONCE = 256
"""Extents asked for in one call."""
MOST = 16384
"""Extents of a file that is worth the effort. A hostile guest can make any number of them."""
_LAST, _UNWRITTEN, _SHARED = 0x1, 0x800, 0x2000
_NOWHERE = 0x2 | 0x4 | 0x100 | 0x200
"""UNKNOWN, DELALLOC (not on the disk yet), NOT_ALIGNED, DATA_INLINE (in the metadata): no blocks to share."""
_END = (1 << 64) - 1
_BLOCK, _PIECE, _CALL = 4096, 1 << 20, 4 << 20
"""Bytes: a block, what is read at once, and what is shared at once, while writers wait (btrfs takes up to 16 MiB)."""
_UNABLE = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EISDIR, errno.ENOSYS)


class Extent(NamedTuple):
    """A piece of a file on the disk; bytes."""

    logical: int
    physical: int
    length: int
    shared: bool = False
    """Whether another file has these blocks, too."""


class Piece(NamedTuple):
    """Bytes of a file from ``start`` up to ``end``, which may go to another place on the disk."""

    start: int
    end: int
    alone: bool
    """Whether its blocks are no other file's: they become free."""


def can_share(folder: Path) -> bool:
    """Whether files of this directory's file system can share blocks: tried with two files that never have a name.

    They are a hole each and take no space. It must also tell where blocks lie, and find a file by its handle. Where not
    even they can be made (a full disk), the answer is yes: the first file tells.
    """
    try:
        with _unnamed(folder) as one, _unnamed(folder) as other:
            libc.file_handle(one)
            extents(one)
            return _dedupe(one, other, 0, _BLOCK) == _BLOCK
    except OSError as error:
        return error.errno not in _UNABLE


@contextmanager
def _unnamed(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        os.truncate(descriptor, _BLOCK)
        yield descriptor
    finally:
        os.close(descriptor)


def extents(descriptor: int) -> tuple[Extent, ...] | None:
    """The extents of a file that hold data, in order; holes and what is only reserved are not told.

    None where the file's data is not in blocks of its own (not written yet, in the metadata), or in too many pieces.
    """
    found: list[Extent] = []
    start, buffer = 0, bytearray(_REQUEST.size + _AT_ONCE * _EXTENT.size)
    while len(found) <= MOST:
        _REQUEST.pack_into(buffer, 0, start, _END - start, 0, 0, _AT_ONCE, 0)
        ioctl(descriptor, _MAP, buffer)
        count = _REQUEST.unpack_from(buffer)[3]
        flags = _LAST
        for logical, physical, length, flags in _EXTENT.iter_unpack(buffer[_REQUEST.size :][: count * _EXTENT.size]):
            if flags & _NOWHERE:
                return None
            if not flags & _UNWRITTEN:
                found.append(Extent(logical, physical, length, bool(flags & _SHARED)))
            start = logical + length
        if flags & _LAST:
            return tuple(found)
    return None


def layout(found: Iterable[Extent]) -> bytes:
    """What files with the same blocks in the same places have in common, and no others. Pure."""
    whole = blake2b(digest_size=16)
    for extent in _merged(found):
        whole.update(struct.pack("=3Q", *extent[:3]))
    return whole.digest()


def _merged(found: Iterable[Extent]) -> Iterator[Extent]:
    """Extents that follow each other in the file and on the disk are one: the kernel tells the same either way."""
    now: Extent | None = None
    for extent in found:
        if now and (extent.logical, extent.physical) == (now.logical + now.length, now.physical + now.length):
            now = now._replace(length=now.length + extent.length)
            continue
        if now:
            yield now
        now = extent
    if now:
        yield now


def ranges(found: Iterable[Extent], size: int) -> tuple[tuple[int, int], ...]:
    """From where to where a file of ``size`` bytes holds data: (start, end), in order. Pure."""
    whole: list[tuple[int, int]] = []
    for extent in found:
        start, end = extent.logical, min(extent.logical + extent.length, size)
        if start >= end:
            continue
        if whole and whole[-1][1] == start:
            start = whole.pop()[0]
        whole.append((start, end))
    return tuple(whole)


def apart(source: tuple[Extent, ...], target: tuple[Extent, ...], size: int) -> Iterator[Piece]:
    """The pieces of ``target`` that lie elsewhere than the same bytes of ``source``, in order. Pure.

    Where the source has a hole there is nothing to share. Pieces are whole blocks: the last one may end after ``size``.
    """
    at = 0
    for extent in target:
        end = extent.logical + extent.length
        if extent.logical >= size:
            return
        while at < len(source) and source[at].logical + source[at].length <= extent.logical:
            at += 1
        for number in range(at, len(source)):
            other = source[number]
            if other.logical >= end:
                break
            first, last = max(extent.logical, other.logical), min(end, other.logical + other.length)
            if first < last and extent.physical - extent.logical != other.physical - other.logical:
                yield Piece(first, last, not extent.shared)


def digest(descriptor: int, parts: tuple[tuple[int, int], ...]) -> bytes:
    """A hash of what is in these ranges of an open file, and of where they are."""
    whole = blake2b(digest_size=16)
    for start, end, block in _read(descriptor, parts):
        whole.update(struct.pack("=2Q", start, end))
        whole.update(block)
    return whole.digest()


def _read(descriptor: int, parts: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, memoryview]]:
    """(start, end, content) of these ranges, piece by piece; a file that ends earlier gives less."""
    buffer = memoryview(bytearray(_PIECE))
    for start, end in parts:
        while start < end:
            count = os.preadv(descriptor, [buffer[: min(_PIECE, end - start)]], start)
            if not count:
                return
            yield start, start + count, buffer[:count]
            start += count


def is_cached(descriptor: int) -> bool:
    """Whether the beginning of an open file is in memory (``man 2 preadv2``, RWF_NOWAIT). Asking may bring it there."""
    try:
        return os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT) == 1
    except OSError:
        return False


def forget(descriptor: int) -> None:
    """Let the kernel drop what it has in memory of an open file that nobody uses: its guest did not want it there."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def share(source: int, target: int, pieces: Iterable[Piece], size: int) -> tuple[int, int]:
    """Let ``target`` have the blocks of ``source`` in these pieces; returns bytes shared, and bytes of blocks freed.

    Stops where the contents differ: somebody writes. Both are open files of one file system, ``size`` bytes long.
    Raises OSError.
    """
    shared = freed = 0
    for start, last, alone in _calls(pieces):
        end = min(last, size)
        for descriptor in (source, target):  # then a writer waits for the comparison only, not for the disk
            deque(_read(descriptor, ((start, end),)), maxlen=0)
        while start < end:
            count = _dedupe(source, target, start, end - start)
            if not count:
                return shared, freed
            shared += count
            reached = last if start + count == size else start + count
            freed += sum(max(0, min(to, reached) - max(since, start)) for since, to in alone)
            start += count
    return shared, freed


def _calls(pieces: Iterable[Piece]) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Pieces that follow each other, put together to what one call takes: start, end, and what of it is alone."""
    start = end = 0
    alone: list[tuple[int, int]] = []
    for first, last, is_alone in pieces:
        while first < last:
            if first != end or end - start >= _CALL:
                if start < end:
                    yield start, end, alone
                start, alone = first, []
            end = min(last, start + _CALL)
            if is_alone:
                alone.append((first, end))
            first = end
    if start < end:
        yield start, end, alone


def _dedupe(source: int, target: int, start: int, length: int) -> int:
    """How many bytes the two files share from ``start`` on now; 0 where they differ. Raises OSError."""
    buffer = bytearray(_RANGE.pack(start, length, 1, 0, 0, target, start, 0, 0, 0))
    ioctl(source, _DEDUPE, buffer)
    *_, count, status, _ = _RANGE.unpack(buffer)
    if status < 0:
        raise OSError(-status, os.strerror(-status))
    return 0 if status else int(count)

"""The headers that every reader of tar archives understands alike, so that they need not be written anew.

Format: POSIX ``ustar`` (pax in POSIX.1-2017) and what GNU tar makes of it (``man 5 tar``). A header is *plain* when
each of its fields has the one form that leaves nothing to a reader's taste: octal digits of full width, no byte
after a text's end, a right checksum, no extension of anybody.
"""

import re
import tarfile
from typing import NamedTuple

from vstools.tree.checker import Member

BLOCK = tarfile.BLOCKSIZE
_NUMBERS = re.compile(
    rb"000[0-7]{4}\0([0-7]{7})\0([0-7]{7})\0([0-7]{11})\0[0-7]{11}\0([0-7]{6})\0 ([0125])", re.DOTALL
)  # mode, uid, gid, size, mtime, checksum, type
_MAGIC, _GNU_MAGIC = b"ustar\00000", b"ustar  \0"
_DEVICE = re.compile(rb"(?:[0-7]{7}\0|\0{8}){2}")
_BLANKS = sum(b" " * 8)  # what counts for the checksum's own field


class Plain(NamedTuple):
    """A member with a plain header: ``size`` bytes of content follow it, padded to whole blocks."""

    member: Member
    size: int


def read_plain(header: bytes) -> Plain | None:
    """The member of a plain header of 512 bytes, None for every other header: tarfile reads those."""
    numbers = _NUMBERS.fullmatch(header, 100, 157)
    if numbers is None or not _DEVICE.fullmatch(header, 329, 345) or header[500:] != bytes(12):
        return None
    uid, gid, octal, checksum, kind = numbers.groups()
    if int(checksum, 8) != sum(header.translate(None, b"\0")) - sum(header[148:156]) + _BLANKS:
        return None
    name, linkname, prefix = (header[start:end].rstrip(b"\0") for start, end in ((0, 100), (157, 257), (345, 500)))
    gnu = header[257:265] == _GNU_MAGIC
    if not name or b"\0" in name + linkname + prefix or (gnu and prefix) or not (gnu or header[257:265] == _MAGIC):
        return None
    size, is_link = int(octal, 8), kind in (tarfile.LNKTYPE, tarfile.SYMTYPE)
    if is_link != bool(linkname) or (size and kind != tarfile.REGTYPE):
        return None
    if name.endswith(b"/") and kind != tarfile.DIRTYPE:
        return None
    if prefix:
        name = prefix + b"/" + name
    texts = (text.decode("utf-8", "surrogateescape") for text in (name, linkname))
    return Plain(Member(next(texts), kind, next(texts), int(uid, 8), int(gid, 8)), size)

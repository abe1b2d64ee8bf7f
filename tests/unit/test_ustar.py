"""What packers usually write is a plain header; what leaves something to a reader's taste is not."""

import tarfile

import pytest

from vstools.tree.ustar import BLOCK, read_plain

LONG = "d" * 90 + "/" + "e" * 80


def info(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    for key, value in fields.items():
        setattr(made, key, value)
    return made


PLAIN = (
    info("./etc/passwd", size=1300, mode=0o644, mtime=1700000000),
    info("./", tarfile.DIRTYPE, mode=0o755),
    info("a" * 100),
    info(LONG, size=1),
    info("bin/sh", tarfile.SYMTYPE, linkname="/bin/dash", uid=33, gid=65535),
    info("bin/bash", tarfile.LNKTYPE, linkname="./" + "l" * 98),
    info("d\u00e9j\u00e0", uname="root", gname="root"),
)


@pytest.mark.parametrize("member", PLAIN, ids=lambda member: member.name[:20])
@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_what_packers_usually_write_is_plain(member: tarfile.TarInfo, kind: int) -> None:
    header = member.tobuf(kind)
    found = read_plain(header[:BLOCK])
    if len(header) > BLOCK:  # GNU's way to write a long name
        assert kind == tarfile.GNU_FORMAT
        assert found is None
        return
    assert found is not None
    assert (found.size, found.member.type, found.member.linkname) == (member.size, member.type, member.linkname)
    assert (found.member.uid, found.member.gid) == (member.uid, member.gid)
    assert found.member.name.rstrip("/") == member.name.rstrip("/")


def altered(header: bytes, start: int, new: bytes) -> bytes:
    """The header with other bytes at ``start``, and the right checksum again."""
    made = bytearray(header)
    made[start : start + len(new)] = new
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made)
    return bytes(made)


FILE = PLAIN[0].tobuf(tarfile.USTAR_FORMAT)
LINK = PLAIN[4].tobuf(tarfile.USTAR_FORMAT)
TASTE = {
    "no name": altered(FILE, 0, bytes(100)),
    "a name with something behind its end": altered(FILE, 50, b"x"),
    "a prefix with something behind its end": altered(FILE, 400, b"x"),
    "a link's target with something behind its end": altered(LINK, 200, b"x"),
    "a link without a target": altered(LINK, 157, bytes(100)),
    "a link with content": altered(LINK, 124, b"00000001000\0"),
    "a file with a target": altered(FILE, 157, b"x"),
    "a file that ends in a slash": altered(FILE, 12, b"/"),
    "a size in blanks": altered(FILE, 124, b"       2424 "),
    "a size of twelve digits": altered(FILE, 124, b"000000002424"),
    "a size in base 256": altered(FILE, 124, b"\x80" + bytes(10) + b"\x01"),
    "a negative uid": altered(FILE, 108, b"\xff" * 8),
    "a mode with a file's type": altered(FILE, 100, b"0100644\0"),
    "another magic": altered(FILE, 257, b"ustar\x0000"[:6] + b"\0\0"),
    "no magic": altered(FILE, 257, bytes(8)),
    "a prefix after GNU's magic": altered(altered(FILE, 257, b"ustar  \0"), 345, b"usr"),
    "a name's beginning after the prefix": altered(FILE, 500, b"x"),
    "a contiguous file": altered(FILE, 156, b"7"),
    "a file of old": altered(FILE, 156, b"\0"),
    "a device": altered(FILE, 156, b"3"),
    "a pax header": altered(FILE, 156, b"x"),
    "GNU's long name": altered(FILE, 156, b"L"),
    "a number in a device's field": altered(FILE, 329, b"abc"),
    "a wrong checksum": FILE[:148] + b"000001\0 " + FILE[156:],
    "a short block": FILE[:511],
    "the end": bytes(512),
}


@pytest.mark.parametrize("kind", TASTE)
def test_what_leaves_something_to_taste_is_not_plain(kind: str) -> None:
    assert read_plain(FILE) is not None
    assert read_plain(TASTE[kind]) is None

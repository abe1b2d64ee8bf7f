"""A header that is passed on to GNU tar means the same to it, to Python's tarfile and to us."""

import random
import re
import subprocess
import tarfile

from vstools.tree.ustar import BLOCK, read_plain

SAMPLES = (
    tarfile.TarInfo("./etc/d\u00e9j\u00e0 vu"),
    tarfile.TarInfo("./"),
    tarfile.TarInfo("d" * 90 + "/" + "e" * 80),
    tarfile.TarInfo("bin/sh"),
    tarfile.TarInfo("bin/bash"),
)
SAMPLES[0].size = 1300
SAMPLES[1].type = tarfile.DIRTYPE
SAMPLES[3].type, SAMPLES[3].linkname, SAMPLES[3].uid = tarfile.SYMTYPE, "../x", 33
SAMPLES[4].type, SAMPLES[4].linkname = tarfile.LNKTYPE, "./" + "l" * 98


def altered(header: bytes, start: int, new: bytes) -> bytes:
    """The header with other bytes at ``start``, and the right checksum again."""
    made = bytearray(header)
    made[start : start + len(new)] = new
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made)
    return bytes(made)


def test_a_plain_header_means_the_same_to_tarfile_and_to_tar() -> None:
    """Thousands of headers with one field altered: those that are plain are read by all three."""
    chance = random.Random(1)  # noqa: S311 - the same each time
    accepted = []
    for turn in range(20000):
        base = chance.choice(SAMPLES).tobuf(chance.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT)))[-BLOCK:]
        start = chance.randrange(BLOCK)
        piece = bytes(chance.choice(b"01257/.a \0\xc3") for _ in range(chance.randrange(1, 4)))
        header = altered(base, start, piece[: BLOCK - start]) if turn % 10 else base
        if (found := read_plain(header)) is not None and found.size <= 1300:
            accepted.append((header, found))
    assert len(accepted) > 3000
    content = b""
    for header, found in accepted:
        read = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        member = found.member
        assert (read.name, read.type, read.linkname) == (member.name.rstrip("/"), member.type, member.linkname)
        assert (read.uid, read.gid, read.size) == (member.uid, member.gid, found.size)
        content += header + b"x" * found.size + bytes(-found.size % BLOCK)
    argv = ["tar", "-tv", "--numeric-owner", "--quoting-style=literal", "--show-stored-names", "-P", "-f", "-"]
    listed = subprocess.run(argv, input=content + bytes(1024), capture_output=True, check=True, timeout=120).stdout
    lines = listed.split(b"\n")[:-1]
    assert len(lines) == len(accepted)
    types = {b"0": b"-", b"1": b"h", b"2": b"l", b"5": b"d"}
    between = {b"0": b"", b"1": b" link to ", b"2": b" -> ", b"5": b""}
    for line, (_, found) in zip(lines, accepted, strict=True):
        mode, owner, size, said = re.fullmatch(rb"(\S+) (\S+) +([0-9]+) \S+ \S+ (.*)", line).groups()
        wanted = found.member.name, between[found.member.type].decode(), found.member.linkname
        assert said == "".join(wanted).encode("utf-8", "surrogateescape")
        assert (mode[:1], owner) == (types[found.member.type], b"%d/%d" % (found.member.uid, found.member.gid))
        assert int(size) == found.size

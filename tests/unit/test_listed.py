"""What a host says is in a guest's tree: each line is checked in a time that grows with its length, all is bounded."""

from collections.abc import Iterable

import pytest

from vstools.errors import VsError
from vstools.pool import listed
from vstools.pool.listed import Listed

WORDS = b" type=dir mode=0755 uid=0 gid=0 time=1.000000000 inode=1"
LINK = b" type=link mode=0777 uid=0 gid=0 time=1.000000000 inode=1 link="


def read(*lines: bytes) -> list[tuple[bytes, bytes]]:
    """What is believed of an answer."""
    answer: Iterable[bytes] = (b"#list live", *lines, b"#end 0")
    return list(Listed("vsh-66", iter(answer), {}, False, lambda _: None).lines())


def test_names_are_read_as_they_are_written() -> None:
    names = [b"./tree", b"./tree/a/b.c/..d/.e", rb"./tree/\040\075/x", b"./tree/" + b"/".join([b"a"] * 2000)]
    assert [name for name, _ in read(*(name + WORDS for name in names))] == names


@pytest.mark.parametrize(
    "line",
    [
        b"./tree" + b"/a" * 2000 + WORDS + b"x",
        b"./tree/a/../b" + WORDS,
        b"./tree/a/." + WORDS,
        b"./tree/a//b" + WORDS,
        b"./tree/a/" + WORDS,
        b"./tree/a=b" + WORDS,
        b"./tree/" + b"a" * 40000 + WORDS,
        b"./tree/a" + LINK + b"a" * 40000,
    ],
    ids=lambda line: line[:24].decode(),
)
def test_what_is_no_name_is_refused_at_once(line: bytes) -> None:
    with pytest.raises(VsError, match="vsh-66 says of its guest what cannot be"):
        read(line)


def test_all_names_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listed, "_MOST_BYTES", 1000)
    with pytest.raises(VsError, match="more than can be kept"):
        read(*(b"./tree/%d" % number + WORDS for number in range(20)))

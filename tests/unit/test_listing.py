"""What a host says of a guest's tree: all of it, and in no more memory than names take, however deep they lie."""

import io
import os
import tracemalloc
from pathlib import Path

import pytest

from vstools.errors import VsError
from vstools.pool import listed, listing
from vstools.pool.listing import Listing


def test_every_name_is_listed_once(tmp_path: Path) -> None:
    for folder in ("a/b/c", "a/d", "e"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file").touch()
    out = io.BytesIO()
    assert Listing(tmp_path, {}, 0, quick=False, out=out).write() == 0
    found = sorted(line.split(b" ")[0].decode() for line in out.getvalue().splitlines())
    names = ("", "/a", "/a/b", "/a/b/c", "/a/b/c/file", "/a/d", "/a/d/file", "/e", "/e/file")
    assert found == [f"./tree{name}" for name in names]


def test_names_far_below_take_no_more_memory_than_others(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(14):
        os.mkdir("d" * 250, dir_fd=folder)
        inner = os.open("d" * 250, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    for number in range(2000):
        os.mkdir(f"{number}", dir_fd=folder)
    os.close(folder)
    with Path("/dev/null").open("wb") as out:
        tracemalloc.start()
        listing = Listing(tmp_path, {}, 0, quick=False, out=out)
        before, _ = tracemalloc.get_traced_memory()
        assert listing.write() == 0
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most - before < 2 << 20  # their paths have 7 MB


def asked(folder: Path, copy: dict[str, tuple[int, int]]) -> tuple[int, list[bytes]]:
    """Names that were not read, and names that were, of a tree whose copy has these files: name -> size, inode."""
    before = {
        b"./tree/%s" % name.encode(): b"type=file mode=0644 uid=0 gid=0 size=%d time=1.000000000 inode=%d" % words
        for name, words in copy.items()
    }
    most, known = listing._asked(iter(list(listed._asking(before))))
    out = io.BytesIO()
    unread = Listing(folder, known, most, quick=False, out=out).write()
    return unread, sorted(line.split(b" ")[0] for line in out.getvalue().splitlines() if b"sha256digest" in line)


def test_of_one_file_with_many_names_a_guest_cannot_make_many_to_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listed, "_SOME", 0)
    for number in range(9):
        (tmp_path / f"{number}").write_bytes(b"x" * 1000)
    (tmp_path / "one").hardlink_to(tmp_path / "0")
    honest = {f"{number}": (1000, number) for number in range(9)}
    assert asked(tmp_path, {**honest, "one": (1000, 0)}) == (
        0, [*(b"./tree/%d" % number for number in range(9)), b"./tree/one"],
    )  # fmt: skip
    unread, found = asked(tmp_path, dict.fromkeys(honest, (1000, 7)))
    assert (unread, len(found)) == (7, 2)


def test_another_question_is_not_answered(tmp_path: Path) -> None:
    for line in (b"", b"1000 1.000000000 ./tree/x\n", b"#most -1\n", b"#most 1"):
        with pytest.raises(VsError, match="no question"):
            listing._asked(iter([line] if line else []))

"""What a host says of a guest's tree: all of it, and in no more memory than names take, however deep they lie."""

import io
import os
import tracemalloc
from pathlib import Path

from vstools.pool.listing import Listing


def test_every_name_is_listed_once(tmp_path: Path) -> None:
    for folder in ("a/b/c", "a/d", "e"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file").touch()
    out = io.BytesIO()
    assert Listing(tmp_path, {}, quick=False, out=out).write() == 0
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
        listing = Listing(tmp_path, {}, quick=False, out=out)
        before, _ = tracemalloc.get_traced_memory()
        assert listing.write() == 0
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most - before < 2 << 20  # their paths have 7 MB

"""vs-unify's decisions: which files are read, which of them are twins, and which pieces of them are worth a call."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstools.errors import VsError
from vstools.lifecycle import unify
from vstools.paths import Paths
from vstools.storage import extents, twins, walk
from vstools.storage.extents import Extent, Piece
from vstools.storage.twins import Catalogue, File
from vstools.storage.unify import Tree, look

K = 4096


def file(guest: int, layout: str, *, size: int = 2 * K, handle: str = "", **more: int) -> File:
    """A file; each has a handle of its own unless one is given."""
    values = {"filesystem": 0, "shared": 0, "pieces": 1, "place": 0, **more}
    return File(guest, values["filesystem"], size, layout.encode(), (handle or f"{guest}{layout}").encode(),
                bool(values["shared"]), values["pieces"], values["place"])  # fmt: skip


def catalogue(*files: File) -> Catalogue:
    """What is known when all trees were looked at."""
    made = Catalogue()
    for one in files:
        made.add(one)
    made.gather()
    return made


def unread(made: Catalogue) -> list[str]:
    """The layouts that have to be read, in order."""
    return [layout.layout.decode() for layout in made.unread()]


def pairs(made: Catalogue, contents: dict[str, str], most: int = 100) -> list[tuple[str, str]]:
    """Who stays and who takes its blocks, when these layouts have these contents."""
    for layout in list(made.unread()):
        if layout.layout.decode() in contents:
            made.note(layout, contents[layout.layout.decode()].encode())
    return [(stays.layout.decode(), takes.layout.decode()) for stays, takes in made.pairs(most)]


def test_a_file_whose_size_is_unique_is_not_read() -> None:
    assert unread(catalogue(file(0, "a"), file(1, "b", size=3 * K))) == []


def test_files_that_have_the_same_blocks_already_are_not_read() -> None:
    assert unread(catalogue(file(0, "a"), file(1, "a"), file(2, "a"))) == []


def test_one_file_of_each_layout_is_read_in_the_order_of_the_disk() -> None:
    made = catalogue(file(0, "a", place=9), file(1, "b", place=5), file(2, "a", place=9), file(3, "c", place=7))
    assert unread(made) == ["b", "c", "a"]


def test_a_file_with_several_names_is_one_file() -> None:
    made = catalogue(file(0, "a", handle="x"), file(0, "b", handle="x"), file(1, "c"))
    assert unread(made) == ["a", "c"]
    assert [list(made.files(layout)) for layout in made.unread()] == [[(0, b"x")], [(1, b"1c")]]


def test_two_file_systems_share_nothing() -> None:
    assert unread(catalogue(file(0, "a"), file(1, "b", filesystem=1))) == []
    made = catalogue(*(file(guest, f"{guest}", filesystem=guest % 2) for guest in range(4)))
    assert sorted(pairs(made, dict.fromkeys("0123", "same"))) == [("0", "2"), ("1", "3")]


def test_what_most_guests_have_stays_whatever_one_guest_does() -> None:
    copies = [file(0, "mine", handle=f"{number}") for number in range(50)]
    made = catalogue(*copies, file(1, "theirs"), file(2, "theirs"))
    assert pairs(made, {"mine": "same", "theirs": "same"}) == [("theirs", "mine")]


def test_of_equals_what_is_in_fewer_pieces_stays() -> None:
    made = catalogue(file(0, "torn", pieces=900), file(1, "whole"), file(2, "half", pieces=2))
    assert pairs(made, dict.fromkeys(("torn", "whole", "half"), "same")) == [("whole", "half"), ("whole", "torn")]


def test_of_equals_what_would_not_become_free_stays() -> None:
    made = catalogue(file(0, "a"), file(1, "of-a-template", shared=1, pieces=9), file(2, "b"))
    assert pairs(made, dict.fromkeys(("a", "of-a-template", "b"), "same")) == [
        ("of-a-template", "a"),
        ("of-a-template", "b"),
    ]


def test_other_content_and_what_could_not_be_read_is_nobodys_twin_and_large_files_come_first() -> None:
    made = catalogue(
        file(0, "a"), file(1, "b"), file(2, "c"), file(3, "gone"), file(0, "A", size=9 * K), file(1, "B", size=9 * K)
    )
    assert pairs(made, {"a": "x", "b": "y", "c": "x", "A": "z", "B": "z"}) == [("A", "B"), ("a", "c")]


def test_so_many_share_one_block_and_a_second_run_finds_nothing_to_do() -> None:
    made = catalogue(*(file(guest, f"{guest}", place=guest) for guest in range(7)))
    same = dict.fromkeys("0123456", "same")
    assert pairs(made, same, most=3) == [("0", "1"), ("0", "2"), ("3", "4"), ("3", "5")]
    after = ["0", "0", "0", "3", "3", "3", "6"]
    again = catalogue(*(file(guest, layout, handle=f"{guest}") for guest, layout in enumerate(after)))
    assert pairs(again, same, most=3) == []


def test_a_list_that_does_not_fit_into_memory_lies_in_a_file_that_no_kill_leaves_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def opened() -> set[str]:
        folder = Path("/proc/self/fd")
        return {os.readlink(folder / name) for name in os.listdir(folder) if os.path.lexists(folder / name)}

    before = opened()
    monkeypatch.setattr(twins, "_TABLES", twins._TABLES.replace("-32768", "-16"))
    made = catalogue(*(file(0, f"{number}") for number in range(3000)))
    assert len(unread(made)) == 3000
    kept = opened() - before
    assert kept
    assert all(path.endswith(" (deleted)") for path in kept)


def test_a_layout_is_the_places_of_the_blocks_however_the_kernel_cuts_them() -> None:
    whole = extents.layout([Extent(0, 100 * K, 3 * K)])
    assert whole == extents.layout([Extent(0, 100 * K, K, True), Extent(K, 101 * K, 2 * K)])
    assert whole != extents.layout([Extent(0, 100 * K, K), Extent(2 * K, 101 * K, 2 * K)])
    assert whole != extents.layout([Extent(0, 101 * K, 3 * K)])


def test_ranges_are_where_there_is_data_up_to_the_end_of_the_file() -> None:
    found = [Extent(0, 9 * K, K), Extent(K, 50 * K, K), Extent(4 * K, 70 * K, 4 * K), Extent(8 * K, 80 * K, K)]
    assert extents.ranges(found, 5 * K + 1) == ((0, 2 * K), (4 * K, 5 * K + 1))
    assert extents.ranges([], 5 * K) == ()


def test_pieces_that_lie_in_the_same_place_or_in_a_hole_need_nothing() -> None:
    source = (Extent(0, 100 * K, 4 * K), Extent(6 * K, 106 * K, 2 * K))
    target = (Extent(0, 100 * K, K), Extent(K, 201 * K, 2 * K, True), Extent(3 * K, 203 * K, 5 * K))
    assert list(extents.apart(source, target, 8 * K)) == [
        Piece(K, 3 * K, False),
        Piece(3 * K, 4 * K, True),
        Piece(6 * K, 8 * K, True),
    ]
    assert list(extents.apart(source, source, 8 * K)) == []
    assert list(extents.apart(source, target, K)) == []


@st.composite
def mapped(draw: st.DrawFn) -> tuple[Extent, ...]:
    """The extents of a file, with holes."""
    at, found = 0, []
    for hole, length, place, shared in draw(
        st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(0, 20), st.booleans()), max_size=6)
    ):
        at += hole
        found.append(Extent(at * K, place * K, length * K, shared))
        at += length
    return tuple(found)


@given(mapped(), mapped())
def test_pieces_are_just_the_blocks_that_both_have_elsewhere(
    source: tuple[Extent, ...], target: tuple[Extent, ...]
) -> None:
    def blocks(found: tuple[Extent, ...]) -> dict[int, tuple[int, bool]]:
        return {
            extent.logical + at: (extent.physical + at, extent.shared)
            for extent in found
            for at in range(0, extent.length, K)
        }

    ours, theirs = blocks(source), blocks(target)
    wanted = {at: not there[1] for at, there in theirs.items() if at in ours and ours[at][0] != there[0]}
    pieces = list(extents.apart(source, target, 1 << 40))
    assert {at: alone for start, end, alone in pieces for at in range(start, end, K)} == wanted
    assert pieces == sorted(pieces)


def test_a_call_takes_pieces_that_follow_each_other_and_no_more_than_the_kernel_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = []
    monkeypatch.setattr(extents, "_dedupe", lambda _, __, start, length: calls.append((start, length)) or length)
    monkeypatch.setattr(extents, "_CALL", 4 * K)
    (tmp_path / "f").write_bytes(b"")
    descriptor = os.open(tmp_path / "f", os.O_RDONLY)
    try:
        pieces = [Piece(0, K, True), Piece(K, 2 * K, False), Piece(3 * K, 9 * K, True)]
        assert extents.share(descriptor, descriptor, pieces, 8 * K + 1) == (7 * K + 1, 7 * K)
        assert calls == [(0, 2 * K), (3 * K, 4 * K), (7 * K, K + 1)]
        calls.clear()
        monkeypatch.setattr(extents, "_dedupe", lambda _, __, start, length: K if start < 5 * K else 0)
        assert extents.share(descriptor, descriptor, pieces, 9 * K) == (4 * K, 3 * K), "somebody writes"
    finally:
        os.close(descriptor)


def test_the_hash_is_of_the_data_and_of_its_places(tmp_path: Path) -> None:
    def hashed(content: bytes, *parts: tuple[int, int]) -> bytes:
        (tmp_path / "f").write_bytes(content)
        descriptor = os.open(tmp_path / "f", os.O_RDONLY)
        try:
            return extents.digest(descriptor, parts)
        finally:
            os.close(descriptor)

    assert hashed(b"ab" * K, (0, 2 * K)) == hashed(b"ab" * K, (0, 2 * K))
    assert hashed(b"ab" * K, (0, 2 * K)) != hashed(b"ab" * K, (0, 2 * K - 1))
    assert hashed(b"ab" * K, (0, K)) != hashed(b"ab" * K, (K, 2 * K))
    assert hashed(b"a-b", (0, 1), (2, 3)) == hashed(b"a+b", (0, 1), (2, 3))
    assert hashed(b"ab", (0, K)) == hashed(b"ab", (0, 2)), "a file that has become shorter ends where it ends"


@pytest.mark.parametrize(("moved", "cut"), [(0, False), (2, False), (3, True)])
def test_a_tree_whose_directories_move_is_looked_at_again_and_at_last_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, moved: int, cut: bool
) -> None:
    moves = [walk.Moved("moved")] * moved

    def walked(*_: object) -> None:
        if moves:
            raise moves.pop()

    monkeypatch.setattr(walk, "walk", walked)
    tree = Tree(tmp_path, 0, 0)
    look([tree], 0, catalogue())
    assert tree.is_cut == cut


def test_a_tree_that_is_gone_or_a_link_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    for name in ("gone", "link"):
        look([tree := Tree(tmp_path / name, 0, 0)], 0, catalogue())
        assert not tree.is_cut


def test_what_cannot_be_opened_is_told_or_raised(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("a", "leased", "z"):
        (tmp_path / name).touch()
    opened, seen, missed = walk.open_entry, [], []

    def leased(folder: int, name: str, flags: int) -> int | None:
        if name == "leased":
            raise BlockingIOError(errno.EAGAIN, "leased")
        return opened(folder, name, flags)

    monkeypatch.setattr(walk, "open_entry", leased)
    root = os.open(tmp_path, os.O_RDONLY)
    try:
        walk.walk(root, lambda _, *, directory: seen.append(directory), missed=missed.append)
        assert (seen, [error.errno for error in missed]) == ([True, False, False], [errno.EAGAIN])
        with pytest.raises(BlockingIOError):
            walk.walk(root, lambda _, *, directory: None)
    finally:
        os.close(root)


def test_a_list_that_finds_no_space_is_an_error_with_a_hint(monkeypatch: pytest.MonkeyPatch, paths: Paths) -> None:
    def full(_: Catalogue) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Catalogue, "gather", full)
    monkeypatch.setattr(unify, "_be_kind", lambda: None)
    with pytest.raises(VsError, match="disk is full: it may need space in /var/tmp"):
        unify.unify(paths, {}, lambda *_: None, dry_run=False)


def test_a_walk_ends_where_there_is_more_than_it_has_room_for(tmp_path: Path) -> None:
    for name in ("a/b/c", "d", "e"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a/file").write_text("")
    seen: list[bool] = []
    root = os.open(tmp_path, os.O_RDONLY)
    try:
        walk.walk(root, lambda _, *, directory: seen.append(directory), walk.Room(6, 3))
        assert sorted(seen) == [False, True, True, True, True, True, True]
        for entries, waiting in ((5, 3), (6, 2)):
            with pytest.raises(walk.TooMany):
                walk.walk(root, lambda _, *, directory: None, walk.Room(entries, waiting))
    finally:
        os.close(root)

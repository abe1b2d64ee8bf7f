"""A guest's own volume: what is typed and kept of it, whether there is room, what LVM is told, how small it can be."""

import json
from pathlib import Path

import pytest

from vstools.config import guests
from vstools.config.create import load
from vstools.config.text import Faults
from vstools.errors import BadFiles, Refused, VsError
from vstools.guest import Guest, OwnVolume, Place, parse_place, parse_volume
from vstools.paths import Paths
from vstools.storage import choose, lvplace, lvresize, own, plain, use, volumes
from vstools.storage.own import Own
from vstools.storage.volumes import Group, Pool

from .made import saved

MIB = 1 << 20
EXTENT = 4 * MIB


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("auto", Place()),
        ("lvm:vs", Place("vs")),
        ("lvm:vs/pool", Place("vs", "pool")),
        ("lvm:a.b_c+d-e/p-1", Place("a.b_c+d-e", "p-1")),
    ],
)
def test_a_place_is_read_and_written_alike(text: str, place: Place) -> None:
    assert (parse_place(text), str(place)) == (place, text)


@pytest.mark.parametrize(
    "text", ["", "lvm", "lvm:", "lvm:vs/", "lvm:vs/p/q", "lvm:-vs", "lvm:..", "lvm:a b", "btrfs", "lvm:vs/..", "lvm:é"]
)
def test_what_names_no_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither auto"):
        parse_place(text)


@pytest.mark.parametrize(
    "text", ["", "auto", "lvm:vs", "lvm:vs/", "vs/web", "lvm:vs/../web", "lvm:vs/-f", "lvm:vs/a\nb"]
)
def test_what_names_no_volume_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a volume"):
        parse_volume(text)


def test_create_conf_says_where_new_guests_lie(paths: Paths) -> None:
    file = paths.conf / "create.conf"
    file.parent.mkdir(parents=True)
    assert load(file, Faults()).storage == Place()
    file.write_text("STORAGE=lvm:vs/thin\n")
    assert load(file, Faults()).storage == Place("vs", "thin")


def test_a_guest_without_a_volume_of_its_own_lies_among_the_others(paths: Paths) -> None:
    saved(paths, Guest("web", 10000, "web"))
    assert not (paths.config_of("web") / "storage").exists()
    assert choose.own(paths, "web") is None


@pytest.mark.parametrize("entry", ["web", ".new-web", ".old-web"])
def test_the_volume_is_found_by_the_guests_directory_under_each_of_its_names(paths: Paths, entry: str) -> None:
    volume = own.volume_of(paths, "vs", 10000)
    guests.save(paths.config_of(entry), Guest("web", 10000, "web", volume=volume))
    assert (paths.config_of(entry) / "storage").read_text() == f"lvm:vs/vs-{paths.mark}-10000\n"
    found = choose.own(paths, entry)
    assert found is not None
    assert (found.volume, found.device, found.kind) == (volume, f"/dev/vs/vs-{paths.mark}-10000", "lvm")


def test_a_broken_file_is_told_and_never_taken_for_none(paths: Paths) -> None:
    saved(paths, Guest("web", 10000, "web"))
    (paths.config_of("web") / "storage").write_text("lvm:vs\n")
    with pytest.raises(BadFiles, match="storage:1:1: 'lvm:vs' is not a volume"):
        choose.own(paths, "web")
    with pytest.raises(BadFiles, match="storage:1:1"):
        guests.load(paths, "web")
    assert use.of(paths, "web", 10000) is None


def test_a_volume_has_whole_extents() -> None:
    assert [lvplace.rounded(size, EXTENT) // MIB for size in (1, 4, 5, 100, 101)] == [4, 4, 8, 100, 104]


def test_a_group_is_filled_to_its_last_extent_and_no_further() -> None:
    group = Group("vs", 1000 * MIB, 100 * MIB, EXTENT)
    lvplace.check_room(group, 100 * MIB)
    with pytest.raises(Refused, match="vs has 100 MiB free, and 101 are needed"):
        lvplace.check_room(group, 100 * MIB + 1)


@pytest.mark.parametrize(
    ("size", "pool", "said"),
    [
        (300, Pool(300 * MIB, 0), ""),
        (300, Pool(300 * MIB, 236 * MIB), ""),
        (300, Pool(300 * MIB, 237 * MIB), "is full: 63 MiB are left"),
        (40, Pool(300 * MIB, 260 * MIB), ""),
        (304, Pool(300 * MIB, 0), "has 300 MiB in all, less than 304"),
    ],
)
def test_a_thin_pool_may_promise_more_than_it_has_but_not_to_one_guest(size: int, pool: Pool, said: str) -> None:
    found = lvplace.objection(Place("vs", "pool"), size * MIB, pool)
    assert bool(found) == bool(said)
    assert said in found


def test_no_limit_or_a_tiny_one_is_refused_before_lvm_is_asked() -> None:
    for size, said in ((None, "needs a disk limit"), (31, "too small")):
        with pytest.raises(Refused, match=said):
            lvplace.check(Place("vs"), size)


def test_lvm_is_told_of_thick_and_of_thin_volumes() -> None:
    volume = OwnVolume("vs", "vs-0-2")
    assert lvplace.words(volume, Place("vs"), 4096)[:2] == ["--size", "4096b"]
    assert lvplace.words(volume, Place("vs", "pool"), 4096) == [
        "--thin", "--virtualsize", "4096b", "--thinpool", "pool", "--name", "vs-0-2", "vs",
    ]  # fmt: skip


def test_what_is_left_is_that_of_the_place_where_volumes_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: str) -> Group:
        raise VsError("there is none")

    monkeypatch.setattr(volumes, "group", lambda name: Group(name, 100 * MIB, 60 * MIB, EXTENT))
    monkeypatch.setattr(volumes, "pool", lambda _, name: Pool(50 * MIB, 30 * MIB) if name == "thin" else None)
    places = (Place("vs"), Place("vs", "thin"), Place("vs", "none"))
    assert [lvplace.left(place) // MIB for place in places] == [60, 20, 0]
    monkeypatch.setattr(volumes, "group", missing)
    assert lvplace.left(Place("vs")) == 0


def test_only_thin_pools_are_pools() -> None:
    rows = [
        {"lv_size": str(300 * MIB), "data_percent": "50.00", "lv_layout": "thin,pool"},
        {"lv_size": str(300 * MIB), "data_percent": "", "lv_layout": "linear"},
        {"lv_size": str(300 * MIB), "data_percent": "1.00", "lv_layout": "thin,sparse"},
    ]
    assert volumes.parse_pools(json.dumps({"report": [{"lv": rows}]})) == (Pool(300 * MIB, 150 * MIB),)
    with pytest.raises(VsError, match="not what it should be"):
        volumes.parse_pools('{"report": [{"lv": [{}]}]}')


def test_how_small_a_file_system_can_be_is_read_from_resize2fs() -> None:
    assert lvresize.parse_least("Estimated minimum size of the filesystem: 2048\n") == 8 * MIB
    with pytest.raises(VsError, match="how small"):
        lvresize.parse_least("resize2fs: Bad magic number in super-block\n")


@pytest.fixture
def stored(paths: Paths) -> Own:
    """The storage of a guest whose volume is mounted nowhere."""
    paths.trees.mkdir(parents=True)
    return Own(paths, OwnVolume("vs", "vs-0-10000"), "web")


def test_a_directory_is_never_taken_for_the_volume(paths: Paths, stored: Own) -> None:
    assert not stored.is_at(paths.tree_of("web"))
    paths.tree_of("web").mkdir()
    assert not stored.is_at(paths.tree_of("web"))
    assert stored.use() is None
    with pytest.raises(Refused, match="is not the volume"), stored.snapshot(paths.tree_of("web")):
        pass


def test_only_an_empty_directory_is_taken_away_with_the_volume(paths: Paths, stored: Own) -> None:
    tree = paths.tree_of("web")
    tree.mkdir()
    assert stored.identity(tree) == "lvm:vs/vs-0-10000"
    (tree / "mine").touch()
    assert stored.identity(tree) == ""
    with pytest.raises(Refused, match="files that are not on"):
        stored.doom("web")
    (tree / "mine").unlink()
    stored.doom("web")
    assert not tree.exists()
    tree.symlink_to("/etc")
    with pytest.raises(Refused, match="in the way"):
        stored.doom("web")


def test_what_is_a_mount_point_is_not_deleted_as_a_directory(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    paths.trees.mkdir(parents=True)
    (folder := paths.trees / ".old-web").mkdir()
    mount = plain.mounts.of(paths.trees)
    there = plain.Mount(folder, Path("/"), "ext4", "/dev/vs/x", (253, 1))
    monkeypatch.setattr(plain.mounts, "of", lambda _: there)
    with pytest.raises(VsError, match="something is mounted at"):
        plain.Plain(paths, mount).clear(".old-web")

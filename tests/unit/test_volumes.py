"""What LVM and the device mapper say, and the room that a snapshot gets of what is free."""

import errno
import json
import os
import struct
from pathlib import Path
from queue import Queue

import pytest

from vstools import files, run
from vstools.errors import Refused, VsError
from vstools.storage import devicemapper, lvroom, lvsnapshot, owners, volumes
from vstools.storage.devicemapper import Space, Target
from vstools.storage.volumes import Group, Volume

MIB, GIB = 1 << 20, 1 << 30
EXTENT = 4 * MIB
VG, LV = "cUKeXs-mSS1-rixL-KX6o-Snb5-C9kX-nj61tq", "OWfXHa-Qg7c-um5h-4ftK-PJMg-5YkP-Aw2fI4"
UUID = "LVM-cUKeXsmSS1rixLKX6oSnb5C9kXnj61tqOWfXHaQg7cum5h4ftKPJMg5YkPAw2fI4"
LVS = """
  {
      "report": [
          {
              "lv": [
                  {"vg_name":"vs", "vg_size":"12880707584", "vg_free":"5070913536", "vg_extent_size":"4194304", "lv_name":"pool", "lv_path":"", "lv_size":"1073741824", "lv_uuid":"39fx1V-MAum-tLNR-Xo1m-6px2-I7mr-GEcvqq", "vg_uuid":"cUKeXs-mSS1-rixL-KX6o-Snb5-C9kX-nj61tq", "pool_lv":"", "origin":"", "lv_tags":""},
                  {"vg_name":"vs", "vg_size":"12880707584", "vg_free":"5070913536", "vg_extent_size":"4194304", "lv_name":"thin", "lv_path":"/dev/vs/thin", "lv_size":"629145600", "lv_uuid":"OnRZPO-oju2-4zBQ-4eYS-wkUd-5MBR-tX4djc", "vg_uuid":"cUKeXs-mSS1-rixL-KX6o-Snb5-C9kX-nj61tq", "pool_lv":"pool", "origin":"", "lv_tags":""},
                  {"vg_name":"vs", "vg_size":"12880707584", "vg_free":"5070913536", "vg_extent_size":"4194304", "lv_name":"vs-snap-0badcafe-12345678", "lv_path":"/dev/vs/vs-snap-0badcafe-12345678", "lv_size":"83886080", "lv_uuid":"uaGsby-ws0I-xEm2-CT6d-Ibsn-gTqS-Y1AdBt", "vg_uuid":"cUKeXs-mSS1-rixL-KX6o-Snb5-C9kX-nj61tq", "pool_lv":"", "origin":"vservers", "lv_tags":"vs-tools,vs-tools.owner=0badcafe-12345678"},
                  {"vg_name":"vs", "vg_size":"12880707584", "vg_free":"5070913536", "vg_extent_size":"4194304", "lv_name":"vservers", "lv_path":"/dev/vs/vservers", "lv_size":"7725907968", "lv_uuid":"OWfXHa-Qg7c-um5h-4ftK-PJMg-5YkP-Aw2fI4", "vg_uuid":"cUKeXs-mSS1-rixL-KX6o-Snb5-C9kX-nj61tq", "pool_lv":"", "origin":"", "lv_tags":""}
              ]
          }
      ]
      ,
      "log": [
      ]
  }
"""  # noqa: E501 - as LVM 2.03.31 wrote it
ORIGIN = Volume("vs", "vservers", "/dev/vs/vservers", 7725907968, UUID)


def group(free: int) -> Group:
    """A volume group of 12 GiB with so many bytes free."""
    return Group("vs", 12 * GIB, free, EXTENT)


def test_volumes_as_lvs_tells_of_them() -> None:
    pool, thin, snapshot, origin = volumes.parse_volumes(LVS)
    assert origin == ORIGIN
    assert (pool.name, pool.path, thin.pool, thin.full_name) == ("pool", "/dev/vs/pool", "pool", "vs/thin")
    assert (snapshot.origin, snapshot.size) == ("vservers", 80 * MIB)
    assert snapshot.tags == ("vs-tools", "vs-tools.owner=0badcafe-12345678")
    assert volumes.parse_groups(LVS) == (Group("vs", 12880707584, 5070913536, EXTENT),)
    row = {"vg_name": "a", "vg_size": "8", "vg_free": "4", "vg_extent_size": "2"}
    assert volumes.parse_groups(json.dumps({"report": [{"vg": [row]}]})) == (Group("a", 8, 4, 2),)


@pytest.mark.parametrize("report", ["", "[]", "{}", '{"report": [7]}', '{"report": [{"lv": [{}]}]}'])
def test_a_report_that_is_none_is_an_error(report: str) -> None:
    with pytest.raises(VsError, match="not what it should be"):
        volumes.parse_volumes(report)


class Programs:
    """What LVM's programs are asked, and what they answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[list[str]] = []
        self.left = LVS
        self.codes: list[int] = []
        monkeypatch.setattr(run, "run", self.run)
        monkeypatch.setattr(run, "unbroken", self.run)

    def run(self, argv: list[str], *, check: bool = True) -> run.Result:
        self.asked.append(argv)
        code = self.codes.pop(0) if self.codes and argv[0] == "lvremove" else 0
        return run.Result(tuple(argv), code, self.left, "  Logical volume contains a filesystem in use.\n")


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    return Programs(monkeypatch)


@pytest.mark.parametrize(
    ("uuid", "found"),
    [(UUID, "vservers"), (f"{UUID}-real", None), ("", None), ("CRYPT-LUKS2-x", None), (UUID[:-1] + "x", None)],
)
def test_a_device_is_a_volume_where_the_kernel_says_so(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, uuid: str, found: str | None
) -> None:
    monkeypatch.setattr(devicemapper, "uuid", lambda _: uuid)
    monkeypatch.setattr(devicemapper, "name", lambda _: "vs-vservers")
    volume = volumes.of_device("/dev/null")
    assert (volume.name if volume else None) == found
    assert [words[-1] for words in programs.asked] == (["/dev/mapper/vs-vservers"] if len(uuid) == len(UUID) else [])
    assert devicemapper.is_volume("/dev/null") == (len(uuid) == len(UUID))


def test_a_host_without_lvm_starts_no_program() -> None:
    assert not devicemapper.is_volume("/dev/null")
    assert volumes.of_device("/dev/null") is None
    assert volumes.of_device("/dev/none") is None
    assert devicemapper.uuid(os.makedev(1, 3)) == ""


def answer(kind: str, words: str) -> bytes:
    """What DM_TABLE_STATUS leaves: a header of 312 bytes, the target, its words."""
    header = struct.pack("=3I3IiIIIQ128s129s7x", 4, 48, 0, 4096, 312, 1, 1, 0, 0, 0, 64768, b"vs-trees", UUID.encode())
    assert len(header) == 312
    target = struct.pack("=QQiI16s", 0, 15089664, 0, 0, kind.encode())
    return header + target + words.encode() + b"\0rest of the buffer"


@pytest.mark.parametrize(
    ("words", "space"),
    [
        ("24/163840 16", Space("snapshot", 24 * 512, 163840 * 512)),
        ("163840/163840 640", Space("snapshot", 163840 * 512, 163840 * 512)),
        ("Invalid", None),
        ("Overflow", None),
        ("Merge failed", None),
        ("Unknown", None),
    ],
)
def test_how_full_a_snapshot_is(words: str, space: Space | None) -> None:
    assert devicemapper.snapshot_space(devicemapper.decoded(answer("snapshot", words))) == space


def test_another_device_is_no_snapshot() -> None:
    assert devicemapper.snapshot_space(devicemapper.decoded(answer("linear", "8:0 1/2"))) is None
    assert devicemapper.decoded(answer("x", "")[:20] + bytes(500)) == Target("", ())


TABLE = devicemapper.decoded(answer("thin-pool", "253:1 253:2 128 0 0 "))


@pytest.mark.parametrize(
    ("words", "spaces"),
    [
        ("2 115/1024 269/16384 - rw discard_passdown queue_if_no_space - 256 ", (115 * 4096, 269 * 65536)),
        ("4 149/1024 7808/7808 - out_of_data_space discard_passdown error_if_no_space - 256 ", None),
        ("4 1024/1024 80/7808 - ro discard_passdown queue_if_no_space needs_check 256", None),
        ("4 100/1024 80/7808 - rw discard_passdown queue_if_no_space needs_check 256", None),
        ("Fail", None),
        ("Error", None),
    ],
)
def test_how_full_a_thin_pool_is(words: str, spaces: tuple[int, int] | None) -> None:
    found = devicemapper.pool_spaces(devicemapper.decoded(answer("thin-pool", words)), TABLE)
    assert (found and tuple(space.used for space in found)) == spaces
    if found:
        assert [(space.name, space.size) for space in found] == [("metadata", 4 * MIB), ("data", GIB)]


def test_the_pool_of_a_thin_volume() -> None:
    assert devicemapper.pool_of(devicemapper.decoded(answer("thin", "253:3 2"))) == os.makedev(253, 3)


@pytest.mark.parametrize(
    ("size", "free", "mib"),
    [
        (100 * GIB, 20 * GIB, 10 * 1024),
        (2 * GIB, 20 * GIB, 2048 + 12),  # no more than it can use
        (8 * GIB, 100 * MIB, 64),  # half is not enough to begin with
        (8 * GIB, 64 * MIB, 64),
        (8 * MIB, 16 * MIB, 12),
    ],
)
def test_a_snapshot_begins_with_half_of_what_is_free(size: int, free: int, mib: int) -> None:
    origin = Volume("vs", "v", "/dev/vs/v", size, UUID)
    assert lvroom.first_extents(origin, group(free)) == mib // 4


@pytest.mark.parametrize(("size", "free"), [(8 * GIB, 60 * MIB), (8 * GIB, 0), (16 * MIB, 16 * MIB)])
def test_a_group_without_room_is_refused(size: int, free: int) -> None:
    with pytest.raises(Refused, match=rf"vs has {free // MIB} MiB free, and a snapshot of vs/v needs"):
        lvroom.first_extents(Volume("vs", "v", "/dev/vs/v", size, UUID), group(free))


MOST = 8 * GIB


@pytest.mark.parametrize(
    ("name", "used", "size", "due"),
    [
        ("snapshot", 512, 1024, False),
        ("snapshot", 513, 1024, True),
        ("snapshot", 8000, 8192, False),  # it can use no more
        ("data", 921, 1024, False),
        ("data", 923, 1024, True),
        ("metadata", 923, 1024, True),
    ],
)
def test_a_space_is_extended_before_it_is_full(name: str, used: int, size: int, due: bool) -> None:
    assert lvroom.is_due(Space(name, used * MIB, size * MIB), MOST) is due


@pytest.mark.parametrize(
    ("name", "used", "size", "free", "mib"),
    [
        ("snapshot", 513, 1024, 4096, 512),
        ("snapshot", 3000, 1024, 8192, 6000 - 1024),  # much waits to be written
        ("snapshot", 513, 1024, 100, 100),
        ("snapshot", 7000, 8000, 4096, 192),  # it can use no more
        ("snapshot", 513, 1024, 0, 4),  # LVM says why it cannot be
        ("data", 10000, 10240, 4096, 1024),
    ],
)
def test_what_a_space_is_extended_by(name: str, used: int, size: int, free: int, mib: int) -> None:
    most = MOST if name == "snapshot" else 1 << 62
    assert lvroom.more_extents(Space(name, used * MIB, size * MIB), group(free * MIB), most) == mib // 4


@pytest.mark.parametrize(("left", "seconds"), [(100 * GIB, 1.0), (GIB, 0.5), (16 * MIB, 0.05), (-MIB, 0.05)])
def test_the_fuller_the_sooner_it_is_looked_at_again(left: int, seconds: float) -> None:
    spaces = (Space("metadata", 0, 200 * GIB), Space("data", 200 * GIB - left, 200 * GIB))
    assert lvroom.pause(spaces) == seconds


def test_what_waits_to_be_written() -> None:
    assert lvroom.waiting("MemTotal:  989 kB\nDirty:   12 kB\nWriteback:     3 kB\nWritebackTmp: 9 kB\n") == 15 * 1024


class Kernel:
    """A snapshot as the device mapper shows it: ``words`` is its status, ``extended`` what lvextend was told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.words, self.extended, self.failing = "10/400000 16", Queue[list[str]](), False
        monkeypatch.setattr(devicemapper, "uuid", lambda _: UUID)
        monkeypatch.setattr(
            devicemapper, "status", lambda *, uuid: devicemapper.decoded(answer("snapshot", self.words))
        )
        monkeypatch.setattr(lvroom, "waiting", lambda _: 0)
        monkeypatch.setattr(volumes, "group", lambda _: group(20 * MIB))
        monkeypatch.setattr(run, "unbroken", self.extend)

    def extend(self, argv: list[str]) -> None:
        self.extended.put(argv)
        if self.failing:
            raise VsError("lvextend failed", "Insufficient free space")
        self.words = "300000/800000 16"


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def test_a_snapshot_is_watched_and_extended(kernel: Kernel) -> None:
    with lvroom.Watch(ORIGIN, "snap") as watch:
        kernel.words = "300000/400000 16"
        assert kernel.extended.get(timeout=60) == ["lvextend", "--quiet", "--yes", "--extents", "+5", "vs/snap"]
    assert watch.verdict() is None
    assert kernel.extended.empty()


def test_an_overflow_is_found_and_why_it_could_not_be_extended(kernel: Kernel) -> None:
    kernel.failing = True
    with lvroom.Watch(ORIGIN, "snap") as watch:
        kernel.words = "300000/400000 16"
        kernel.extended.get(timeout=60)
    kernel.words = "Invalid"
    assert "has overflowed" in str(watch.verdict())
    assert "Insufficient free space" in str(watch.verdict())


def test_a_snapshot_that_somebody_removed_did_not_hold(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*, uuid: str) -> Target:
        raise OSError(errno.ENXIO, f"no {uuid}")

    with lvroom.Watch(ORIGIN, "snap") as watch:
        monkeypatch.setattr(devicemapper, "status", gone)
    assert "cannot be asked" in str(watch.verdict())
    monkeypatch.setattr(devicemapper, "uuid", lambda _: "")
    with pytest.raises(VsError, match="/dev/vs/snap did not appear"):
        lvroom.Watch(ORIGIN, "snap")


SCOPE = "0badcafe"


@pytest.mark.parametrize(
    ("name", "tags", "token"),
    [
        ("vs-snap-0badcafe-12345678", ("vs-tools", "vs-tools.owner=0badcafe-12345678"), "12345678"),
        ("vs-snap-0badcafe-12345678", ("vs-tools",), ""),
        ("vs-snap-0badcafe-12345678", ("vs-tools.owner=0badcafe-12345678",), ""),
        ("vs-snap-0badcafe-12345678", ("vs-tools", "vs-tools.owner=0badcafe-87654321"), ""),
        ("vs-snap-00000000-12345678", ("vs-tools", "vs-tools.owner=00000000-12345678"), ""),
        ("mine", ("vs-tools", "vs-tools.owner=0badcafe-mine"), ""),
    ],
)
def test_only_what_bears_our_name_and_our_tags_is_ours(name: str, tags: tuple[str, ...], token: str) -> None:
    volume = Volume("vs", name, f"/dev/vs/{name}", MIB, UUID, origin="vservers", tags=tags)
    assert lvsnapshot.token_of(volume, SCOPE) == token


def test_a_dead_owners_snapshot_is_swept_and_a_living_ones_is_not(programs: Programs, tmp_path: Path) -> None:
    with owners.owned(tmp_path) as token:
        programs.left = LVS.replace("12345678", token)
        lvsnapshot.sweep("vs", SCOPE, tmp_path)
        lvsnapshot.sweep("vs", "12341234", tmp_path)
        assert {words[0] for words in programs.asked} == {"lvs"}
        assert owners.are_any(tmp_path)
    lvsnapshot.sweep("vs", SCOPE, tmp_path)
    assert ["lvremove", "--quiet", "--yes", f"vs/vs-snap-{SCOPE}-{token}"] in programs.asked
    assert not owners.are_any(tmp_path)


def test_what_cannot_be_removed_is_told_and_hinders_nobody(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lvsnapshot, "_PATIENCE_FOR_OTHERS", 0.0)
    programs.codes = [5]
    lvsnapshot.sweep("vs", SCOPE, tmp_path)
    assert "a killed command left it: snapshot vs/vs-snap-0badcafe-12345678 could not" in capsys.readouterr().err
    programs.codes, programs.left = [5], LVS.replace("12345678", "87654321")
    lvsnapshot._remove("vs", "vs-snap-0badcafe-12345678")  # gone meanwhile


def test_who_sweeps_waits_for_nobody_who_makes_one(programs: Programs, tmp_path: Path) -> None:
    with files.lock(tmp_path / "_lvm", what="LVM"):
        lvsnapshot.sweep("vs", SCOPE, tmp_path)
    assert programs.asked == []


def test_a_killed_owners_lock_goes_with_the_next(tmp_path: Path) -> None:
    (tmp_path / "_snapshot.dead").touch()
    with owners.owned(tmp_path) as token:
        assert [path.name for path in tmp_path.glob("_snapshot.*")] == [f"_snapshot.{token}"]
        assert not owners.is_dead(tmp_path, token)
    assert not owners.are_any(tmp_path)

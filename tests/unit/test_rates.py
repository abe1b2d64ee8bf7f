"""Rates of links: the bucket's numbers; whose disk a tree lies on."""

import os
from pathlib import Path

import pytest

from vstools.network import rates
from vstools.storage import disks


@pytest.mark.parametrize(
    ("mbit", "mtu", "burst", "queue"),
    [(1, None, 32768, 65536), (10, 9000, 32768, 65536), (10, 65535, 131070, 65536), (1000, 1500, 1250000, 6250000)],
)
def test_a_bucket_lets_10_ms_pass_at_once_and_holds_50(mbit: int, mtu: int | None, burst: int, queue: int) -> None:
    assert rates.bucket(mbit, mtu) == {"rate": mbit * 125_000, "burst": burst, "limit": burst + queue}


def test_the_fastest_bucket_is_one_that_the_kernel_counts() -> None:
    assert all(value < 1 << 32 for value in rates.bucket(34_359).values())


@pytest.fixture
def sys_dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /sys of our own, with the disk 8:0, its partition 8:1 and the volume 253:3."""
    for name, number in (("sda", "8:0"), ("sda/sda1", "8:1"), ("dm-3", "253:3")):
        (tmp_path / "devices" / name).mkdir(parents=True)
        (tmp_path / "devices" / name / "dev").write_text(f"{number}\n")
        (tmp_path / "block").mkdir(exist_ok=True)
        (tmp_path / "block" / number).symlink_to(tmp_path / "devices" / name)
    (tmp_path / "devices/sda/sda1/partition").write_text("1\n")
    monkeypatch.setattr(disks, "_BLOCK", tmp_path / "block")
    return tmp_path


@pytest.mark.parametrize(("device", "found"), [((8, 0), "8:0"), ((8, 1), "8:0"), ((253, 3), "253:3"), ((99, 9), None)])
def test_a_partition_is_told_as_its_disk(sys_dev: Path, device: tuple[int, int], found: str | None) -> None:
    assert disks.whole(os.makedev(*device)) == found


def test_a_tree_that_is_not_there_or_not_on_a_disk_has_none(tmp_path: Path) -> None:
    assert disks.number(tmp_path / "nothing") is None
    assert disks.number(Path("/proc/self")) is None

"""What LVM says of volumes and volume groups, asked of its programs (``man 7 lvmreport``). Sizes are bytes."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from vstools import run
from vstools.errors import VsError
from vstools.storage import devicemapper

T = TypeVar("T")
_FORMAT = ("--reportformat", "json", "--units", "b", "--nosuffix")
_GROUP = "vg_name,vg_size,vg_free,vg_extent_size"
_VOLUME = f"{_GROUP},lv_name,lv_path,lv_size,lv_uuid,vg_uuid,pool_lv,origin,lv_tags"


@dataclass(frozen=True)
class Volume:
    """A logical volume. ``uuid`` is what the device mapper knows it by; ``pool`` is empty but for thin volumes."""

    group: str
    name: str
    path: str
    size: int
    uuid: str
    pool: str = ""
    origin: str = ""
    tags: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """The name that LVM's programs take and say."""
        return f"{self.group}/{self.name}"


@dataclass(frozen=True)
class Group:
    """A volume group. Whole extents are given away."""

    name: str
    size: int
    free: int
    extent: int


@dataclass(frozen=True)
class Pool:
    """A thin pool: bytes that it has for its volumes' content, and that are taken."""

    size: int
    used: int


def of_device(device: str) -> Volume | None:
    """The volume that a block device is, None where it is none: then no program is started. Raises VsError."""
    if not devicemapper.is_volume(device):
        return None
    number = devicemapper.number(device)
    report = _report(f"/dev/mapper/{devicemapper.name(number)}")
    return next((each for each in parse_volumes(report) if each.uuid == devicemapper.uuid(number)), None)


def inventory(name: str) -> tuple[Group, tuple[Volume, ...]]:
    """A group that has volumes, and them, asked at once. Raises VsError."""
    report = _report(name)
    return _only(name, parse_groups(report)), parse_volumes(report)


def group(name: str) -> Group:
    """A volume group. Raises VsError."""
    return _only(name, parse_groups(run.run(["vgs", *_FORMAT, "-o", _GROUP, "--", name]).out))


def named(group: str, name: str) -> Volume | None:
    """The volume of a name, None where the group has none. Raises VsError, also where there is no such group."""
    report = run.run(["lvs", *_FORMAT, "-o", _VOLUME, "-S", f'lv_name="{name}"', "--", group]).out
    return next(iter(parse_volumes(report)), None)


def pool(group: str, name: str) -> Pool | None:
    """The thin pool of a name, None where the group has none. Raises VsError."""
    fields = "lv_size,data_percent,lv_layout"
    report = run.run(["lvs", *_FORMAT, "-o", fields, "-S", f'lv_name="{name}"', "--", group]).out
    return next(iter(parse_pools(report)), None)


def _only(name: str, found: tuple[Group, ...]) -> Group:
    if len(found) != 1:
        raise VsError(f"LVM says nothing of volume group {name}", "vgs lists them")
    return found[0]


def _report(of: str) -> str:
    return run.run(["lvs", *_FORMAT, "-o", _VOLUME, "--", of]).out


def parse_volumes(report: str) -> tuple[Volume, ...]:
    """The volumes that ``lvs`` tells of. Pure; raises VsError."""
    return _each(report, _volume)


def parse_groups(report: str) -> tuple[Group, ...]:
    """The groups that ``vgs`` or ``lvs`` tells of. Pure; raises VsError."""
    return tuple(dict.fromkeys(_each(report, _group)))


def parse_pools(report: str) -> tuple[Pool, ...]:
    """The thin pools among what ``lvs`` tells of. Pure; raises VsError."""
    return tuple(pool for pool in _each(report, _pool) if pool is not None)


def _pool(row: dict[str, str]) -> Pool | None:
    if {"thin", "pool"} - set(row["lv_layout"].split(",")):
        return None
    size = int(row["lv_size"])
    return Pool(size, int(size * float(row["data_percent"] or 0) / 100))


def _volume(row: dict[str, str]) -> Volume:
    return Volume(
        group=row["vg_name"],
        name=row["lv_name"],
        path=row["lv_path"] or f"/dev/{row['vg_name']}/{row['lv_name']}",
        size=int(row["lv_size"]),
        uuid="LVM-" + (row["vg_uuid"] + row["lv_uuid"]).replace("-", ""),
        pool=row["pool_lv"],
        origin=row["origin"],
        tags=tuple(tag for tag in row["lv_tags"].split(",") if tag),
    )


def _group(row: dict[str, str]) -> Group:
    return Group(row["vg_name"], int(row["vg_size"]), int(row["vg_free"]), int(row["vg_extent_size"]))


def _each(report: str, make: Callable[[dict[str, str]], T]) -> tuple[T, ...]:
    try:
        parts = json.loads(report)["report"]
        return tuple(make(row) for part in parts for kind in ("lv", "vg") for row in part.get(kind, ()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise VsError("LVM's report is not what it should be", report[:200]) from error

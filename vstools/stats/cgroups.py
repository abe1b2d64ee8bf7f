"""What one cgroup uses, from version 2, version 1, or both on a hybrid host.

The cgroup that is read is the one the host put the limits on (``payload``): it lies above what a guest may write.
Counters that a kernel keeps only where a process was are added up from the cgroups that the guest made in it.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

from vstools.stats.files import below, is_directory, read
from vstools.stats.parse import Transfers, blkio, flat, io_stat, limit, number, pressure, quota, total

Values = dict[str, float | None]
"""Key of sample.FIELDS -> value; None where this host cannot tell."""
RESOURCES = ("cpu", "memory", "io")
_MOST = 256
"""Cgroups of one guest whose counters are added up: a guest's systemd has about 30."""
_NOWHERE = "/proc/none"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Trees:
    """Where the hierarchies are mounted: version 1 by controller, version 2 if it is there."""

    v1: Mapping[str, str]
    v2: str | None

    def unified(self, group: str) -> str:
        """The cgroup's directory in version 2; where there is none, a path at which nothing is."""
        return f"{self.v2}/{group}" if self.v2 else _NOWHERE


def trees(mountinfo: str | None = None) -> Trees:
    """The hierarchies of this host (``man 5 proc``, mountinfo). One that is mounted twice counts where it is whole."""
    v1: dict[str, str] = {}
    v2: str | None = None
    lines = (read("/proc/self/mountinfo") if mountinfo is None else mountinfo).splitlines()
    found = [(line.split(" "), line.partition(" - ")[2].split(" ")) for line in lines if " - cgroup" in line]
    for before, after in sorted(found, key=lambda each: each[0][3:4] != ["/"]):
        if len(before) < 5 or len(after) < 3:
            continue
        if after[0] == "cgroup2":
            v2 = v2 or before[4]
        elif after[0] == "cgroup":
            for word in after[2].split(","):
                v1.setdefault(word, before[4])
    return Trees(v1, v2)


def usage(where: Trees, group: str, cpus: int) -> Values:
    """Everything that the kernel knows of a cgroup, from its path below the hierarchies; all None when it is gone."""
    found: Values = {}
    unified = where.unified(group)
    for controller, old, new in _READERS:
        if controller in where.v1:
            found |= old(f"{where.v1[controller]}/{group}")
        elif new is not None:
            found |= new(unified)
    if found.get("cpu_seconds") is None:  # version 2 counts it in every cgroup, whether or not it has the controller
        found |= _cpu_usage_v2(flat(read(f"{unified}/cpu.stat")))
    allowed = found.pop("cpu_limit")
    found["cpu_limit_percent"] = None if allowed is None else inf if allowed == inf else 100 * allowed / cpus
    return found | pressures(f"{unified}/", ".pressure")


def peaks(where: Trees, group: str) -> Values:
    """The most that a cgroup ever used: memory with file cache (version 2 from Linux 5.19), processes (from 6.1)."""
    unified = where.unified(group)
    memory = f"{where.v1['memory']}/{group}/memory.max_usage_in_bytes" if "memory" in where.v1 else ""
    processes = f"{where.v1['pids']}/{group}" if "pids" in where.v1 else unified
    return {
        "memory_peak_bytes": number(read(memory or f"{unified}/memory.peak")),
        "processes_peak": number(read(f"{processes}/pids.peak")),
    }


def pressures(before: str, after: str = "") -> Values:
    """PSI of a cgroup, which only version 2 has (a hybrid host has it as well); of the host: ``/proc/pressure/``."""
    found: Values = {}
    for resource in RESOURCES:
        told = pressure(read(f"{before}{resource}{after}"))
        for kind in ("some", "full"):
            for unit in ("percent", "seconds"):
                found[f"{resource}_{kind}_{unit}"] = told.get(f"{kind}_{unit}")
    return found


def _memory_v2(path: str) -> Values:
    """``max`` hits are those of this very limit (memory.events.local); kills are counted where the victim was."""
    stat, current = flat(read(f"{path}/memory.stat")), number(read(f"{path}/memory.current"))
    events = flat(read(f"{path}/memory.events"))
    local = flat(read(f"{path}/memory.events.local")) or events
    return {
        "memory_bytes": current,
        "memory_unreclaimable_bytes": _unreclaimable(current, stat),
        "memory_limit_bytes": limit(read(f"{path}/memory.max")),
        "swap_bytes": number(read(f"{path}/memory.swap.current")),
        "memory_limit_hits": local.get("max"),
        "memory_high_hits": local.get("high"),
        "oom_kills": events.get("oom_kill"),
    }


def _memory_v1(path: str) -> Values:
    """A kill is counted in the victim's own cgroup alone. Each was a hit of the limit, and no other hit is known:
    failcnt also counts each time that the kernel had to drop a part of the file cache.

    What a process has mapped and shared is what cannot be reclaimed; memory.kmem.* counts reclaimable slabs as well.
    """
    stat, current = flat(read(f"{path}/memory.stat")), number(read(f"{path}/memory.usage_in_bytes"))
    kills = _added(path, "memory.oom_control", "oom_kill")
    return {
        "memory_bytes": current,
        "memory_unreclaimable_bytes": total(stat.get(key) for key in ("total_rss", "total_shmem")),
        "memory_limit_bytes": limit(read(f"{path}/memory.limit_in_bytes")),
        "swap_bytes": stat.get("total_swap"),
        "memory_limit_hits": kills,
        "memory_high_hits": None,
        "oom_kills": kills,
    }


def _unreclaimable(current: int | None, stat: Mapping[str, int]) -> int | None:
    """Usage without the file cache, which the kernel drops when it needs to. tmpfs stays: it lies on other lists."""
    reclaimable = (stat.get(key, 0) for key in ("inactive_file", "active_file", "slab_reclaimable"))
    return None if current is None or not stat else max(0, current - sum(reclaimable))


def _pids(path: str) -> Values:
    """Both versions. Before Linux 6.11, and in version 1, a refused fork is counted where it was tried."""
    if is_directory(path) and os.path.exists(f"{path}/pids.events.local"):  # noqa: PTH110 - asked for every guest
        hits = flat(read(f"{path}/pids.events")).get("max")
    else:
        hits = _added(path, "pids.events", "max")
    return {
        "processes": number(read(f"{path}/pids.current")),
        "processes_limit": limit(read(f"{path}/pids.max")),
        "processes_limit_hits": hits,
    }


def _added(path: str, file: str, key: str) -> int | None:
    if not is_directory(path):
        return None
    return total(flat(read(f"{each}/{file}")).get(key) for each in below(path, _MOST))


def _cpu_v2(path: str) -> Values:
    stat = flat(read(f"{path}/cpu.stat"))
    throttled = stat.get("throttled_usec")
    return {
        **_cpu_usage_v2(stat),
        "cpu_throttled_seconds": None if throttled is None else throttled / 1e6,
        "cpu_limit": quota(read(f"{path}/cpu.max")),
    }


def _cpu_usage_v2(stat: Mapping[str, int]) -> Values:
    """Microseconds."""
    keys = {"cpu_seconds": "usage_usec", "cpu_user_seconds": "user_usec", "cpu_system_seconds": "system_usec"}
    return {key: stat[word] / 1e6 if word in stat else None for key, word in keys.items()}


def _cpu_v1(path: str) -> Values:
    """Nanoseconds; a quota of -1 is none."""
    throttled = flat(read(f"{path}/cpu.stat")).get("throttled_time")
    words = read(f"{path}/cpu.cfs_quota_us").strip(), read(f"{path}/cpu.cfs_period_us").strip()
    return {
        "cpu_throttled_seconds": None if throttled is None else throttled / 1e9,
        "cpu_limit": quota(" ".join(words)),
    }


def _cpuacct_v1(path: str) -> Values:
    """Nanoseconds in all; user and system in clock ticks."""
    used, stat = number(read(f"{path}/cpuacct.usage")), flat(read(f"{path}/cpuacct.stat"))
    return {
        "cpu_seconds": None if used is None else used / 1e9,
        "cpu_user_seconds": stat["user"] / _TICKS if "user" in stat else None,
        "cpu_system_seconds": stat["system"] / _TICKS if "system" in stat else None,
    }


def _io_v2(path: str) -> Values:
    return _transferred(io_stat(read(f"{path}/io.stat")), known=os.path.exists(f"{path}/io.stat"))  # noqa: PTH110 - cheap


def _io_v1(path: str) -> Values:
    """Without a line for any device nothing is known: kernels from 6.10 count only where something is throttled."""
    return _transferred(blkio(read(f"{path}/blkio.throttle.io_service_bytes_recursive")), known=False)


def _transferred(devices: Transfers, *, known: bool) -> Values:
    """Bytes of the lowest devices: what goes through LVM is counted again by the disk below it."""
    lowest = {name: amounts for name, amounts in devices.items() if not _is_stacked(name)}
    if not lowest and not known:
        return {"read_bytes": None, "written_bytes": None}
    return {
        "read_bytes": sum(read for read, _ in lowest.values()),
        "written_bytes": sum(written for _, written in lowest.values()),
    }


_stacked: dict[str, bool] = {}


def _is_stacked(device: str) -> bool:
    """Whether a block device lies on others (device-mapper, md), or on a file (loop, major number 7)."""
    if device not in _stacked:
        try:
            lies_on = bool(os.listdir(f"/sys/dev/block/{device}/slaves"))
        except OSError:
            lies_on = False
        _stacked[device] = lies_on or device.startswith("7:")
    return _stacked[device]


_READERS: tuple[tuple[str, Callable[[str], Values], Callable[[str], Values] | None], ...] = (
    ("memory", _memory_v1, _memory_v2),
    ("pids", _pids, _pids),
    ("cpuacct", _cpuacct_v1, None),
    ("cpu", _cpu_v1, _cpu_v2),
    ("blkio", _io_v1, _io_v2),
)
"""A controller by its name in version 1, what reads it there, and what reads the same from version 2."""

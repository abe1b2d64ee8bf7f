"""What the host has and uses: memory, swap, load, CPUs, pressure, the space below the trees."""

import os

from vstools.stats.cgroups import Values, pressures
from vstools.stats.files import read
from vstools.stats.parse import decimal, number

_KIB = 1024
_TICKS = os.sysconf("SC_CLK_TCK")


def usage(trees: str) -> Values:
    """Everything about the host but its guests; ``trees`` is where their file trees lie."""
    return {
        **memory(read("/proc/meminfo")),
        **load(read("/proc/loadavg")),
        "cpus": os.cpu_count(),
        "uptime_seconds": decimal(read("/proc/uptime").split(" ")[0]),
        "cpu_seconds": busy(read("/proc/stat")),
        **pressures("/proc/pressure/"),
        **space(trees),
    }


def memory(meminfo: str) -> Values:
    """/proc/meminfo, whose lines are ``Key: N kB``; used is what is not available (``man 5 proc``, MemAvailable)."""
    kib: dict[str, int] = {}
    for line in meminfo.splitlines():
        key, _, rest = line.partition(":")
        if (value := number(rest.removesuffix(" kB"))) is not None:
            kib[key] = value * _KIB
    total, available = kib.get("MemTotal"), kib.get("MemAvailable")
    swap, free = kib.get("SwapTotal"), kib.get("SwapFree")
    return {
        "memory_bytes": None if total is None or available is None else total - available,
        "memory_total_bytes": total,
        "swap_bytes": None if swap is None or free is None else swap - free,
        "swap_total_bytes": swap,
    }


def load(loadavg: str) -> Values:
    """/proc/loadavg: over 1, 5 and 15 minutes."""
    words = [decimal(word) for word in loadavg.split()[:3]]
    return dict(zip(("load_1", "load_5", "load_15"), words + [None] * 3, strict=False))


def busy(stat: str) -> float | None:
    """Seconds in which CPUs worked, all of them together (``/proc/stat``; without idle, iowait and guests' double)."""
    words = stat.partition("\n")[0].split()
    if words[:1] != ["cpu"]:
        return None
    ticks = [number(word) or 0 for word in words[1:9]]
    return sum(value for position, value in enumerate(ticks) if position not in (3, 4)) / _TICKS


def space(folder: str) -> Values:
    """Free and whole size of the file system below a directory, as for others than root."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return {"trees_free_bytes": None, "trees_total_bytes": None}
    return {
        "trees_free_bytes": found.f_bavail * found.f_frsize,
        "trees_total_bytes": found.f_blocks * found.f_frsize,
    }

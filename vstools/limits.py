"""What a guest may use, as the kernel's controllers understand it: cgroup v2, and v1 where a host still has that.

Keys and units: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/*.rst of the kernel. LXC writes them on the
guest's ``payload`` cgroup before its init runs, and a start fails when one of them is refused.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from vstools.guest import Limits

_PERIOD = 100_000  # microseconds, the kernel's default
_MIB = 1 << 20
_PIDS = 4194304  # PID_MAX_LIMIT: the kernel refuses a larger number, and no host has more processes


@dataclass(frozen=True)
class Controllers:
    """What this kernel can limit: controllers of the v2 tree, and those that are mounted as v1 hierarchies."""

    v2: frozenset[str]
    v1: frozenset[str]


@dataclass(frozen=True)
class Plan:
    """LXC's configuration items for a guest's limits, and what this host cannot enforce, as sentences."""

    items: tuple[tuple[str, str], ...]
    unenforced: tuple[str, ...]


def controllers(proc: Path = Path("/proc")) -> Controllers:
    """Read from the kernel what can be limited here."""
    v1: set[str] = set()
    v2: set[str] = set()
    for line in (proc / "self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup":
            v1 |= set(options.split(","))
        elif kind == "cgroup2":
            available = Path(before.split(" ")[4], "cgroup.controllers")
            v2 |= set(available.read_text().split()) if available.exists() else set()
    known = {"memory", "pids", "cpu"}
    return Controllers(frozenset(v2 & known), frozenset(v1 & known))


def plan(limits: Limits, have: Controllers, cpus: int | None = None) -> Plan:
    """Decide the items for ``limits``; ``cpus`` is the host's number of CPUs (the share R/T is of all of them)."""
    cpus = cpus or os.cpu_count() or 1
    items: list[tuple[str, str]] = []
    missing: list[str] = []

    def put(controller: str, what: str, v2: dict[str, str], v1: dict[str, str]) -> None:
        if controller in have.v2:
            items.extend((f"lxc.cgroup2.{key}", value) for key, value in v2.items())
        elif controller in have.v1:
            items.extend((f"lxc.cgroup.{key}", value) for key, value in v1.items())
        else:
            missing.append(f"{what} is not enforced: this kernel has no {controller} controller")

    if limits.rss is not None:
        size = limits.rss * _MIB
        high = size - max(size // 32, _MIB) if size > 8 * _MIB else size
        v2 = {"memory.max": str(size), "memory.high": str(high), "memory.swap.max": "0"}
        put("memory", "rss", v2, {"memory.limit_in_bytes": str(size)})
    if limits.proc is not None:
        most = {"pids.max": str(limits.proc) if limits.proc <= _PIDS else "max"}
        put("pids", "proc", most, most)
    if limits.cpu is not None:
        quota = str(max(1000, limits.cpu.rate * cpus * _PERIOD // limits.cpu.interval))
        v1 = {"cpu.cfs_period_us": str(_PERIOD), "cpu.cfs_quota_us": quota}
        put("cpu", "cpu", {"cpu.max": f"{quota} {_PERIOD}"}, v1)
    if limits.disk is not None:
        missing.append("disk is not enforced: a plain directory has no quota")
    return Plan(tuple(items), tuple(missing))


def remove_cgroups(group: str, proc: Path = Path("/proc")) -> None:
    """Remove the empty cgroups that a stopped guest left, in every hierarchy; those with processes stay."""
    for line in (proc / "self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ", 1)[0] in ("cgroup", "cgroup2"):
            _remove_empty(Path(before.split(" ")[4]) / group)


def _remove_empty(path: Path) -> None:
    try:
        children = [entry.path for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for child in children:
        _remove_empty(Path(child))
    try:
        path.rmdir()
    except OSError:
        return

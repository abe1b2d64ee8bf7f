"""What a guest may use, as the kernel's controllers understand it: cgroup v2, and v1 where a host still has that.

Keys and units: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/*.rst of the kernel. LXC writes them on the
guest's ``payload`` cgroup before its init runs, and a start fails when one of them is refused.
"""

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vstools.errors import VsError
from vstools.files import wait_until
from vstools.guest import Limits

_PERIOD = 100_000  # microseconds, the kernel's default
_MIB = 1 << 20
_PIDS = 4194304  # PID_MAX_LIMIT: the kernel refuses a larger number, and no host has more processes


@dataclass(frozen=True)
class Controllers:
    """What this kernel can limit: controllers of the v2 tree, and those that are mounted as v1 hierarchies."""

    v2: frozenset[str]
    v1: frozenset[str]
    v1_swap: bool = False


@dataclass(frozen=True)
class Plan:
    """LXC's configuration items for a guest's limits, and what this host cannot enforce, as sentences."""

    items: tuple[tuple[str, str], ...]
    unenforced: tuple[str, ...]


def controllers(proc: Path = Path("/proc")) -> Controllers:
    """Read from the kernel what can be limited here."""
    v1: set[str] = set()
    v2: set[str] = set()
    swap = False
    for line in (proc / "self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup":
            v1 |= set(options.split(","))
            swap = swap or Path(before.split(" ")[4], "memory.memsw.limit_in_bytes").exists()
        elif kind == "cgroup2":
            available = Path(before.split(" ")[4], "cgroup.controllers")
            v2 |= set(available.read_text().split()) if available.exists() else set()
    known = {"memory", "pids", "cpu"}
    return Controllers(frozenset(v2 & known), frozenset(v1 & known), swap)


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
        v1 = {"memory.limit_in_bytes": str(size)}
        if have.v1_swap:
            v1["memory.memsw.limit_in_bytes"] = str(size)
        put("memory", "rss", v2, v1)
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


def end_processes(group: str, proc: Path = Path("/proc"), patience: float = 30) -> None:
    """Kill whatever still lives in a guest's cgroups after its init was ended, in every hierarchy.

    A guest that could mount the v1 freezer may have frozen processes: they take their SIGKILL when they are thawed.
    Raises VsError when some do not end.
    """
    roots = [root / group for root in _hierarchies(proc)]

    def ended() -> bool:
        pids = {pid for root in roots for pid in _pids(root)}
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    if not wait_until(ended, patience=patience):
        raise VsError(f"processes in the cgroup {group} do not end", "dmesg may tell why")


def _pids(path: Path) -> set[int]:
    """Every process in a cgroup and below it; frozen ones are thawed on the way."""
    found: set[int] = set()
    for folder, _, names in os.walk(path):
        for name, text in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            if name in names:
                with suppress(OSError):
                    Path(folder, name).write_text(text)
        with suppress(OSError):
            found |= {int(word) for word in Path(folder, "cgroup.procs").read_text().split()}
    return found


def _hierarchies(proc: Path) -> list[Path]:
    """Where cgroup file systems are mounted."""
    mounts = [line.partition(" - ") for line in (proc / "self/mountinfo").read_text().splitlines()]
    return [
        Path(before.split(" ")[4]) for before, _, after in mounts if after.split(" ", 1)[0] in ("cgroup", "cgroup2")
    ]


def remove_cgroups(group: str, proc: Path = Path("/proc")) -> None:
    """Remove the empty cgroups that a stopped guest left, in every hierarchy; those with processes stay."""
    for root in _hierarchies(proc):
        _remove_empty(root / group)


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

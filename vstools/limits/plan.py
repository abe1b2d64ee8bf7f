"""Limits as the kernel's files want them. Pure: nothing is read or written here.

Keys and units: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/*.rst of the kernel, scheduler/sched-bwc.rst for
CPU shares and bursts, lxc.container.conf(5) for the names of items. LXC writes them on the guest's ``payload`` cgroup
before its init runs, and a start fails when one of them is refused; ``live`` writes the same ones while it runs.
"""

import os
from dataclasses import dataclass

from vstools.guest import IoRate, Limits, Rlimit
from vstools.limits.cgroups import Controllers

PERIOD = 100_000  # microseconds, the kernel's default
_LEAST_QUOTA = 1000  # microseconds; the kernel refuses less
MIB = 1 << 20
_PIDS = 4194304  # PID_MAX_LIMIT: the kernel refuses a larger number, and no host has more processes
V1_NONE = "-1"


@dataclass(frozen=True)
class Setting:
    """One file of the guest's cgroup: the tree (1 or 2) and controller it belongs to, its name and its content.

    ``explicit`` is false where the kernel's own default is meant: LXC is not told, a running guest is. ``device``: the
    file has a line for each disk, and this is what follows the disk's MAJOR:MINOR.
    """

    version: int
    controller: str
    key: str
    value: str
    explicit: bool = True
    device: str = ""

    @property
    def inner(self) -> bool:
        """Whether the file is that of the cgroup that the guest itself lives in: v1's blkio knows no hierarchy."""
        return self.controller == "blkio"

    @property
    def text(self) -> str:
        """What is written."""
        return f"{self.device} {self.value}" if self.device else self.value

    @property
    def item(self) -> tuple[str, str]:
        """The same in LXC's configuration."""
        return f"lxc.cgroup{'2' if self.version == 2 else ''}.{self.key}", self.text


@dataclass(frozen=True)
class Plan:
    """What the kernel is to be told, and what this host cannot enforce: (limit, sentence)."""

    settings: tuple[Setting, ...]
    missing: tuple[tuple[str, str], ...]
    rlimits: tuple[tuple[str, Rlimit], ...] = ()

    @property
    def items(self) -> tuple[tuple[str, str], ...]:
        """LXC's configuration items."""
        rlimits = ((f"lxc.prlimit.{name}", _prlimit(limit)) for name, limit in self.rlimits)
        return (*(setting.item for setting in self.settings if setting.explicit and not setting.inner), *rlimits)

    @property
    def unenforced(self) -> tuple[str, ...]:
        """What this host cannot enforce, as sentences."""
        return tuple(sentence for _, sentence in self.missing)


def _prlimit(limit: Rlimit) -> str:
    soft, hard = ("unlimited" if value is None else str(value) for value in (limit.soft, limit.hard))
    return f"{soft}:{hard}"


def quota(limits: Limits, cpus: int) -> int | None:
    """Microseconds of CPU time in each period, for a share of all CPUs."""
    if limits.cpu is None:
        return None
    return max(_LEAST_QUOTA, limits.cpu.rate * cpus * PERIOD // limits.cpu.interval)


def plan(
    limits: Limits,
    have: Controllers,
    cpus: int | None = None,
    most_files: int | None = None,
    device: str | None = None,
    no_disk: str | None = None,
) -> Plan:
    """Decide what to write for ``limits``.

    ``cpus`` is the host's number of CPUs: the share R/T is of all of them. ``most_files`` is fs.nr_open, which the
    kernel lets no process pass, also where no limit is wanted. ``device``: MAJOR:MINOR of the disk with the guest's
    tree. ``no_disk``: why no limit of disk space is enforced; the quota itself is the storage's.
    """
    cpus = cpus or os.cpu_count() or 1
    settings: list[Setting] = []
    missing: list[tuple[str, str]] = []
    for controller, wanted, v2, v1 in (
        ("memory", limits.rss is not None, _memory_v2(limits), _memory_v1(limits, swap=have.v1_swap)),
        ("pids", limits.proc is not None, _pids(limits), _pids(limits)),
        ("cpu", limits.cpu is not None, _cpu_v2(limits, cpus), _cpu_v1(limits, cpus)),
    ):
        if controller in have.v2:
            settings += [Setting(2, controller, key, value, wanted and told) for key, value, told in v2]
        elif controller in have.v1:
            settings += [Setting(1, controller, key, value, wanted and told) for key, value, told in v1]
        elif wanted:
            what = {"memory": "rss", "pids": "proc"}.get(controller, controller)
            missing.append((what, f"{what} is not enforced: this kernel has no {controller} controller"))
    missing += _cpu_faults(limits, cpus)
    missing += _burst_faults(limits, cpus)
    if limits.swap != 0 and limits.rss is None:
        missing.append(("swap", "swap is not enforced: it goes with a limit of memory (--rss)"))
    elif limits.swap is not None and limits.rss is not None and "memory" in have.v1 - have.v2 and not have.v1_swap:
        missing.append(("swap", "swap is not enforced: this kernel does not count it"))
    if limits.disk is not None and no_disk is not None:
        missing.append(("disk", f"disk is not enforced: {no_disk}"))
    settings += _io(limits.io_rate, have, device)
    if limits.io_rate is not None and not _io(limits.io_rate, have, device):
        missing.append(("io_rate", f"io-rate is not enforced: {_io_fault(have)}"))
    return Plan(tuple(settings), tuple(missing), tuple((n, _capped(n, r, most_files)) for n, r in limits.rlimits))


def _io(rate: IoRate | None, have: Controllers, disk: str | None) -> list[Setting]:
    """Bytes a second of one disk."""
    wanted = rate or IoRate(None, None)
    if disk is not None and "io" in have.v2:
        read, written = ("max" if mib is None else str(mib * MIB) for mib in (wanted.read, wanted.written))
        return [Setting(2, "io", "io.max", f"rbps={read} wbps={written}", rate is not None, disk)]
    if disk is not None and "blkio" in have.v1:
        pairs = (("read", wanted.read), ("write", wanted.written))
        return [
            Setting(1, "blkio", f"blkio.throttle.{what}_bps_device", str((mib or 0) * MIB), mib is not None, disk)
            for what, mib in pairs
        ]
    return []


def _io_fault(have: Controllers) -> str:
    if "io" in have.v2 or "blkio" in have.v1:
        return "the guest's tree does not lie on one disk"
    return "this kernel has no io controller"


def _capped(name: str, limit: Rlimit, most_files: int | None) -> Rlimit:
    if name != "nofile" or most_files is None:
        return limit
    soft, hard = (most_files if value is None else min(value, most_files) for value in (limit.soft, limit.hard))
    return Rlimit(soft, hard)


_File = tuple[str, str, bool]
"""A file's name, its content, and whether LXC has to be told."""


def _memory_v2(limits: Limits) -> list[_File]:
    if limits.rss is None:
        return [("memory.max", "max", False), ("memory.high", "max", False), ("memory.swap.max", "max", False)]
    size = limits.rss * MIB
    high = size - max(size // 32, MIB) if size > 8 * MIB else size
    swap = "max" if limits.swap is None else str(limits.swap * MIB)
    return [("memory.max", str(size), True), ("memory.high", str(high), True), ("memory.swap.max", swap, True)]


def _memory_v1(limits: Limits, *, swap: bool) -> list[_File]:
    """``memsw`` counts memory and swap together."""
    size = V1_NONE if limits.rss is None else str(limits.rss * MIB)
    both = V1_NONE if limits.rss is None or limits.swap is None else str((limits.rss + limits.swap) * MIB)
    found = [("memory.limit_in_bytes", size, True)]
    return [*found, ("memory.memsw.limit_in_bytes", both, both != V1_NONE)] if swap else found


def _pids(limits: Limits) -> list[_File]:
    return [("pids.max", "max" if limits.proc is None or limits.proc > _PIDS else str(limits.proc), True)]


def _burst(limits: Limits, cpus: int) -> int:
    """Microseconds. The kernel takes no burst above the quota."""
    most = quota(limits, cpus)
    return min((limits.burst or 0) * 1000, most) if most else 0


def _cpu_faults(limits: Limits, cpus: int) -> list[tuple[str, str]]:
    if limits.cpu is None or limits.cpu.rate * cpus * PERIOD >= _LEAST_QUOTA * limits.cpu.interval:
        return []
    least = f"{_LEAST_QUOTA / 1000:g} ms in {PERIOD / 1000:g} ms of one CPU"
    return [("cpu", f"cpu is enforced in part: the kernel takes no less than {least}")]


def _burst_faults(limits: Limits, cpus: int) -> list[tuple[str, str]]:
    if limits.burst is None:
        return []
    most = quota(limits, cpus)
    if most is None:
        return [("burst", "burst is not enforced: it goes with a share of the CPUs (--cpu)")]
    if limits.burst * 1000 > most:
        at_most = f"{most / 1000:g} ms for {limits.cpu} of {cpus} CPUs"
        return [("burst", f"burst is enforced in part: the kernel takes at most {at_most}")]
    return []


def _cpu_v2(limits: Limits, cpus: int) -> list[_File]:
    burst = _burst(limits, cpus)
    share = quota(limits, cpus) or "max"
    return [("cpu.max", f"{share} {PERIOD}", True), ("cpu.max.burst", str(burst), burst != 0)]


def _cpu_v1(limits: Limits, cpus: int) -> list[_File]:
    burst = _burst(limits, cpus)
    share = quota(limits, cpus)
    return [
        ("cpu.cfs_period_us", str(PERIOD), True),
        ("cpu.cfs_quota_us", V1_NONE if share is None else str(share), True),
        ("cpu.cfs_burst_us", str(burst), burst != 0),
    ]

"""A sample: what a guest, or the host, used at one moment; and the fields that a sample has, one row each."""

from dataclasses import dataclass, replace
from math import inf

from vstools.stats.cgroups import RESOURCES, Values


@dataclass(frozen=True)
class Field:
    """One value. ``metric`` is its name for Prometheus (none: not exported), ``scale`` what brings it to base units.

    ``line``: it is in the line for scripts. ``percent`` of CPU is always of all CPUs of the host, as vs-limit's share.
    """

    key: str
    help: str
    metric: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    scale: float = 1.0
    line: bool = True


def _pressure(line: bool) -> tuple[Field, ...]:
    words = {"some": "at least one task", "full": "all tasks at once"}
    return tuple(
        field
        for resource in RESOURCES
        for kind in words
        for field in (
            Field(
                f"{resource}_{kind}_percent",
                f"time in the last 10 s that {words[kind]} waited for {resource}",
                line=line and kind == "some",
            ),
            Field(
                f"{resource}_{kind}_seconds",
                f"time that {words[kind]} waited for {resource}",
                "pressure_seconds_total",
                (("resource", resource), ("kind", kind)),
                line=False,
            ),
        )
    )


FIELDS = (
    Field("uptime_seconds", "time since the guest's start", "uptime_seconds"),
    Field("memory_bytes", "memory in use, file cache included", "memory_bytes"),
    Field("memory_unreclaimable_bytes", "memory that the kernel cannot reclaim", "memory_unreclaimable_bytes"),
    Field("memory_limit_bytes", "memory limit in force", "memory_limit_bytes"),
    Field("swap_bytes", "swap in use", "swap_bytes"),
    Field("processes", "processes and threads", "processes"),
    Field("processes_limit", "limit of processes and threads in force", "processes_limit"),
    Field("cpu_seconds", "CPU time", "cpu_seconds_total"),
    Field("cpu_percent", "CPU since the guest's start, or over --interval, of all CPUs of the host"),
    Field("cpu_limit_percent", "CPU limit in force, of all CPUs of the host", "cpu_limit_ratio", scale=0.01),
    Field("cpu_throttled_seconds", "time that tasks waited because of the CPU limit", "cpu_throttled_seconds_total"),
    *_pressure(line=True),
    Field("read_bytes", "bytes read from disks", "disk_read_bytes_total"),
    Field("written_bytes", "bytes written to disks", "disk_written_bytes_total"),
    Field("received_bytes", "bytes that came in by the guest's links", "network_receive_bytes_total"),
    Field("sent_bytes", "bytes that went out by the guest's links", "network_transmit_bytes_total"),
    Field("tmpfs_bytes", "use of the guest's limited /tmp", "tmpfs_bytes"),
    Field("tmpfs_limit_bytes", "size of the guest's limited /tmp", "tmpfs_limit_bytes"),
    Field("disk_bytes", "space that the guest's tree takes on the disk (quota, or --disk)", "disk_bytes"),
    Field("oom_kills", "processes killed because memory was used up", "oom_kills_total"),
    Field("memory_limit_hits", "how often the memory limit was reached", "memory_limit_hits_total"),
    Field("processes_limit_hits", "how often a fork was refused by the limit", "processes_limit_hits_total"),
    Field(
        "memory_high_hits", "how often memory was reclaimed just below the limit", "memory_high_hits_total", line=False
    ),
    Field("disk_limit_bytes", "disk limit in force, where the kernel counts", "disk_limit_bytes", line=False),
    Field("cpu_user_seconds", "CPU time outside the kernel", line=False),
    Field("cpu_system_seconds", "CPU time in the kernel", line=False),
    Field("read_bytes_per_second", "over --interval", line=False),
    Field("written_bytes_per_second", "over --interval", line=False),
    Field("received_bytes_per_second", "over --interval", line=False),
    Field("sent_bytes_per_second", "over --interval", line=False),
)
"""Of a guest. The order of those in the line never changes; new ones come at its end."""

HOST_FIELDS = (
    Field("memory_bytes", "memory in use: what is not available to programs", "memory_bytes"),
    Field("memory_total_bytes", "memory of the host", "memory_total_bytes"),
    Field("swap_bytes", "swap in use", "swap_bytes"),
    Field("swap_total_bytes", "swap of the host", "swap_total_bytes"),
    Field("load_1", "load average over 1 minute", "load1"),
    Field("load_5", "load average over 5 minutes", "load5"),
    Field("load_15", "load average over 15 minutes", "load15"),
    Field("cpus", "CPUs that are on line", "cpus"),
    Field("cpu_percent", "CPU since the boot, or over --interval, of all CPUs"),
    *_pressure(line=True),
    Field("guests_running", "guests that run", "guests_running"),
    Field("guests", "guests that this host has", "guests"),
    Field("trees_free_bytes", "free space where the guests' trees lie", "trees_free_bytes"),
    Field("trees_total_bytes", "size of the file system where the guests' trees lie", "trees_size_bytes"),
    Field("promised_memory_bytes", "memory limits of all guests together", "promised_memory_bytes"),
    Field("promised_processes", "process limits of all guests together", "promised_processes"),
    Field("promised_cpu_percent", "CPU limits of all guests together", "promised_cpu_ratio", scale=0.01),
    Field("promised_disk_bytes", "disk limits of all guests together", "promised_disk_bytes"),
    Field("promised_tmpfs_bytes", "sizes of the limited /tmp of all guests together", "promised_tmpfs_bytes"),
    Field("guests_without_memory_limit", "guests that no memory limit bounds", "guests_without_memory_limit"),
    Field("uptime_seconds", "time since the host's start", "uptime_seconds", line=False),
    Field("cpu_seconds", "CPU time of all CPUs together", "cpu_seconds_total", line=False),
)
"""Of the host."""

_RATES = ("read_bytes", "written_bytes", "received_bytes", "sent_bytes")


@dataclass(frozen=True)
class Sample:
    """Values by key of FIELDS (or HOST_FIELDS: then ``guest`` is empty); None: not known, infinity: no limit.

    ``at`` is a monotonic time in seconds.
    """

    guest: str
    running: bool
    at: float
    values: Values

    def get(self, key: str) -> float | None:
        """One value."""
        return self.values.get(key)

    def including(self, values: Values) -> "Sample":
        """The same with other values for some keys."""
        return replace(self, values={**self.values, **values})


def average(sample: Sample, cpus: int) -> Sample:
    """With the CPU share since the start: all that a single sample can tell."""
    used, uptime = sample.get("cpu_seconds"), sample.get("uptime_seconds")
    share = used / uptime if used is not None and uptime else None
    return sample.including({"cpu_percent": _percent(share, cpus)})


def _percent(busy: float | None, cpus: int) -> float | None:
    """CPUs that were busy, of all. What clock ticks and reading one after the other add beyond 100 is no work."""
    return None if busy is None else min(100.0, 100 * busy / cpus)


def between(before: Sample | None, after: Sample, cpus: int) -> Sample:
    """The later sample with the CPU share and the rates since the earlier one.

    None of them where there is no earlier one, or where the guest was started anew in between.
    """
    seconds = after.at - before.at if before is not None else 0.0
    old, new = (before.get("uptime_seconds") if before else None), after.get("uptime_seconds")
    same = before is not None and seconds > 0 and old is not None and new is not None and new >= old

    def rate(key: str) -> float | None:
        if before is None or not same:
            return None
        first, last = before.get(key), after.get(key)
        return (last - first) / seconds if first is not None and last is not None and last >= first else None

    rates = {f"{key}_per_second": rate(key) for key in _RATES} if after.guest else {}
    return after.including({"cpu_percent": _percent(rate("cpu_seconds"), cpus), **rates})


def plain(value: float | None) -> float | None:
    """As JSON can hold it: no limit is null as well."""
    return None if value is None or value == inf else value

"""What guests and the host use: who runs, where its cgroups are, and what the room of statistics reads there.

Kept as small as a state query: the record of a start is read here without what makes and undoes starts.
"""

import json
import os
import time
from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING

from vstools import alive
from vstools.config import registry
from vstools.paths import Paths
from vstools.stats import around, cgroups, host, sample
from vstools.stats.cgroups import Values
from vstools.stats.files import read
from vstools.stats.parse import number
from vstools.stats.processes import Process, look, pids
from vstools.stats.sample import Sample
from vstools.storage import counted

if TYPE_CHECKING:
    from vstools.stats.advice import Advice

PAYLOAD = "payload"
"""The part of a guest's cgroup that holds its limits and, one level further down, its processes."""
_MIB = 1 << 20
_DU_DEADLINE = 3600.0


class Reader:
    """Reads samples; what does not change while the host runs is read once."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._trees = cgroups.trees()
        self.cpus = os.cpu_count() or 1

    def guest(self, name: str) -> Sample:
        """A guest's sample, without CPU share and rates. A stopped guest has no values; one that ends, few."""
        monitor = alive.monitor_pid(self._paths, name)
        running = monitor is not None or alive.is_running(self._paths, name)
        started = record(self._paths, name) if running else {}
        group, links = started.get("cgroup"), started.get("names")
        values: Values = {field.key: None for field in sample.FIELDS}
        at = time.monotonic()
        if isinstance(group, str) and isinstance(links, list):
            runtime = str(self._paths.runtime_of(name))
            values |= cgroups.usage(self._trees, f"{group}/{PAYLOAD}", self.cpus)
            values |= around.traffic(f"{runtime}/sys", links)
            values |= disk(self._paths, name)
            values |= around.tmpfs(os.path.join(runtime, "tmp"))  # noqa: PTH118 - asked for every guest
            values["uptime_seconds"] = None if monitor is None else around.age(monitor)
        return Sample(name, running, at, values)

    def peaks(self, name: str) -> Values:
        """The most that a running guest used since its start; empty where it does not run."""
        group = record(self._paths, name).get("cgroup") if alive.is_running(self._paths, name) else None
        return cgroups.peaks(self._trees, f"{group}/{PAYLOAD}") if isinstance(group, str) else {}

    def guests(self, names: Iterable[str]) -> list[Sample]:
        """Samples of several guests."""
        return [self.guest(name) for name in names]

    def host(self) -> Sample:
        """The host's sample, without CPU share; what is promised to guests is in ``promised``."""
        names = registry.names(self._paths)
        running = sum(alive.is_running(self._paths, name) for name in names)
        values: Values = {field.key: None for field in sample.HOST_FIELDS}
        at = time.monotonic()
        values |= host.usage(str(self._paths.trees))
        values |= {"guests": len(names), "guests_running": running}
        return Sample("", True, at, values)


def record(paths: Paths, name: str) -> dict[str, object]:
    """The record of the guest's start (records.Record), which only root can write; empty when there is none."""
    try:
        found = json.loads(read(str(paths.runtime_of(name) / "record")))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def one(paths: Paths, name: str) -> Values:
    """What one guest uses, by key, with the CPU share since its start."""
    return single(paths, (name,))[0].values


def single(paths: Paths, names: Iterable[str]) -> list[Sample]:
    """Samples of guests, with the CPU share since their start."""
    reader = Reader(paths)
    return [sample.average(each, reader.cpus) for each in reader.guests(names)]


def advice(paths: Paths, name: str) -> list["Advice"]:
    """Which of a guest's saved limits should change after what it used since its start; a stopped one gets none."""
    from vstools.config import guests
    from vstools.stats.advice import advise

    limits, reader = guests.load(paths, name).limits, Reader(paths)
    found = reader.guest(name)
    return advise(limits, {**found.values, **reader.peaks(name)}) if found.running else []


def over(paths: Paths, names: Iterable[str], interval: float) -> list[Sample]:
    """Samples of guests, taken twice: CPU share and rates are those of the ``interval`` seconds between."""
    reader, names = Reader(paths), tuple(names)
    before = reader.guests(names)
    time.sleep(interval)
    return [sample.between(first, reader.guest(first.guest), reader.cpus) for first in before]


def of_host(paths: Paths, interval: float | None = None) -> Sample:
    """The host's sample with what is promised to guests; CPU share since the boot, or over the interval."""
    reader = Reader(paths)
    first = reader.host()
    if interval is None:
        found = sample.average(first, reader.cpus)
    else:
        time.sleep(interval)
        found = sample.between(first, reader.host(), reader.cpus)
    return found.including(promised(paths))


def promised(paths: Paths) -> Values:
    """The limits in the files of all guests, running or not, added up: what the host would owe if all came at once.

    A file with faults counts as no limit; vs-control --start says what is wrong with it.
    """
    from vstools.config import guests
    from vstools.config.text import Faults

    limits = [guests.read(paths.config_of(name), name, Faults()).limits for name in registry.names(paths)]
    return {
        "promised_memory_bytes": sum(each.rss or 0 for each in limits) * _MIB,
        "promised_processes": sum(each.proc or 0 for each in limits),
        "promised_cpu_percent": sum(100 * each.cpu.rate / each.cpu.interval for each in limits if each.cpu),
        "promised_disk_bytes": sum(each.disk or 0 for each in limits) * _MIB,
        "promised_tmpfs_bytes": sum(each.tmpfs or 0 for each in limits) * _MIB,
        "guests_without_memory_limit": sum(each.rss is None for each in limits),
    }


def disk(paths: Paths, name: str) -> Values:
    """What a guest's tree takes on the disk and may take, where the kernel counts that; else None of both."""
    context = registry.context(paths, name)
    held = None if context is None else counted.use(paths.tree_of(name), context)
    if held is None:
        return {"disk_bytes": None, "disk_limit_bytes": None}
    return {"disk_bytes": held.used, "disk_limit_bytes": inf if held.limit is None else held.limit}


def added_up(paths: Paths, name: str) -> int | None:
    """Bytes that a guest's tree takes on its file system, None where there is none.

    Asked of the kernel where it counts them. Else GNU du reads every directory and follows no link, however deep or
    wrongly named; a file with several names counts once. Files that come and go meanwhile make it end with 1 and a
    result all the same.
    """
    if (known := disk(paths, name)["disk_bytes"]) is not None:
        return int(known)
    from vstools import run

    done = run.run(["du", "-s", "-x", "-B1", "--", str(paths.tree_of(name))], timeout=_DU_DEADLINE, check=False)
    return number(done.out.partition("\t")[0])


def processes(paths: Paths, names: Iterable[str] = (), *, command: bool = False) -> list[Process]:
    """The processes of these guests (none: of all that run), by guest and pid; ``command``: with command lines."""
    owners = _owners(paths, set(names))
    found = (looked for pid in pids() if (looked := look(pid, owners, command=command)) and looked.guest)
    return sorted(found, key=lambda process: (process.guest, process.pid))


def process(paths: Paths, pid: int, *, command: bool = False) -> Process | None:
    """A process with its guest, None when there is no such process."""
    return look(pid, _owners(paths, set()), command=command)


def _owners(paths: Paths, wanted: set[str]) -> dict[str, str]:
    """The payload cgroup of each started guest -> its name."""
    try:
        started = os.listdir(paths.runtime)
    except FileNotFoundError:
        return {}
    groups = {name: record(paths, name).get("cgroup") for name in started if not wanted or name in wanted}
    return {f"{group}/{PAYLOAD}": name for name, group in groups.items() if isinstance(group, str)}

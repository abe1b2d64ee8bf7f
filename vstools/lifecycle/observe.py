"""One look at one guest: what vs-monitor sees of it. All of it is the kernel's word, read from the host's side."""

from collections.abc import Mapping
from dataclasses import replace
from math import inf

from vstools import libc, log, lxc
from vstools.config.monitor import MonitorConf
from vstools.lifecycle.stats import PAYLOAD, Reader
from vstools.lifecycle.treesizes import LONGEST, TreeSizes
from vstools.monitor import diag, load, owners, sockets
from vstools.monitor.alerts import Count, Fact, Level, Seen
from vstools.monitor.sieve import Sieve
from vstools.monitor.state import Life
from vstools.monitor.text import size
from vstools.paths import NAMESPACES, Paths
from vstools.stats import cgroups
from vstools.stats.files import below, read
from vstools.stats.sample import Sample
from vstools.storage import lxcfs

_CGROUPS = 256
_GAP = 2.0
"""A sample of the load stands for at most so many intervals: after a pause one look must not be the whole average."""
_EPHEMERAL = (32768, 60999)
_IDS = 65536


class Looker:
    """Looks at guests; keeps in memory what makes the next look cheap."""

    def __init__(self, paths: Paths, settle: float) -> None:
        self._paths, self._settle = paths, settle
        self._reader = Reader(paths)
        self._trees = cgroups.trees()
        self._owners: dict[str, dict[int, owners.Owner]] = {}
        self._lxcfs_inquiry = lxcfs.Inquiry()
        self.sizes = TreeSizes(paths)

    def sample(self, name: str) -> Sample:
        """What vs-stats knows of the guest."""
        return self._reader.guest(name)

    def forget(self, name: str) -> None:
        """The guest does not run any more."""
        self._owners.pop(name, None)
        self.sizes.forget(name)

    def look(
        self, name: str, conf: MonitorConf, life: Life, sample: Sample, record: Mapping[str, object], now: float
    ) -> tuple[Life, list[Seen]]:
        """What is seen of a running guest, and what is remembered; ``now`` is of the clock since the boot."""
        pids, all_seen = self._pids(str(record.get("cgroup", "")))
        life = replace(life, disk=self.sizes.latest(name, life.disk, now, watched=conf.disk != inf))
        seen: list[Seen] = [*limits(conf, life, sample), *hits(conf, sample)]
        if life.disk.limit is not None:
            words = f"du did not end within {LONGEST / 60:.0f} minutes: the disk's threshold is not watched"
            seen.append(Fact("disk-late", life.disk.late, words if life.disk.late else "du ended in time"))
        if conf.load_15 != inf:
            since = min(now - life.load_at, _GAP * conf.pooling) if life.load_at is not None else 0.0
            average = load.decay(life.load, load.active(pids), since)
            life = replace(life, load=average, load_at=now)
            text = f"load {average:.2f} over 15 minutes, threshold {conf.load_15:g}"
            seen.append(Level("load", average, conf.load_15, text))
        if conf.sockets or conf.load_15 != inf:
            words = f"more than {_CGROUPS} cgroups, {len(pids)} processes in the first: the others are not looked at"
            seen.append(Fact("cgroups", not all_seen, "all cgroups are looked at" if all_seen else words))
        if (fact := self._lxcfs(name)) is not None:
            seen.append(fact)
        if conf.sockets:
            life, facts = self._sockets(name, conf, life, sample, str(record.get("netns", "")), pids, all_seen)
            seen += facts
        return life, seen

    def _lxcfs(self, name: str) -> Fact | None:
        """None where the guest uses no lxcfs."""
        init = lxc.init_pid(self._paths, name)
        gone, where = lxcfs.is_gone(read(f"/proc/{init}/mountinfo"), read("/proc/self/mountinfo"))
        if where:
            gone = not self._lxcfs_inquiry.answers(where)
        elif not gone:
            return None
        words = f"lxcfs is gone: part of the guest's /proc fails until `vs-fonctions guest_lxcfs {name}` or a restart"
        return Fact("lxcfs", gone, words if gone else "lxcfs answers")

    def _pids(self, group: str) -> tuple[list[int], bool]:
        """The guest's processes, from the cgroup that carries its limits and those that it made below; whether all."""
        known = self._trees.v1.get("pids") or self._trees.v1.get("memory") or self._trees.v2
        if not group or not known:
            return [], True
        folders = below(f"{known}/{group}/{PAYLOAD}", _CGROUPS + 1)
        words = (word for folder in folders[:_CGROUPS] for word in read(f"{folder}/cgroup.procs").split())
        return [int(word) for word in words if word.isdigit()], len(folders) <= _CGROUPS

    def _sockets(
        self, name: str, conf: MonitorConf, life: Life, sample: Sample, netns: str, pids: list[int], all_seen: bool
    ) -> tuple[Life, list[Fact]]:
        kept = [Fact(key, None, alert.text) for key, alert in life.standing.open.items() if key.startswith("socket")]
        age = sample.get("uptime_seconds")
        if life.known.baseline is None and (age is None or age < self._settle):
            return life, kept
        try:
            with libc.network_namespace(NAMESPACES / netns):
                found, cut = diag.listening()
                ephemeral = _range(read("/proc/sys/net/ipv4/ip_local_port_range"))
        except OSError as error:
            log.debug(f"sockets of {name}: {error}")
            return life, kept
        cached = self._owners.get(name, {})
        wanted = {each.inode for each in found}
        self._owners[name] = {inode: owner for inode, owner in cached.items() if inode in wanted}
        if missing := wanted - cached.keys():
            more, whole = owners.find(pids, missing)
            self._owners[name] |= more
            all_seen = whole and (all_seen or missing <= more.keys())
        else:
            all_seen = True
        number = netns.removeprefix("vs")
        base = int(number) * _IDS if number.isdigit() else 0
        seen = sockets.Look(found, self._owners[name], ephemeral, base, cut, blind=not all_seen)
        known, facts = sockets.judge(seen, life.known, Sieve(conf.sockets_filter), life.standing.open)
        return replace(life, known=known), facts


def _range(text: str) -> tuple[int, int]:
    words = text.split()
    return (int(words[0]), int(words[1])) if len(words) == 2 and all(map(str.isdigit, words)) else _EPHEMERAL


def limits(conf: MonitorConf, life: Life, sample: Sample) -> list[Level]:
    """Memory, processes, /tmp and disk against their limits."""
    get = sample.get
    return [
        _share("memory", get("memory_unreclaimable_bytes"), get("memory_limit_bytes"), conf.rss),
        _share("processes", get("processes"), get("processes_limit"), conf.proc),
        _share("/tmp", get("tmpfs_bytes"), get("tmpfs_limit_bytes"), conf.tmpfs),  # noqa: S108 - its name in mails
        _share("disk", life.disk.used, inf if life.disk.limit is None else life.disk.limit, conf.disk),
    ]


def _share(what: str, used: float | None, limit: float | None, threshold: float) -> Level:
    """Percent of a limit. Without a limit nothing can come near it: an alert that is open ends."""
    if limit == inf:
        return Level(what, 0.0, threshold, f"{what} has no limit")
    if used is None or not limit:
        return Level(what, None, threshold, what)
    percent = 100 * used / limit
    amount = f"{used:.0f} of {limit:.0f}" if what == "processes" else f"{size(used)} of {size(limit)}"
    return Level(what, percent, threshold, f"{what} {percent:.0f}% ({amount}), threshold {threshold:.0f}%")


def hits(conf: MonitorConf, sample: Sample) -> list[Count]:
    """Limits that were reached since the last look."""
    found = []
    if conf.rss_hits:
        found += [
            _count("memory-hits", sample.get("memory_limit_hits"), "memory limit reached"),
            _count("oom-kills", sample.get("oom_kills"), "out of memory, a process was killed"),
        ]
    if conf.proc_hits:
        found.append(_count("process-hits", sample.get("processes_limit_hits"), "process limit reached, fork refused"))
    return found


def _count(key: str, value: float | None, text: str) -> Count:
    return Count(key, None if value is None else int(value), text)


def ended(paths: Paths, name: str) -> str:
    """What the guest's runner left of its last lives' ends; empty where there is nothing."""
    return read(str(paths.ended / name))

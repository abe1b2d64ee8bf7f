"""A guest's limits, changed while it runs: in the kernel and in its files, or in neither."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from vstools import limits, log, lxc
from vstools.alive import is_running
from vstools.config import guests
from vstools.errors import Refused
from vstools.faults import checkpoint
from vstools.files import wait_until
from vstools.guest import Guest, Limits, Rlimit
from vstools.lifecycle import bounds, disk, phases, records, trees
from vstools.lifecycle.host import guest_lock, runtime_lock, settings
from vstools.limits import cgroups, live, processes, victims
from vstools.network.plan import Link
from vstools.paths import Paths
from vstools.storage import mounts
from vstools.storage.quota import Use

_PATIENCE = 60.0
_MIB = 1 << 20
_CONTENT = {
    "memory.max": "rss", "memory.limit_in_bytes": "rss", "memory.swap.max": "swap", "pids.max": "proc",
    "cpu.max": "cpu", "cpu.cfs_quota_us": "cpu", "cpu.max.burst": "burst", "cpu.cfs_burst_us": "burst",
}  # fmt: skip
"""Files of the kernel that say a limit of ours."""
_TOLD = ("rss", "disk", "tmpfs", "proc", "cpu", "burst", "swap", "net_rate", "io_rate")


@dataclass(frozen=True)
class Edits:
    """What the command line asks for: fields of Limits with their new values, and rlimits by name."""

    values: tuple[tuple[str, object], ...] = ()
    rlimits: tuple[tuple[str, Rlimit], ...] = ()
    force: bool = False

    def of(self, old: Limits) -> Limits:
        """The limits as they shall be."""
        merged = {**dict(old.rlimits), **dict(self.rlimits)}
        new = replace(old, **dict(self.values))  # type: ignore[arg-type]
        return replace(new, rlimits=tuple(sorted(merged.items())))

    @property
    def names(self) -> frozenset[str]:
        """The limits that are meant."""
        return frozenset(name for name, _ in self.values)


@dataclass(frozen=True)
class Change:
    """Everything decided about a change of a guest's limits."""

    before: Guest
    after: Guest
    plan: limits.Plan
    edits: Edits
    record: records.Record | None
    tmp: Path
    held: Use | None
    """On the disk; None where that is not counted."""
    links: tuple[Link, ...] = ()

    @property
    def group(self) -> str:
        """The cgroup that holds the limits; the guest runs."""
        assert self.record is not None  # noqa: S101 - asked of running guests only
        return f"{self.record.cgroup}/payload"

    def describe(self) -> tuple[str, ...]:
        """What would be changed, a line each."""
        old, new = told(self.before.limits), told(self.after.limits)
        lines = [f"{key} {old.get(key, 'inf')} -> {new[key]}" for key in new if new[key] != old.get(key, "inf")]
        if self.record is not None:
            group = live.Group(self.group)
            ahead = live.write_order(group.read(self.plan.settings), self.plan.settings)
            lines += [f"{group.path(setting)} <- {setting.value}" for setting in ahead]
        size = self.after.limits.disk
        if self.after.volume is not None:
            if self.before.limits.disk != size:
                lines.append(f"volume {self.after.volume} <- {size} MiB")
        elif self.held is not None and self.held.limit != (None if size is None else size * _MIB):
            lines.append(
                f"disk quota of context {self.after.context} <- {'no limit' if size is None else f'{size} MiB'}"
            )
        return tuple(lines) or ("nothing changes",)


def told(limits: Limits) -> dict[str, str]:
    """Limits in words, by name."""
    values = {name: getattr(limits, name) for name in _TOLD}
    return {**{key: "inf" if value is None else str(value) for key, value in values.items()},
            **{name: str(value) for name, value in limits.rlimits}}  # fmt: skip


def decide(paths: Paths, name: str, edits: Edits) -> Change:
    """Read and check everything; raises Refused or BadFiles, changes nothing."""
    guest = guests.load(paths, name)
    after = replace(guest, limits=edits.of(guest.limits))
    plan = bounds.of(paths, after)
    record = records.running(paths, name)
    links = settings(paths).links(after) if record is not None and "net_rate" in edits.names else ()
    if guest.volume is not None and "disk" in edits.names:
        trees.opened(paths, name)
        disk.check_volume(paths, guest, after.limits.disk, running=record is not None)
    held = disk.held(paths, guest)
    change = Change(guest, after, plan, edits, record, paths.runtime_of(name) / "tmp", held, links)
    for what, sentence in plan.missing:
        if what == "burst" and "burst" in edits.names and after.limits.cpu is not None:
            raise Refused(f"guest {name}: {sentence}", "a smaller --burst or a larger --cpu would do")
    if not edits.force and guest.volume is None:
        disk.check(after, change.held, after.limits.disk)
    if record is not None:
        _check_tmp(change)
        _check_usage(change)
    return change


def _check_tmp(change: Change) -> None:
    size, used = change.after.limits.tmpfs, mounts.tmp_used(change.tmp)
    if size is not None and mounts.tmp_size(change.tmp) is not None and used > size * _MIB:
        held = -(-used // _MIB)
        raise Refused(
            f"guest {change.after.name}: its /tmp holds {held} MiB", f"--tmpfs {size} needs files to go first"
        )


def _check_usage(change: Change) -> None:
    if change.edits.force:
        return
    if found := live.Group(change.group).objections(change.plan.settings, change.after.limits.swap):
        raise Refused(f"guest {change.after.name}: {'; '.join(found)}", "--force tries it all the same")


def apply(paths: Paths, name: str, edits: Edits) -> None:
    """Make the change; killed, the same command does the rest."""
    guests.require(paths, name)
    with guest_lock(paths, name), _settled(paths, name):
        change = decide(paths, name, edits)
        said = bounds.of(paths, change.before).missing
        words = " ".join(f"{key}={value}" for key, value in told(change.after.limits).items())
        with log.change(f"limits {words}", name):
            _put(paths, change)
    for what, sentence in change.plan.missing:
        if what in edits.names or (what, sentence) not in said:
            log.warn(f"guest {name}: {sentence}")


@contextmanager
def _settled(paths: Paths, name: str) -> Iterator[None]:
    """Hold the runtime lock of a guest that does not run, or is past its start: LXC sets limits that it read before.

    The lock keeps one that ends meanwhile from its next life. Raises Refused when it starts and ends all the time.
    """
    with ExitStack() as held:

        def is_settled() -> bool:
            held.enter_context(runtime_lock(paths, name))
            if not is_running(paths, name) or lxc.state(paths, name) in ("RUNNING", "FROZEN"):
                return True
            held.close()
            return False

        if not wait_until(is_settled, patience=_PATIENCE, pause=0.05):
            raise Refused(f"guest {name} is just starting or ending", "try again")
        yield


def _put(paths: Paths, change: Change) -> None:
    """The kernel first, then the files: what fails is undone, and then both are as they were."""
    name = change.after.name
    with ExitStack() as undo:
        _put_disk(paths, change, undo)
        if change.record is not None:
            _put_kernel(change, _end_one(paths, change), undo)
        if change.after.volume is not None and "disk" in change.edits.names:
            disk.resize(paths, change.after)
        undo.callback(guests.save, paths.config_of(name), change.before)
        guests.save(paths.config_of(name), change.after)
        checkpoint("limit:saved")
        if change.record is not None:
            undo.callback(phases.write_lxc_config, paths, change.before, change.record)
            phases.write_lxc_config(paths, change.after, change.record)
        undo.pop_all()
    checkpoint("limit:done")


def _end_one(paths: Paths, change: Change) -> live.EndOne | None:
    """What ends processes where memory is lowered by force. An init that is not known could not be spared."""
    name = change.after.name
    if not change.edits.force or (init := lxc.init_pid(paths, name)) is None:
        return None
    return victims.Victims(name, change.group, init, partial(cgroups.members, change.group)).end_one


def _put_kernel(change: Change, end_one: live.EndOne | None, undo: ExitStack) -> None:
    group = live.Group(change.group)
    undo.callback(group.back, group.put(change.plan.settings, end_one))
    checkpoint("limit:cgroup")
    _put_tmp(change, undo)
    checkpoint("limit:tmpfs")
    asked = dict(change.edits.rlimits)
    rlimits = processes.Change(change.group, partial(cgroups.members, change.group))
    undo.callback(rlimits.back)
    rlimits.put(tuple((name, limit) for name, limit in change.plan.rlimits if name in asked))
    checkpoint("limit:rlimits")
    if change.links and change.record is not None:
        from vstools.network import rates

        old = tuple(replace(link, rate=change.before.limits.net_rate) for link in change.links)
        undo.callback(rates.apply, change.record.netns, old)
        rates.apply(change.record.netns, change.links)
    checkpoint("limit:rates")


def _put_disk(paths: Paths, change: Change, undo: ExitStack) -> None:
    """The quota is there whether the guest runs or not."""
    guest, held = change.after, change.held
    if guest.volume is not None:
        return  # its size is changed last: what was made larger is not made smaller while the guest runs
    if held is not None:
        undo.callback(disk.put, paths, guest, None if held.limit is None else held.limit // _MIB)
        disk.put(paths, guest, guest.limits.disk)
        checkpoint("limit:disk")
    elif change.record is not None and guest.limits.disk is not None and "disk" in change.edits.names:
        if "disk" not in dict(change.plan.missing):
            words = f"disk {guest.limits.disk} begins with its next start"
            log.warn(f"guest {guest.name}: its tree is not counted yet; {words}")


def _put_tmp(change: Change, undo: ExitStack) -> None:
    size, name = change.after.limits.tmpfs, change.after.name
    old = mounts.tmp_size(change.tmp)
    if old is None:
        if size is not None and "tmpfs" in change.edits.names:
            log.warn(f"guest {name}: it runs without a /tmp of its own; tmpfs {size} begins with its next start")
    elif old != (size or 0) * _MIB:
        base = change.after.id_base
        undo.callback(mounts.resize_tmp, change.tmp, old // _MIB or None, base)
        mounts.resize_tmp(change.tmp, size, base)


@dataclass(frozen=True)
class State:
    """A guest's limits as saved, what this host cannot enforce (limit -> sentence), and what the kernel has instead."""

    limits: Limits
    unenforced: dict[str, str]
    applied: dict[str, object]


def state(paths: Paths, name: str) -> State:
    """The limits of one guest, from its files and the kernel."""
    guest = guests.load(paths, name)
    plan = bounds.of(paths, guest)
    record = records.running(paths, name)
    applied = {} if record is None else _applied(guest, plan, record, paths.runtime_of(name) / "tmp")
    if record is not None and guest.limits.net_rate is not None:
        applied |= _applied_rate(settings(paths).links(guest), record.netns)
    if record is not None and "disk" not in dict(plan.missing):
        applied |= _applied_disk(paths, guest)
    return State(guest.limits, dict(plan.missing), applied)


def _applied(guest: Guest, plan: limits.Plan, record: records.Record, tmp: Path) -> dict[str, object]:
    """Where the kernel has something else than the files say: in the units of the line."""
    group = live.Group(f"{record.cgroup}/payload")
    current = group.read(plan.settings)
    found: dict[str, object] = {}
    for setting in plan.settings:
        what = _CONTENT.get(setting.key)
        values = current.get(setting.key)
        if what is None or values is None or values[0] == live.wanted_of(setting)[0]:
            continue
        found[what] = _in_units(what, values)
    disk = tuple(setting for setting in plan.settings if setting.device)
    has = [value for setting in disk for value in current.get(setting.key, ())]
    if has != [value for setting in disk for value in live.wanted_of(setting)]:
        read, written = (*(None if value == float("inf") else int(value) // _MIB for value in has), None, None)[:2]
        found["io_rate"] = {"read": read, "written": written}
    size = mounts.tmp_size(tmp)
    if size is not None and size != (guest.limits.tmpfs or 0) * _MIB:
        found["tmpfs"] = size // _MIB or None
    elif size is None and guest.limits.tmpfs is not None:
        found["tmpfs"] = None
    return found


def _applied_rate(links: tuple[Link, ...], netns: str) -> dict[str, object]:
    """What the first link that is not held to its rate is held to instead, in Mbit/s."""
    from vstools.network import rates

    for link in links:
        if (found := rates.read(netns, link)) != rates.possible(link):
            return {"net_rate": asdict(found)}
    return {}


def _applied_disk(paths: Paths, guest: Guest) -> dict[str, object]:
    if guest.volume is not None:
        size = disk.differs(paths, guest)
        return {} if size is None else {"disk": size}
    held = disk.held(paths, guest)
    limit = None if held is None or held.limit is None else held.limit // _MIB
    return {} if limit == guest.limits.disk else {"disk": limit}


def _in_units(what: str, values: tuple[float, ...]) -> object:
    if what == "cpu":
        return live.share(values, os.cpu_count() or 1)
    if values[0] == float("inf"):
        return None
    return int(values[0]) // {"burst": 1000, "proc": 1}.get(what, _MIB)

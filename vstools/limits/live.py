"""A running guest's limits in the kernel: what they are, what they would hit, and changing them all or none."""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from vstools import log
from vstools.errors import VsError
from vstools.files import wait_until
from vstools.limits import cgroups
from vstools.limits.plan import MIB, PERIOD, Setting

Number = float
Content = dict[str, tuple[Number, ...]]
"""File -> its numbers; no limit is infinity."""

_DISK = ("io.max", "blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device")
_RAISED = (
    "memory.swap.max", "memory.max", "memory.high", "memory.memsw.limit_in_bytes", "memory.limit_in_bytes", "pids.max",
    "cpu.cfs_period_us", "cpu.max", "cpu.cfs_quota_us", "cpu.max.burst", "cpu.cfs_burst_us", *_DISK,
)  # fmt: skip
"""The order in which files are written that get larger; those that get smaller follow in the opposite one.

v1 never lets memory pass memory and swap, and no kernel lets the burst pass the quota. On v2 memory.high goes down
first, so that the kernel reclaims before it kills.
"""
_OPTIONAL = frozenset({"memory.swap.max", "memory.memsw.limit_in_bytes", "cpu.max.burst", "cpu.cfs_burst_us", *_DISK})
_INNER = "guest"  # lxc.cgroup.dir.container.inner
_V1_NO_LIMIT = 1 << 62
_COUNTED = 3.0
"""Seconds until the kernel has counted the end of a process: it sums up every two seconds (mm/memcontrol.c)."""
_GIVEN_BACK = 0.5
"""Seconds until what a process had is no longer in use: a CPU keeps some pages back until another one asks for them."""
EndOne = Callable[[int], bool]


@dataclass(frozen=True)
class Usage:
    """What a guest uses and cannot give back at once: bytes of memory, processes. None: not known."""

    memory: int | None = None
    processes: int | None = None


def numbers(text: str) -> tuple[Number, ...]:
    """The numbers of a cgroup's file: ``max``, -1 and v1's huge ones are infinity."""
    values = [float("inf") if word == "max" else int(word) for word in text.split()]
    return tuple(float("inf") if value < 0 or value >= _V1_NO_LIMIT else value for value in values)


def held(setting: Setting, text: str) -> tuple[Number, ...]:
    """The numbers that a file with that text has for a setting; a disk without a line of its own has no limit."""
    if not setting.device:
        return numbers(text)
    lines = (line.partition(" ") for line in text.splitlines())
    rest = next((rest for device, _, rest in lines if device == setting.device), "")
    if setting.version == 1:
        return (int(rest or 0) or float("inf"),)
    values = dict(word.split("=", 1) for word in rest.split())
    return numbers(" ".join(values.get(word.partition("=")[0], "max") for word in setting.value.split()))


def wanted_of(setting: Setting) -> tuple[Number, ...]:
    """The numbers of a setting."""
    return held(setting, setting.text)


def write_order(current: Content, wanted: tuple[Setting, ...]) -> list[Setting]:
    """The settings that differ, in an order that the kernel takes. Pure."""
    different = [setting for setting in wanted if current.get(setting.key) != wanted_of(setting)]
    rank = sorted(different, key=lambda setting: _RAISED.index(setting.key))

    def grows(setting: Setting) -> bool:
        return setting.key == "cpu.cfs_period_us" or wanted_of(setting) > current.get(setting.key, (0,))

    return [*(one for one in rank if grows(one)), *(one for one in reversed(rank) if not grows(one))]


class Group:
    """The ``payload`` cgroup of a running guest, in every tree."""

    def __init__(self, group: str, proc: Path = Path("/proc")) -> None:
        self.name = group
        self._homes = cgroups.homes(proc)
        self._proc = proc

    def path(self, setting: Setting) -> Path:
        """The file of a setting."""
        home = self._homes[setting.version, setting.controller] / self.name
        return (home / _INNER if setting.inner else home) / setting.key

    def hooks(self, settings: tuple[Setting, ...]) -> tuple[tuple[str, str], ...]:
        """LXC's item that writes what belongs to the guest's own cgroup, before its init runs.

        The guest's root may mount version 1's trees. The cgroup becomes the host's, so that it makes none below it.
        """
        inner = [setting for setting in settings if setting.inner and setting.explicit]
        if not inner:
            return ()
        words = [f"chown 0:0 {self.path(inner[0]).parent}", *(f"echo {one.text} > {self.path(one)}" for one in inner)]
        return (("lxc.hook.start-host", f"/bin/sh -c '{' && '.join(words)}'"),)

    def read(self, settings: tuple[Setting, ...]) -> Content:
        """What the kernel has; a file that is not there is left out."""
        found: Content = {}
        for setting in settings:
            with suppress(FileNotFoundError):
                found[setting.key] = held(setting, self.path(setting).read_text())
        return found

    def put(self, settings: tuple[Setting, ...], end_one: EndOne | None = None) -> tuple[Setting, ...]:
        """Write what differs; returns what was there before. Raises VsError, and all is as it was, when one is refused.

        A file that this kernel does not have is passed over where it would only say that there is no limit. ``end_one``
        ends a process of the guest where the memory in use is above a limit in bytes, and says whether there was one;
        without it, such a limit is refused.
        """
        current = self.read(settings)
        before = tuple(with_values(setting, current[setting.key]) for setting in settings if setting.key in current)
        try:
            for setting in write_order(current, settings):
                if setting.key in current or setting.explicit or setting.key not in _OPTIONAL:
                    if setting.key == "memory.max" and wanted_of(setting) < current.get(setting.key, (0,)):
                        self._make_room(setting, settings, end_one)
                    self._write(setting)
        except BaseException:
            self.back(before)
            raise
        return before

    def _make_room(self, most: Setting, settings: tuple[Setting, ...], end_one: EndOne | None) -> None:
        """Let no more be in use than memory.max is to be: writing it would make the kernel kill, init among them.

        Each write of memory.high reclaims what can be, also where the file has that number already.
        """
        high, limit = next(one for one in settings if one.key == "memory.high"), int(wanted_of(most)[0])
        used = limit

        def fits() -> bool:
            nonlocal used
            self._write(high)
            used = int(self.path(most).with_name("memory.current").read_text())
            return used <= limit

        room = wait_until(fits, patience=_COUNTED, pause=0.1)
        while not room and end_one is not None and end_one(limit):
            room = wait_until(fits, patience=_GIVEN_BACK, pause=0.05)
        if not room:
            left = f"rss {limit / MIB:.0f}: {used / MIB:.0f} MiB are in use that the kernel cannot reclaim"
            hint = "--force kills processes of the guest" if end_one is None else "killing its processes is not enough"
            raise VsError(left, hint)

    def back(self, before: tuple[Setting, ...]) -> None:
        """Write what was there before; what is refused now is said."""
        for setting in write_order(self.read(before), before):
            try:
                self._write(setting)
            except VsError as error:
                log.warn(f"{self.name}: {error}")

    def _write(self, setting: Setting) -> None:
        path = self.path(setting)
        log.debug(f"{path} <- {setting.text}")
        try:
            if setting.inner:
                self._take(path.parent)
            with path.open("r+") as handle:
                handle.write(setting.text)
        except FileNotFoundError:
            raise VsError(
                f"{path} is not there", f"the controller {setting.controller} is off for this guest"
            ) from None
        except OSError as error:
            why = "what is in use cannot be reclaimed" if error.errno == errno.EBUSY else error.strerror
            raise VsError(f"the kernel refuses {setting.key} {setting.text}: {why}") from error

    def _take(self, folder: Path) -> None:
        """Let nobody but the host make cgroups below the guest's own; those that are there go with the guest."""
        os.chown(folder, 0, 0)
        if any(entry.is_dir(follow_symlinks=False) for entry in os.scandir(folder)):
            log.warn(f"{self.name}: the guest's root has cgroups of its own, which are held from its next start on")

    def objections(self, wanted: tuple[Setting, ...], swap: int | None) -> list[str]:
        """What would go wrong, as sentences, when these limits were set now, with ``swap`` MiB (None: without limit).

        The kernel is given time to count what processes that just ended gave back.
        """
        current, left = self.read(wanted), self.swap_left(swap)
        found: list[str] = []

        def fits() -> bool:
            found[:] = objections(current, wanted, self.usage(), left)
            return not found

        wait_until(fits, patience=_COUNTED, pause=0.1)
        return found

    def usage(self) -> Usage:
        """What the guest uses now."""
        processes = None
        for version in (2, 1):
            if (home := self._homes.get((version, "pids"))) is not None:
                with suppress(OSError):
                    processes = int((home / self.name / "pids.current").read_text())
                    break
        return Usage(self._memory(), processes)

    def _memory(self) -> int | None:
        """Bytes that the kernel cannot reclaim: anonymous, shared and its own; less what swap would take."""
        for version, keys in (
            (2, ("anon", "shmem", "slab_unreclaimable", "kernel_stack", "pagetables", "percpu", "sock")),
            (1, ("total_rss", "total_shmem")),
        ):
            if (home := self._homes.get((version, "memory"))) is None:
                continue
            with suppress(OSError):
                lines = (home / self.name / "memory.stat").read_text().splitlines()
                stat = {key: int(value) for key, _, value in (line.partition(" ") for line in lines)}
                return sum(stat.get(key, 0) for key in keys)
        return None

    def swap_left(self, allowed: int | None) -> int:
        """Bytes of swap that the guest could still take when ``allowed`` MiB are its limit (None: none)."""
        info = (self._proc / "meminfo").read_text().splitlines()
        free = next((int(line.split()[1]) << 10 for line in info if line.startswith("SwapFree:")), 0)
        return free if allowed is None else min(free, allowed * MIB)


def with_values(setting: Setting, values: tuple[Number, ...]) -> Setting:
    """The setting with other numbers, as the kernel writes them."""
    none = {"pids": "max", "blkio": "0"}.get(setting.controller, "max" if setting.version == 2 else "-1")
    words = [none if value == float("inf") else str(int(value)) for value in values]
    if setting.version == 2 and setting.device:
        words = [f"{word.partition('=')[0]}={value}" for word, value in zip(setting.value.split(), words, strict=True)]
    return replace(setting, value=" ".join(words), explicit=True)


def objections(current: Content, wanted: tuple[Setting, ...], usage: Usage, swap_left: int = 0) -> list[str]:
    """What lowering a limit below what is in use would do, as sentences. Pure."""
    found = []
    for setting in write_order(current, wanted):
        value = wanted_of(setting)[0]
        if value >= current.get(setting.key, (0,))[0]:
            continue
        held = (usage.memory or 0) - swap_left
        if setting.key in ("memory.max", "memory.limit_in_bytes") and held > value:
            what = f"rss {value / MIB:.0f}: {held / MIB:.0f} MiB are in use that the kernel cannot reclaim"
            then = "it would kill processes of the guest" if setting.version == 2 else "it would refuse (cgroup v1)"
            found.append(f"{what}, {then}")
        if setting.key == "pids.max" and (usage.processes or 0) > value:
            found.append(f"proc {value:.0f}: {usage.processes} run, so that the guest could begin no new one for now")
    return found


def share(values: tuple[Number, ...], cpus: int) -> str | None:
    """A quota and its period as a share of the host, None where there is none."""
    quota, period = (*values, PERIOD)[:2]
    return None if quota == float("inf") else f"{quota:.0f}/{period * cpus:.0f}"

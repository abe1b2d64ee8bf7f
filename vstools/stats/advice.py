"""Limits beside what was measured since a guest's start: which of them should change, to what, and why. Pure.

More is advised as soon as the kernel has refused or held the guest something; less only after a day, when even the peak
stayed far below. What is advised is half as much again, in round numbers: a step, not a truth.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from vstools.guest import Limits

DAY = 86400.0
_MIB = 1 << 20
_NEAR = 0.9  # of a limit: memory that cannot be reclaimed, /tmp
_HELD = 0.1  # of the time since the start
_ROUND = 16  # MiB, processes
_LEAST = 32

Values = Mapping[str, float | None]


@dataclass(frozen=True)
class Advice:
    """One limit of one guest, as vs-limit takes it; ``now`` is None where there is none."""

    limit: str
    now: str | None
    advised: str
    reason: str


def advise(limits: Limits, values: Values) -> list[Advice]:
    """What should change. ``values``: those of a sample, and ``memory_peak_bytes`` and ``processes_peak``.

    What is not known (None, or no such key) is no reason for anything.
    """
    return [*_memory(limits, values), *_processes(limits, values), *_cpu(limits, values), *_tmpfs(limits, values)]


def _step(value: float) -> int:
    """Half as much again, rounded up."""
    return max(_LEAST, -(-int(value * 1.5) // _ROUND) * _ROUND)


def _get(values: Values, key: str) -> float:
    return values.get(key) or 0.0


def _mib(size: float) -> str:
    return f"{size / _MIB:.0f} MiB"


def _memory(limits: Limits, values: Values) -> Iterator[Advice]:
    peak, kept = _get(values, "memory_peak_bytes"), _get(values, "memory_unreclaimable_bytes")
    if limits.rss is None:
        if peak:
            yield Advice("rss", None, str(_step(peak / _MIB)), f"no limit; the peak was {_mib(peak)}")
        return
    now, more = str(limits.rss), str(_step(limits.rss))
    if kills := _get(values, "oom_kills"):
        yield Advice("rss", now, more, f"processes killed for want of memory: {kills:.0f}")
    elif kept >= _NEAR * limits.rss * _MIB:
        yield Advice("rss", now, more, f"{_mib(kept)} cannot be reclaimed")
    elif peak and _long(values) and (less := _step(peak / _MIB)) * 2 <= limits.rss:
        yield Advice("rss", now, str(less), f"the peak was {_mib(peak)}, file cache included")


def _processes(limits: Limits, values: Values) -> Iterator[Advice]:
    peak = _get(values, "processes_peak")
    if limits.proc is None:
        if peak:
            yield Advice("proc", None, str(_step(2 * peak)), f"no limit; the peak was {peak:.0f}")
        return
    now = str(limits.proc)
    if refused := _get(values, "processes_limit_hits"):
        yield Advice("proc", now, str(_step(limits.proc)), f"forks refused: {refused:.0f}")
    elif peak and _long(values) and (less := _step(2 * peak)) * 2 <= limits.proc:
        yield Advice("proc", now, str(less), f"the peak was {peak:.0f}")


def _cpu(limits: Limits, values: Values) -> Iterator[Advice]:
    """The kernel counts the time that a guest was held on each CPU, and adds it up."""
    held, age = _get(values, "cpu_throttled_seconds"), _get(values, "uptime_seconds")
    if limits.cpu is None or limits.cpu.rate >= limits.cpu.interval or not age or held < _HELD * age:
        return
    more = min(Fraction(1), Fraction(3 * limits.cpu.rate, 2 * limits.cpu.interval))
    reason = f"held for {held:.0f} s of CPU time in {age:.0f} s"
    yield Advice("cpu", str(limits.cpu), f"{more.numerator}/{more.denominator}", reason)


def _tmpfs(limits: Limits, values: Values) -> Iterator[Advice]:
    used = _get(values, "tmpfs_bytes")
    if limits.tmpfs and used >= _NEAR * limits.tmpfs * _MIB:
        yield Advice("tmpfs", str(limits.tmpfs), str(_step(limits.tmpfs)), f"{_mib(used)} in use")


def _long(values: Values) -> bool:
    return _get(values, "uptime_seconds") >= DAY

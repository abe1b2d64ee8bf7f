"""What was seen of a guest becomes alerts, each of which begins once and ends once. Pure: no clock, no file.

Three kinds of things are seen. A level (memory, load) is compared with a limit and ends well below it; a count (hits of
a limit) begins when it grows and ends when it has not grown for a while; a fact holds or not.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf

CLEAR = 0.9
"""An alert about a level ends below this part of the limit where it began: a value that sways is one alert."""
QUIET = 900.0
"""Seconds without a further hit after which an alert about hits ends."""


@dataclass(frozen=True)
class Level:
    """A value and the limit from which on it is an alert; None: not known this time, all stays as it was."""

    key: str
    value: float | None
    limit: float
    text: str


@dataclass(frozen=True)
class Count:
    """A counter since the guest's start; None: not known. A counter that went back began anew."""

    key: str
    total: int | None
    text: str


@dataclass(frozen=True)
class Fact:
    """Something that holds or not; None: not known. ``details`` are further lines for the mail."""

    key: str
    holds: bool | None
    text: str
    details: tuple[str, ...] = ()


Seen = Level | Count | Fact


@dataclass(frozen=True)
class Alert:
    """An alert that has begun: when (seconds since 1970), what was said, and for counts how often and when last."""

    since: float
    text: str
    times: int = 0
    last: float = 0.0


@dataclass(frozen=True)
class Event:
    """One alert's begin or end, as it is told."""

    began: bool
    key: str
    text: str
    at: float
    value: float | None = None
    limit: float | None = None
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Standing:
    """Between two rounds: the alerts that are open by key, and where the counters stood."""

    open: Mapping[str, Alert]
    counts: Mapping[str, int]


NOTHING = Standing({}, {})


def _no_longer(_: str) -> str:
    return "no longer watched"


def step(
    standing: Standing, seen: Iterable[Seen], now: float, gone: Callable[[str], str] = _no_longer
) -> tuple[Standing, list[Event]]:
    """One round. An open alert whose key was not among ``seen`` ends, with ``gone(key)`` as the reason."""
    alerts, counts = dict(standing.open), dict(standing.counts)
    events: list[Event] = []
    keys = set()
    for each in seen:
        keys.add(each.key)
        begun = alerts.get(each.key)
        if isinstance(each, Count):
            after, event = _count(each, begun, counts, now)
        else:
            after, event = _level(each, begun, now) if isinstance(each, Level) else _fact(each, begun, now)
        if event is not None:
            events.append(event)
        if after is None:
            alerts.pop(each.key, None)
        else:
            alerts[each.key] = after
    for key in [key for key in alerts if key not in keys]:
        events.append(Event(False, key, f"{alerts.pop(key).text}: {gone(key)}", now))
    return Standing(alerts, {key: value for key, value in counts.items() if key in keys}), events


_After = tuple[Alert | None, Event | None]


def _level(seen: Level, begun: Alert | None, now: float) -> _After:
    if seen.limit == inf:
        return _end(seen, begun, now, "no longer watched")
    if seen.value is None:
        return begun, None
    if begun is None:
        if seen.value < seen.limit:
            return None, None
        return Alert(now, seen.text), Event(True, seen.key, seen.text, now, seen.value, seen.limit)
    if seen.value >= seen.limit * CLEAR:
        return begun, None
    return None, Event(False, seen.key, seen.text, now, seen.value, seen.limit)


def _fact(seen: Fact, begun: Alert | None, now: float) -> _After:
    if seen.holds is None or seen.holds == (begun is not None):
        return begun, None
    if seen.holds:
        return Alert(now, seen.text), Event(True, seen.key, seen.text, now, details=seen.details)
    return None, Event(False, seen.key, seen.text, now)


def _count(seen: Count, begun: Alert | None, counts: dict[str, int], now: float) -> _After:
    """The first look at a counter is where it begins: what was before is not ours to tell.

    Older kernels count in the cgroup where it happened, and the count goes with it: what falls begins there anew.
    """
    if seen.total is None:
        return begun, None
    before = counts.get(seen.key, seen.total)
    counts[seen.key] = seen.total
    grown = max(0, seen.total - before)
    if grown and begun is None:
        alert = Alert(now, seen.text, grown, now)
        return alert, Event(True, seen.key, f"{seen.text} {_times(grown)}", now, grown)
    if grown and begun is not None:
        return replace(begun, times=begun.times + grown, last=now), None
    if begun is not None and now < begun.last:  # the clock was set back: the quiet begins anew
        return replace(begun, last=now), None
    if begun is None or now - begun.last < QUIET:
        return begun, None
    text = f"{seen.text} {_times(begun.times)} in all, not for {QUIET / 60:.0f} minutes now"
    return None, Event(False, seen.key, text, now, begun.times)


def _end(seen: Seen, begun: Alert | None, now: float, why: str) -> _After:
    return None, None if begun is None else Event(False, seen.key, f"{begun.text}: {why}", now)


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"

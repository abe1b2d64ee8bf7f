"""Which generations of a guest go: a function of their times alone. It knows no clock, so a wrong one harms nothing."""

from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime

from vstools.config.backup import Keep

_PERIODS: tuple[tuple[str, Callable[[datetime], object]], ...] = (
    ("last", lambda time: time),
    ("daily", lambda time: time.date()),
    ("weekly", lambda time: time.isocalendar()[:2]),
    ("monthly", lambda time: (time.year, time.month)),
)
"""Field of Keep -> what period a time (UTC) is in; weeks are those of ISO 8601."""


def going(times: Iterable[datetime], keep: Keep, held: Collection[datetime] = ()) -> tuple[datetime, ...]:
    """The times of the generations that go, oldest first.

    Of the newest ``keep.daily`` days that have a generation the newest one stays, and so for weeks and months; and the
    ``keep.last`` newest ones. The newest of all stays whatever the numbers are, and so do ``held`` ones, which count
    like the others. Times have a zone; periods are those of UTC.
    """
    newest_first = sorted(set(times), reverse=True)
    staying = {*newest_first[:1], *held}
    for field, period in _PERIODS:
        newest_of: dict[object, datetime] = {}
        for time in newest_first:
            newest_of.setdefault(period(time.astimezone(UTC)), time)
        staying.update(list(newest_of.values())[: getattr(keep, field)])
    return tuple(time for time in reversed(newest_first) if time not in staying)

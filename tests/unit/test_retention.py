"""Which generations go: the newest of each period stays, and what is held, and the newest of all."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstools.config.backup import DEFAULT, Keep
from vstools.pool.retention import going

START = datetime(2026, 1, 1, 3, 15, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC)


def staying(times: list[datetime], keep: Keep, held: tuple[datetime, ...] = ()) -> list[datetime]:
    gone = going(times, keep, held)
    return [time for time in times if time not in gone]


def test_the_newest_of_each_day_stays_and_days_without_one_do_not_count() -> None:
    times = [at("2026-11-18 01:00"), at("2026-11-18 23:59"), at("2026-11-21 00:00"), at("2026-11-21 12:00")]
    assert staying(times, Keep(daily=2)) == [at("2026-11-18 23:59"), at("2026-11-21 12:00")]
    assert going(times, Keep(daily=1)) == tuple(times[:3])


def test_a_day_is_a_day_of_utc_wherever_the_master_is() -> None:
    paris = timezone(timedelta(hours=1))
    times = [datetime(2026, 11, 21, 0, 30, tzinfo=paris), at("2026-11-20 23:45"), at("2026-11-21 00:10")]
    assert staying(times, Keep(daily=2)) == times[1:]


def test_weeks_are_those_of_iso_also_at_the_turn_of_the_year() -> None:
    sunday, monday, new_year = at("2026-12-27 03:00"), at("2026-12-28 03:00"), at("2027-01-03 03:00")
    assert staying([sunday, monday, new_year], Keep(weekly=2)) == [sunday, new_year], "28 Dec - 3 Jan is one week"
    assert staying([sunday, monday, new_year], Keep(monthly=2)) == [monday, new_year]


def test_the_newest_stays_even_where_nothing_is_kept() -> None:
    times = [START, START + timedelta(days=1)]
    assert staying(times, Keep()) == [times[1]]


def test_what_is_held_stays_and_counts() -> None:
    times = [at("2026-11-20 01:00"), at("2026-11-20 02:00"), at("2026-11-21 01:00")]
    assert staying(times, Keep(daily=1), (times[0],)) == [times[0], times[2]]
    assert staying(times, Keep(daily=2), (times[1],)) == times[1:]


@pytest.mark.parametrize(("keep", "number"), [(DEFAULT, 3 + 4 + 3 + 5), (Keep(daily=7), 7), (Keep(monthly=6), 6)])
def test_a_copy_a_night_for_two_years_leaves_what_was_asked_for(keep: Keep, number: int) -> None:
    times: list[datetime] = []
    for night in range(730):
        times.append(START + timedelta(days=night))
        times = staying(times, keep)
    assert abs(len(times) - number) <= 2, "days, weeks and months share some"
    assert times[-1] == START + timedelta(days=729)


TIMES = st.lists(
    st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1)).map(lambda time: time.replace(microsecond=0, tzinfo=UTC)),
    unique=True,
    max_size=40,
)
CLOSE = st.lists(st.integers(0, 400).map(lambda hours: START + timedelta(hours=6 * hours)), unique=True, max_size=60)
KEEPS = st.builds(Keep, *[st.integers(0, 8)] * 4)


@given(times=st.one_of(TIMES, CLOSE), keep=KEEPS, data=st.data())
def test_whatever_there_is(times: list[datetime], keep: Keep, data: st.DataObject) -> None:
    held = tuple(data.draw(st.lists(st.sampled_from(times), max_size=5))) if times else ()
    gone = going(data.draw(st.permutations(times)), keep, held)
    assert list(gone) == sorted(gone)
    assert set(gone) <= set(times) - set(held)
    assert not times or max(times) not in gone
    left = [time for time in times if time not in gone]
    assert going(left, keep, held) == (), "what was kept once is kept again"
    for time in times:
        assert (time in gone) == (time != max(times) and time not in held and not wanted(time, times, keep))


def wanted(time: datetime, times: list[datetime], keep: Keep) -> bool:
    """A second reading of the words: it is the newest of its period, and few enough periods with one are later."""
    periods = (
        (keep.last, "%Y%m%d%H%M%S"), (keep.daily, "%Y%m%d"), (keep.weekly, "%G%V"), (keep.monthly, "%Y%m"),
    )  # fmt: skip
    for number, form in periods:
        own = time.strftime(form)
        later = {other.strftime(form) for other in times if other > time}
        if own not in later and len(later) < number:
            return True
    return False

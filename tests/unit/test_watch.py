"""The screen of vs-stats --watch: what it shows for which keys, at any size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstools.cli import watch
from vstools.cli.watch import COLUMNS, View, frame, press

from .test_stats import sample

HOST = sample("", load_1=0.5, load_5=0.5, load_15=0.5, memory_bytes=1 << 30, memory_total_bytes=2 << 30)
GUESTS = [
    sample("a", memory_bytes=3 << 20, cpu_percent=1.0, processes=9, sent_bytes_per_second=5.0),
    sample("b", memory_bytes=1 << 20, cpu_percent=3.0, processes=1, read_bytes_per_second=7.0),
    sample("c", memory_bytes=2 << 20, cpu_percent=2.0, processes=4),
    sample("off", running=False),
]


def order(view: View, height: int = 24) -> str:
    """The guests on the screen, from the top down."""
    return " ".join(line.split()[0] for line in frame(HOST, GUESTS, view, height, 200)[2:-1] if line)


def pressed(*keys: str) -> View:
    """The view after some keys."""
    view = View()
    for key in keys:
        found = press(view, key, len(GUESTS), 24)
        assert found is not None
        view = found
    return view


@pytest.mark.parametrize(
    ("keys", "names"),
    [("", "b c a off"), ("m", "a c b off"), ("p", "a c b off"), ("n", "a b c off"), ("i", "b a c off"),
     ("mr", "off b c a"), (">", "a c b off"), ("<>", "b c a off"), ("mc", "b c a off"), ("x", "b c a off")],
)  # fmt: skip
def test_keys_sort(keys: str, names: str) -> None:
    assert order(pressed(*keys)) == names


def test_q_ends_and_arrows_scroll_no_further_than_there_are_guests() -> None:
    assert press(View(), "q", 4, 24) is None
    view = View()
    for _ in range(9):
        view = press(view, "down", 4, 5) or view
    assert view.first == 2
    assert order(view, 5) == "a off"
    assert press(view, "home", 4, 5) == View()
    assert pressed("right").column == 1
    assert pressed("left").column == len(COLUMNS) - 1


@given(
    height=st.integers(0, 60),
    width=st.integers(-1, 250),
    column=st.integers(0, len(COLUMNS) - 1),
    first=st.integers(0, 9),
)
def test_no_line_is_longer_than_the_terminal_at_any_size(height: int, width: int, column: int, first: int) -> None:
    lines = frame(HOST, GUESTS, View(column, first=first), height, max(0, width))
    assert len(lines) <= max(height, 0)
    assert all(len(line) <= max(width, 0) for line in lines)


def test_the_column_that_is_sorted_by_is_shown_and_marked_on_narrow_terminals() -> None:
    for number, column in enumerate(COLUMNS):
        header = frame(HOST, GUESTS, View(number), 24, 40)[1]
        assert f"*{column.title}" in header


def test_the_keys_of_the_help_are_those_of_columns() -> None:
    assert {"m", "c", "p", "i", "n"} <= {column.key for column in COLUMNS}
    assert "m c p i n" in watch._KEYS

"""vs-stats --watch: a screen of guests that is read again and again, sorted by what is asked for."""

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vstools.cli.app import host_name
from vstools.cli.statlines import duration, percent, short, size
from vstools.errors import Refused
from vstools.stats.sample import Sample, between

if TYPE_CHECKING:
    from vstools.paths import Paths

_TICK = 0.2  # seconds at most until a key, a signal or another size of the terminal is noticed
_NAME = 20
_GAP = 1
_REDRAW = 12  # Ctrl-L, as everywhere
_KEPT = "memory_unreclaimable_bytes"


def _sum(*keys: str) -> Callable[[Sample], float]:
    return lambda sample: sum(sample.get(key) or 0 for key in keys)


@dataclass(frozen=True)
class Column:
    """A column: its key, its title, its width, what it shows, what it sorts by."""

    key: str
    title: str
    width: int
    show: Callable[[Sample], str]
    by: Callable[[Sample], float]


COLUMNS = (
    Column("c", "CPU%", 6, lambda each: percent(each.get("cpu_percent")), _sum("cpu_percent")),
    Column("m", "MEM", 6, lambda each: size(each.get("memory_bytes")), _sum("memory_bytes")),
    Column("k", "KEPT", 6, lambda each: size(each.get(_KEPT)), _sum(_KEPT)),
    Column("", "OF", 6, lambda each: size(each.get("memory_limit_bytes")), _sum("memory_limit_bytes")),
    Column("p", "PROC", 6, lambda each: short(each.get("processes")), _sum("processes")),
    Column("i", "READ/s", 7, lambda each: size(each.get("read_bytes_per_second")),
           _sum("read_bytes_per_second", "written_bytes_per_second")),
    Column("", "WRITE/s", 7, lambda each: size(each.get("written_bytes_per_second")), _sum("written_bytes_per_second")),
    Column("n", "IN/s", 6, lambda each: size(each.get("received_bytes_per_second")),
           _sum("received_bytes_per_second", "sent_bytes_per_second")),
    Column("", "OUT/s", 6, lambda each: size(each.get("sent_bytes_per_second")), _sum("sent_bytes_per_second")),
    Column("", "PSI c/m/i", 11, lambda each: "/".join(
        short(each.get(f"{resource}_some_percent")) for resource in ("cpu", "memory", "io")), _sum("cpu_some_percent")),
    Column("t", "TIME", 7, lambda each: duration(each.get("cpu_seconds")), _sum("cpu_seconds")),
    Column("", "TMP", 6, lambda each: size(each.get("tmpfs_bytes")), _sum("tmpfs_bytes")),
    Column("", "KILLS", 6, lambda each: short(each.get("oom_kills")), _sum("oom_kills")),
    Column("u", "UP", 7, lambda each: duration(each.get("uptime_seconds")), _sum("uptime_seconds")),
)  # fmt: skip
_KEYS = "q end  m c p i n sort  < > column  r turn  arrows scroll"


@dataclass(frozen=True)
class View:
    """What the screen shows: sorted by which column, the largest first unless turned, scrolled down by how much."""

    column: int = 0
    turned: bool = False
    first: int = 0


def press(view: View, key: str, guests: int, height: int) -> View | None:
    """The view after a key; None ends. Keys are single characters, or ``left``, ``right``, ``up``, ``down``, ..."""
    page = max(1, height - 3)
    moves = {"up": -1, "down": 1, "pageup": -page, "pagedown": page, "home": -guests, "end": guests}
    if key in ("q", "Q"):
        return None
    if key in ("<", "left"):
        return replace(view, column=(view.column - 1) % len(COLUMNS))
    if key in (">", "right"):
        return replace(view, column=(view.column + 1) % len(COLUMNS))
    if key == "r":
        return replace(view, turned=not view.turned)
    if key in moves:
        return replace(view, first=max(0, min(view.first + moves[key], max(0, guests - page))))
    for number, column in enumerate(COLUMNS):
        if column.key and column.key == key:
            return replace(view, column=number, turned=view.turned and number == view.column)
    return view


def frame(host: Sample, guests: list[Sample], view: View, height: int, width: int) -> list[str]:
    """The lines of the screen, none longer than the terminal is wide, and no more than it has."""
    shown = _fitting(view.column, width)
    column = COLUMNS[view.column]
    order = sorted(guests, key=lambda each: each.guest)
    order.sort(key=lambda each: (each.running, column.by(each)), reverse=not view.turned)
    room = max(0, height - 3)
    first = min(view.first, max(0, len(order) - room))
    lines = [_summary(host, guests), _line("GUEST", [(each.title, each.width, each is column) for each in shown])]
    for each in order[first : first + room]:
        cells = [(part.show(each) if each.running else "-", part.width, False) for part in shown]
        lines.append(_line(each.guest, cells))
    lines += [""] * (height - 1 - len(lines)) + [_KEYS]
    return [line[:width] for line in lines[:height]]


def _fitting(wanted: int, width: int) -> list[Column]:
    """The columns that a terminal has room for: those on the left, and always the one that is sorted by."""
    room = width - _NAME - COLUMNS[wanted].width - _GAP
    found = []
    for column in COLUMNS:
        if column is COLUMNS[wanted]:
            found.append(column)
        elif room >= column.width + _GAP:
            room -= column.width + _GAP
            found.append(column)
        else:
            room = 0
    return found


def _line(name: str, cells: list[tuple[str, int, bool]]) -> str:
    words = [f"*{text}" if marked else text for text, _, marked in cells]
    return f"{name[:_NAME]:{_NAME}}" + "".join(f" {word:>{cell[1]}}" for word, cell in zip(words, cells, strict=True))


def _summary(host: Sample, guests: list[Sample]) -> str:
    get = host.get
    loads = " ".join(f"{get(key) or 0:.2f}" for key in ("load_1", "load_5", "load_15"))
    return (
        f"{host_name()} {time.strftime('%H:%M:%S')}  load {loads}  cpu {percent(get('cpu_percent'))}%"
        f"  mem {size(get('memory_bytes'))}/{size(get('memory_total_bytes'))}"
        f"  swap {size(get('swap_bytes'))}/{size(get('swap_total_bytes'))}"
        f"  guests {sum(each.running for each in guests)}/{len(guests)}"
    )


def run(paths: "Paths", names: tuple[str, ...], pause: float) -> None:
    """Show these guests (none: all, also those that come later) until ``q``, Ctrl-C, SIGTERM or SIGHUP.

    The terminal is as before at the end, whatever ends it. Raises Refused where there is none that can be drawn on.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Refused("--watch needs a terminal", "vs-stats --interval SECONDS is for scripts")
    import curses
    import signal

    try:
        curses.setupterm()
    except curses.error:
        raise Refused("--watch does not know this terminal", "set TERM to what it is") from None
    if not curses.tigetstr("cup"):
        raise Refused("--watch cannot draw on this terminal", "set TERM to what it is")
    screen = _Screen(paths, names, pause)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: screen.end())
    curses.wrapper(screen.show)


class _Screen:
    """The screen: reads, draws, waits for keys. Ends by a flag, so that no signal finds curses half way."""

    def __init__(self, paths: "Paths", names: tuple[str, ...], pause: float) -> None:
        from vstools.lifecycle.stats import Reader

        self._paths, self._names, self._pause = paths, names, pause
        self._reader = Reader(paths)
        self._view: View | None = View()
        self._last: dict[str, Sample] = {}
        self._host: Sample | None = None

    def end(self) -> None:
        """Come to an end with the next tick."""
        self._view = None

    def show(self, window: Any) -> None:
        """Run until the end; ``window`` is curses' whole screen."""
        import curses

        with suppress(curses.error):  # a terminal that cannot hide its cursor
            curses.curs_set(0)
        window.timeout(int(1000 * min(_TICK, self._pause)))
        keys = _keys(curses)
        host, guests = self._read()
        due = time.monotonic() + self._pause
        while self._view is not None:
            self._draw(window, curses, self._view, host, guests)
            key = window.getch()
            if key == -1 and _has_gone():
                return
            if key == _REDRAW:
                window.clear()
            if self._view is not None and key != -1:
                word = keys.get(key, chr(key) if 0 < key < 256 else "")  # another size is a key as well, and no word
                self._view = press(self._view, word, len(guests), window.getmaxyx()[0])
            if self._view is not None and time.monotonic() >= due:
                host, guests = self._read()
                due = time.monotonic() + self._pause

    def _read(self) -> tuple[Sample, list[Sample]]:
        from vstools.config import registry

        now = {name: self._reader.guest(name) for name in self._names or registry.names(self._paths)}
        host = self._reader.host()
        cpus = self._reader.cpus
        shown = [between(self._last.get(name), sample, cpus) for name, sample in now.items()]
        shown_host = between(self._host, host, cpus)
        self._last, self._host = now, host
        return shown_host, shown

    @staticmethod
    def _draw(window: Any, curses: Any, view: View, host: Sample, guests: list[Sample]) -> None:
        height, width = window.getmaxyx()
        window.erase()  # what differs from the screen is sent, no more
        for number, line in enumerate(frame(host, guests, view, height, width - 1)):
            try:
                window.addstr(number, 0, line, curses.A_REVERSE if number == 1 else curses.A_NORMAL)
            except curses.error:
                break  # the terminal became smaller just now: its next size is on its way
        window.refresh()


def _has_gone() -> bool:
    """Whether the terminal is no longer there: then no key will ever come, and no signal has to."""
    import select

    poll = select.poll()
    poll.register(sys.stdin, select.POLLHUP)
    return any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))


def _keys(curses: Any) -> dict[int, str]:
    return {
        curses.KEY_LEFT: "left", curses.KEY_RIGHT: "right", curses.KEY_UP: "up", curses.KEY_DOWN: "down",
        curses.KEY_PPAGE: "pageup", curses.KEY_NPAGE: "pagedown", curses.KEY_HOME: "home", curses.KEY_END: "end",
    }  # fmt: skip

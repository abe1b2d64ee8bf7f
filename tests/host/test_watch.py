"""vs-stats --watch on a real terminal: a pty, which is resized, closed, and looked at afterwards."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator

import pytest
from conftest import Host, wait

from tests.templates import BIN

SHOWN = re.compile(rb"GUEST")
RESTORED = b"\x1b[?1049l"  # xterm's rmcup: back from the screen that programs draw on


class Terminal:
    """A terminal in which the command runs."""

    def __init__(self, host: Host, *words: str, term: str = "xterm", rows: int = 24, columns: int = 100) -> None:
        self.master, self.slave = pty.openpty()
        self.size(rows, columns)
        self.before = termios.tcgetattr(self.slave)
        self.text = b""
        self.process = subprocess.Popen(
            [BIN / "vs-stats", "--watch", *words],
            env={**os.environ, "VS_TOOLS_ROOT": str(host.root), "TERM": term},
            stdin=self.slave, stdout=self.slave, stderr=self.slave, start_new_session=True,
        )  # fmt: skip

    def size(self, rows: int, columns: int) -> None:
        """Give it another size, and tell as a terminal emulator does."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
        if hasattr(self, "process"):
            self.process.send_signal(signal.SIGWINCH)

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def read(self) -> bytes:
        """What came since the last time."""
        found = b""
        while select.select([self.master], [], [], 0.05)[0]:
            found += os.read(self.master, 65536)
        self.text += found
        return found

    def until(self, condition: Callable[[bytes], object]) -> bytes:
        """Read until what came since now is as it should be."""
        found = b""
        deadline = time.monotonic() + 60
        while not condition(found):
            assert time.monotonic() < deadline, found[-500:]
            assert self.process.poll() is None, self.text[-500:] + found[-500:]
            found += self.read()
        return found

    def ends(self) -> int:
        """Its exit status; the terminal is as it was."""

        def ended() -> bool:
            self.read()
            return self.process.poll() is not None

        wait(ended)
        self.read()
        assert termios.tcgetattr(self.slave) == self.before
        return self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for descriptor in (self.master, self.slave):
            os.close(descriptor)


@pytest.fixture
def terminal(host: Host) -> Iterator[Callable[..., Terminal]]:
    """Makes terminals, and closes them."""
    for name in ("alpha", "beta", "gamma"):
        (host.guests / name).mkdir()
    made: list[Terminal] = []

    def make(*words: str, **how: object) -> Terminal:
        made.append(Terminal(host, *words, **how))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_q_ends_and_leaves_the_terminal_as_it_was(terminal: Callable[..., Terminal]) -> None:
    screen = terminal("--interval", "0.2")
    found = screen.until(lambda text: SHOWN.search(text) and b"gamma" in text)
    assert b"alpha" in found
    assert b"*CPU%" in found
    for key, title in (("m", b"*MEM"), ("p", b"*PROC"), (">", b"*READ/s"), ("n", b"*IN/s")):
        screen.type(f"{key}\x0c")  # Ctrl-L: the whole screen, not only what changed
        screen.until(lambda text, title=title: title in text)
    screen.type("q")
    assert screen.ends() == 0
    assert screen.text.rstrip().find(RESTORED) >= 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_end_it_and_the_terminal_is_as_it_was(terminal: Callable[..., Terminal], number: int) -> None:
    screen = terminal()
    screen.until(SHOWN.search)
    screen.process.send_signal(number)
    assert screen.ends() == 0
    assert RESTORED in screen.text


def test_it_survives_being_resized_also_to_almost_nothing(terminal: Callable[..., Terminal]) -> None:
    screen = terminal("--interval", "0.1")
    screen.until(SHOWN.search)
    for rows, columns in ((1, 1), (2, 200), (1, 80), (3, 3), (60, 20), (200, 400)):
        screen.size(rows, columns)
        screen.type("m")
        screen.read()
        assert screen.process.poll() is None
    screen.size(24, 100)
    screen.type("\x0c")
    screen.until(lambda text: SHOWN.search(text) and b"gamma" in text)
    screen.type("q")
    assert screen.ends() == 0


def test_a_tiny_terminal_from_the_beginning(terminal: Callable[..., Terminal]) -> None:
    screen = terminal("--interval", "0.1", rows=1, columns=2)
    screen.until(bool)
    screen.type("q")
    assert screen.ends() == 0


def test_a_terminal_that_goes_away_ends_it(host: Host, terminal: Callable[..., Terminal]) -> None:
    screen = terminal("--interval", "0.1")
    screen.until(SHOWN.search)
    os.close(screen.master)
    os.close(screen.slave)
    wait(lambda: screen.process.poll() is not None)
    screen.master, screen.slave = os.openpty()


@pytest.mark.parametrize("term", ["dumb", "no-such-terminal", ""])
def test_what_cannot_be_drawn_on_is_refused(terminal: Callable[..., Terminal], term: str) -> None:
    screen = terminal(term=term)
    assert screen.ends() == 2
    assert b"terminal: set TERM" in screen.text


def test_without_a_terminal_it_is_refused(host: Host) -> None:
    done = host.vs("vs-stats", "--watch")
    assert (done.code, done.out) == (2, "")
    assert "needs a terminal" in done.err

"""SOCKETS_FILTER: which new sockets are not told. The admin's regular expressions meet strings that a guest chose.

On some string an expression like ``(a+)+$`` takes longer than anybody lives. So a timer bounds what is spent on one
socket and on all of a guest's; Python's re heeds signals while it searches. What could not be judged in time is told.
"""

import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from vstools.monitor.diag import Socket
from vstools.monitor.owners import Owner

_SHARE, _ALL = 0.25, 2.0
_TEXT = 300


class Sieve:
    """The expressions for one look at one guest; for the main thread only, as signals are."""

    def __init__(self, patterns: tuple[re.Pattern[str], ...]) -> None:
        self._patterns = patterns
        self._left = _ALL
        self.late = False
        """Whether one took too long."""

    def covers(self, found: Socket, owner: Owner) -> bool:
        """Whether one is found in the executable, in the address or path, or in ``executable address``."""
        if not self._patterns or self._left <= 0:
            return False
        executable, address = owner.path[:_TEXT], found.address[:_TEXT]
        texts = (executable, address, f"{executable} {address}")
        begun = time.monotonic()
        try:
            with _within(min(_SHARE, self._left)):
                return any(pattern.search(text) for pattern in self._patterns for text in texts)
        except TimeoutError:
            self.late = True
            return False
        finally:
            self._left -= time.monotonic() - begun


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    def cut(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, cut)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

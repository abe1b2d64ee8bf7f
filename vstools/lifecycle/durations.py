"""How long a guest's last start and stop took: a line each, in seconds, in the file ``durations`` among its logs.

A move reads it to say how long the guest will be away. It is a measurement and no state: it goes with the guest's logs,
a power cut may lose it, and a disk that takes none keeps nobody from starting a guest.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vstools import files
from vstools.errors import Refused
from vstools.paths import Paths

_WORDS = ("start", "stop")
_LIMIT = 1024
LONGEST = 24 * 3600.0
"""Seconds; what took longer says nothing of the next time."""


@dataclass(frozen=True)
class Durations:
    """Seconds that the last start and the last stop took; None: not known."""

    start: float | None = None
    stop: float | None = None


def _file(paths: Paths, name: str) -> Path:
    return paths.log_of(name) / "durations"


def of(paths: Paths, name: str) -> Durations:
    """What is known of a guest; whatever is no such line is nothing known."""
    try:
        text = files.read_bounded(_file(paths, name), _LIMIT)
    except (OSError, Refused):
        return Durations()
    found = re.findall(r"^(start|stop) ([0-9]{1,6}\.[0-9]{1,3})$", text, re.MULTILINE)
    return Durations(**{word: float(seconds) for word, seconds in found if float(seconds) <= LONGEST})


def note(paths: Paths, name: str, what: str, seconds: float) -> None:
    """Keep what the last ``start`` or ``stop`` took, where the guest has logs."""
    known = of(paths, name)
    taken = {word: seconds if word == what else getattr(known, word) for word in _WORDS}
    text = "".join(f"{word} {value:.2f}\n" for word, value in taken.items() if value is not None)
    path = _file(paths, name)
    beside = path.with_name(f".{path.name}~")  # one name: a kill, or a full disk, leaves no more than one
    with suppress(OSError):
        beside.write_text(text)
        beside.replace(path)


@contextmanager
def measured(paths: Paths, name: str, what: str) -> Iterator[None]:
    """Keep how long the block took, unless it failed."""
    begun = time.monotonic()
    yield
    note(paths, name, what, time.monotonic() - begun)

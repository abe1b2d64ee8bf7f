"""/etc/vs-tools/backup.conf: which guests a master backs up, how each is read, and which copies stay.

One guest a line, the format of 2008: ``guest:hot|cool``, and ours behind it:
``[,keep-last=N][,keep-daily=N][,keep-weekly=N][,keep-monthly=N]``. Where ``#`` begins a line or follows a blank, a
comment begins.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from vstools.config.text import Faults, statements, whole_number
from vstools.guest import check_name

_MOST = 10_000
_WORDS = ("last", "daily", "weekly", "monthly")
_OPTION = re.compile(r"keep-(?P<word>[a-z]+)(?P<equals>=)(?P<number>.*)")
_READ = {"hot": True, "cool": False}


@dataclass(frozen=True)
class Keep:
    """How many generations of a guest stay: the last ones, and the newest one of so many days, weeks and months."""

    last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0


DEFAULT = Keep(last=3, daily=7, weekly=4, monthly=6)
"""What holds for a line that names no number; one that names some has none of these."""


@dataclass(frozen=True)
class Entry:
    """One line: a guest, whether it is read while it runs (else it is stopped for the snapshot), what stays."""

    guest: str
    hot: bool
    keep: Keep = DEFAULT


def load(path: Path, faults: Faults) -> tuple[Entry, ...]:
    """Read backup.conf in the order of its lines; a missing file is an empty one. Faults are added to ``faults``."""
    found: list[Entry] = []
    seen: dict[str, int] = {}
    for number, text in statements(path):
        place = _Line(path, number, text, faults)
        guest = place.guest()
        if guest in seen:
            faults.add(path, number, place.indent + 1, f"{guest} has line {seen[guest]} already")
        elif guest is not None:
            seen[guest] = number
        entry = place.entry(guest)
        if entry is not None:
            found.append(entry)
    return tuple(found)


@dataclass
class _Line:
    path: Path
    number: int
    text: str
    faults: Faults

    @property
    def indent(self) -> int:
        return len(self.text) - len(self.text.lstrip())

    def guest(self) -> str | None:
        """The name before the colon, or None after a fault. Guests that were imported may have capitals."""
        head, colon, _ = self.text.partition(":")
        if not colon:
            self._add(self.indent + 1, "a line is GUEST:hot|cool[,keep-daily=N][,...]")
            return None
        name = head.strip()
        return self.faults.attempt(
            self.path, self.number, self.indent + 1, lambda text: check_name(text, imported=True), name
        )

    def entry(self, guest: str | None) -> Entry | None:
        """What the line says, or None after a fault; faults after the colon are found whatever the name is."""
        if ":" not in self.text:
            return None
        fields = self._fields(self.text.index(":") + 1)
        column, word = fields[0]
        hot = _READ.get(word)
        if hot is None:
            self._add(column, f"{word!r} is neither hot nor cool")
        keep = self._keep(fields[1:])
        return None if guest is None or hot is None or keep is None else Entry(guest, hot, keep)

    def _keep(self, fields: list[tuple[int, str]]) -> Keep | None:
        values: dict[str, int] = {}
        is_right = True
        for column, word in fields:
            match = _OPTION.fullmatch(word)
            if match is None or match["word"] not in _WORDS:
                self._add(column, f"{word!r} is not one of: {', '.join(f'keep-{word}=N' for word in _WORDS)}")
                is_right = False
                continue
            if match["word"] in values:
                self._add(column, f"keep-{match['word']} stands in this line already")
                is_right = False
                continue
            place = column + match.start("number")
            count = self.faults.attempt(self.path, self.number, place, whole_number(0, _MOST), match["number"])
            is_right = is_right and count is not None
            values[match["word"]] = count or 0
        if not is_right:
            return None
        return Keep(**values) if values else DEFAULT

    def _fields(self, start: int) -> list[tuple[int, str]]:
        """(column, text) of each field between commas, blanks around it left out."""
        fields: list[tuple[int, str]] = []
        for part in self.text[start:].split(","):
            fields.append((start + len(part) - len(part.lstrip()) + 1, part.strip()))
            start += len(part) + 1
        return fields

    def _add(self, column: int, sentence: str) -> None:
        self.faults.add(self.path, self.number, column, sentence)

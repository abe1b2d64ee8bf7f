"""What the parsers of our flat files share: faults with their place, and values read under a key."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from vstools.errors import BadFiles, VsError
from vstools.files import read_bounded

T = TypeVar("T")
LIMIT = 1 << 20


class Faults:
    """Collects the faults of one or more files; raised together by ``check``."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, path: Path, line: int, column: int, sentence: str) -> None:
        """Remember a fault at a place (line and column count from 1)."""
        self._lines.append(f"{path}:{line}:{column}: {sentence}")

    def attempt(self, path: Path, line: int, column: int, parse: Callable[[str], T], text: str) -> T | None:
        """``parse(text)``; what it raises (ValueError, Refused) is remembered at the place, and None returned."""
        try:
            return parse(text)
        except ValueError as error:
            self.add(path, line, column, str(error))
        except VsError as error:
            self.add(path, line, column, error.message)
        return None

    def __bool__(self) -> bool:
        return bool(self._lines)

    def check(self) -> None:
        """Raise BadFiles when anything was found."""
        if self._lines:
            raise BadFiles(tuple(self._lines))


def lines_of(path: Path) -> list[str]:
    """The lines of a configuration file; none where the file is missing.

    Only a newline ends a line: what an editor shows as one comment must not hold a setting, and its numbers are ours.
    """
    try:
        text = read_bounded(path, LIMIT).removesuffix("\n")
        return [line.removesuffix("\r") for line in text.split("\n")] if text else []
    except FileNotFoundError:
        return []
    except IsADirectoryError:
        raise BadFiles((f"{path}:1:1: it is a directory, not a file",)) from None


def statements(path: Path) -> Iterator[tuple[int, str]]:
    """(number, text) of each line that says something; ``#`` at a line's begin, or behind a blank, begins a comment."""
    for number, line in enumerate(lines_of(path), 1):
        text = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].rstrip()
        if text.strip():
            yield number, text


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """A parser for whole numbers between two bounds."""

    def parse(text: str) -> int:
        if not re.fullmatch("[0-9]{1,20}", text) or not least <= int(text) <= most:
            raise ValueError(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return parse

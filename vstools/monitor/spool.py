"""Mails that were not sent yet: a file each, durable before anything else is done. Bounded; retried ever more rarely.

A file is ``NUMBER-TRIES.mail``: the mail's number, and how often it was tried. Its modification time is when it is
tried next. So nothing but the files has to be remembered, and no clock that is set says how old a mail is: the pause
doubles with each try, from 30 seconds to an hour.
"""

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vstools import files, log

MOST = 1000
SIZE = 1 << 16
TRIES = 128
"""With the pauses between them, five days."""
_SHORTEST, _LONGEST = 30.0, 3600.0
_TURN = 300.0
_NAME = re.compile(r"([0-9]{12})-([0-9]{1,3})\.mail")


class Spool:
    """The directory, root's and closed to all others. ``attended``: somebody comes when the next try is due."""

    def __init__(self, folder: Path, *, attended: bool = True) -> None:
        self._folder = folder
        self._attended = attended
        self.committed = 0
        """Mails from this number on belong to a round that is not remembered yet: they are not sent."""

    def _mails(self) -> list[tuple[int, int, Path]]:
        """(number, how often it was tried, file), in the order of their numbers."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        found = [(match, name) for name in names if (match := _NAME.fullmatch(name))]
        return sorted((int(match[1]), int(match[2]), self._folder / name) for match, name in found)

    def next_number(self) -> int:
        """A number that no mail here has."""
        mails = self._mails()
        return mails[-1][0] + 1 if mails else 0

    def put(self, number: int, text: str, now: float) -> None:
        """Keep a mail durably. The oldest ones make room when there are too many."""
        files.directory(self._folder, 0o700)
        path = self._folder / f"{number:012d}-0.mail"
        files.write(path, text[:SIZE], 0o600)
        os.utime(path, (now, now))
        surplus = self._mails()[:-MOST]
        for _, _, old in surplus:
            old.unlink(missing_ok=True)
        if surplus:
            log.warn(f"{self._folder} is full: {len(surplus)} of the oldest mails were dropped")

    def forget_from(self, number: int) -> None:
        """Drop mails of a round that was cut short: it will be done again, and write them anew."""
        for each, _, path in self._mails():
            if each >= number:
                path.unlink(missing_ok=True)

    def is_due(self, now: float) -> bool:
        """Whether a mail waits to be tried."""
        return any(number < self.committed and _due(path, now) for number, _, path in self._mails())

    def count(self) -> int:
        """How many mails wait."""
        return len(self._mails())

    def send(self, deliver: Callable[[str], str], now: Callable[[], float]) -> int:
        """Try every mail that is due; returns how many could not be sent to all. ``deliver`` is a deliver.Way.

        After two failures in a row the others wait: then it is not the mail. So they do after five minutes.
        """
        failed = row = 0
        end = time.monotonic() + _TURN
        for number, tries, path in self._mails():
            if number >= self.committed or row >= 2 or time.monotonic() > end or not _due(path, now()):
                continue
            try:
                text = path.read_text("ascii", "replace")
            except FileNotFoundError:  # it just made room
                continue
            try:
                left = deliver(text)
            except Exception as error:  # whatever it is, it is this mail's, and the others are tried
                failed, row = failed + 1, row + 1
                self._later(number, tries + 1, path, now(), str(error) or type(error).__name__)
                continue
            row = 0
            if not left:
                path.unlink(missing_ok=True)
                continue
            failed += 1
            with suppress(OSError):  # a full disk: it goes to all of them again
                files.write(path, left, 0o600)
            self._later(number, tries + 1, path, now(), "the relay refused some of its recipients for now")
        return failed

    def _later(self, number: int, tries: int, path: Path, now: float, why: str) -> None:
        if tries >= TRIES:
            path.unlink(missing_ok=True)
            log.warn(f"a mail could not be sent in {tries} tries and was dropped: {why}")
            return
        pause = min(_SHORTEST * 2 ** min(tries - 1, 9), _LONGEST)
        with suppress(FileNotFoundError):
            path = path.rename(self._folder / f"{number:012d}-{tries}.mail")
            os.utime(path, (now + pause, now + pause))
        log.warn(f"a mail could not be sent{f', the next try is in {pause:.0f} s' if self._attended else ''}: {why}")


def _due(path: Path, now: float) -> bool:
    """No pause is longer than an hour: whose time is further away was given it by a clock that was wrong."""
    try:
        return not now < path.stat().st_mtime <= now + _LONGEST
    except FileNotFoundError:
        return False

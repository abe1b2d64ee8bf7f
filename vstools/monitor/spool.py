"""Mails that were not sent yet: a file each, durable before anything else is done. Bounded; retried ever more rarely.

A file is ``NUMBER-SECONDS.mail``: the mail's number, and when it was written (since 1970). Its modification time is
when it is tried next. So nothing but the files has to be remembered: the pause before the next try is the mail's age,
from 30 seconds to an hour.
"""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vstools import files, log
from vstools.errors import VsError

MOST = 1000
SIZE = 1 << 16
AGE = 5 * 86400.0
_SHORTEST, _LONGEST = 30.0, 3600.0
_NAME = re.compile(r"([0-9]{12})-([0-9]{1,12})\.mail")


class Spool:
    """The directory, root's and closed to all others."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.committed = 0
        """Mails from this number on belong to a round that is not remembered yet: they are not sent."""

    def _mails(self) -> list[tuple[int, int, Path]]:
        """(number, when it was written, file), in the order of their numbers."""
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
        path = self._folder / f"{number:012d}-{now:.0f}.mail"
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

    def send(self, deliver: Callable[[str], None], now: Callable[[], float]) -> int:
        """Try every mail that is due; returns how many could not be sent. ``deliver`` raises VsError or OSError.

        After two failures in a row the others wait: then it is not the mail.
        """
        failed = row = 0
        for number, written, path in self._mails():
            if number >= self.committed or row >= 2 or not _due(path, now()):
                continue
            try:
                text = path.read_text("ascii", "replace")
            except FileNotFoundError:  # it just made room
                continue
            try:
                deliver(text)
            except (VsError, OSError) as error:
                failed, row = failed + 1, row + 1
                self._later(path, written, now(), error)
            else:
                row = 0
                path.unlink(missing_ok=True)
        return failed

    def _later(self, path: Path, written: int, now: float, error: Exception) -> None:
        age = now - written
        if age > AGE:
            path.unlink(missing_ok=True)
            log.warn(f"a mail could not be sent for {AGE / 86400:.0f} days and was dropped: {error}")
            return
        pause = min(max(age, _SHORTEST), _LONGEST)
        with suppress(FileNotFoundError):
            os.utime(path, (now + pause, now + pause))
        log.warn(f"a mail could not be sent, the next try is in {pause:.0f} s: {error}")


def _due(path: Path, now: float) -> bool:
    try:
        return path.stat().st_mtime <= now
    except FileNotFoundError:
        return False

"""Every directory and regular file of a tree that may be hostile: deep, wide, full of links, pipes and devices.

No link is followed, no mount entered, and nothing but directories and regular files is opened. One descriptor is held
at a time, however deep the tree is: the way up is ``..``, which has to be the directory where the way down began.
"""

import os
from dataclasses import dataclass
from typing import Protocol

from vstools.errors import VsError
from vstools.inside import open_entry


class Missed(Protocol):
    """Is told why something in the tree could not be opened."""

    def __call__(self, error: OSError, /) -> None: ...


class Moved(VsError):
    """The way back is not where it was: somebody moves directories."""


class TooMany(VsError):
    """There is more in the tree than was asked for."""


@dataclass
class Room:
    """How much of a tree is looked at before TooMany is raised.

    The names of directories that wait for their turn are in memory, so they have a number of their own.
    """

    entries: int
    waiting: int

    def take(self, *, directory: bool) -> None:
        """One entry more."""
        self.entries -= 1
        self.waiting -= directory
        if min(self.entries, self.waiting) < 0:
            raise TooMany("the tree has too many entries")


_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY


class Act(Protocol):
    """What is done with an open file."""

    def __call__(self, descriptor: int, /, *, directory: bool) -> None: ...


def walk(root: int, act: Act, room: Room | None = None, missed: Missed | None = None) -> None:
    """Do something with the directory ``root`` and all below it, a directory before what is in it.

    ``root`` is an open directory. Raises what ``act`` raises, Moved when directories are moved meanwhile, and TooMany
    where there is more than ``room``. What cannot be opened is left out where ``missed`` is there to be told, and else
    raised: in a guest that runs, a file may be leased, or be something else by the time it is opened.
    """
    folder = os.dup(root)
    try:
        act(folder, directory=True)
        way = [(_identity(folder), _files(folder, act, room, missed))]
        while True:
            inner = _next(folder, way[-1][1], room, missed)
            if inner is not None:
                os.close(folder)
                folder = inner
                act(folder, directory=True)
                way.append((_identity(folder), _files(folder, act, room, missed)))
                continue
            way.pop()
            if not way:
                return
            outer = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = outer
            if _identity(folder) != way[-1][0]:
                raise Moved("a directory of the tree was moved while it was read", "try again")
    finally:
        os.close(folder)


def _identity(folder: int) -> tuple[int, int]:
    state = os.fstat(folder)
    return state.st_dev, state.st_ino


def _files(folder: int, act: Act, room: Room | None, missed: Missed | None) -> list[str]:
    """Act on the regular files of a directory; returns the names of the directories in it."""
    folders = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if room is not None:
                room.take(directory=entry.is_dir(follow_symlinks=False))
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            elif entry.is_file(follow_symlinks=False):
                _act(folder, entry.name, act, missed)
    return folders


def _open(folder: int, name: str, flags: int, missed: Missed | None) -> int | None:
    try:
        return open_entry(folder, name, flags)
    except OSError as error:
        if missed is None:
            raise
        missed(error)
        return None


def _act(folder: int, name: str, act: Act, missed: Missed | None) -> None:
    descriptor = _open(folder, name, _READ, missed)
    if descriptor is not None:
        try:
            act(descriptor, directory=False)
        finally:
            os.close(descriptor)


def _next(folder: int, names: list[str], room: Room | None, missed: Missed | None) -> int | None:
    """The next of the directories, open; None when none is left."""
    while names:
        if room is not None:
            room.waiting += 1
        inner = _open(folder, names.pop(), os.O_RDONLY | os.O_DIRECTORY, missed)
        if inner is not None:
            return inner
    return None

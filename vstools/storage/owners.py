"""Whose a snapshot is: its name ends in a token, and its owner holds the lock of that name while it lives.

Locks lie in /run: after a boot every owner is dead.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from vstools import files
from vstools.errors import Busy

_LOCK = "_snapshot."
_ALL = "_owners"


@contextmanager
def owned(locks: Path) -> Iterator[str]:
    """A new token, owned by this process until the end of the block. Locks of dead owners are removed first."""
    token = os.urandom(8).hex()
    path = locks / f"{_LOCK}{token}"
    with ExitStack() as held:
        with _alone(locks):
            for left in _left(locks):
                is_dead(locks, left)
            held.enter_context(files.lock(path, what="a snapshot", patience=0))
        try:
            yield token
        finally:
            path.unlink(missing_ok=True)


def _alone(locks: Path) -> AbstractContextManager[None]:
    """Nobody else has made its file and does not hold the lock yet: such a one would look dead."""
    return files.lock(locks / _ALL, what="the list of snapshots")


def _left(locks: Path) -> list[str]:
    names = os.listdir(locks) if locks.is_dir() else []
    return [name.removeprefix(_LOCK) for name in names if name.startswith(_LOCK)]


def are_any(locks: Path) -> bool:
    """Whether there are owners: living, or killed since the host's boot."""
    return bool(_left(locks))


def is_dead(locks: Path, token: str) -> bool:
    """Whether nobody owns the token of a snapshot that is there."""
    path = locks / f"{_LOCK}{token}"
    try:
        with files.lock(path, what="a snapshot", patience=0):
            path.unlink(missing_ok=True)
    except Busy:
        return False
    return True


def tidy(locks: Path) -> None:
    """Remove the locks of dead owners whose snapshots are gone, or were never made."""
    with _alone(locks):
        for left in _left(locks):
            is_dead(locks, left)

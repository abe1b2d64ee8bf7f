"""Whose a snapshot is: its name ends in a token, and its owner holds the lock of that name while it lives.

Locks lie in /run: after a boot every owner is dead.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vstools import files
from vstools.errors import Busy

_LOCK = "_snapshot."


@contextmanager
def owned(locks: Path) -> Iterator[str]:
    """A new token, owned by this process until the end of the block. Locks of dead owners are removed first."""
    for left in _left(locks):
        is_dead(locks, left)
    with ExitStack() as stack:
        token = None
        while token is None:
            token = _take(locks, stack)
        try:
            yield token
        finally:
            (locks / f"{_LOCK}{token}").unlink(missing_ok=True)


def _left(locks: Path) -> list[str]:
    names = os.listdir(locks) if locks.is_dir() else []
    return [name.removeprefix(_LOCK) for name in names if name.startswith(_LOCK)]


def _take(locks: Path, stack: ExitStack) -> str | None:
    """A token and its lock; None where another process, looking for the dead, was faster than our lock."""
    token = os.urandom(8).hex()
    path = locks / f"{_LOCK}{token}"
    try:
        stack.enter_context(files.lock(path, what="a snapshot", patience=0))
    except Busy:
        return None
    return token if path.exists() else None  # nobody makes it anew: tokens are random


def is_dead(locks: Path, token: str) -> bool:
    """Whether nobody owns a token any more."""
    path = locks / f"{_LOCK}{token}"
    try:
        with files.lock(path, what="a snapshot", patience=0):
            path.unlink(missing_ok=True)
    except Busy:
        return False
    return True

"""Whose a snapshot is: its name ends in a token, and its owner holds the lock of that name while it lives.

Locks lie in /run: after a boot every owner is dead.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vstools import files
from vstools.errors import Busy

_LOCK = "_snapshot."


@contextmanager
def owned(locks: Path) -> Iterator[str]:
    """A new token, owned by this process until the end of the block."""
    token = os.urandom(8).hex()
    path = locks / f"{_LOCK}{token}"
    with files.lock(path, what="a snapshot", patience=0):
        try:
            yield token
        finally:
            path.unlink(missing_ok=True)


def is_dead(locks: Path, token: str) -> bool:
    """Whether nobody owns a token any more."""
    path = locks / f"{_LOCK}{token}"
    try:
        with files.lock(path, what="a snapshot", patience=0):
            path.unlink(missing_ok=True)
    except Busy:
        return False
    return True

"""A guest whose tree is filled from elsewhere is whole before it is started, or goes to another host.

A half system could be started, and until its device nodes are removed they would be ones of this host.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from vstools import files
from vstools.errors import Refused
from vstools.faults import checkpoint
from vstools.paths import Paths

_MARK = ".filling"


def check(paths: Paths, name: str) -> None:
    """Raise Refused for a guest whose filling did not come to its end."""
    if (paths.config_of(name) / _MARK).exists():
        raise Refused(f"guest {name} holds a part of a machine", "give the vs-import that was cut off once more")


@contextmanager
def filled(paths: Paths, name: str) -> Iterator[None]:
    """Around what fills the tree of a guest that the caller holds; where it fails, or is killed, the mark stays."""
    mark = paths.config_of(name) / _MARK
    files.write(mark, "", 0o600)
    checkpoint("filling:marked")
    yield
    mark.unlink()
    files.sync_directory(mark.parent)

"""One file or directory of a copy comes back into a guest, which may run, and whose root may be an attacker.

It is copied into a directory in the tree's root, by a program that can write in that tree alone, and takes its place
by a rename. Paths are resolved as the guest's own (inside.py). What a killed session left goes with the next one.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from vstools import run
from vstools.errors import Refused
from vstools.guest import check_name
from vstools.inside import Inside
from vstools.lifecycle import trees
from vstools.paths import Paths
from vstools.pool import confined, rsync

_ROOM = ".vs-restore"
_DEADLINE = 3600.0


def check_path(text: str) -> str:
    """A guest's path, without ``..`` and doubled slashes; raises Refused for what can be none, and for the root."""
    path = PurePosixPath(text)
    if not path.is_absolute() or ".." in path.parts or "\0" in text or path.name == "":
        raise Refused(f"{text!r} is not the path of something in a guest", "like /etc/exim4")
    return "/" + "/".join(path.parts[1:])


@contextmanager
def room(paths: Paths, name: str) -> Iterator[None]:
    """An empty directory in the guest's tree, for the time of a block."""
    from vstools.config import registry

    check_name(name, imported=True)
    registry.require(paths, name)
    tree = trees.opened(paths, name)
    _clear(tree)
    with Inside(tree) as inside:
        inside.directory(_ROOM, 0o700)
    try:
        yield
    finally:
        _clear(tree)


def _clear(tree: Path) -> None:
    words = ("rm", "-rf", "--one-file-system", "--", _ROOM)
    run.run(confined.words(tree, tree, *words), timeout=_DEADLINE)


def receive(paths: Paths, name: str, words: Sequence[str]) -> int:
    """Take rsync's files into that directory; whatever the guest makes of it meanwhile, nothing outside is written."""
    check_name(name, imported=True)
    tree = paths.tree_of(name)
    with Inside(tree) as inside:
        if not inside.is_directory(_ROOM):
            raise Refused(f"nothing is to be laid into guest {name}")
    return rsync.serve(words, sender=False, folder=tree / _ROOM, within=tree)


def place(paths: Paths, name: str, path: str, kept: str) -> bool:
    """Let what came be ``path`` in the guest; what was there is called ``kept`` then. Whether there was anything."""
    wanted, before = check_path(path), check_path(kept)
    last = PurePosixPath(wanted).name
    with Inside(paths.tree_of(name)) as inside:
        if not inside.exists(f"{_ROOM}/{last}"):
            raise Refused(f"{last} did not come", "is it in the copy?")
        had = inside.exists(wanted)
        if had:
            inside.move(wanted, before)
        inside.move(f"{_ROOM}/{last}", wanted)
    return had

"""What changed between two generations of a guest, or since one: manifests compared, and lists of users read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import chain

from vstools import files
from vstools.config import carried
from vstools.config.slaves import Slave
from vstools.errors import Refused
from vstools.inside import Inside
from vstools.paths import Paths
from vstools.pool import listed, manifest, parcel, remote
from vstools.pool.compare import Change, Line, accounts, compare
from vstools.pool.listing import LISTS
from vstools.pool.store import Generation, Store

_SCRATCH = "diff-"
_TOLD = {f"/etc/{file}".encode(): file for file in LISTS}


@dataclass(frozen=True)
class Since:
    """What changed since a generation. ``live``: the tree may have changed meanwhile; ``unread``: how many names."""

    changes: list[Change]
    live: bool
    unread: int


def chosen(store: Store, name: str, words: list[str]) -> tuple[Generation, Generation | None]:
    """What a command names: a generation (without words the newest), and the one to compare it with, if it is one.

    Raises Refused.
    """
    if len(words) > 2:
        raise Refused(f"{len(words)} copies are named: two are compared, or one with the guest as it is")
    named: list[str | None] = [*words] or [None]
    older, *rest = [store.generation(name, text) for text in named]
    newer = rest[0] if rest else None
    if older == newer:
        raise Refused(f"{older.name} is compared with itself", "name another copy")
    return older, newer


def changes(older: Generation, newer: Generation, *, full: bool = False) -> list[Change]:
    """All that changed, the most alarming first (compare.py); of the lists of users, who."""
    before, after = (manifest.lines_of(each.path / manifest.FILE) for each in (older, newer))
    found = compare(before, after, full=full)
    return _with_names(found, _lists(older), _lists(newer))


def since(
    paths: Paths, slave: Slave, older: Generation, *, quick: bool = False, full: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Since:  # fmt: skip
    """What changed since a generation in the guest that a host has.

    Every file is read that could be the copy's: times are the guest's to set. ``quick`` believes size and time.
    """
    before = dict(manifest.lines_of(older.path / manifest.FILE))
    config = _config(paths, slave, older.guest)
    with listed.asked(paths, slave, older.guest, before, quick=quick, progress=progress) as answer:
        found = compare(before.items(), chain(config, answer.lines()), full=full)
    return Since(_with_names(found, _lists(older), answer.lists), answer.live, answer.unread)


def _config(paths: Paths, slave: Slave, name: str) -> list[Line]:
    """The manifest of a guest's directory on its host, which is written here as a copy of it would be."""
    with remote.agent(paths, slave) as there:
        found = parcel.files_of(slave.host, there.call("files", name=name))
    with files.scratch(paths.run, _SCRATCH) as folder:
        carried.write(files.directory(folder / "config"), found)
        manifest.write(folder)
        return list(manifest.lines_of(folder / manifest.FILE))


def _lists(generation: Generation) -> dict[str, str]:
    with Inside(generation.tree) as tree:
        return {file: tree.read(f"etc/{file}") or "" for file in LISTS}


def _with_names(found: list[Change], before: Mapping[str, str], after: Mapping[str, str]) -> list[Change]:
    return [_named(each, before, after) if each.name in _TOLD else each for each in found]


def _named(change: Change, before: Mapping[str, str], after: Mapping[str, str]) -> Change:
    file = _TOLD[change.name]
    names = accounts(file, before.get(file, ""), after.get(file, ""))
    return replace(change, details=f"{change.details}: {names}") if names else change

"""What changed between two generations of a guest: their manifests compared, and their lists of users read."""

from dataclasses import replace

from vstools.errors import Refused
from vstools.inside import Inside
from vstools.pool.compare import Change, accounts, compare
from vstools.pool.manifest import FILE, lines_of
from vstools.pool.store import Generation, Store

_LISTS = ("passwd", "shadow", "group")


def chosen(store: Store, name: str, words: list[str]) -> tuple[Generation, Generation]:
    """The two generations that a command names: none, the two newest; one, that and the newest. Raises Refused."""
    if len(words) > 2:
        raise Refused(f"{len(words)} copies are named: two are compared")
    every = store.generations(name)
    if not words and len(every) == 1:
        raise Refused(f"there is one copy of {name} in {store.root}: two are compared")
    texts: list[str | None] = [*words] or [each.name for each in every[-2:-1]] or [None]
    older, *rest = [store.generation(name, text) for text in texts]
    newer = rest[0] if rest else every[-1]
    if older == newer:
        raise Refused(f"{older.name} is compared with itself", "name another copy")
    return older, newer


def changes(older: Generation, newer: Generation, *, full: bool = False) -> list[Change]:
    """All that changed, the most alarming first (compare.py); of the lists of users, who."""
    found = compare(lines_of(older.path / FILE), lines_of(newer.path / FILE), full=full)
    told = {f"/etc/{file}".encode(): file for file in _LISTS}
    return [_with_names(each, told[each.name], older, newer) if each.name in told else each for each in found]


def _with_names(change: Change, file: str, older: Generation, newer: Generation) -> Change:
    texts = []
    for generation in (older, newer):
        with Inside(generation.tree) as tree:
            texts.append(tree.read(f"etc/{file}") or "")
    names = accounts(file, *texts)
    return replace(change, details=f"{change.details}: {names}") if names else change

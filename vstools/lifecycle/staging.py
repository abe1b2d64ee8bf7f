"""What every guest that is made here has in common: a context, a hidden directory beside, and a name at the end.

The directory of the guest is staged (it reserves name, addresses and context), the tree is staged and filled, the tree
takes its name, the directory takes its name: from there on the guest exists.
"""

import os
from collections.abc import Iterable

from vstools import files
from vstools.config import guests
from vstools.errors import Refused, VsError
from vstools.faults import checkpoint
from vstools.guest import CONTEXT_MAX, CONTEXT_MIN, Address, Guest, Place
from vstools.lifecycle import addresses
from vstools.lifecycle.host import host_lock
from vstools.lifecycle.leftovers import ARRIVING, MADE, awaited
from vstools.paths import STAGED, Paths
from vstools.storage import choose

FIRST_CONTEXT = 10000


def check_free(paths: Paths, name: str, wanted: Iterable[Address]) -> None:
    """Raise Refused when name or addresses are taken on this host, by what is being made here as well."""
    if guests.exists(paths, name):
        raise Refused(f"there is a guest {name!r} already", "choose another name, or vs-remove it")
    if awaited(paths, name):
        raise Refused(f"a guest {name!r} is coming here from another host", "wait for it, or choose another name")
    if os.path.lexists(paths.tree_of(name)):
        raise Refused(f"{paths.tree_of(name)} is in the way", "it belongs to no guest: move it away")
    addresses.check_free(paths, wanted)


def next_context(paths: Paths) -> int:
    """The context that the next guest of this host gets (CONTEXT_METHOD=crit: a counter)."""
    counter = paths.defaults / "context.next"
    used = guests.contexts_in_use(paths)
    try:
        first = int(files.read_bounded(counter, 64).strip())
    except FileNotFoundError:
        first = FIRST_CONTEXT
    except ValueError:
        raise Refused(
            f"{counter}:1:1: it holds no number", f"write the next context, {FIRST_CONTEXT} at first"
        ) from None
    if not CONTEXT_MIN <= first <= CONTEXT_MAX:
        first = FIRST_CONTEXT
    candidates = (*range(first, CONTEXT_MAX + 1), *range(CONTEXT_MIN, first))
    context: int | None = next((number for number in candidates if number not in used), None)
    if context is None:
        raise VsError("every context of this host is taken", f"there are {CONTEXT_MAX - CONTEXT_MIN + 1}")
    return context


def draw_context(paths: Paths) -> int:
    """Take the next context; the caller holds the host's lock "allocation"."""
    files.directory(paths.defaults)
    context = next_context(paths)
    files.write(paths.defaults / "context.next", f"{context + 1 if context < CONTEXT_MAX else CONTEXT_MIN}\n")
    return context


def give_back(paths: Paths, context: int) -> None:
    """After a refusal: the context that was drawn last is the next one again."""
    counter = paths.defaults / "context.next"
    with host_lock(paths, "allocation"):
        if files.read_bounded(counter, 64).strip() == str(context + 1):
            files.write(counter, f"{context}\n")


def placed(paths: Paths, guest: Guest, place: Place) -> Guest:
    """The guest with its own volume, if it shall have one: it is named in its files before it is made."""
    if not place.group:
        return guest
    from dataclasses import replace

    from vstools.storage import own

    return replace(guest, volume=own.volume_of(paths, place.group, guest.context))


def made_by(paths: Paths, name: str) -> bool:
    """Whether the tree called ``name`` is the one that was made for the staged directory."""
    try:
        made = (paths.guests / f"{STAGED}{name}" / MADE).read_text().strip()
        return choose.of_guest(paths, f"{STAGED}{name}").identity(paths.tree_of(name)) == made
    except FileNotFoundError:
        return False


def take_name(paths: Paths, name: str) -> None:
    """The tree, then the directory takes its name; from then on the guest exists. ``finish`` follows."""
    staged = paths.guests / f"{STAGED}{name}"
    storage = choose.of_guest(paths, staged.name)
    files.write(staged / MADE, storage.identity(paths.trees / f"{STAGED}{name}") + "\n")
    checkpoint("create:marked")
    storage.settle(name)
    checkpoint("create:settled")
    take_directory(paths, name)


def take_directory(paths: Paths, name: str) -> None:
    """The directory of a tree that has its name takes it too."""
    (paths.guests / f"{STAGED}{name}").rename(paths.config_of(name))
    files.sync_directory(paths.guests)
    checkpoint("create:named")


def finish(paths: Paths, name: str) -> None:
    """The guest exists: nothing of it is new any more."""
    (paths.config_of(name) / ARRIVING).unlink(missing_ok=True)
    choose.of_guest(paths, name).finish(name)
    checkpoint("create:finished")
    (paths.config_of(name) / MADE).unlink()
    checkpoint("create:done")

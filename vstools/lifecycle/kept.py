"""A guest's tree kept as it was before its packages were changed, and put back in its place (btrfs).

It lies hidden among the trees, read-only. ``.kept`` in the guest's directory has its identity, so that no other guest,
which has the name later, is ever given it; while one takes the place of another, it has both. What is made or goes has
the name of a tree that is being made: after a kill it is removed, and the guest's tree is the one or the other, whole.
"""

import os
from pathlib import Path

from vstools import files, libc, log
from vstools.config import registry
from vstools.errors import Refused
from vstools.faults import checkpoint
from vstools.lifecycle import snapshot
from vstools.lifecycle.host import guest_lock
from vstools.paths import STAGED, Paths
from vstools.storage import choose

KEPT = ".kept-"
_FILE = ".kept"
_LIMIT = 256


def check(paths: Paths, name: str) -> None:
    """Raise Refused where a guest's tree cannot be kept."""
    storage = choose.of_guest(paths, name)
    if not storage.clones or registry.storage(paths, name):
        raise Refused(
            f"guest {name} has a tree that cannot be kept beside itself ({storage.kind})",
            "btrfs can that; vs-get makes a copy on the master",
        )
    from vstools.storage.btrfs import subvolume

    tree = paths.tree_of(name)
    if not tree.is_dir():
        raise Refused(f"guest {name} has no tree", f"{tree} is missing")
    if subvolume(tree) is None:
        raise Refused(f"{tree} is a plain directory", "only a subvolume can be kept beside itself")


def keep(paths: Paths, name: str) -> None:
    """Keep a guest's tree as it is now, in place of what was kept before; its hooks of snapshots are run.

    Raises Refused or VsError, and what was kept before stays then.
    """
    check(paths, name)
    with snapshot.of_guest(paths, name) as tree, guest_lock(paths, name), log.change("keep its tree", name):
        storage, new, place = choose.of(paths), paths.trees / f"{STAGED}{name}", paths.trees / f"{KEPT}{name}"
        storage.clear(new.name)
        try:
            storage.clone(tree, new, sealed=True)
            checkpoint("kept:made")
            later, before = storage.identity(new), place.exists()
            earlier = storage.identity(place) if before else ""
            both = f"{later} {earlier}" if _is_ours(paths, name, earlier) else later
            files.write(paths.config_of(name) / _FILE, f"{both}\n")
            checkpoint("kept:noted")
            if before:
                libc.exchange(new, place)
            else:
                new.rename(place)
            files.sync_directory(paths.trees)
            checkpoint("kept:there")
            files.write(paths.config_of(name) / _FILE, f"{later}\n")
        finally:
            storage.clear(new.name)


def _is_ours(paths: Paths, name: str, identity: str) -> bool:
    try:
        return identity in files.read_bounded(paths.config_of(name) / _FILE, _LIMIT).split()
    except FileNotFoundError:
        return False


def needed(paths: Paths, name: str) -> Path:
    """The tree that is kept of a guest; raises Refused where there is none."""
    place = paths.trees / f"{KEPT}{name}"
    if not place.is_dir() or not _is_ours(paths, name, choose.of(paths).identity(place)):
        raise Refused(f"nothing is kept of guest {name}", "vs-pkg --snapshot keeps its tree before it changes packages")
    return place


def put_back(paths: Paths, name: str) -> None:
    """Let a guest have the tree that is kept of it; its own goes. The caller holds the guest (``departure.held``)."""
    place = needed(paths, name)
    check(paths, name)
    storage, new = choose.of(paths), paths.trees / f"{STAGED}{name}"
    storage.clear(new.name)
    try:
        storage.clone(place, new)
        checkpoint("kept:cloned")
        libc.exchange(new, paths.tree_of(name))
        files.sync_directory(paths.trees)
        checkpoint("kept:back")
    finally:
        storage.clear(new.name)


def forget(paths: Paths, name: str) -> None:
    """Remove what is kept of a guest that goes, or gets another name."""
    entry = f"{KEPT}{name}"
    if os.path.lexists(paths.trees / entry):
        choose.of(paths).clear(entry)

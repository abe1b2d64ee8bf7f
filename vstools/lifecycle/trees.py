"""Guests' trees where they belong: a guest's own volume is mounted, at the host's boot or by whoever needs the tree."""

from pathlib import Path

from vstools import log
from vstools.config import registry
from vstools.errors import VsError
from vstools.lifecycle.host import runtime_lock
from vstools.paths import Paths


def opened(paths: Paths, name: str) -> Path:
    """The tree of a guest; its own volume is mounted there, if it has one. Raises VsError where it cannot be."""
    if registry.storage(paths, name):
        from vstools.storage import choose

        with runtime_lock(paths, name):
            choose.of_guest(paths, name).attach(name)
    return paths.tree_of(name)


def open_all(paths: Paths) -> bool:
    """Mount every guest's own volume; says what cannot be mounted, and returns whether all are."""
    failed = False
    for name in registry.names(paths):
        try:
            opened(paths, name)
        except (VsError, OSError) as error:
            log.warn(f"guest {name}: its volume is not mounted: {error}")
            failed = True
    return not failed

"""Guests' trees where they belong: a guest's own volume is mounted, at the host's boot or by whoever needs the tree."""

from pathlib import Path

from vstools import log, run
from vstools.config import registry
from vstools.errors import VsError
from vstools.lifecycle.host import runtime_lock
from vstools.paths import Paths

_DEADLINE = 4 * 3600.0


def opened(paths: Paths, name: str) -> Path:
    """The tree of a guest; its own volume is mounted there, if it has one. Raises VsError where it cannot be."""
    if registry.storage(paths, name):
        from vstools.storage import choose

        with runtime_lock(paths, name):
            choose.of_guest(paths, name).attach(name)
    return paths.tree_of(name)


def added_up(tree: Path, unit: str) -> int:
    """What du counts in a tree (``-B1``: bytes, ``--inodes``), which takes its time; no mount is entered."""
    argv = [*run.TIED, "du", "-s", "-x", unit, "--", str(tree)]
    return int(run.run(argv, timeout=_DEADLINE, check=False).out.partition("\t")[0] or 0)


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

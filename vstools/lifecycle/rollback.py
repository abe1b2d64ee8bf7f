"""A guest goes back to what it was before vs-pkg changed its packages: all of its tree, stopped meanwhile."""

from vstools import log, lxc
from vstools.config import guests
from vstools.faults import checkpoint
from vstools.lifecycle import aside, control, departure, kept, leftovers, removal, window
from vstools.paths import Paths


def check(paths: Paths, name: str) -> None:
    """Raise Refused where nothing is kept of a guest, or something of the admin's is mounted in its tree."""
    guests.require(paths, name)
    kept.needed(paths, name)
    kept.check(paths, name)
    removal.check_mounts(paths, name)


def roll_back(paths: Paths, name: str) -> None:
    """Stop a guest, give it the tree that is kept of it, start it where it ran.

    After a kill its tree is the one or the other, whole, and it may be stopped.
    """
    leftovers.sweep(paths)
    check(paths, name)
    with window.alone(paths, name):
        ran = lxc.is_running(paths, name)
        with departure.held(paths, name, stop=True), log.change("roll back", name):
            removal.check_idle(paths, name)
            kept.put_back(paths, name)
            aside.count(paths, guests.load(paths, name))
            checkpoint("kept:counted")
    if ran:
        control.start(paths, name)

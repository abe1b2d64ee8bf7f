"""Whether dead commands left anything. Kept small: nearly always they did not, and what removes it is not loaded."""

import os
import time

from vstools import alive, files
from vstools.paths import DOOMED, STAGED, Paths
from vstools.storage import owners, plain

MADE = ".made"
"""In the directory of a guest that is being made: the identity of the tree that will bear its name."""
ARRIVING = ".arriving"
"""In the directory of a guest that comes from another host: the transfer, which may go on after a kill."""
AWAITED = 24 * 3600.0
"""Seconds since its last step after which nobody is believed to come back for it."""
UNPACKED, UNPACKING = ".imports", "from-"
"""Among the trees: where archives are unpacked whose files are wanted in another place, and how that is called."""
LOOKING = "import-"
"""Below /run: what was fetched of an old host to be looked at."""
_LOOKED = "snapshots-swept"


def sweep(paths: Paths) -> None:
    """Remove what dead commands left on this host, if there is anything."""
    if names(paths) or may_be_snapshots(paths) or are_scraps(paths):
        from vstools.lifecycle import sweep as broom

        broom.sweep(paths)


def names(paths: Paths) -> list[str]:
    """The guests of which something is left, or is just being made or removed."""
    entries = set(plain.hidden(paths))
    if paths.guests.is_dir():
        for entry in os.listdir(paths.guests):
            if entry.startswith((STAGED, DOOMED)):
                entries.add(entry)
            elif os.path.lexists(paths.guests / entry / MADE):
                entries.add(f"{STAGED}{entry}")
    found = {entry.removeprefix(STAGED).removeprefix(DOOMED) for entry in entries}
    found = found.union(_dead(paths), _abandoned(paths))
    return sorted(name for name in found if not awaited(paths, name))


def awaited(paths: Paths, name: str) -> bool:
    """Whether a guest comes here from another host, and somebody may go on with that."""
    try:
        at = os.stat(paths.guests / f"{STAGED}{name}" / ARRIVING).st_mtime  # noqa: PTH116 - cheap
    except (FileNotFoundError, NotADirectoryError):
        return False
    return abs(time.time() - at) < AWAITED


def are_scraps(paths: Paths) -> bool:
    """Whether something lies where archives are unpacked, and old hosts looked at."""
    for folder, prefix in ((paths.trees / UNPACKED, UNPACKING), (paths.run, LOOKING)):
        try:
            if any(name.startswith(prefix) for name in os.listdir(folder)):
                return True
        except FileNotFoundError:
            continue
    return False


def _dead(paths: Paths) -> list[str]:
    """Guests that have something in the kernel but do not run."""
    try:
        started = os.listdir(paths.runtime)
    except FileNotFoundError:
        return []
    return [name for name in started if not alive.is_running(paths, name)]


def _abandoned(paths: Paths) -> list[str]:
    """Guests whose packages a dead command worked at: its lock can be had."""
    try:
        names = os.listdir(paths.packages)
    except FileNotFoundError:
        return []
    return [name for name in names if name[0] != "." and not files.is_locked(paths.locks / f"{name}.packages")]


def may_be_snapshots(paths: Paths) -> bool:
    """Whether snapshots of dead commands may be there: one left its lock, or nobody has looked since the boot."""
    return paths.trees.is_dir() and (owners.are_any(paths.locks) or not (paths.run / _LOOKED).exists())


def looked_for_snapshots(paths: Paths) -> None:
    """Note that somebody has looked."""
    files.directory(paths.run)
    (paths.run / _LOOKED).touch()

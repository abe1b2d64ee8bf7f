"""A running machine, physical or virtual, becomes what a skeleton guest holds: copied by ssh, as often as is needed.

The guest is made before (vs-create --skeleton): it has its address, limits and firewall. Each run copies what changed
on the machine and puts the tree right again. A file in the guest's directory names the machine: no other one, and no
guest that has a system of its own, is copied over.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vstools import files, log
from vstools.errors import Refused
from vstools.faults import checkpoint
from vstools.inside import Inside
from vstools.lifecycle import departure, disk, filling
from vstools.lifecycle.leftovers import LOOKING
from vstools.paths import Paths
from vstools.pool import oldhost, wire
from vstools.pool.oldhost import Place
from vstools.storage import strange
from vstools.tree import machine, oldsystem
from vstools.tree.oldsystem import System

_MARK = ".physical"
_WORDS = ("--no-one-file-system", *(f"--exclude={path}" for path in machine.NEVER))
_SYSTEM = ("bin", "sbin", "usr/bin", "usr/sbin")


@dataclass(frozen=True)
class Plan:
    """What would be copied: rsync's words, bytes, the machine's init, and what stays out."""

    words: tuple[str, ...]
    size: int
    system: System
    notes: tuple[str, ...]


@oldhost.untouched()
def plan(paths: Paths, place: Place) -> Plan:
    """Look at a machine; raises Refused where its init cannot run here."""
    mounts, swaps = (place.there("cat", f"/proc/{name}").out for name in ("mounts", "swaps"))
    out, notes = machine.left_out(mounts, swaps)
    words = (*_WORDS, *(machine.pattern(path) for path in out))
    with files.scratch(paths.run, LOOKING) as folder:
        programs, empty = (files.directory(folder / part, 0o700) for part in ("programs", "empty"))
        system = oldhost.system_of(place, programs, place.words)
        size = place.size(empty, words).size
    return Plan(words, size, system, tuple(wire.clean(note) for note in notes))


def bring(
    paths: Paths, place: Place, name: str, found: Plan, progress: Callable[[int], None] = lambda _: None
) -> list[str]:
    """Copy the machine into the guest, which is stopped meanwhile; returns what was changed in its tree.

    Raises Refused where the guest runs, or has another system. Killed, the same call goes on.
    """
    with departure.held(paths, name) as tree, log.change(f"import {place.words}", name):
        _claim(paths, name, tree, place, found.size)
        with oldhost.begun(), filling.filled(paths, name):
            place.tree_into(tree, found.words, live=True, progress=progress, check=disk.room(paths))
            checkpoint("physical:copied")
            said = _settle(tree, place.words)
        checkpoint("physical:settled")
    return said


def _settle(tree: Path, what: str) -> list[str]:
    """What was copied becomes a guest's tree; returns what was changed, a sentence each."""
    oldhost.check_ids(tree, "no guest has such ids: give that file another one there")
    removed = strange.remove_devices(tree)
    with Inside(tree) as inside:
        for folder, mode in (("dev", 0o755), ("proc", 0o555), ("sys", 0o555), ("run", 0o755), ("tmp", 0o1777)):
            inside.directory(folder, mode)
        system = oldsystem.examine(inside)
        oldsystem.check(system, what)
        said = machine.settle(inside, system)
    return [f"{removed} device nodes were removed (LXC makes /dev)", *said] if removed else said


def _claim(paths: Paths, name: str, tree: Path, place: Place, size: int) -> None:
    """Write down which machine fills this guest; raises Refused where it holds something else."""
    mark = paths.config_of(name) / _MARK
    before = files.read_bounded(mark, 512).strip() if mark.exists() else None
    wanted = "" if place.slave is None else place.slave.place
    if before == wanted:
        return
    if before is not None:
        raise Refused(f"guest {name} is filled from {before}", "make another one: vs-create --skeleton")
    with Inside(tree) as inside:
        if any(inside.exists(folder) for folder in _SYSTEM):
            raise Refused(f"guest {name} has a system already", "make one without: vs-create --skeleton")
    free = os.statvfs(tree).f_bavail * os.statvfs(tree).f_frsize
    if size > free:
        raise Refused(f"{tree} has {free >> 20} MiB free, and {size >> 20} are needed", "vs-limit --disk, or make room")
    files.write(mark, f"{wanted}\n", 0o600)
    checkpoint("physical:claimed")

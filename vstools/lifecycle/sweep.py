"""What a killed command left is found by the next one and removed. Nothing is removed whose owner lives.

An owner holds the guest's lock for as long as it works; a lock that can be had has a dead owner.
"""

import os
import shutil

from vstools import files, log, lxc, units
from vstools.errors import Busy, VsError
from vstools.faults import checkpoint
from vstools.lifecycle import disk, kept, leftovers, phases, records, staging, window
from vstools.lifecycle.host import guest_lock
from vstools.lifecycle.leftovers import MADE
from vstools.paths import DOOMED, STAGED, Paths
from vstools.storage import choose


def sweep(paths: Paths) -> None:
    """Remove every leftover of dead commands on this host."""
    if leftovers.may_be_snapshots(paths):
        _sweep_snapshots(paths)
    if leftovers.are_scraps(paths):
        files.sweep_scratch(paths.trees / leftovers.UNPACKED, leftovers.UNPACKING)
        files.sweep_scratch(paths.run, leftovers.LOOKING)
    for name in leftovers.names(paths):
        try:
            with guest_lock(paths, name, patience=0):
                sweep_one(paths, name)
        except Busy:
            continue
        except (VsError, OSError) as error:
            log.warn(f"what a killed command left of {name} could not be removed: {error}")


def _sweep_snapshots(paths: Paths) -> None:
    """Remove the snapshots of dead commands."""
    try:
        choose.of(paths).sweep()
        for own in choose.owns(paths):
            own.sweep()
        leftovers.looked_for_snapshots(paths)
    except (VsError, OSError) as error:
        log.warn(f"what is left of snapshots could not be removed: {error}")


def sweep_one(paths: Paths, name: str) -> None:
    """Remove what a dead command left of one guest. The caller holds the guest's lock.

    What comes from another host stays for a day: the next command of its transfer goes on with it.
    """
    if leftovers.awaited(paths, name):
        return
    window.sweep(paths, name)
    config = paths.config_of(name)
    if config.is_dir():
        if (config / MADE).exists():
            staging.finish(paths, name)
    elif (paths.guests / f"{DOOMED}{name}").is_dir():
        _forget_files(paths, name)
    elif staging.made_by(paths, name):
        choose.of_guest(paths, f"{STAGED}{name}").doom(name)
    for prefix in (STAGED, DOOMED):
        if os.path.lexists(paths.trees / f"{prefix}{name}") or (paths.guests / f"{prefix}{name}").is_dir():
            log.debug(f"sweeping {prefix}{name}")
            choose.of_guest(paths, f"{prefix}{name}").clear(f"{prefix}{name}")
            drop_config(paths, f"{prefix}{name}")
    if _is_dead(paths, name):
        phases.cleanup(paths, name)
        _drop_unrecorded(paths, name)


def _is_dead(paths: Paths, name: str) -> bool:
    """Whether the guest has something in the kernel, does not run and is not being started by systemd."""
    if not paths.runtime_of(name).exists() or lxc.is_running(paths, name):
        return False
    return not paths.systemd or units.is_idle(name)


def _drop_unrecorded(paths: Paths, name: str) -> None:
    """A runtime directory whose command died before it wrote the record holds nothing else."""
    if paths.runtime_of(name).exists() and records.read(paths, name) is None:
        phases.undo(paths, name)


def drop_config(paths: Paths, entry: str) -> None:
    """Delete a hidden directory among those of the guests, whose tree is gone, and its disk limit."""
    path = paths.guests / entry
    if path.is_dir():
        disk.forget(paths, entry)
        shutil.rmtree(path)
        files.sync_directory(paths.guests)


def forget(paths: Paths, name: str) -> None:
    """Forget a guest that is neither running nor enabled: it is gone at once, its space is freed after."""
    doomed = paths.guests / f"{DOOMED}{name}"
    drop_config(paths, doomed.name)
    paths.config_of(name).rename(doomed)
    files.sync_directory(paths.guests)
    checkpoint("remove:renamed")
    _forget_files(paths, name)
    drop_config(paths, doomed.name)
    checkpoint("remove:done")


def _forget_files(paths: Paths, name: str) -> None:
    """What a guest has beside its directory, which is among the doomed ones until all of this is gone."""
    storage = choose.of_guest(paths, f"{DOOMED}{name}")
    storage.doom(name)
    checkpoint("remove:tree-renamed")
    storage.clear(f"{DOOMED}{name}")
    kept.forget(paths, name)
    checkpoint("remove:tree")
    if paths.log_of(name).is_dir():
        shutil.rmtree(paths.log_of(name))
    checkpoint("remove:logs")

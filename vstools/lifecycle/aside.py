"""A guest that is suspect is set aside, whole and never started again, and makes room for one that is restored.

It becomes another guest: disabled, nobody's, with another context and no addresses; its tree, its files and its logs
stay for whoever looks into it, at their usual places under the new name. ``suspect`` in its directory says which guest
it was, in which context; ``interfaces.suspect`` has its addresses. A kill leaves ``.aside``: the same call goes on.
"""

from dataclasses import replace
from pathlib import Path

from vstools import files, log, units
from vstools.config import guests, owner, registry
from vstools.config.owner import NOBODY, Owner
from vstools.config.text import Faults
from vstools.errors import Refused
from vstools.faults import checkpoint
from vstools.guest import Guest, check_context, check_name
from vstools.lifecycle import departure, disk, kept, ownership, removal, staging
from vstools.lifecycle.host import guest_lock, host_lock, runtime_lock
from vstools.paths import Paths
from vstools.storage import choose, own

WAS = "suspect"
"""In the directory of a guest that was set aside: ``NAME CONTEXT`` of the guest it was."""
ADDRESSES = "interfaces.suspect"
_UNFINISHED = ".aside"
_LIMIT = 256


def set_aside(paths: Paths, name: str, other: str) -> int:
    """Stop a guest and let it be ``other`` from now on; returns the context that it had.

    Nothing is done where that is done. Raises Refused where there is neither, or the new name is another guest's.
    """
    check_name(name, imported=True)
    check_name(other, imported=True)
    if not registry.exists(paths, other):
        ownership.of(paths, name)  # a broken file is told before the guest is stopped
        with departure.held(paths, name, stop=True), log.change(f"set aside as {other}", name):
            _take_name(paths, name, other)
    with guest_lock(paths, other):
        former, context = was(paths, other)
        if former != name:
            raise Refused(f"{other} was guest {former}, not {name}")
        if (paths.config_of(other) / _UNFINISHED).exists():
            with runtime_lock(paths, other):
                _finish(paths, name, other, context)
    return context


def was(paths: Paths, other: str) -> tuple[str, int]:
    """Which guest it was, and in which context."""
    try:
        name, context = files.read_bounded(paths.config_of(other) / WAS, _LIMIT).split()
        return name, check_context(int(context))
    except (FileNotFoundError, ValueError) as error:
        raise Refused(f"there is a guest {other} already, which was not set aside") from error


def _take_name(paths: Paths, name: str, other: str) -> None:
    """The guest is nobody's, then its directory has the other name; from then on there is no guest ``name``."""
    removal.check_idle(paths, name)
    if paths.tree_of(other).exists() or paths.tree_of(other).is_symlink():
        raise Refused(f"{paths.tree_of(other)} is in the way", "it belongs to no guest: move it away")
    if (volume := choose.own(paths, name)) is not None:
        own.check_alone(volume.required())  # it will be renamed
    config = paths.config_of(name)
    context = registry.context(paths, name)
    if context is None:
        raise Refused(f"guest {name} has no context", f"write one to {config / 'context'}")
    before = ownership.of(paths, name)
    owner.write(config, Owner(NOBODY, before.epoch if before else 1))
    checkpoint("aside:nobodys")
    guests.set_enabled(config, False)
    if paths.systemd:
        units.disable(paths, name)
    files.write(config / WAS, f"{name} {context}\n")
    files.write(config / _UNFINISHED, "")
    checkpoint("aside:marked")
    config.rename(paths.config_of(other))
    files.sync_directory(paths.guests)
    checkpoint("aside:renamed")


def _finish(paths: Paths, name: str, other: str, before: int) -> None:
    """Context, tree, addresses and logs follow; each step is done where it is not done yet."""
    config = paths.config_of(other)
    faults = Faults()  # what is wrong in its files is for whoever looks at it
    guest = guests.read(config, other, faults)
    if guest.context == before:
        with host_lock(paths, "allocation"):
            guest = replace(guest, context=staging.draw_context(paths))
            files.write(config / "context", f"{guest.context}\n")
    checkpoint("aside:context")
    move_tree(paths, name, other, guest)
    kept.forget(paths, name)
    checkpoint("aside:tree")
    rename(config / guests.NICS, config / ADDRESSES)
    rename(paths.log_of(name), paths.log_of(other))
    files.write(config / "name", f"{other}\n")
    count(paths, guest)
    checkpoint("aside:counted")
    (config / _UNFINISHED).unlink()
    files.sync_directory(config)
    checkpoint("aside:done")


def count(paths: Paths, guest: Guest) -> None:
    """Let a tree be counted by the context that its guest has now."""
    if not registry.storage(paths, guest.name) and paths.tree_of(guest.name).is_dir():
        with disk.starting(paths, guest):
            pass


def rename(old: Path, new: Path) -> None:
    """Give something another name, durably, where that is not done."""
    if old.exists() and not new.exists():
        old.rename(new)
        files.sync_directory(new.parent)


def move_tree(paths: Paths, name: str, other: str, guest: Guest) -> None:
    """The tree's directory, or its own volume, which is mounted there."""
    if guest.volume is None:
        rename(paths.tree_of(name), paths.tree_of(other))
        return
    former = own.Own(paths, guest.volume, name)
    later = own.Own(paths, own.volume_of(paths, guest.volume.group, guest.context), other)
    if former.found() is not None:
        former.release(name)
    rename(paths.tree_of(name), paths.tree_of(other))
    former.become(later)
    files.write(paths.config_of(other) / registry.STORAGE, f"{later.volume}\n")
    choose.of_guest(paths, other).attach(other)

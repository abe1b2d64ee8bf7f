"""A guest goes to another host: described, its files as data, held still, released, and forgotten here."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vstools import __version__, log, lxc, units
from vstools.config import carried, guests, owner
from vstools.config.carried import File
from vstools.config.owner import Owner
from vstools.errors import Refused
from vstools.faults import checkpoint
from vstools.lifecycle import control, durations, filling, ownership, removal, trees
from vstools.lifecycle.host import guest_lock, runtime_lock
from vstools.lifecycle.sweep import sweep_one
from vstools.paths import Paths, host_name
from vstools.storage import choose, use


def describe(paths: Paths, name: str, *, measure: bool = True) -> dict[str, object]:
    """What another host needs to know before the guest may go there; ``size`` in bytes, limits in MiB, None: none.

    ``owner`` is a pair of host and epoch, ``start`` and ``stop`` are the seconds that they took last, ``snapshots`` is
    whether its tree can be copied while it runs. Without ``measure`` the tree is not added up, which takes its time: 0.
    Raises Refused or BadFiles for a guest that cannot be read.
    """
    guest = guests.load(paths, name)
    tree = trees.opened(paths, name)
    found, lasted = ownership.of(paths, name), durations.of(paths, name)
    size, inodes = _taken(paths, name, guest.context, tree) if measure else (0, 0)
    return {
        "guest": name,
        "context": guest.context,
        "addresses": [str(nic.address) for nic in guest.nics],
        "rss": guest.limits.rss,
        "disk": guest.limits.disk,
        "storage": str(guest.volume) if guest.volume else None,
        "snapshots": choose.of_guest(paths, name).snapshots,
        "enabled": guest.enabled,
        "running": lxc.is_running(paths, name),
        "start": lasted.start,
        "stop": lasted.stop,
        "owner": [found.host, found.epoch] if found else None,
        "size": size,
        "inodes": inodes,
        "arch": os.uname().machine,
        "version": __version__,
    }


def _taken(paths: Paths, name: str, context: int, tree: Path) -> tuple[int, int]:
    """Bytes and inodes of a tree: the kernel's word where it counts them, else added up, which takes its time."""
    counted = use.of(paths, name, context)
    if counted is not None and counted.files:
        return counted.used, counted.files
    return trees.added_up(tree, "-B1") if counted is None else counted.used, trees.added_up(tree, "--inodes")


def files(paths: Paths, name: str) -> list[File]:
    """The guest's files that travel; raises Refused where one cannot."""
    guests.require(paths, name)
    filling.check(paths, name)
    return carried.read(paths.config_of(name))


@contextmanager
def held(paths: Paths, name: str, *, stop: bool = False) -> Iterator[Path]:
    """The tree of a guest that is stopped, and that nobody can change or start for the time of a block.

    With ``stop`` it is stopped first. Raises Refused where it runs, or systemd is just starting it.
    """
    guests.require(paths, name)
    if stop:
        control.stop(paths, name)
        checkpoint("depart:stopped")
    with ExitStack() as stack:
        stack.enter_context(guest_lock(paths, name))
        sweep_one(paths, name)
        stack.enter_context(runtime_lock(paths, name))
        if lxc.is_running(paths, name) or paths.runtime_of(name).exists():  # systemd starts it without the guest's lock
            raise Refused(f"guest {name} is running", f"vs-control --name {name} --stop")
        tree = trees.opened(paths, name)
        checkpoint("depart:held")
        yield tree


def release(paths: Paths, name: str, found: Owner) -> None:
    """Write down durably that the guest, which the caller holds (``held``), is another host's from now on."""
    before = ownership.of(paths, name)
    if found.host == host_name():
        raise Refused(f"{found.host} is this host itself", "choose another host")
    if before is not None and before.host != host_name() and before != found:
        raise Refused(f"guest {name} belongs to host {before.host} (epoch {before.epoch})", "ask that host")
    if before is not None and before.epoch >= found.epoch and before != found:
        raise Refused(f"guest {name} is in epoch {before.epoch} already", f"{found.epoch} is not after that")
    with log.change(f"release to {found.host}, epoch {found.epoch}", name):
        owner.write(paths.config_of(name), found)
    checkpoint("depart:released")


def forget(paths: Paths, name: str) -> None:
    """Remove a guest that another host owns; nothing is done where it is gone already. Raises Refused."""
    with guest_lock(paths, name):
        sweep_one(paths, name)
        if not guests.exists(paths, name):
            return
        before = ownership.of(paths, name)
        if before is None or before.host == host_name():
            raise Refused(f"guest {name} belongs to this host", f"vs-remove --name {name} removes it for good")
        removal.check_idle(paths, name)
        with log.change("forget", name):
            guests.set_enabled(paths.config_of(name), False)
            if paths.systemd:
                units.disable(paths, name)
            checkpoint("forget:disabled")
            removal.take_away(paths, name)

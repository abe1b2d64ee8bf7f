"""A guest goes, and a guest becomes a template."""

from pathlib import Path

from vstools import log, lxc, units
from vstools.config import guests
from vstools.errors import Refused
from vstools.faults import checkpoint
from vstools.lifecycle import trees
from vstools.lifecycle.host import guest_lock, runtime_lock, settings
from vstools.lifecycle.sweep import forget, sweep
from vstools.paths import STAGED, Paths
from vstools.storage import choose, mounts, plain
from vstools.tree import bootstrap, pack, unpack


def build_template(paths: Paths, distro: str, archive: Path, include: tuple[str, ...] = ()) -> None:
    """Install a suite from packages and pack it as a template, without a guest."""
    conf = settings(paths).conf
    bootstrap.check(distro)
    bootstrap.mirrors(conf)
    _check_archive(archive)
    sweep(paths)
    plain.barrier(paths)
    name = paths.templates.name  # reserved: no guest has it
    with guest_lock(paths, name, patience=0), log.change(f"template {archive} of {distro}", "-"):
        storage = choose.of(paths)
        storage.clear(f"{STAGED}{name}")
        tree = storage.stage(name)
        try:
            bootstrap.bootstrap(tree, distro, conf, include)
            pack.pack(tree, archive)
        finally:
            storage.clear(f"{STAGED}{name}")


def _check_archive(archive: Path) -> None:
    unpack.compressor(archive)
    if archive.exists():
        raise Refused(f"{archive} exists already", "choose another name, or remove it")
    if not archive.parent.is_dir():
        raise Refused(f"the directory {archive.parent} does not exist", "make it first")


def check_removable(paths: Paths, name: str) -> None:
    """Raise Refused for a guest that is unknown, running or enabled."""
    check_idle(paths, name)
    if guests.is_enabled(paths.config_of(name)):
        raise Refused(f"guest {name} is enabled", f"vs-control --name {name} --disable")


def check_idle(paths: Paths, name: str) -> None:
    """Raise Refused for a guest that is unknown or running, or in whose tree something is mounted."""
    guests.require(paths, name)
    if lxc.is_running(paths, name):
        raise Refused(f"guest {name} is running", f"vs-control --name {name} --stop")
    check_mounts(paths, name)


def check_mounts(paths: Paths, name: str) -> None:
    """Raise Refused where the admin mounted something in a guest's tree: it is not the guest's."""
    for where in mounts.below(paths.tree_of(name)):
        raise Refused(f"{where} is mounted in the tree of guest {name}", f"umount {where}")


def remove(paths: Paths, name: str) -> None:
    """Remove a stopped and disabled guest for good: directory, tree and logs."""
    sweep(paths)
    check_removable(paths, name)
    with guest_lock(paths, name):
        check_removable(paths, name)
        with log.change("remove", name):
            take_away(paths, name)


def take_away(paths: Paths, name: str) -> None:
    """Remove a guest that ``check_removable`` lets go. The caller holds the guest's lock."""
    _release(paths, name)
    forget(paths, name)
    (paths.refused / name).unlink(missing_ok=True)
    if paths.systemd:
        units.reset(name)


def _release(paths: Paths, name: str) -> None:
    """Unmount the guest's own volume, if it has one; raises Refused where it is missing, in use or another's."""
    if (own := choose.own(paths, name)) is not None:
        with runtime_lock(paths, name):
            own.release(name)
        checkpoint("remove:released")


def check_template(paths: Paths, name: str, archive: Path) -> None:
    """Raise Refused when no template can be made of the guest at that place."""
    guests.require(paths, name)
    _check_archive(archive)
    if lxc.is_running(paths, name):
        raise Refused(f"guest {name} is running", f"vs-control --name {name} --stop")
    check_mounts(paths, name)


def template(paths: Paths, name: str, archive: Path) -> None:
    """Pack a stopped guest's tree to ``archive`` without what identifies it; an existing file is refused."""
    check_template(paths, name, archive)
    with guest_lock(paths, name):
        check_template(paths, name, archive)
        with log.change(f"template {archive}", name):
            pack.pack(trees.opened(paths, name), archive)

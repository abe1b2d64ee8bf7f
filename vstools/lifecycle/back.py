"""A guest that was set aside (aside.py) comes back, whole, under the name that it had.

Its directory is renamed first, as when it was set aside: from then on there is a guest of that name, and it stays
nobody's until all of it is there. ``.back`` in its directory names the suspect guest that it is coming from: after a
kill the same call goes on, and until then nobody can start it.
"""

from vstools import files, log
from vstools.config import guests, owner, registry
from vstools.config.owner import Owner
from vstools.config.text import Faults
from vstools.errors import Refused
from vstools.faults import checkpoint
from vstools.guest import check_name
from vstools.lifecycle import addresses, aside, ownership, removal, staging
from vstools.lifecycle.host import guest_lock, host_lock, runtime_lock
from vstools.paths import Paths, host_name
from vstools.storage import choose, own

_COMING = ".back"


def check(paths: Paths, name: str, other: str) -> None:
    """Raise Refused where ``other`` cannot take the place of ``name``, which may be there, and will be set aside."""
    check_name(name, imported=True)
    was, _ = aside.was(paths, other)
    if was != name:
        raise Refused(f"{other} was guest {was}, not {name}")
    removal.check_idle(paths, other)
    _check_volume(paths, other)
    _check_addresses(paths, other, but=name)


def bring_back(paths: Paths, name: str, other: str, epoch: int) -> None:
    """Let ``other`` be ``name`` again, this host's, in this epoch; nothing is done where that is done.

    Raises Refused where there is another guest of that name, or one that has an address or the tree's place.
    """
    check_name(name, imported=True)
    check_name(other, imported=True)
    config = paths.config_of(name)
    if registry.exists(paths, other):
        aside.set_aside(paths, name, other)  # that was killed
    with guest_lock(paths, name):
        if not registry.exists(paths, name):
            with guest_lock(paths, other), log.change(f"bring back {other}", name):
                _give_name(paths, name, other)
        if (config / _COMING).exists():
            with runtime_lock(paths, name):
                _settle(paths, name, other, Owner(host_name(), epoch))
        elif ownership.of(paths, name) != Owner(host_name(), epoch):
            raise Refused(f"there is a guest {name!r} already", f"{other} comes back when that one is gone")


def _give_name(paths: Paths, name: str, other: str) -> None:
    """Addresses and context are reserved again, then its directory has the name."""
    check(paths, name, other)
    staging.check_free(paths, name, ())
    config = paths.config_of(other)
    with host_lock(paths, "allocation"):
        _check_addresses(paths, other, but=other)
        _, context = aside.was(paths, other)
        files.write(config / _COMING, f"{other}\n")
        if context not in guests.contexts_in_use(paths):  # it keeps the one that it has where that is another's
            files.write(config / "context", f"{context}\n")
        checkpoint("back:context")
        aside.rename(config / aside.ADDRESSES, config / guests.NICS)
    checkpoint("back:reserved")
    config.rename(paths.config_of(name))
    files.sync_directory(paths.guests)
    checkpoint("back:renamed")


def _check_volume(paths: Paths, other: str) -> None:
    if (volume := choose.own(paths, other)) is not None:
        own.check_alone(volume.required())  # it will be renamed


def _check_addresses(paths: Paths, other: str, but: str) -> None:
    kept = guests.nics(paths.config_of(other), Faults(), aside.ADDRESSES)
    addresses.check_free(paths, (nic.address for nic in kept), but=but)


def _settle(paths: Paths, name: str, other: str, found: Owner) -> None:
    """Tree and logs follow, then it is this host's; each step is done where it is not done yet."""
    config = paths.config_of(name)
    came = files.read_bounded(config / _COMING, 256).strip()
    if came != other:
        raise Refused(f"guest {name} is coming back from {came}, not from {other}")
    guest = guests.read(config, name, Faults())  # what is wrong in its files, its start says
    aside.move_tree(paths, other, name, guest)
    checkpoint("back:tree")
    aside.rename(paths.log_of(other), paths.log_of(name))
    files.write(config / "name", f"{name}\n")
    aside.count(paths, guest)
    checkpoint("back:counted")
    (config / aside.WAS).unlink(missing_ok=True)
    owner.write(config, found)
    checkpoint("back:owned")
    (config / _COMING).unlink()
    files.sync_directory(config)
    checkpoint("back:done")

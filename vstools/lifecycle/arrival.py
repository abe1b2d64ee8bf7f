"""A guest comes from another host: looked at, staged, filled by somebody else, registered, and owned.

What is staged reserves name, addresses and context as a guest does that is being made (staging.py). A copy takes long,
and who makes it may be killed: so it stays for a day after the last ``stage``, and the same transfer goes on where it
was. From ``register`` on the guest exists: disabled, stopped, and started only by its owner. All of it may come from a
host that lies.
"""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from vstools import files, log
from vstools.config import carried, guests, owner
from vstools.config.carried import File
from vstools.config.owner import Owner
from vstools.config.text import Faults
from vstools.errors import Refused
from vstools.faults import checkpoint
from vstools.guest import Guest, Place, check_name
from vstools.lifecycle import arriving, disk, ownership, staging, trees
from vstools.lifecycle.arriving import Answer
from vstools.lifecycle.host import guest_lock, host_lock, runtime_lock, settings
from vstools.lifecycle.leftovers import ARRIVING, awaited
from vstools.lifecycle.sweep import sweep_one
from vstools.paths import STAGED, Paths
from vstools.storage import choose, flush, plain, strange

_COUNT_MAX = 1 << 53


@dataclass(frozen=True)
class Arrival:
    """A guest as the other host described it. ``size`` (bytes) and ``inodes`` are what its tree takes there.

    ``transfer`` names the whole undertaking: who comes back with the same goes on. ``owner`` is written with the guest.
    """

    transfer: str
    name: str
    files: tuple[File, ...]
    owner: Owner
    size: int
    inodes: int
    arch: str
    version: str


@dataclass(frozen=True)
class _Mark:
    """What is known of a staged guest: whose transfer it is, and whether its tree can be filled."""

    transfer: str
    tree: bool


def _check_words(arrival: Arrival) -> None:
    """Raise Refused where the description cannot be one."""
    check_name(arrival.name, imported=True)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", arrival.transfer):
        raise Refused(f"{arrival.transfer[:64]!a} cannot name a transfer")
    if not all(0 <= number <= _COUNT_MAX for number in (arrival.size, arrival.inodes)):
        raise Refused(f"a tree cannot take {arrival.size} bytes and {arrival.inodes} inodes")
    _check_owner(arrival.owner)
    carried.check(arrival.files)


def _check_owner(found: Owner) -> None:
    try:
        owner.check_host(found.host)
        owner.check_epoch(found.epoch)
    except ValueError as error:
        raise Refused(str(error)) from None


def check(paths: Paths, arrival: Arrival, *, instead: bool = False) -> Answer:
    """What speaks against the guest coming here, all at once, and what would be different; changes nothing.

    ``instead``: in the place of the guest of this name that is here, which is set aside before. Raises Refused for a
    description that no honest host gives.
    """
    _check_words(arrival)
    mark = _read_mark(paths, arrival.name)
    others = awaited(paths, arrival.name) and mark is not None and mark.transfer != arrival.transfer
    comer, faults = arriving.examine(paths, arrival.name, arrival.files)
    if comer is None:
        return Answer(tuple(faults), (), 0)
    needs = arriving.Needs(arrival.size, arrival.inodes, arrival.arch, arrival.version)
    return arriving.answer(paths, comer, needs, awaited=others, instead=instead)


def stage(paths: Paths, arrival: Arrival) -> Path:
    """Reserve what the guest needs here, and return the hidden tree to fill; the same again for the same transfer.

    Raises Refused where ``check`` has objections, or another transfer brings a guest of this name.
    """
    _check_words(arrival)
    name = arrival.name
    plain.barrier(paths)
    files.directory(paths.guests)
    with guest_lock(paths, name, patience=0):
        mark = _read_mark(paths, name)
        if mark is not None and mark.transfer == arrival.transfer and staging.made_by(paths, name):
            _mark_path(paths, name).unlink()  # killed while it took its name: the tree is no longer where it is filled
            mark = None
        if mark is None or mark.transfer != arrival.transfer:
            sweep_one(paths, name)
            _refuse(check(paths, arrival))
            with log.change(f"arrive by transfer {arrival.transfer}", name):
                _reserve(paths, arrival)
            mark = _Mark(arrival.transfer, tree=False)
        return _tree(paths, name, mark)


def _refuse(answer: Answer) -> None:
    if answer.objections:
        raise Refused("; ".join(answer.objections))


def transfer_of(paths: Paths, name: str) -> str | None:
    """The transfer that brings a guest here, if one does."""
    mark = _read_mark(paths, name)
    return None if mark is None else mark.transfer


def copied(paths: Paths, name: str, transfer: str) -> tuple[int, int]:
    """Bytes and inodes of what a transfer has brought so far, which take their time to be added up."""
    mark = _read_mark(paths, name)
    tree = paths.trees / f"{STAGED}{name}"
    if mark is None or mark.transfer != transfer or not mark.tree or not tree.is_dir():
        return 0, 0
    return trees.added_up(tree, "-B1"), trees.added_up(tree, "--inodes")


def _reserve(paths: Paths, arrival: Arrival) -> None:
    """Name, addresses and context are taken by a hidden directory with the guest's files."""
    name = arrival.name
    staged = paths.guests / f"{STAGED}{name}"
    comer, faults = arriving.examine(paths, name, arrival.files)
    if comer is None:
        raise Refused("; ".join(faults))
    guest = comer.guest
    with host_lock(paths, "allocation"):
        staging.check_free(paths, name, (nic.address for nic in guest.nics))
        is_free = guest.context not in guests.contexts_in_use(paths)
        context = guest.context if is_free else staging.draw_context(paths)
        staged.mkdir(mode=0o755)
        try:
            checkpoint("arrive:directory")
            carried.write(staged, arrival.files)
            checkpoint("arrive:files")
            owner.write(staged, arrival.owner)
            here = replace(guest, context=context, enabled=False)
            guests.save(staged, staging.placed(paths, here, settings(paths).conf.storage))
            files.write(staged / "name", f"{name}\n")
            checkpoint("arrive:saved")
            _write_mark(paths, name, _Mark(arrival.transfer, tree=False))
        except BaseException:
            (staged / ARRIVING).unlink(missing_ok=True)
            sweep_one(paths, name)
            raise
    checkpoint("arrive:reserved")


def _mark_path(paths: Paths, name: str) -> Path:
    return paths.guests / f"{STAGED}{name}" / ARRIVING


def _write_mark(paths: Paths, name: str, mark: _Mark) -> None:
    files.write(_mark_path(paths, name), json.dumps([mark.transfer, mark.tree]) + "\n", 0o600)


def _read_mark(paths: Paths, name: str) -> _Mark | None:
    """What is known of a staged guest; None where there is none, or it was killed before it was whole."""
    try:
        transfer, tree = json.loads(files.read_bounded(_mark_path(paths, name), 256))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return _Mark(str(transfer), bool(tree))


def _staged(paths: Paths, name: str) -> Guest:
    faults = Faults()
    guest = guests.read(paths.guests / f"{STAGED}{name}", name, faults)
    faults.check()
    return guest


def _tree(paths: Paths, name: str, mark: _Mark) -> Path:
    """The tree to fill: the one that was made before, or an empty one. The mark is renewed, for another day."""
    entry = f"{STAGED}{name}"
    if not mark.tree:
        guest = _staged(paths, name)
        storage = choose.of_guest(paths, entry)
        storage.clear(entry)
        if (own := choose.own(paths, entry)) is not None:
            own.make(_place(paths, own.volume.group), guest.limits.disk or 0)
        tree = storage.stage(name)
        disk.begin(guest, tree)
        checkpoint("arrive:tree")
    _write_mark(paths, name, replace(mark, tree=True))
    checkpoint("arrive:staged")
    return _opened(paths, name)


def _place(paths: Paths, group: str) -> Place:
    """Where in its group a guest's own volume is made, if create.conf still says that."""
    place = settings(paths).conf.storage
    return place if place.group == group else Place(group)


def _opened(paths: Paths, name: str) -> Path:
    """The hidden tree; the guest's own volume is mounted there, also after a boot."""
    entry = f"{STAGED}{name}"
    with runtime_lock(paths, name):
        choose.of_guest(paths, entry).attach(entry)
    return paths.trees / entry


def register(paths: Paths, name: str) -> int:
    """Make a guest of what was staged and filled; returns how many device nodes were removed from its tree.

    A guest that is there already is left as it is: a killed ``register`` is done again. Raises Refused where nothing
    was staged.
    """
    check_name(name, imported=True)
    with guest_lock(paths, name):
        if guests.exists(paths, name):
            sweep_one(paths, name)
            return 0
        mark = _read_mark(paths, name)
        if mark is None or not mark.tree:
            raise Refused(f"no guest {name!r} has been staged on this host", "begin the transfer anew")
        with log.change("register", name):
            removed = _settle(paths, name)
            staging.finish(paths, name)
    if removed:
        log.note(f"{removed} device nodes of the tree were removed (LXC makes /dev)")
    return removed


def _settle(paths: Paths, name: str) -> int:
    if staging.made_by(paths, name):
        staging.take_directory(paths, name)
        return 0
    tree = _opened(paths, name)
    with flush.Flusher(tree) as flusher:
        removed = strange.remove_devices(tree)
        checkpoint("register:cleaned")
        flusher.finish()
    disk.arrived(_staged(paths, name), tree)
    checkpoint("register:synced")
    staging.take_name(paths, name)
    return removed


def own(paths: Paths, name: str, found: Owner) -> None:
    """Write down durably whose the guest is from now on. Raises Refused for an epoch before the one that is written."""
    _check_owner(found)
    guests.require(paths, name)
    with guest_lock(paths, name):
        before = ownership.of(paths, name)
        if before is not None and before.epoch > found.epoch:
            raise Refused(f"guest {name} is in epoch {before.epoch} already", f"it belongs to host {before.host}")
        with log.change(f"belongs to {found.host}, epoch {found.epoch}", name):
            owner.write(paths.config_of(name), found)
        checkpoint("own:written")


def abandon(paths: Paths, name: str) -> None:
    """Remove what was staged; nothing is done where nothing is, or where the guest exists."""
    check_name(name, imported=True)
    with guest_lock(paths, name):
        _mark_path(paths, name).unlink(missing_ok=True)
        checkpoint("abandon:unmarked")
        sweep_one(paths, name)

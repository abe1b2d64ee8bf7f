"""What speaks against a guest coming to this host, and what would be different here. Nothing is changed."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vstools import __version__, files
from vstools.config import carried, create, firewall, guests, monitor, passed
from vstools.config.carried import File
from vstools.config.passed import Passed
from vstools.config.text import Faults
from vstools.errors import BadFiles, Refused, VsError
from vstools.guest import Guest
from vstools.lifecycle import addresses, bounds, passing, staging
from vstools.lifecycle.host import Settings, host_lock, settings
from vstools.network import plan
from vstools.paths import Paths
from vstools.stats import host as host_stats
from vstools.stats.files import read
from vstools.storage import choose

_MIB = 1 << 20
MORE = 1.05
"""A tree takes up to a twentieth more on another file system."""


@dataclass(frozen=True)
class Needs:
    """What the tree takes where it is now (bytes, inodes), and what that host is."""

    size: int
    inodes: int
    arch: str
    version: str


@dataclass(frozen=True)
class Answer:
    """Why the guest cannot come (nothing: it can), what would be different, and the context it would get."""

    objections: tuple[str, ...]
    notes: tuple[str, ...]
    context: int


@dataclass(frozen=True)
class Comer:
    """A guest that would come, and what of the host its files give it."""

    guest: Guest
    given: Passed


def examine(paths: Paths, name: str, carried_files: tuple[File, ...]) -> tuple[Comer | None, list[str]]:
    """The guest that these files tell, or every fault of theirs, with paths that begin with its name.

    They are read where a guest's files are always read, in a directory, which is gone afterwards.
    """
    faults = Faults()
    with host_lock(paths, "arriving"):
        folder = paths.run / "arriving"  # who was killed here has left it: nobody else has it now
        shutil.rmtree(folder, ignore_errors=True)
        try:
            carried.write(files.directory(folder), carried_files)
            guest = guests.read(folder, name, faults)
            firewall.load(folder / firewall.FILE, paths.conf, faults)
            monitor.load(folder / monitor.FILE, faults)
            given = passed.load(folder, faults)
            faults.check()
        except BadFiles as error:
            return None, [fault.replace(f"{folder}/", f"{name}/") for fault in error.faults]
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return Comer(guest, given), []


def answer(paths: Paths, comer: Comer, needs: Needs, *, awaited: bool, instead: bool = False) -> Answer:
    """Everything that can be known beforehand. ``awaited``: another transfer brings a guest of this name.

    ``instead``: the guest that has the name is no objection.
    """
    guest = comer.guest
    objections = passing.objections(paths, comer.given)

    def ask(question: Callable[[], object]) -> None:
        try:
            question()
        except VsError as error:
            objections.append(str(error))

    if not instead:
        ask(lambda: _name(paths, guest.name, awaited=awaited))
    ask(lambda: addresses.check_free(paths, (nic.address for nic in guest.nics), but=guest.name))
    ask(lambda: _machine(needs))
    ask(lambda: _version(needs))
    ask(lambda: _memory(guest))
    host: Settings | None = None
    try:
        host = settings(paths)
    except BadFiles as error:
        objections.extend(error.faults)
    if host is not None:
        known = host
        ask(lambda: _network(guest, known))
        ask(lambda: _space(paths, guest, needs, known))
    context = _context(paths, guest)
    return Answer(tuple(objections), _notes(paths, guest, context), context)


def _name(paths: Paths, name: str, *, awaited: bool) -> None:
    if guests.exists(paths, name):
        raise Refused(f"this host has a guest {name!r} already", "vs-remove it, or move that one")
    if awaited:
        raise Refused(f"another transfer brings a guest {name!r} here", "wait for it, or give that one up")
    if os.path.lexists(paths.tree_of(name)) and not staging.made_by(paths, name):
        raise Refused(f"{paths.tree_of(name)} is in the way", "it belongs to no guest: move it away")


def _machine(needs: Needs) -> None:
    here = os.uname().machine
    if needs.arch != here:
        raise Refused(f"its programs are for {needs.arch[:32]!a}, this host is {here}", "choose another host")


def _version(needs: Needs) -> None:
    if needs.version.partition(".")[0] != __version__.partition(".")[0]:
        raise Refused(f"it comes from vs-tools {needs.version[:32]!a}, here is {__version__}", "update both hosts")


def _memory(guest: Guest) -> None:
    total = host_stats.memory(read("/proc/meminfo"))["memory_total_bytes"]
    if guest.limits.rss is not None and total is not None and guest.limits.rss * _MIB > total:
        raise Refused(
            f"it may use {guest.limits.rss} MiB of memory, this host has {int(total) // _MIB}",
            f"vs-limit --name {guest.name} --rss, or choose another host",
        )


def _network(guest: Guest, host: Settings) -> None:
    wanted = [nic for nic in guest.nics if not nic.disabled]
    if len({nic.address for nic in wanted}) < len(wanted):
        raise Refused("it has an address twice", "each interface has another one")
    for nic in wanted:
        addresses.check_network(nic.address, host, nic.device, nic.prefix)
        network = host.networks.of(nic.address)
        net = plan.interface(nic, network, host.conf)
        plan.check_address(nic.address, net, network.gateway if network else None)
    addresses.check_links(host.links(guest), [nic.address for nic in wanted])


def _space(paths: Paths, guest: Guest, needs: Needs, host: Settings) -> None:
    size = int(needs.size * MORE)
    place = host.conf.storage
    if place.group:
        from vstools.storage import lvplace

        lvplace.check(place, guest.limits.disk)
        if size > (guest.limits.disk or 0) * _MIB:
            raise Refused(
                f"its tree takes {size // _MIB} MiB, a volume of its own has {guest.limits.disk}",
                f"vs-limit --name {guest.name} --disk",
            )
        return
    free = choose.of(paths).space().free
    if size > free:
        raise Refused(f"{paths.trees} has {free // _MIB} MiB free, and {size // _MIB} are needed", "make room there")
    inodes = inodes_left(paths)
    if inodes is not None and needs.inodes > inodes:
        raise Refused(f"{paths.trees} has {inodes} inodes free, and {needs.inodes} are needed", "make room")


def room(paths: Paths) -> dict[str, object]:
    """What is left for guests: bytes of ``memory`` and of ``disk``, and ``inodes`` where those have an end (else None).

    ``volumes``: a guest takes as much of the disk as its limit says, whatever is in its tree.
    """
    memory = host_stats.memory(read("/proc/meminfo"))
    left = int(memory["memory_total_bytes"] or 0) - int(memory["memory_bytes"] or 0)
    place = create.load(paths.conf / "create.conf", Faults()).storage  # faults are objections of each guest's
    if place.group:
        from vstools.storage import lvplace

        return {"memory": left, "disk": lvplace.left(place), "inodes": None, "volumes": not place.pool}
    disk = choose.of(paths).space().free
    return {"memory": left, "disk": disk, "inodes": inodes_left(paths), "volumes": False}


def inodes_left(paths: Paths) -> int | None:
    """How many files more there can be where the trees are; None where their number has no end of its own."""
    state = os.statvfs(_existing(paths.trees))
    return state.f_favail if state.f_files else None


def _existing(folder: Path) -> Path:
    """The directory, or what it will be made in."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _context(paths: Paths, guest: Guest) -> int:
    """The guest's own context where nobody else has it, else the next one."""
    if guest.context not in guests.contexts_in_use(paths, but=guest.name):
        return guest.context
    return staging.next_context(paths)


def _notes(paths: Paths, guest: Guest, context: int) -> tuple[str, ...]:
    notes = list(bounds.of(paths, guest).unenforced)
    if context != guest.context:
        notes.append(f"the context {guest.context} is another guest's here: it gets {context}")
    notes += [
        f"it depends on guest {each}, which is not here" for each in guest.depends if not guests.exists(paths, each)
    ]
    return tuple(notes)

"""A host is emptied: where each guest goes, by what every other host says of it, and one move after the other."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from vstools.config.owner import Owner
from vstools.config.slaves import Slave
from vstools.errors import Refused, VsError
from vstools.lifecycle import arriving
from vstools.paths import Paths
from vstools.pool import get, journal, parcel, remote, scan, ssh

_MIB = 1 << 20
_SOME = 256 * _MIB
"""What a guest without a memory limit is counted with, so that not all of them go to the same host."""


@dataclass(frozen=True)
class Guest:
    """A guest that has to go: bytes of memory that it may take, of disk that it takes; host -> why not there.

    ``inodes`` is what its tree has, ``limit`` what it may take of disk, in bytes (0: it has no limit).
    """

    name: str
    memory: int
    disk: int
    objections: Mapping[str, str]
    inodes: int = 0
    limit: int = 0


@dataclass(frozen=True)
class Room:
    """Bytes of memory and of disk that a host has left, and inodes (None: they have no end of their own).

    ``volumes``: each guest has a volume of its own there, as large as its limit.
    """

    memory: int
    disk: int
    inodes: int | None = None
    volumes: bool = False

    def has(self, guest: Guest) -> bool:
        """Whether the guest's tree fits."""
        return self.disk >= self._needed(guest) and (self.inodes is None or self.inodes >= guest.inodes)

    def without(self, guest: Guest) -> "Room":
        """What is left when the guest is there."""
        inodes = None if self.inodes is None else self.inodes - guest.inodes
        return replace(self, memory=self.memory - guest.memory, disk=self.disk - self._needed(guest), inodes=inodes)

    def _needed(self, guest: Guest) -> int:
        return guest.limit if self.volumes else int(guest.disk * arriving.MORE)


@dataclass(frozen=True)
class Step:
    """Where a guest goes; ``host`` is empty where it cannot go anywhere, and ``why`` says so."""

    guest: str
    host: str
    why: str = ""


def plan(guests: Iterable[Guest], rooms: Mapping[str, Room]) -> list[Step]:
    """The largest guests first, each to the host with the most memory left of those that take it. Pure."""
    left = dict(rooms)
    steps = []
    for guest in sorted(guests, key=lambda each: (-each.memory, each.name)):
        free = [host for host in left if host not in guest.objections and left[host].has(guest)]
        if not free:
            told = [f"{host}: {guest.objections.get(host, 'no room')}" for host in sorted(left)]
            steps.append(Step(guest.name, "", "; ".join(told) or "there is no other host"))
            continue
        host = max(sorted(free), key=lambda each: left[each].memory)
        left[host] = left[host].without(guest)
        steps.append(Step(guest.name, host))
    return steps


def ask(paths: Paths, source: Slave, targets: Sequence[Slave], names: Sequence[str]) -> list[Step]:
    """Ask the host of its guests, and each other one whether it takes them; where each goes.

    One that its host cannot describe stays, and stops no other.
    """
    with ExitStack() as stack:
        there = stack.enter_context(remote.agent(paths, source))
        others = [stack.enter_context(remote.agent(paths, target)) for target in targets]
        rooms = {other.slave.host: _room(other) for other in others}
        guests, staying = list[Guest](), list[Step]()
        for name in names:
            try:
                guests.append(_guest(there, others, name))
            except ssh.Unreachable:
                raise
            except VsError as error:
                staying.append(Step(name, "", str(error)))
        return [*plan(guests, rooms), *staying]


def _room(agent: remote.Agent) -> Room:
    told = agent.call("room")
    try:
        inodes = told.get("inodes")  # an older vs-tools does not say
        return Room(
            parcel.whole(told["memory"]), parcel.whole(told["disk"]), None if inodes is None else parcel.whole(inodes),
            volumes=told.get("volumes") is True,
        )  # fmt: skip
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise VsError(f"host {agent.slave.host} says of its room what cannot be") from error


def _guest(there: remote.Agent, others: Iterable[remote.Agent], name: str) -> Guest:
    host = there.slave.host
    said = there.call("describe", name=name, timeout=get.LONG)
    told = parcel.told(host, said)
    try:
        memory = _SOME if said["rss"] is None else parcel.whole(said["rss"]) * _MIB
        limit = 0 if said["disk"] is None else parcel.whole(said["disk"]) * _MIB
    except (KeyError, ValueError) as error:
        raise VsError(f"host {host} describes its guest in a way that cannot be", str(error)) from error
    owner = told.owner or Owner(host, 1)
    found = parcel.files_of(host, there.call("files", name=name))
    words = parcel.coming(f"plan-{host}-{owner.epoch}", name, found, owner, told)
    objections = {other.slave.host: said for other in others if (said := _objection(other, words))}
    return Guest(name, memory, told.size, objections, told.inodes, limit)


def _objection(other: remote.Agent, words: dict[str, Any]) -> str:
    try:
        return "; ".join(parcel.answer(other.slave.host, other.call("check", words, timeout=get.LONG)).objections)
    except Refused as error:
        return str(error)


def begun(paths: Paths, host: str) -> tuple[str, ...]:
    """The guests with a move away from a host that was begun and not ended."""
    books = ((name, journal.read(paths, name)) for name in journal.names(paths))
    return tuple(name for name, book in books if book is not None and book.facts.get("source") == host)


def owned(pool: scan.Pool, host: str, but: Iterable[str] = ()) -> tuple[str, ...]:
    """The guests that a host owns and that have to go; what was set aside or belongs to others stays.

    One whose files are broken is among them: it cannot go, and nobody shall think that the host is empty.
    """
    mine = (seen for seen in pool.guests if seen.host == host and seen.owner in (None, host))
    return tuple(seen.guest for seen in mine if seen.guest not in set(but))


def each(names: Iterable[str], act: Callable[[str], object], failed: Callable[[str, VsError], object]) -> int:
    """Do something for each guest; one that fails is told and stops no other. How many failed."""
    count = 0
    for name in names:
        try:
            act(name)
        except VsError as error:
            failed(name, error)
            count += 1
    return count

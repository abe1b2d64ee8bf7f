"""A generation of the store becomes a guest on a host: registered, disabled and stopped; started if asked."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from vstools import log
from vstools.config import carried
from vstools.config.owner import Owner
from vstools.config.slaves import Slave
from vstools.errors import Refused
from vstools.paths import Paths, host_name
from vstools.pool import get, parcel, remote, rsync, scan
from vstools.pool.remote import Agent
from vstools.pool.store import Generation


@dataclass(frozen=True)
class Ownership:
    """Whose a copy is when it is put on a host. ``here``: that host's, which may start it."""

    host: str
    epoch: int
    here: bool


def ownership(
    generation: Generation, slave: Slave, pool: scan.Pool, *, wants_start: bool, owner_is_dead: bool
) -> Ownership:
    """Who owns the copy: who owns the guest already, or this host where nobody does. Raises Refused where both would.

    A host that does not answer may own it: then only the admin knows (``owner_is_dead``).
    """
    told = get.about(generation)
    copies = [seen for seen in pool.guests if seen.guest == generation.guest and seen.host != slave.host]
    epoch = max([told.epoch, *(seen.epoch for seen in copies)])
    owners = [seen.host for seen in copies if seen.owned]
    if not owners and any(host == told.owner for host, _ in pool.missing):
        if not owner_is_dead:
            if wants_start:
                raise Refused(
                    f"host {told.owner}, which owned guest {generation.guest}, does not answer",
                    "only where it is sure never to run the guest again: --owner-is-dead",
                )
            return Ownership(told.owner, max(epoch, 1), here=False)
    elif owners:
        if wants_start:
            raise Refused(
                f"guest {generation.guest} belongs to host {', '.join(owners)}",
                "vs-move brings it over; a copy beside it stays disabled and stopped",
            )
        return Ownership(owners[0], max(epoch, 1), here=False)
    return Ownership(slave.host, epoch + 1, here=True)


def put(
    paths: Paths, slave: Slave, generation: Generation, owner: Ownership, *, verbs: tuple[str, ...] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> None:  # fmt: skip
    """Bring the generation to a host; killed, the same command goes on. Raises Refused where it has such a guest."""
    name = generation.guest
    with remote.agent(paths, slave) as there, log.change(f"put {generation.name} on {slave.host}", name):
        there.call("claim", name=name)
        check(there, generation, owner)
        bring(paths, there, generation, owner, progress=progress)
        for verb in verbs:
            there.call("do", name=name, verb=verb, timeout=get.LONG)


def check(there: Agent, generation: Generation, owner: Ownership, *, instead: bool = False) -> None:
    """Ask the host what speaks against it, and say what will be different there; raises Refused.

    ``instead``: the guest of that name will be set aside before.
    """
    ask(there, _words(generation, owner), instead=instead)


def ask(there: Agent, words: dict[str, Any], *, instead: bool = False) -> None:
    """The same for any guest that would come (``parcel.coming``)."""
    told = there.call("check", words, instead=instead, timeout=get.LONG)
    answer = parcel.answer(there.slave.host, told)
    if answer.objections:
        raise Refused(f"{there.slave.host}: {'; '.join(answer.objections)}")
    for note in answer.notes:
        log.note(f"{there.slave.host}: {note}")


def bring(
    paths: Paths, there: Agent, generation: Generation, owner: Ownership, *, context: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> None:  # fmt: skip
    """Make the copy a guest of the host: disabled and stopped, in this context if one is given."""
    name = generation.guest
    there.call("stage", _words(generation, owner, context), timeout=get.LONG)
    try:
        rsync.push(paths, there.slave, name, generation.tree, progress)
    except BaseException:
        _abandon(there, name)
        raise
    there.call("register", name=name, timeout=get.LONG)


def _words(generation: Generation, owner: Ownership, context: int | None = None) -> dict[str, Any]:
    """How a host is told of the guest."""
    told = get.about(generation)
    found = carried.read(generation.config)
    if context is not None:
        found = [replace(file, content=f"{context}\n".encode()) if file.path == "context" else file for file in found]
    transfer = f"put-{host_name()}-{generation.name}"
    return parcel.coming(transfer, generation.guest, found, Owner(owner.host, owner.epoch), told)


def _abandon(there: Agent, name: str) -> None:
    from contextlib import suppress

    from vstools.errors import VsError

    with suppress(VsError):  # gone with the connection: what was staged goes a day later
        there.call("abandon", name=name, timeout=get.LONG)

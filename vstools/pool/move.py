"""A guest moves: copied while it runs, stopped, copied to the end, and started elsewhere; never lost, never twice.

What the steps are, and what each kill leaves, is in docs/safety.md. The point of no return is one durable line on the
source, ``release``: before it the guest is the source's, and any failure lets it run there again; after it, it is the
target's, and the next command brings the rest about.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from vstools import log
from vstools.config.owner import Owner
from vstools.config.slaves import Slave
from vstools.errors import Refused, VsError
from vstools.paths import Paths
from vstools.pool import accepted, get, handing, journal, parcel, put, remote, scan, ssh, transfer, wire
from vstools.pool.journal import Journal
from vstools.pool.remote import Agent
from vstools.pool.rsync import Passed
from vstools.pool.store import Store

_MOST_PASSES = 5
_SHORT = 5.0
"""Seconds of a pass that another one would hardly make shorter."""
_AROUND = 4.0
"""Seconds that stopping and starting take, as far as can be known before."""


@dataclass(frozen=True)
class Order:
    """What is to be done; the first line of the journal."""

    name: str
    source: str
    target: str
    transfer: str
    epoch: int
    running: bool
    enabled: bool


@dataclass(frozen=True)
class Wishes:
    """How a move may go. ``max_downtime`` in seconds."""

    max_downtime: float | None = None
    accept: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Done:
    """What a move took: seconds predicted and measured that the guest was away (0: it was stopped), bytes copied."""

    predicted: float
    measured: float
    sent: int


def move(
    paths: Paths, store: Store, name: str, source: Slave, target: Slave, wishes: Wishes,
    progress: Callable[[int], None] = lambda _: None,
) -> Done:  # fmt: skip
    """Move a guest; on any failure before the point of no return it is where it was, as it was."""
    with journal.opened(paths, name) as old:
        if old is not None:
            raise Refused(f"a move of {name} was begun and not ended", "vs-move --resume or --rollback")
        with _agents(paths, name, source, target) as (there, here):
            words, order = _prepare(store, name, there, here, wishes)
            if wishes.dry_run:
                return Done(0, 0, 0)
            book = Journal(journal.path_of(paths, name), asdict(order))
            with log.change(f"move from {source.host} to {target.host}", name):
                book.begin()
                return _run(paths, book, order, words, (there, here), wishes, progress)


@contextmanager
def _agents(
    paths: Paths, name: str, source: Slave, target: Slave, patience: float = 0.0
) -> Iterator[tuple[Agent, Agent]]:  # fmt: skip
    """The agents of both hosts, which nobody else asks for this guest; the source's is as no dead command left it."""
    with remote.agent(paths, source) as there, remote.agent(paths, target) as here:
        for agent in (there, here):
            agent.call("claim", name=name, patience=patience, timeout=get.LONG)
        there.call("wake", name=name, timeout=get.LONG)
        yield there, here


def _prepare(store: Store, name: str, there: Agent, here: Agent, wishes: Wishes) -> tuple[dict[str, Any], Order]:
    """Ask both hosts everything that can be asked before; raises Refused where something speaks against it."""
    source, target = there.slave.host, here.slave.host
    told = parcel.told(source, there.call("describe", name=name, timeout=get.LONG))
    found = parcel.files_of(source, there.call("files", name=name))
    accepted.require(store, name, source, found, accept=wishes.accept)
    owner = told.owner or Owner(source, 1)
    undertaking = f"move-{source}-{target}-{owner.epoch}"[:64]
    order = Order(name, source, target, undertaking, owner.epoch, told.running, told.enabled)
    if owner.host != source:
        raise Refused(
            f"guest {name} on {source} belongs to host {owner.host}", f"vs-adopt --name {name} there, if that is dead"
        )
    words = parcel.coming(undertaking, name, found, owner, told)
    put.ask(here, words)
    return words, order


def _run(
    paths: Paths, book: Journal, order: Order, words: dict[str, Any], agents: tuple[Agent, Agent], wishes: Wishes,
    progress: Callable[[int], None],
) -> Done:  # fmt: skip
    there, here = agents
    try:
        here.call("stage", words, timeout=get.LONG)
        book.step("staged")
        with transfer.way(paths, there, here, order.name) as way:
            if way.through_master:
                log.note(f"{order.source} does not reach {order.target}: what is copied goes through this node")
            passes = _ahead(way, progress) if order.running else []
            predicted = _predicted(passes)
            _check_downtime(predicted, wishes)
            book.step("copied")
            begun = time.monotonic()
            there.call("hold", name=order.name, stop=order.running, timeout=get.LONG)
            book.step("held")
            passes.append(way.copy(live=False, timeout=_left(begun, wishes), progress=progress))
        here.call("register", name=order.name, timeout=get.LONG)
        book.step("registered")
    except BaseException:
        _back(book, order, there, here)
        raise
    try:
        there.call("release", name=order.name, host=order.target, epoch=order.epoch + 1)
    except VsError as error:
        raise VsError(
            f"{order.source} did not say whether it released guest {order.name}: {error}", "vs-move --resume asks again"
        ) from error
    book.step("released")
    away = _end(book, order, there, here) - begun
    measured = away if order.running else 0.0
    return Done(predicted if order.running else 0.0, measured, sum(each.bytes for each in passes))


def _end(book: Journal, order: Order, there: Agent, here: Agent) -> float:
    """All that comes after the point of no return; when the guest ran, by time.monotonic()."""
    try:
        runs = _forward(book, order, there, here)
        _clear(book, order, there)
    except VsError as error:
        if book.path.exists():
            error.hint = f"vs-move --name {order.name} --resume, as soon as both hosts answer"
        raise
    return runs


def _ahead(way: transfer.Way, progress: Callable[[int], None]) -> list[Passed]:
    """Passes while the guest runs, until another one would not be much shorter."""
    passes = [way.copy(live=True, progress=progress)]
    while len(passes) < _MOST_PASSES:
        passes.append(way.copy(live=True, progress=progress))
        if passes[-1].seconds < _SHORT or passes[-1].seconds > 0.7 * passes[-2].seconds:
            break
    return passes


def _predicted(passes: list[Passed]) -> float:
    return _AROUND + (passes[-1].seconds if passes else 0.0)


def _check_downtime(predicted: float, wishes: Wishes) -> None:
    if wishes.max_downtime is not None and predicted > wishes.max_downtime:
        raise VsError(
            f"the guest would be away for {predicted:.1f} s, more than {wishes.max_downtime:g} s: it stays where it is",
            "try again when less is written in it",
        )


def _left(begun: float, wishes: Wishes) -> float:
    """Seconds that the last pass may take."""
    if wishes.max_downtime is None:
        return get.LONG
    return max(1.0, wishes.max_downtime - (time.monotonic() - begun) - _AROUND / 2)


def _back(book: Journal, order: Order, there: Agent, here: Agent) -> None:
    """Before the point of no return: the guest runs where it was, and the target forgets it."""
    failed = False
    for agent, verb in ((there, "let_go"), (here, "abandon")):
        try:
            agent.call(verb, name=order.name, timeout=get.LONG)
        except VsError as error:
            log.warn(str(error))
            failed = True
    try:
        if "registered" in book.steps or not failed:
            _drop_copy(order, here)
    except VsError as error:
        log.warn(str(error))
        failed = True
    if failed:
        log.warn(f"the move of {order.name} is not undone to its end: vs-move --name {order.name} --rollback")
    else:
        book.end()


def _drop_copy(order: Order, here: Agent) -> None:
    """Remove the target's copy, which is the source's still."""
    if _rows(order, here):
        here.call("forget", name=order.name, timeout=get.LONG)


def _forward(book: Journal, order: Order, there: Agent, here: Agent) -> float:
    """After the point of no return: the guest is the target's, runs there if it did, and is enabled if it was.

    Returns when it ran, by time.monotonic(); systemd is told to enable it afterwards, for that takes its time.
    """
    here.call("own", name=order.name, host=order.target, epoch=order.epoch + 1)
    book.step("owned")
    if order.running:
        try:
            here.call("do", name=order.name, verb="start", timeout=get.LONG)
        except ssh.Unreachable:
            raise
        except VsError as error:
            log.warn(f"guest {order.name} does not start on {order.target}, it goes back: {error}")
            _return(book, order, there, here)
            raise
    runs = time.monotonic()
    if order.enabled:
        here.call("do", name=order.name, verb="enable", timeout=get.LONG)
    book.step("started")
    return runs


def _return(book: Journal, order: Order, there: Agent, here: Agent) -> None:
    """It did not come up on the target: the source has it again, in a later epoch, and the target first says so."""
    here.call("own", name=order.name, host=order.source, epoch=order.epoch + 2)
    there.call("own", name=order.name, host=order.source, epoch=order.epoch + 2)
    there.call("let_go", name=order.name, timeout=get.LONG)
    if order.running:
        there.call("do", name=order.name, verb="start", timeout=get.LONG)
    here.call("forget", name=order.name, timeout=get.LONG)
    book.end()


def _clear(book: Journal, order: Order, there: Agent) -> None:
    """The source's copy goes; nothing is left to be done."""
    there.call("let_go", name=order.name, timeout=get.LONG)
    there.call("forget", name=order.name, timeout=get.LONG)
    book.end()


@contextmanager
def _begun(paths: Paths, name: str, slaves: Mapping[str, Slave]) -> Iterator[tuple[Journal, Order, Agent, Agent]]:
    """A move that was begun, and the agents of its hosts; raises Refused where there is none."""
    with journal.opened(paths, name) as book:
        if book is None:
            raise Refused(f"no move of {name} was begun", "vs-move --status lists those that were")
        order = Order(**book.facts)
        for host in (order.source, order.target):
            if host not in slaves:
                raise Refused(f"host {host} is not in the pool any more", f"{book.path} says what was to be done")
        patience = wire.SILENCE + _AROUND
        with _agents(paths, name, slaves[order.source], slaves[order.target], patience=patience) as (there, here):
            handing.sweep(paths)
            yield book, order, there, here


def rollback(paths: Paths, name: str, slaves: Mapping[str, Slave]) -> None:
    """Undo a move that was killed. Raises Refused where the guest is the target's already."""
    with _begun(paths, name, slaves) as (book, order, there, here), log.change("roll a move back", name):
        if _is_returning(order, here):
            _return(book, order, there, here)
            return
        if _is_released(order, there, here):
            raise Refused(f"guest {name} belongs to {order.target} already", "--resume, then move it back")
        here.call("expel", name=name)
        here.call("abandon", name=name, timeout=get.LONG)
        _drop_copy(order, here)
        book.end()


def resume(
    paths: Paths, store: Store, name: str, slaves: Mapping[str, Slave], wishes: Wishes,
    progress: Callable[[int], None] = lambda _: None,
) -> Done:  # fmt: skip
    """Bring a move that was killed to its end: what was copied already is not copied again."""
    with _begun(paths, name, slaves) as (book, order, there, here), log.change("resume a move", name):
        if _is_returning(order, here):
            _return(book, order, there, here)
            raise VsError(f"guest {name} did not start on {order.target}: it is back on {order.source}")
        if _is_released(order, there, here):
            _end(book, order, there, here)
            return Done(0, 0, 0)
        _drop_copy(order, here)
        words, now = _prepare(store, name, there, here, wishes)
        now = replace(now, enabled=now.enabled or order.enabled, running=now.running or order.running)
        again = Journal(book.path, asdict(now))
        again.begin()
        return _run(paths, again, now, words, (there, here), wishes, progress)


def _is_released(order: Order, there: Agent, here: Agent) -> bool:
    """Whether the point of no return is behind: the source says so, or has forgotten the guest, which comes after."""
    after = (order.target, order.epoch + 1)
    return any((row.owner, row.epoch) == after for agent in (there, here) for row in _rows(order, agent))


def _is_returning(order: Order, here: Agent) -> bool:
    """Whether the target did not start it, and was giving it back."""
    return any((row.owner, row.epoch) == (order.source, order.epoch + 2) for row in _rows(order, here))


def _rows(order: Order, agent: Agent) -> list[scan.Seen]:
    """What a host has of the guest: one row or none."""
    rows = scan.checked(agent.slave.host, agent.call("states", name=order.name))
    return [row for row in rows if row.guest == order.name]

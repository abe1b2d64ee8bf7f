"""A guest is repaired quickly: a copy takes its place, and it is set aside, whole, for whoever wants to know.

The host sets the guest aside (lifecycle/aside.py), the copy comes as with vs-put, in the same context, in a later
epoch, and is enabled and started as the guest was. What was set aside comes back in its place in the same way
(lifecycle/back.py). What was killed goes on with the next restore: the journal says what was to be done, and what is
true is asked of the host.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from vstools import log, run
from vstools.config.owner import NOBODY, check_epoch
from vstools.config.slaves import Slave
from vstools.errors import Refused, VsError
from vstools.paths import Paths
from vstools.pool import get, journal, put, remote, rsync, scan
from vstools.pool.journal import Journal
from vstools.pool.laying import check_path
from vstools.pool.put import Ownership
from vstools.pool.scan import Seen
from vstools.pool.store import Generation, Store

_NAME = 63 - len(".suspect-YYYYMMDDTHHMMSSZ")


@dataclass(frozen=True)
class Order:
    """What is to be done; the first line of the journal. ``other``: the name of what is set aside.

    ``back``: the guest that was set aside, and comes back in place of a copy (``generation`` is empty then).
    """

    name: str
    host: str
    generation: str
    other: str
    epoch: int
    running: bool
    enabled: bool
    back: str = ""


def begun(paths: Paths, name: str) -> Order | None:
    """The restore of a guest that was begun and not ended."""
    book = journal.read(paths, name, "restore")
    return None if book is None else Order(**book.facts)


def order(generation: Generation, pool: scan.Pool, slave: Slave, *, start: bool) -> Order:
    """What is to be done with a guest that its host has; raises Refused where the guest is another host's."""
    copies = [seen for seen in pool.guests if seen.guest == generation.guest]
    here = next(seen for seen in copies if seen.host == slave.host)
    _require_owned(copies, here, slave)
    epoch = _after([get.about(generation).epoch, *(seen.epoch for seen in copies)])
    return Order(
        generation.guest, slave.host, generation.name, suspect(generation.guest, datetime.now(UTC)), epoch,
        running=here.running or start, enabled=here.enabled,
    )  # fmt: skip


def _require_owned(copies: Sequence[Seen], here: Seen | None, slave: Slave) -> None:
    owners = [seen.host for seen in copies if seen.owned and seen is not here]
    if here is not None and here.owner and here.owner != here.host:  # broken files are a reason to restore it
        owners = owners or [here.owner]
    if owners:
        raise Refused(
            f"guest {copies[0].guest} belongs to host {', '.join(owners)}, not to {slave.host}",
            "restore it there, or vs-adopt it first",
        )


def suspects(name: str, pool: scan.Pool, time: str = "") -> list[Seen]:
    """The guests that were set aside under a name, the newest last; ``time`` is how their times begin."""
    form = re.compile(re.escape(f"{name[:_NAME]}.suspect-{time}") + r"[0-9TZ]*")
    found = [seen for seen in pool.guests if seen.owner == NOBODY and form.fullmatch(seen.guest)]
    return sorted(found, key=lambda seen: seen.guest)


def undoing(
    name: str, chosen: Seen, pool: scan.Pool, slave: Slave, *, start: bool, known: int = 0, owner_is_dead: bool = False
) -> Order:
    """What is to be done so that a guest which was set aside is there again; raises Refused as ``order``.

    ``known``: the latest epoch that the store knows of. Where the host has no guest of that name now, one that does not
    answer may have it: then only the admin knows (``owner_is_dead``).
    """
    copies = [seen for seen in pool.guests if seen.guest == name]
    here = next((seen for seen in copies if seen.host == slave.host), None)
    _require_owned(copies, here, slave)
    if here is None and pool.missing and not owner_is_dead:
        silent = ", ".join(host for host, _ in pool.missing)
        raise Refused(
            f"{slave.host} has no guest {name} now, and a host that does not answer may have it: {silent}",
            "only where it is sure never to run the guest again: --owner-is-dead",
        )
    return Order(
        name, slave.host, "", suspect(name, datetime.now(UTC)) if here else "",
        _after([known, *(seen.epoch for seen in (chosen, *copies))]),
        running=(here is not None and here.running) or start, enabled=here is not None and here.enabled,
        back=chosen.guest,
    )  # fmt: skip


def latest(store: Store, name: str) -> int:
    """The latest epoch in which a copy of a guest was made; 0: none is known. A copy that cannot be read is none."""
    found = [0]
    for generation in store.generations(name):
        with suppress(VsError):
            found.append(get.about(generation).epoch)
    return max(found)


def _after(epochs: Sequence[int]) -> int:
    """The epoch after all of these, some of which a host said; raises Refused where there is none after."""
    try:
        return check_epoch(max(epochs) + 1)
    except ValueError as error:
        raise Refused(f"no epoch can follow: {error}", "a host lies, or an owner file is wrong: vs-scan") from None


def suspect(name: str, time: datetime) -> str:
    """The name of a guest that is set aside now."""
    return f"{name[:_NAME]}.suspect-{time:%Y%m%dT%H%M%SZ}"


def restore(
    paths: Paths, store: Store, slave: Slave, wanted: Order, progress: Callable[[int], None] = lambda _: None
) -> None:
    """Do it, or what is missing of it."""
    with journal.opened(paths, wanted.name, "restore") as old:
        if journal.read(paths, wanted.name) is not None:
            raise Refused(f"a move of {wanted.name} was begun and not ended", "vs-move --resume or --rollback")
        before = Order(**old.facts) if old else wanted
        if replace(before, generation=wanted.generation) != wanted:
            raise Refused(f"another restore of {wanted.name} was begun", "try again: it goes on")
        steps = old.steps if old and before == wanted else []
        book = Journal(journal.path_of(paths, wanted.name, "restore"), asdict(wanted), steps)
        if before != wanted:  # another copy than the one that was begun with
            with remote.agent(paths, slave) as there:
                there.call("claim", name=wanted.name)
                there.call("abandon", name=wanted.name, timeout=get.LONG)
            book.begin()
        with log.change(f"restore {wanted.back or wanted.generation} on {slave.host}", wanted.name):
            _run(paths, store, slave, book, wanted, progress)
        book.end()


def _run(
    paths: Paths, store: Store, slave: Slave, book: Journal, wanted: Order, progress: Callable[[int], None]
) -> None:
    with remote.agent(paths, slave) as there:
        there.call("claim", name=wanted.name)
        rows = {seen.guest: seen for seen in scan.checked(slave.host, there.call("states", timeout=get.LONG))}
        if wanted.back:
            _bring_back(there, book, wanted, rows)
        elif not _is_back(rows, wanted):
            _bring(paths, store, there, book, wanted, rows, progress)
            book.step("registered")
        for verb, asked in (("enable", wanted.enabled), ("start", wanted.running)):
            if asked:
                there.call("do", name=wanted.name, verb=verb, timeout=get.LONG)


def _bring(
    paths: Paths, store: Store, there: remote.Agent, book: Journal, wanted: Order, rows: Mapping[str, Seen],
    progress: Callable[[int], None],
) -> None:  # fmt: skip
    """Set the guest aside and let the copy take its place."""
    generation = store.generation(wanted.name, wanted.generation)
    owner = Ownership(wanted.host, wanted.epoch, here=True)
    if book.path.exists() and wanted.name not in rows and wanted.other not in rows:
        context = None  # it was set aside, and somebody removed it since
    else:
        context = _set_aside(there, generation, owner, book, wanted)
    try:
        put.bring(paths, there, generation, owner, context=context, progress=progress)
    except VsError:
        log.warn(f"guest {wanted.name} is set aside as {wanted.other}: vs-restore --name {wanted.name} goes on")
        raise


def _bring_back(there: remote.Agent, book: Journal, wanted: Order, rows: Mapping[str, Seen]) -> None:
    """Set the guest aside, if there is one, and let the one that was set aside before have its name again.

    Raises Refused, and nothing is left to be done, where somebody removed that one since.
    """
    now, has_begun = rows.get(wanted.name), book.path.exists()
    is_coming = now is not None and now.owner == NOBODY
    if has_begun and wanted.back not in rows and not is_coming and not _is_back(rows, wanted):
        book.end()
        kept = f"; {wanted.other} is what was there" if wanted.other in rows else ""
        raise Refused(f"{wanted.back} is gone from {wanted.host}, and cannot come back{kept}", "see vs-scan")
    runs_on = now is not None and not is_coming and "aside" not in book.steps
    if not has_begun or runs_on:  # asked again: nothing is stopped for one that cannot come
        there.call("may_return", name=wanted.name, other=wanted.back, timeout=get.LONG)
    if not has_begun:
        book.begin()
    if wanted.other and "aside" not in book.steps:
        there.call("set_aside", name=wanted.name, other=wanted.other, timeout=get.LONG)
    book.step("aside")
    there.call("bring_back", name=wanted.name, other=wanted.back, epoch=wanted.epoch, timeout=get.LONG)
    book.step("registered")


def _is_back(rows: Mapping[str, Seen], wanted: Order) -> bool:
    now = rows.get(wanted.name)
    return now is not None and now.owner == wanted.host and now.epoch == wanted.epoch


def _set_aside(there: remote.Agent, generation: Generation, owner: Ownership, book: Journal, wanted: Order) -> int:
    """The context that the guest had. Everything is asked before it is stopped."""
    if not book.path.exists():
        put.check(there, generation, owner, instead=True)
        book.begin()
    context = there.call("set_aside", name=wanted.name, other=wanted.other, timeout=get.LONG)
    book.step("aside")
    if not isinstance(context, int):
        raise VsError(f"host {wanted.host} says nothing of the context that it set free")
    return context


def located(generation: Generation, path: str) -> Path:
    """Where something of a guest is in a copy; links on the way are the guest's own, the last one is not followed."""
    from vstools.inside import Inside

    wanted = check_path(path)
    with Inside(generation.tree) as tree:
        found = tree.where(wanted)
    if found is None:
        raise Refused(f"{wanted} is not in the copy {generation.name} of {generation.guest}")
    return found


def file(paths: Paths, slave: Slave, generation: Generation, path: str) -> str:
    """Bring a file or a directory of a copy back into the guest; what the one that was there is called now, if any."""
    source, wanted = located(generation, path), check_path(path)
    kept = f"{wanted}.before-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    name = generation.guest
    with remote.agent(paths, slave) as there, log.change(f"restore {wanted} of {generation.name}", name):
        there.call("claim", name=name)
        there.call("lay", name=name, timeout=get.LONG)
        rsync.lay(paths, slave, name, source)
        return kept if there.call("place", name=name, path=wanted, kept=kept) is True else ""


def extract(generation: Generation, path: str, folder: Path) -> Path:
    """Copy a file or a directory of a copy into a directory of this node; returns its path.

    Links are copied as such and none is followed. What was setuid, setgid or had capabilities has that no more: it was
    root's of the guest only. Raises Refused where the name is taken.
    """
    source = located(generation, path)
    target = folder / source.name
    if target.exists() or target.is_symlink():
        raise Refused(f"{target} is there already", "choose another directory")
    with TemporaryDirectory(prefix=".vs-restore-", dir=folder) as hidden:
        copy = Path(hidden) / source.name
        preserved = "--preserve=mode,ownership,timestamps,links"
        run.run(
            ["cp", "--recursive", "--no-dereference", "--reflink=auto", preserved, "--", str(source), str(copy)],
            timeout=get.LONG,
        )
        run.run(
            [
                "find",
                str(copy),
                "-xdev",
                "-perm",
                "/6000",
                "!",
                "-type",
                "l",
                "-exec",
                "chmod",
                "ug-s",
                "--",
                "{}",
                "+",
            ],
            timeout=get.LONG,
        )
        copy.rename(target)
    return target

"""vs-move: a guest goes to another host of the pool."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from vstools import log, signals
from vstools import paths as installation
from vstools.cli import app, pooled
from vstools.errors import Refused

if TYPE_CHECKING:
    from vstools.paths import Paths
    from vstools.pool.move import Wishes


def move(
    name: pooled.Guests = None,
    dst_host: Annotated[
        str | None,
        typer.Option("--dst-host", help="where to", metavar="HOST", autocompletion=pooled.complete_host),
    ] = None,
    src_host: Annotated[
        str | None,
        typer.Option("--src-host", help="where from", metavar="HOST", autocompletion=pooled.complete_host),
    ] = None,
    everyone: Annotated[bool, typer.Option("--all", help="with --src-host: empty that host")] = False,
    max_downtime: Annotated[
        float | None,
        typer.Option("--max-downtime", help="leave the guest where it is rather than longer", min=1, metavar="SECONDS"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="bring a move that was killed to its end")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="undo a move that was killed")] = False,
    status: Annotated[bool, typer.Option("--status", help="moves that were begun and not ended")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="with --all: do not ask")] = False,
    accept_config: pooled.AcceptConfig = False,
    dry_run: app.DryRun = False,
) -> int:
    """Move a guest to another host: copied while it runs, stopped for the last of it, and started there.

    Data goes straight from host to host where they reach each other. Whatever fails before the guest is the other
    host's lets it run where it was. Prints the guest's line of vs-control; how long it was away is said on stderr.

    --all shows where each guest of --src-host would go (to --dst-host, or to whichever host has the most memory left),
    <guest>:<host>, asks, and moves one after the other; one that fails stops no other, and the exit status is 1 then.
    Killed, the same command goes on.
    """
    from vstools.pool import move as pool

    app.exclusive(resume=resume, rollback=rollback, status=status)
    paths = installation.from_environment()
    if status:
        return _status(paths)
    wishes = pool.Wishes(max_downtime, accept_config, dry_run)
    if everyone:
        if name or resume or rollback or src_host is None:
            raise Refused("--all goes with --src-host HOST, and with no --name")
        return _evacuate(paths, src_host, dst_host, wishes, yes=yes)
    guest = app.single(name or [])
    if resume or rollback:
        return _end(paths, guest, wishes, back=rollback)
    if dst_host is None:
        raise Refused("say where to: --dst-host HOST")
    return _move(paths, guest, src_host, dst_host, wishes)


def _move(paths: "Paths", guest: str, src_host: str | None, dst_host: str, wishes: "Wishes") -> int:
    from vstools.pool import move as pool
    from vstools.pool import scan, store

    (target,) = scan.hosts(paths, [dst_host])
    asked = scan.hosts(paths, [src_host]) if src_host else scan.hosts(paths)
    found = scan.scan(paths, asked)
    source = pooled.chosen(found, asked, guest, frozenset())
    if source == target:
        raise Refused(f"guest {guest} is on {target.host} already")
    with signals.ending(), pooled.bar(f"{guest} to {target.host}") as progress:
        done = pool.move(paths, store.of(paths), guest, source, target, wishes, progress)
    if wishes.dry_run:
        print(f"would move {guest} from {source.host} to {target.host}")
        return 0
    _tell(guest, done)
    return pooled.show_line(paths, target, guest)


def _evacuate(paths: "Paths", src_host: str, dst_host: str | None, wishes: "Wishes", *, yes: bool) -> int:
    from vstools.errors import VsError
    from vstools.pool import evacuate as pool
    from vstools.pool import scan

    (source,) = scan.hosts(paths, [src_host])
    (wanted,) = scan.hosts(paths, [dst_host]) if dst_host else (None,)
    if wanted == source:
        raise Refused(f"{source.host} is where the guests are")

    def failed(guest: str, error: VsError) -> None:
        print(f"vs-move: {guest}: {error}", file=sys.stderr)

    begun = pool.begun(paths, source.host)
    found = scan.scan(paths, scan.hosts(paths))
    pooled.require_host(found, source)
    silent = {host for host, _ in found.missing}
    others = [wanted] if wanted else [each for each in scan.hosts(paths) if each != source and not each.noselect]
    steps = pool.ask(
        paths, source, [each for each in others if each.host not in silent], pool.owned(found, source.host, begun)
    )
    for guest in begun:
        print(f"{guest}:(begun)", file=sys.stderr)
    for step in steps:
        print(f"{step.guest}:{step.host}" if step.host else f"{step.guest}: stays: {step.why}", file=sys.stderr)
    if wishes.dry_run or not (begun or any(step.host for step in steps)):
        return int(any(not step.host for step in steps))
    app.confirm(f"Move these guests away from {source.host}?", yes)
    count = pool.each(begun, lambda guest: _end(paths, guest, wishes, back=False), failed)
    target = {step.guest: step.host for step in steps if step.host}
    count += pool.each(target, lambda guest: _move(paths, guest, source.host, target[guest], wishes), failed)
    return int(bool(count) or len(target) < len(steps))


def _tell(guest: str, done: "object") -> None:
    from vstools.pool.move import Done

    if isinstance(done, Done) and done.measured:
        log.note(f"guest {guest} was away for {done.measured:.1f} s ({done.predicted:.1f} s were predicted)")


def _end(paths: "Paths", guest: str, wishes: "Wishes", *, back: bool) -> int:
    from vstools.pool import journal, scan, store
    from vstools.pool import move as pool

    slaves = {slave.host: slave for slave in scan.hosts(paths)}
    book = journal.read(paths, guest)
    if back:
        pool.rollback(paths, guest, slaves)
    else:
        with signals.ending(), pooled.bar(guest) as progress:
            _tell(guest, pool.resume(paths, store.of(paths), guest, slaves, wishes, progress))
    where = book.facts["source" if back else "target"] if book else ""
    return pooled.show_line(paths, slaves[where], guest)


def _status(paths: "Paths") -> int:
    from vstools.pool import journal

    for guest in journal.names(paths):
        book = journal.read(paths, guest)
        if book is not None:
            last = book.steps[-1] if book.steps else "begun"
            print(f"{book.facts.get('source')}:{guest}:{book.facts.get('target')}:{last}")
    return 0


def main() -> None:
    """The command."""
    app.execute(move)

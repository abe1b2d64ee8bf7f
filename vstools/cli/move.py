"""vs-move: a guest goes to another host of the pool."""

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
    max_downtime: Annotated[
        float | None,
        typer.Option("--max-downtime", help="leave the guest where it is rather than longer", min=1, metavar="SECONDS"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="bring a move that was killed to its end")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="undo a move that was killed")] = False,
    status: Annotated[bool, typer.Option("--status", help="moves that were begun and not ended")] = False,
    accept_config: pooled.AcceptConfig = False,
    dry_run: app.DryRun = False,
) -> int:
    """Move a guest to another host: copied while it runs, stopped for the last of it, and started there.

    Data goes straight from host to host where they reach each other. Whatever fails before the guest is the other
    host's lets it run where it was. Prints the guest's line of vs-control; how long it was away is said on stderr.
    """
    from vstools.pool import move as pool

    app.exclusive(resume=resume, rollback=rollback, status=status)
    paths = installation.from_environment()
    if status:
        return _status(paths)
    guest = app.single(name or [])
    wishes = pool.Wishes(max_downtime, accept_config, dry_run)
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

"""vs-diff: what changed in a guest since a copy, or between two copies, the most alarming first."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vstools import paths as installation
from vstools.cli import app, pooled

if TYPE_CHECKING:
    from vstools.paths import Paths
    from vstools.pool.compare import Change
    from vstools.pool.store import Generation


def diff(
    name: pooled.Guest,
    generations: Annotated[
        list[str] | None,
        typer.Argument(metavar="[GENERATION [GENERATION]]", help="times of copies, or how they begin"),
    ] = None,
    host: pooled.Host = None,
    full: Annotated[bool, typer.Option("--full", help="name every file, also those of which the time changed")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="read no file that has the size and the time of the copy's")
    ] = False,
    as_json: app.Json = False,
    table: app.Table = False,
) -> int:
    """Show what changed in a guest since a copy of it, or between two copies, the most alarming first.

    Prints <guest>:<kind>:<added|removed|changed|several>:<path>:<details>. Without a time the newest copy is compared
    with the guest as it is on its host now (chosen as vs-get does), with one that copy; with two times the first copy
    with the second.

    The kinds, in this order: privilege (setuid, setgid, capabilities, devices), program (and libraries), user (and
    groups, sudo), cron (and timers), key (ssh), unit (systemd, init), preload (ld.so), module (the kernel's), pam,
    config (of the guest, on its host), executable (any other), etc (the rest of it), other: summed up by directories
    without --full.
    """
    from vstools.errors import Refused
    from vstools.pool import diff as work
    from vstools.pool.store import of

    app.exclusive(json=as_json, table=table)
    guest, paths = app.single(name), installation.from_environment()
    older, newer = work.chosen(of(paths), guest, generations or [])
    if newer is not None and (host or quick):
        raise Refused("two copies are compared without asking a host", "leave --host and --quick out")
    status = 0
    if newer is None:
        changes, status = _since(paths, older, host, quick=quick, full=full)
    else:
        changes = work.changes(older, newer, full=full)
    rows: list[dict[str, object]] = [
        {
            "guest": guest,
            "kind": each.kind,
            "change": each.what,
            "path": each.name.decode("utf-8", "backslashreplace") if as_json else each.shown,
            "details": each.details,
        }
        for each in changes
    ]
    app.show(rows, _line, as_json=as_json, table=table)
    return status


def _since(
    paths: "Paths", older: "Generation", host: str | None, *, quick: bool, full: bool
) -> "tuple[list[Change], int]":
    """What changed since a copy, and the exit status: 1 where something could not be read."""
    from vstools import log
    from vstools.pool import diff as work
    from vstools.pool import scan

    slaves = scan.hosts(paths, [host] if host else ())
    noselect = frozenset() if host else frozenset(slave.host for slave in slaves if slave.noselect)
    slave = pooled.chosen(scan.scan(paths, slaves), slaves, older.guest, noselect)
    with pooled.bar(f"{older.guest} on {slave.host}") as progress:
        found = work.since(paths, slave, older, quick=quick, full=full, progress=progress)
    if found.live:
        log.warn(f"{slave.host} has no snapshots: guest {older.guest} may have changed while it was read")
    if found.unread:
        log.warn(f"{found.unread} names of guest {older.guest} on {slave.host} could not be read")
    return found.changes, 1 if found.unread else 0


def _line(row: Mapping[str, Any]) -> str:
    return ":".join(str(value) for value in row.values())


def main() -> None:
    """The command."""
    app.execute(diff)

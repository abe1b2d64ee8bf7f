"""vs-diff: what changed between two copies of a guest, the most alarming first."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from vstools import paths as installation
from vstools.cli import app, pooled


def diff(
    name: pooled.Guest,
    generations: Annotated[
        list[str] | None,
        typer.Argument(metavar="[GENERATION [GENERATION]]", help="times of copies, or how they begin"),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="name every file, also those of which the time changed")] = False,
    as_json: app.Json = False,
    table: app.Table = False,
) -> None:
    """Show what changed between two copies of a guest in the master's store, the most alarming first.

    Prints <guest>:<kind>:<added|removed|changed|several>:<path>:<details>. Without a time the two newest copies are
    compared, with one that copy and the newest, with two the first and the second.

    The kinds, in this order: privilege (setuid, setgid, capabilities, devices), program (and libraries), user (and
    groups, sudo), cron (and timers), key (ssh), unit (systemd, init), preload (ld.so), module (the kernel's), pam,
    config (of the guest, on its host), executable (any other), etc (the rest of it), other: summed up by directories
    without --full.
    """
    from vstools.pool import diff as work
    from vstools.pool.store import of

    app.exclusive(json=as_json, table=table)
    guest = app.single(name)
    older, newer = work.chosen(of(installation.from_environment()), guest, generations or [])
    rows: list[dict[str, object]] = [
        {
            "guest": guest,
            "kind": each.kind,
            "change": each.what,
            "path": each.name.decode("utf-8", "backslashreplace") if as_json else each.shown,
            "details": each.details,
        }
        for each in work.changes(older, newer, full=full)
    ]
    app.show(rows, _line, as_json=as_json, table=table)


def _line(row: Mapping[str, Any]) -> str:
    return ":".join(str(value) for value in row.values())


def main() -> None:
    """The command."""
    app.execute(diff)

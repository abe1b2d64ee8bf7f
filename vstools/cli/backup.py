"""vs-backup: copies of the guests that backup.conf lists; and what there is of copies."""

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from vstools import log
from vstools import paths as installation
from vstools.cli import app, pooled

if TYPE_CHECKING:
    from collections.abc import Callable

    from vstools.paths import Paths
    from vstools.pool.backup import Outcome


def backup(
    name: pooled.Guests = None,
    host: pooled.Hosts = None,
    list_: Annotated[bool, typer.Option("--list", help="the copies that there are")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="read copies again and compare their checksums")] = False,
    drill: Annotated[bool, typer.Option("--drill", help="start the newest copies, linked to nothing")] = False,
    hold: Annotated[
        str | None, typer.Option("--hold", help="keep this copy whatever backup.conf says", metavar="TIME")
    ] = None,
    release: Annotated[str | None, typer.Option("--release", help="no longer", metavar="TIME")] = None,
    mail: Annotated[bool, typer.Option("--mail", help="send a summary to BACKUP_MAILTO of create.conf")] = False,
    accept_config: pooled.AcceptConfig = False,
    as_json: app.Json = False,
    table: app.Table = False,
    dry_run: app.DryRun = False,
) -> int:
    """Copy the guests of backup.conf to the store: hot from a snapshot, cool stopped for as long as the snapshot takes.

    Several hosts at once, each one guest at a time; one that fails is named and stops no other, and the exit status is
    1 then. Prints <host>:<guest>:<generation>. --verify prints <guest>:<generation>:<whole|damaged>; --drill makes a
    guest of each newest copy on this node, without any network, waits until it has come up, removes it, and prints
    <guest>:<generation>:<up|failed>. --list prints
    <guest>:<generation>:<host>:<hot|cool>:<held or empty>:<age in hours>:<bytes>:<verified>:<drilled>: when that was
    done, or what was found to be wrong, or nothing.
    """
    app.exclusive(list=list_, verify=verify, drill=drill, hold=bool(hold), release=bool(release))
    paths = installation.from_environment()
    if list_:
        return _list(paths, name, as_json=as_json, table=table)
    if verify:
        return _verify(paths, name)
    if drill:
        return _drill(paths, name)
    if hold or release:
        from vstools.pool import store

        kept = store.of(paths)
        chosen = kept.generation(app.single(name or []), hold or release or "")
        (kept.hold if hold else kept.unhold)(chosen)
        return 0
    if not mail or dry_run:
        return _copy(paths, name, host, [], accept=accept_config, dry_run=dry_run)
    return _mailed(paths, lambda lines: _copy(paths, name, host, lines, accept=accept_config))


def _mailed(paths: "Paths", act: "Callable[[list[str]], int]") -> int:
    """Do it and send what was done, also where nothing could be."""
    from vstools.errors import BadFiles, VsError
    from vstools.pool import backup as pool

    lines: list[str] = []
    try:
        return act(lines)
    except VsError as error:
        lines += [f"FAILED {sentence}" for sentence in (error.faults if isinstance(error, BadFiles) else (str(error),))]
        raise
    finally:
        pool.mail(paths, lines)


def _copy(
    paths: "Paths", names: list[str] | None, hosts: list[str] | None, lines: list[str], *, accept: bool,
    dry_run: bool = False,
) -> int:  # fmt: skip
    """The copies; ``lines`` gets the summary."""
    from vstools.lifecycle import drill
    from vstools.pool import backup as pool
    from vstools.pool import scan, store

    drill.sweep(paths)
    entries = pool.entries(paths, names)
    kept = store.of(paths)
    slaves = scan.hosts(paths, hosts or ())
    found = scan.scan(paths, slaves)
    for _, sentence in found.missing:
        log.warn(sentence)
    if hosts:  # what lies elsewhere is not meant
        there = {seen.guest for seen in found.guests}
        entries = [entry for entry in entries if entry.guest in there]
    jobs, failed = pool.plan(entries, found, slaves, named=bool(hosts))
    if dry_run:
        for job in jobs:
            print(f"would copy {job.entry.guest} from {job.slave.host}, {'hot' if job.entry.hot else 'cool'}")
        return 0
    for outcome in failed:
        _tell(outcome)
    outcomes = [*failed, *pool.run(paths, kept, jobs, _tell, accept=accept)]
    lines += pool.summary(outcomes, [sentence for _, sentence in found.missing])
    return int(bool(found.missing) or any(outcome.error for outcome in outcomes))


def _tell(outcome: "Outcome") -> None:
    if outcome.error:
        print(f"vs-backup: {outcome.guest}: {outcome.error}", file=sys.stderr)
    else:
        print(f"{outcome.host}:{outcome.guest}:{outcome.generation}", flush=True)


def _list(paths: "Paths", names: list[str] | None, *, as_json: bool, table: bool) -> int:
    from vstools.pool import get, store

    kept, now = store.of(paths), time.time()
    rows = []
    for guest in names or kept.names():
        for made in kept.generations(guest):
            told = get.about(made)
            verified, drilled = store.noted(made, "verified"), store.noted(made, "drilled")
            rows.append({
                "guest": guest, "generation": made.name, "host": told.host, "mode": told.mode, "held": made.is_held,
                "age": max(0, int(now - made.time.timestamp())), "size": told.size,
                "verified": verified and verified.word, "drilled": drilled and drilled.word,
            })  # fmt: skip
    app.show(
        rows,
        lambda row: ":".join((
            row["guest"], row["generation"], row["host"], row["mode"], "held" if row["held"] else "",
            str(row["age"] // 3600), str(row["size"]), row["verified"] or "", row["drilled"] or "",
        )),
        as_json=as_json, table=table,
    )  # fmt: skip
    return 0


def _verify(paths: "Paths", names: list[str] | None) -> int:
    from vstools.pool import get, store

    kept, wrong = store.of(paths), 0
    for guest in names or kept.names():
        for made in kept.generations(guest):
            found = get.differences(made)
            for difference in found:
                print(f"vs-backup: {guest} {made.name}: {difference}", file=sys.stderr)
            result = "damaged" if found else "whole"
            store.note(made, "verified", result)
            print(f"{guest}:{made.name}:{result}", flush=True)
            wrong += bool(found)
    return int(wrong > 0)


def _drill(paths: "Paths", names: list[str] | None) -> int:
    from vstools.errors import VsError
    from vstools.lifecycle import drill
    from vstools.pool import store, trial

    drill.sweep(paths)
    kept, wrong = store.of(paths), 0
    for guest in names or kept.names():
        try:
            newest = kept.generation(guest, None)
            result = trial.drill(paths, newest)
        except VsError as error:
            print(f"vs-backup: {guest}: {error}", file=sys.stderr)
            wrong += 1
            continue
        if result != "up":
            print(f"vs-backup: {guest} {newest.name}: {result}", file=sys.stderr)
        print(f"{guest}:{newest.name}:{'up' if result == 'up' else 'failed'}", flush=True)
        wrong += result != "up"
    return int(wrong > 0)


def main() -> None:
    """The command."""
    app.execute(backup)

"""vs-restore: a copy takes the place of a guest, or one file of a copy that of a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vstools import log
from vstools import paths as installation
from vstools.cli import app, pooled
from vstools.errors import Refused

if TYPE_CHECKING:
    from vstools.config.slaves import Slave
    from vstools.paths import Paths
    from vstools.pool.restore import Order
    from vstools.pool.scan import Pool
    from vstools.pool.store import Generation, Store


def restore(
    name: pooled.Guest,
    host: pooled.Host = None,
    generation: pooled.Generation = None,
    file: Annotated[
        str | None, typer.Option("--file", help="only this file or directory of the guest", metavar="PATH")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="with --file: into this directory of this node", metavar="DIRECTORY")
    ] = None,
    start: Annotated[bool, typer.Option("--start", help="start the guest also where it did not run")] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="bring the guest back that was set aside (--generation: at that time)")
    ] = False,
    owner_is_dead: pooled.OwnerIsDead = False,
    dry_run: app.DryRun = False,
) -> int:
    """Repair a guest quickly: a copy of the master's store takes its place, with its addresses, and runs if it ran.

    The suspect guest is stopped and kept as GUEST.suspect-TIME on its host, nobody's, without addresses, to be looked
    into, and vs-remove removes it. Where no host has the guest, --host says where it comes to. Killed, the same command
    goes on. Prints the guest's line of vs-control.

    --file brings one file or directory back into the guest, running or not; what it replaces is kept as
    PATH.before-TIME. With --to it comes to a directory of this node, and no host is asked.

    --undo brings the guest back that was set aside last, with all that is in it, its context and its addresses; the one
    that is there now is set aside for it.
    """
    from vstools.pool import store

    paths = installation.from_environment()
    guest = app.single(name)
    if to is not None and file is None:
        raise Refused("--to goes with --file")
    if undo and file is not None:
        raise Refused("--undo brings a whole guest back", "leave --file out")
    if undo:
        return _undo(
            paths, store.of(paths), guest, generation or "", host, start=start, owner_is_dead=owner_is_dead,
            dry_run=dry_run,
        )  # fmt: skip
    kept = store.of(paths)
    chosen = kept.generation(guest, generation)
    if file is not None:
        return _file(paths, chosen, host, file, to, dry_run=dry_run)
    return _whole(paths, kept, chosen, generation, host, start=start, owner_is_dead=owner_is_dead, dry_run=dry_run)


def _file(paths: "Paths", chosen: "Generation", host: str | None, file: str, to: str | None, *, dry_run: bool) -> int:
    from vstools.pool import restore as pool
    from vstools.pool import scan

    source = pool.located(chosen, file)
    if to is not None:
        if not Path(to).is_dir():
            raise Refused(f"{to} is no directory of this node", "make it first")
        print(f"would copy {source} to {to}" if dry_run else pool.extract(chosen, file, Path(to).absolute()))
        return 0
    slaves = scan.hosts(paths, [host] if host else ())
    slave = pooled.chosen(scan.scan(paths, slaves), slaves, chosen.guest, frozenset())
    if dry_run:
        print(f"would copy {file} of {chosen.name} to guest {chosen.guest} on {slave.host}")
        return 0
    before = pool.file(paths, slave, chosen, file)
    if before:
        log.note(f"what was there is {before} in guest {chosen.guest} now")
    return pooled.show_line(paths, slave, chosen.guest)


def _whole(
    paths: "Paths", kept: "Store", chosen: "Generation", asked: str | None, host: str | None, *,
    start: bool, owner_is_dead: bool, dry_run: bool,
) -> int:  # fmt: skip
    from dataclasses import replace

    from vstools.pool import restore as pool
    from vstools.pool import scan

    every = scan.hosts(paths)
    begun = pool.begun(paths, chosen.guest)
    if begun is not None and begun.back:
        raise Refused(f"{begun.back} was coming back as {chosen.guest}", f"vs-restore --name {chosen.guest} --undo")
    if begun is not None:
        (slave,) = scan.hosts(paths, [host or begun.host])
        if slave.host != begun.host:
            raise Refused(f"a restore of {chosen.guest} on {begun.host} was begun", "without --host it goes on")
        wanted = replace(begun, generation=chosen.name) if asked else begun
        log.note(f"the restore of {chosen.guest} from {begun.generation}, which was begun, goes on")
    else:
        found = scan.scan(paths, every)
        copies = [seen for seen in found.guests if seen.guest == chosen.guest]
        if not copies and host is None:
            silent = "".join(f"; {sentence}" for _, sentence in found.missing)
            raise Refused(f"no host has guest {chosen.guest}{silent}", "say where to: --host HOST")
        (slave,) = scan.hosts(paths, [host]) if host else (pooled.chosen(found, every, chosen.guest, frozenset()),)
        pooled.require_host(found, slave)
        if all(seen.host != slave.host for seen in copies):
            return _anew(paths, chosen, slave, found, owner_is_dead=owner_is_dead, dry_run=dry_run)
        wanted = pool.order(chosen, found, slave, start=start)
    if dry_run:
        print(f"would set {wanted.name} on {wanted.host} aside as {wanted.other} and restore {wanted.generation}")
        return 0
    return _do(paths, kept, slave, wanted)


def _do(paths: "Paths", kept: "Store", slave: "Slave", wanted: "Order") -> int:
    from vstools.pool import restore as pool

    with pooled.bar(f"{wanted.name} to {slave.host}") as progress:
        pool.restore(paths, kept, slave, wanted, progress)
    if wanted.other:
        log.note(f"the {'other' if wanted.back else 'suspect'} guest is kept as {wanted.other} on {slave.host}")
    return pooled.show_line(paths, slave, wanted.name)


def _undo(
    paths: "Paths", kept: "Store", guest: str, time: str, host: str | None, *,
    start: bool, owner_is_dead: bool, dry_run: bool,
) -> int:  # fmt: skip
    """The guest that was set aside takes the place of the one that is there."""
    from vstools.pool import restore as pool
    from vstools.pool import scan

    wanted = pool.begun(paths, guest)
    if wanted is not None and not wanted.back:
        raise Refused(f"a restore of {guest} was begun", f"vs-restore --name {guest} ends it; then --undo")
    if wanted is not None:
        (slave,) = scan.hosts(paths, [host or wanted.host])
        if slave.host != wanted.host or not wanted.back.rpartition("-")[2].startswith(time):
            raise Refused(
                f"{wanted.back} on {wanted.host} was coming back as {guest}", "without other words it goes on"
            )
        log.note(f"{wanted.back} was coming back as {guest}, and goes on")
    else:
        slaves = scan.hosts(paths)
        found = scan.scan(paths, slaves)
        for _, sentence in found.missing:
            log.warn(sentence)
        named = {each.host for each in (scan.hosts(paths, [host]) if host else slaves)}
        aside = [seen for seen in pool.suspects(guest, found, time) if seen.host in named]
        if not aside:
            raise Refused(f"nothing of guest {guest} was set aside{f' at {time}' if time else ''}", "see vs-scan")
        if len({seen.host for seen in aside}) > 1:
            raise Refused(f"guest {guest} was set aside on several hosts", "name one: --host")
        slave = next(each for each in slaves if each.host == aside[-1].host)
        wanted = pool.undoing(
            guest, aside[-1], found, slave, start=start, known=pool.latest(kept, guest), owner_is_dead=owner_is_dead
        )
    if dry_run:
        now = f", and {guest} aside as {wanted.other}" if wanted.other else ""
        print(f"would bring {wanted.back} on {wanted.host} back as {guest}{now}")
        return 0
    return _do(paths, kept, slave, wanted)


def _anew(
    paths: "Paths", chosen: "Generation", slave: "Slave", found: "Pool", *, owner_is_dead: bool, dry_run: bool
) -> int:
    """No guest is there: as vs-put does."""
    from vstools.pool import put

    owner = put.ownership(chosen, slave, found, wants_start=True, owner_is_dead=owner_is_dead)
    if dry_run:
        print(f"would put {chosen.guest} of {chosen.name} on {slave.host} and start it")
        return 0
    with pooled.bar(f"{chosen.guest} to {slave.host}") as progress:
        put.put(paths, slave, chosen, owner, verbs=("start",), progress=progress)
    return pooled.show_line(paths, slave, chosen.guest)


def main() -> None:
    """The command."""
    app.execute(restore)

"""vs-put: a generation of the master's store becomes a guest on a host."""

from typing import Annotated

import typer

from vstools import paths as installation
from vstools.cli import app, pooled
from vstools.errors import Refused


def put(
    name: pooled.Guest,
    host: pooled.Host = None,
    generation: pooled.Generation = None,
    enable: Annotated[bool, typer.Option("--enable", help="start the guest with that host")] = False,
    start: Annotated[bool, typer.Option("--start", help="start the guest there")] = False,
    owner_is_dead: pooled.OwnerIsDead = False,
    dry_run: app.DryRun = False,
) -> int:
    """Bring a copy of a guest to a host, where there is none of that name: registered, disabled and stopped.

    Where another host of the pool owns the guest, the copy belongs to that one and cannot be started. Prints the
    guest's line of vs-control.
    """
    from vstools.pool import put as pool
    from vstools.pool import scan, store

    paths = installation.from_environment()
    if host is None:
        raise Refused("say where to: --host HOST")
    guest = app.single(name)
    kept = store.of(paths)
    chosen = kept.generation(guest, generation)
    (slave,) = scan.hosts(paths, [host])
    found = scan.scan(paths, scan.hosts(paths))
    pooled.require_host(found, slave)
    verbs = tuple(verb for verb, given in (("enable", enable), ("start", start)) if given)
    owner = pool.ownership(chosen, slave, found, wants_start=bool(verbs), owner_is_dead=owner_is_dead)
    if dry_run:
        print(f"would put {guest} of {chosen.name} on {slave.host}, owned by {owner.host}, epoch {owner.epoch}")
        return 0
    with pooled.bar(f"{guest} to {slave.host}") as progress:
        pool.put(paths, slave, chosen, owner, verbs=verbs, progress=progress)
    return pooled.show_line(paths, slave, guest)


def main() -> None:
    """The command."""
    app.execute(put)

"""vs-get: a copy of a guest, as a new generation in the master's store."""

from typing import Annotated

import typer

from vstools import paths as installation
from vstools.cli import app, pooled


def get(
    name: pooled.Guest,
    host: pooled.Host = None,
    cool: Annotated[
        bool, typer.Option("--cool", help="stop the guest until its snapshot is there (with no snapshots: its copy)")
    ] = False,
    accept_config: pooled.AcceptConfig = False,
    dry_run: app.DryRun = False,
) -> int:
    """Copy a guest to the store of this master: its configuration, its tree and a manifest with checksums.

    The tree is read from a snapshot while the guest runs; where its storage has none, it has to be stopped, or --cool
    does that. Without --host the pool is asked: where it runs, else where
    it is owned and enabled. What has not changed since the last generation takes no room and is not sent. Prints
    <host>:<guest>:<generation>.
    """
    from vstools.pool import get as pool
    from vstools.pool import scan, store

    paths = installation.from_environment()
    kept = store.of(paths)
    guest = app.single(name)
    slaves = scan.hosts(paths, [host] if host else ())
    found = scan.scan(paths, slaves)
    noselect = frozenset() if host else frozenset(slave.host for slave in slaves if slave.noselect)
    slave = pooled.chosen(found, slaves, guest, noselect)
    if dry_run:
        print(f"would copy {guest} from {slave.host} to {kept.root / guest}")
        return 0
    with pooled.bar(f"{guest} from {slave.host}") as progress:
        mode = "cool" if cool else "hot"
        made = pool.get(paths, kept, slave, guest, mode=mode, accept=accept_config, progress=progress)
    print(f"{slave.host}:{guest}:{made.name}")
    return 0


def main() -> None:
    """The command."""
    app.execute(get)

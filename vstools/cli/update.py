"""vs-update: the master's version of vs-tools on the hosts of the pool."""

from pathlib import Path
from typing import Annotated

import typer

from vstools import log
from vstools import paths as installation
from vstools.cli import app, pooled
from vstools.errors import VsError


def update(
    host: pooled.Hosts = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", help="with install.sh in it; where it ran from on this node", metavar="DIRECTORY"),
    ] = None,
    dry_run: app.DryRun = False,
) -> int:
    """Install the version of vs-tools that this master has on every host, one after the other.

    The files go to /usr/src/vs-tools, install.sh runs there. It stops at the first host that is not well afterwards:
    another version answers, or a guest that ran does not run any more. Prints <host>:<version>.
    """
    from vstools.paths import host_name
    from vstools.pool import scan
    from vstools.pool import update as pool

    paths = installation.from_environment()
    wanted = pool.source(paths, None if from_ is None else Path(from_))
    slaves = [slave for slave in scan.hosts(paths, host or ()) if slave.host != host_name()]
    for number, slave in enumerate(slaves):
        if dry_run:
            print(f"would install {wanted.version} from {wanted.folder} on {slave.host}")
            continue
        try:
            pool.update(paths, slave, wanted)
        except VsError:
            if left := [other.host for other in slaves[number + 1 :]]:
                log.warn(f"not touched: {', '.join(left)}")
            raise
        print(f"{slave.host}:{wanted.version}", flush=True)
    return 0


def main() -> None:
    """The command."""
    app.execute(update)

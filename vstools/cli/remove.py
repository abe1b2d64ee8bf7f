"""vs-remove: guests go for good."""

from typing import TYPE_CHECKING, Annotated

import typer

from vstools import paths as installation
from vstools.cli import app, pooled
from vstools.errors import Refused

if TYPE_CHECKING:
    from vstools.paths import Paths


def remove(
    name: app.Names = None,
    everyone: app.All = False,
    host: pooled.Host = None,
    last_copy: Annotated[
        bool, typer.Option("--last-copy", help="with --host: also where no other host of the pool has the guest")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    dry_run: app.DryRun = False,
) -> int:
    """Remove stopped and disabled guests from this host: their configuration, their trees and their logs.

    When one of several cannot be removed, none is. On a master, --host removes them from a host of the pool; copies in
    the store stay.
    """
    from vstools.config.registry import storage
    from vstools.lifecycle import removal

    paths = installation.from_environment()
    if host is not None:
        if everyone or not name:
            raise Refused("--host goes with --name GUEST")
        return _elsewhere(paths, host, tuple(dict.fromkeys(name)), last_copy=last_copy, yes=yes, dry_run=dry_run)
    if last_copy:
        raise Refused("--last-copy goes with --host")
    names = app.selected(paths, name, everyone)
    for guest in names:
        removal.check_removable(paths, guest)
    if dry_run:
        for guest in names:
            volume = storage(paths, guest)
            tree = f"{paths.tree_of(guest)} ({volume})" if volume else paths.tree_of(guest)
            print(f"would remove {paths.config_of(guest)}, {tree} and {paths.log_of(guest)}")
        return 0
    if names:
        app.confirm(f"Remove {', '.join(names)} and all files of theirs?", yes)
    failed = [app.status_of("vs-remove", lambda guest=guest: removal.remove(paths, guest)) for guest in names]  # type: ignore[misc]
    return max(failed, default=0) if len(names) < 2 else int(any(failed))


def _elsewhere(paths: "Paths", host: str, names: tuple[str, ...], *, last_copy: bool, yes: bool, dry_run: bool) -> int:
    from vstools.pool import remove as pool
    from vstools.pool import scan

    (slave,) = scan.hosts(paths, [host])
    found = scan.scan(paths, scan.hosts(paths))
    pooled.require_host(found, slave)
    for guest in names:
        pool.check(found, slave, guest, last_copy=last_copy)
    if dry_run:
        for guest in names:
            print(f"would remove {guest} from {slave.host}")
        return 0
    app.confirm(f"Remove {', '.join(names)} and all files of theirs from {slave.host}?", yes)
    pool.remove(paths, slave, names)
    return 0


def main() -> None:
    """The command."""
    app.execute(remove)

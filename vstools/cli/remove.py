"""vs-remove: guests go for good."""

from typing import Annotated

import typer

from vstools import paths as installation
from vstools.cli import app


def remove(
    name: app.Names = None,
    everyone: app.All = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    dry_run: app.DryRun = False,
) -> int:
    """Remove stopped and disabled guests from this host: their configuration, their trees and their logs.

    When one of several cannot be removed, none is.
    """
    from vstools.config.registry import storage
    from vstools.lifecycle import removal

    paths = installation.from_environment()
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


def main() -> None:
    """The command."""
    app.execute(remove)

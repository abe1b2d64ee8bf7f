"""vs-remove: a guest goes for good."""

from typing import Annotated

import typer

from vstools import paths as installation
from vstools.cli import app


def remove(
    name: app.Name,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    dry_run: app.DryRun = False,
) -> None:
    """Remove a stopped and disabled guest from this host: its configuration, its tree and its logs."""
    from vstools.lifecycle import removal

    paths = installation.from_environment()
    removal.check_removable(paths, name)
    if dry_run:
        print(f"would remove {paths.config_of(name)}, {paths.tree_of(name)} and {paths.log_of(name)}")
        return
    app.confirm(f"Remove guest {name} and all its files?", yes)
    removal.remove(paths, name)


def main() -> None:
    """The command."""
    app.execute(remove)

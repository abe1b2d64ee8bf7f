"""vs-log: what a guest said on its console and in its journal."""

import sys
from typing import Annotated

import typer

from vstools import paths as installation
from vstools.cli import app


def log(
    name: app.Name,
    boot: Annotated[bool, typer.Option("--boot", help="only since the guest's last start")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on with new lines until the guest ends")] = False,
) -> None:
    """Print a guest's console and its journal, of stopped guests too.

    Nothing in the guest can reach the terminal but printable text.
    """
    from vstools.config import registry
    from vstools.lifecycle import logs

    paths, guest = installation.from_environment(), app.single(name)
    registry.require(paths, guest)
    if follow:
        for line in logs.follow(paths, guest):
            print(line, flush=True)
        return
    for title, lines in (
        ("console", logs.console(paths, guest, boot=boot)),
        ("journal", logs.journal(paths, guest, boot=boot)),
    ):
        print(f"-- {title} of {guest} --", file=sys.stderr)
        for line in lines:
            print(line)


def main() -> None:
    """The command."""
    app.execute(log)

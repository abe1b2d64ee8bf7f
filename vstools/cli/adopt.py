"""vs-adopt: this host becomes the owner of a guest."""

from typing import Annotated

import typer

from vstools import paths as installation
from vstools.cli import app


def adopt(
    name: app.Name,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> int:
    """Make this host the owner of a guest that belongs to another host, so that it can be started here.

    It is meant for a guest whose other copy never runs again: its host is lost, or a move was given up. A copy that
    runs elsewhere is found by its addresses only, which the start asks the neighbours for.
    """
    from vstools.config import registry
    from vstools.lifecycle import ownership

    paths = installation.from_environment()
    guest = app.single(name)
    registry.require(paths, guest)
    now, here = ownership.of(paths, guest), app.host_name()
    said = f"Guest {guest} belongs to host {now.host} (epoch {now.epoch})." if now else f"Guest {guest} has no owner."
    app.confirm(
        f"{said} A copy of it that runs elsewhere is found by its addresses only, when this one starts; one that "
        f"is started there later is a second one. Make host {here} its owner?",
        yes,
    )
    ownership.adopt(paths, guest)
    return 0


def main() -> None:
    """The command."""
    app.execute(adopt)

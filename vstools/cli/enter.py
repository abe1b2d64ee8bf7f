"""vs-enter: a shell or a command inside a guest."""

from typing import Annotated

import typer

from vstools import paths as installation
from vstools.cli import app
from vstools.errors import Refused


def enter(
    name: app.Name,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND...]", help="instead of root's shell")
    ] = None,
    rescue: Annotated[
        bool, typer.Option("--rescue", help="stay outside the guest's limits: for a guest that is full")
    ] = False,
    console: Annotated[bool, typer.Option("--console", help="the login console (leave it with ctrl-a q)")] = False,
) -> int:
    """Open root's shell in a running guest, or run a command there; the command's exit status is kept.

    Needs no network in the guest. With --rescue the shell is in the guest's namespaces but not in its cgroup, so
    that it works where the guest has used up its processes or memory.
    """
    from vstools import log, lxc, run
    from vstools.config import registry

    app.exclusive(rescue=rescue, console=console)
    paths, guest = installation.from_environment(), app.single(name)
    registry.require(paths, guest)
    if not lxc.has_monitor(paths, guest):
        raise Refused(f"guest {guest} is not running", f"vs-control --name {guest} --start")
    if console and words:
        raise Refused("--console takes no command")
    what = "console" if console else " ".join(words or ["shell"])
    log.audit(f"enter{' --rescue' if rescue else ''}: {what}", guest, "begun")
    argv = lxc.console(paths, guest) if console else lxc.attach(paths, guest, list(words or ()), rescue=rescue)
    return run.interactive(argv)


def main() -> None:
    """The command."""
    app.execute(enter)

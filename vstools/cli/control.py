"""vs-control: start and stop guests, let them start with the host, and say which do."""

from typing import Annotated

import typer

from vstools import paths as installation
from vstools.cli import app
from vstools.errors import Refused


def control(
    name: app.Names = None,
    everyone: app.All = False,
    enable: Annotated[bool, typer.Option("--enable", help="start the guest with the host")] = False,
    disable: Annotated[bool, typer.Option("--disable", help="do not start the guest with the host")] = False,
    start: Annotated[bool, typer.Option("--start", help="start the guest")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="shut the guest down (killed after STOP_TIMEOUT)")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="stop, then start")] = False,
    boot: Annotated[
        bool, typer.Option("--boot", help="with --all: mount guests' own volumes, start the enabled guests")
    ] = False,
    as_json: app.Json = False,
    table: app.Table = False,
    dry_run: app.DryRun = False,
) -> int:
    """Show and change the state of guests.

    Prints <host>:<guest>:<enabled|disabled>:<running|stopped>, the state after the change. Several guests are
    started at once, those named in their apps/init/depends first, and stopped in the opposite order; one that
    fails does not stop the others, and the exit status is 1 then.
    """
    app.exclusive(json=as_json, table=table)
    app.exclusive(enable=enable, disable=disable)
    app.exclusive(start=start, stop=stop, restart=restart, boot=boot)
    paths = installation.from_environment()
    if boot and not everyone:
        raise Refused("--boot goes with --all")
    names = app.selected(paths, name, everyone)
    verbs = [
        verb
        for verb, given in (
            ("enable", enable),
            ("disable", disable),
            ("stop", stop),
            ("restart", restart),
            ("start", start or boot),
        )
        if given
    ]
    volumes_failed = False
    if boot:
        from vstools.config.registry import is_enabled
        from vstools.lifecycle import trees

        volumes_failed = not dry_run and not trees.open_all(paths)
        names = tuple(guest for guest in names if is_enabled(paths.config_of(guest)))
    status = 0
    if verbs and dry_run:
        for guest in names:
            print(f"{guest}: would {' and '.join(verbs)}")
        return 0
    if verbs:
        from vstools.lifecycle import several

        status = several.act(paths, names, verbs)
    app.show((app.control_row(paths, guest) for guest in names), app.control_line, as_json=as_json, table=table)
    return status or int(volumes_failed)


def main() -> None:
    """The command."""
    app.execute(control)

"""vs-template: a stopped guest becomes an archive that others are made from."""

from pathlib import Path
from typing import Annotated

import typer

from vstools import paths as installation
from vstools.cli import app
from vstools.errors import Refused


def template(
    file: Annotated[
        Path, typer.Option("--file", help="archive to write: .tar, .tar.gz, .tar.xz or .tar.zst", metavar="FILE")
    ],
    name: Annotated[
        str | None,
        typer.Option("--name", help="a stopped guest", metavar="GUEST", autocompletion=app.complete_guest),
    ] = None,
    debootstrap: Annotated[
        str | None, typer.Option("--debootstrap", help="a Debian suite, from packages", metavar="DISTRO")
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", help="with --debootstrap: one more package (repeatable)", metavar="PKG"),
    ] = None,
    dry_run: app.DryRun = False,
) -> None:
    """Make a template, of a stopped guest or of a fresh Debian.

    What identifies a guest is left out: ssh host keys, root's keys and history, machine-id, names, leases, journal.
    """
    from vstools.lifecycle import removal

    if (name is None) == (debootstrap is None):
        raise Refused("give either --name GUEST or --debootstrap DISTRO")
    if include and debootstrap is None:
        raise Refused("--include goes with --debootstrap", "a guest holds what it holds")
    packages = tuple(app.package(word) for word in include or ())
    paths, archive = installation.from_environment(), file.absolute()
    if name is not None:
        removal.check_template(paths, name, archive)
    if dry_run:
        print(f"would write {archive} of {name or debootstrap}")
    elif name is not None:
        removal.template(paths, name, archive)
        print(archive)
    else:
        removal.build_template(paths, str(debootstrap), archive, packages)
        print(archive)


def main() -> None:
    """The command."""
    app.execute(template)

"""What the master's commands share: hosts as options, and their completion."""

from typing import Annotated

import typer

from vstools import paths as installation


def complete_host(incomplete: str) -> list[str]:
    """The hosts of slaves.conf, for the shell's completion."""
    from vstools.config import slaves
    from vstools.config.text import Faults

    known = slaves.load(installation.from_environment().conf / slaves.FILE, Faults())
    return [slave.host for slave in known if slave.host.startswith(incomplete)]


Host = Annotated[
    str | None, typer.Option("--host", help="host of the pool", metavar="HOST", autocompletion=complete_host)
]
Hosts = Annotated[
    list[str] | None,
    typer.Option("--host", help="host of the pool (repeatable)", metavar="HOST", autocompletion=complete_host),
]
Timeout = Annotated[
    float, typer.Option("--timeout", help="seconds that a host has to answer", min=0.1, max=3600, metavar="SECONDS")
]

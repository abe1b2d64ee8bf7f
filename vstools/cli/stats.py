"""vs-stats: what guests and the host use."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vstools import paths as installation
from vstools.cli import app
from vstools.errors import Refused

if TYPE_CHECKING:
    from vstools.paths import Paths
    from vstools.stats.sample import Sample

_PAUSE = 2.0  # seconds between two looks of --watch


def stats(
    name: app.Names = None,
    everyone: app.All = False,
    interval: Annotated[
        float | None,
        typer.Option(
            "--interval",
            help="CPU share and rates over SECONDS, not since the start",
            min=0.1,
            max=3600,
            metavar="SECONDS",
        ),
    ] = None,
    disk: Annotated[bool, typer.Option("--disk", help="also add up files, where no quota counts them: slow")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="a live screen; q ends it")] = False,
    storage: Annotated[bool, typer.Option("--storage", help="what the guests' trees lie on")] = False,
    prometheus: Annotated[
        bool, typer.Option("--prometheus", help="host and guests in Prometheus's text format")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", help="with --prometheus: replace FILE at once", metavar="FILE")
    ] = None,
    as_json: app.Json = False,
    table: app.Table = False,
) -> None:
    """Show what guests use, or without --name and --all what the host has, uses and has promised.

    A line for each guest: <host>:<guest>:<running|stopped>, then uptime, memory, the part that cannot be reclaimed,
    its limit, swap, processes, their limit, CPU seconds, CPU percent, its limit, seconds throttled, pressure of CPU,
    memory and io in percent over 10 seconds, bytes read, written, received, sent, /tmp, its size, disk, processes
    killed for want of memory, hits of the memory limit, hits of the process limit. Sizes are bytes, times seconds;
    "-" is not known, "inf" no limit. CPU percent is of all CPUs of the host, since the start or over --interval.

    The host's line: <host>, memory in use, memory, swap in use, swap, load over 1, 5 and 15 minutes, CPUs, CPU percent,
    the three pressures, guests running, guests, free bytes below /var/lib/vservers, of how many; then the limits of all
    guests added up: memory, processes, CPU percent, disk, /tmp; and how many guests have no memory limit.

    --storage: <host>:<plain, btrfs or lvm>:<directory>:<device>:<file system>, then bytes: size, used, free; yes or no
    for snapshots, clones and disk limits; and of the volume group its name, size and free bytes.
    """
    app.exclusive(json=as_json, table=table, prometheus=prometheus, watch=watch)
    if storage and (name or everyone or interval or disk or watch or prometheus):
        raise Refused("--storage goes with --json and --table only", "it is about the host")
    app.exclusive(name=bool(name), all=everyone)
    app.exclusive(disk=disk, watch=watch)
    if output is not None and not prometheus:
        raise Refused("--output goes with --prometheus")
    paths = installation.from_environment()
    names = app.selected(paths, name, everyone) if name or everyone else ()
    if storage:
        from vstools.cli import storagelines
        from vstools.lifecycle import space

        storagelines.show(space.reports(paths), as_json=as_json, table=table)
    elif watch:
        from vstools.cli import watch as screen

        screen.run(paths, names, interval or _PAUSE)
    elif prometheus:
        _expose(paths, names, interval, output, disk=disk)
    elif name or everyone:
        from vstools.cli import statlines

        statlines.show(_samples(paths, names, interval, disk=disk), as_json=as_json, table=table)
    else:
        from vstools.cli import statlines
        from vstools.lifecycle import stats as reading

        if disk:
            raise Refused("--disk is about guests", "give --name or --all")
        statlines.show([reading.of_host(paths, interval)], as_json=as_json, table=table)


def _samples(paths: "Paths", names: tuple[str, ...], interval: float | None, *, disk: bool) -> "list[Sample]":
    from vstools.lifecycle import stats as reading

    found = reading.single(paths, names) if interval is None else reading.over(paths, names, interval)
    return [each.including({"disk_bytes": reading.added_up(paths, each.guest)}) for each in found] if disk else found


def _expose(paths: "Paths", names: tuple[str, ...], interval: float | None, output: Path | None, *, disk: bool) -> None:
    from vstools.cli import prometheus
    from vstools.config import registry
    from vstools.lifecycle import stats as reading

    if interval is not None:
        raise Refused("--prometheus has counters only", "leave --interval out: Prometheus computes rates itself")
    guests = _samples(paths, names or registry.names(paths), None, disk=disk)
    text = prometheus.exposition(reading.of_host(paths), guests)
    if output is None:
        print(text, end="")
    else:
        prometheus.write(output, text)


def main() -> None:
    """The command."""
    app.execute(stats)

"""vs-net: what is up of the guests' networks, and their firewalls."""

import sys
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from vstools import paths as installation
from vstools.cli import app
from vstools.errors import BadFiles, Refused, VsError
from vstools.guest import bracketed
from vstools.paths import Paths


class Switch(StrEnum):
    """What an option wants a thing to be."""

    up = "up"
    down = "down"


def net(
    name: app.Names = None,
    everyone: app.All = False,
    fw: Annotated[
        Switch | None,
        typer.Option(
            "--fw",
            help="load firewall.conf; or let everything pass until the next start",
            metavar="up|down",
        ),
    ] = None,
    rules: Annotated[bool, typer.Option("--rules", help="the rules in force, with their counters")] = False,
    as_json: app.Json = False,
    table: app.Table = False,
    dry_run: app.DryRun = False,
) -> int:
    """Show the networks of guests and change their firewalls.

    Prints <host>:<guest>:<ip>:<vlan>:<route>:<fw IN>:<fw OUT>, a line for each address; the last four are up or down,
    read from the kernel. The rules are in the guest's firewall.conf. They are replaced at once, open connections go
    on, and where the file has faults the rules in force stay in force. With --fw and --all, running guests are meant.
    """
    app.exclusive(json=as_json, table=table)
    app.exclusive(fw=fw is not None, rules=rules)
    if dry_run and fw is None:
        raise Refused("--dry-run goes with --fw")
    paths = installation.from_environment()
    names = app.selected(paths, name, everyone)
    status = 0
    if fw is not None:
        from vstools.alive import is_running
        from vstools.lifecycle import net, several

        changed = tuple(guest for guest in names if not everyone or is_running(paths, guest))
        if dry_run:
            for guest in changed:
                print(f"# {guest}\n{net.ruleset(paths, guest, up=fw == Switch.up)}", end="")
            return 0
        status = several.act(paths, changed, [f"firewall {fw}"]) if changed else 0
    rows, failed = _collect(paths, names, _rules if rules else _rows)
    app.show(rows, _rule_line if rules else _line, as_json=as_json, table=table)
    return status or failed


Row = Mapping[str, object]


def _collect(
    paths: Paths, names: tuple[str, ...], read: Callable[[Paths, str], Iterator[Row]]
) -> tuple[list[Row], int]:
    """The rows of all guests and the exit status: of several guests, one whose files have faults hides no other."""
    rows: list[Row] = []
    status = 0
    for guest in names:
        try:
            rows += read(paths, guest)
        except VsError as error:
            if len(names) == 1:
                raise
            print(error if isinstance(error, BadFiles) else f"vs-net: {error}", file=sys.stderr)
            status = 1
    return rows, status


def _rows(paths: Paths, guest: str) -> Iterator[Row]:
    from vstools.lifecycle import net

    for line in net.state(paths, guest):
        yield {
            "host": app.host_name(),
            "guest": guest,
            "ip": str(line.address),
            "vlan": line.vlan,
            "route": line.route,
            "fw IN": line.fw_in,
            "fw OUT": line.fw_out,
        }


def _line(row: Mapping[str, Any]) -> str:
    from vstools.guest import parse_address

    words = ("up" if row[key] else "down" for key in ("vlan", "route", "fw IN", "fw OUT"))
    return ":".join((row["host"], row["guest"], bracketed(parse_address(row["ip"])), *words))


def _rules(paths: Paths, guest: str) -> Iterator[Row]:
    from dataclasses import asdict

    from vstools.lifecycle import net

    for rule in net.rules(paths, guest):
        yield {"host": app.host_name(), "guest": guest, **asdict(rule)}


def _rule_line(row: Mapping[str, Any]) -> str:
    where = f"{row['host']}:{row['guest']}:{row['chain']}"
    counted = f"packets {row['packets']} bytes {row['bytes']}"
    return f"{where}: {row['match']} {counted} {row['verdict']} ({row['place']})"


def main() -> None:
    """The command."""
    app.execute(net)

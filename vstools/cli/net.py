"""vs-net: what is up of the guests' networks, their addresses and their firewalls."""

from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from vstools import ahead
from vstools import paths as installation
from vstools.cli import app, netlines
from vstools.errors import Refused
from vstools.guest import parse_address
from vstools.paths import Paths

if TYPE_CHECKING:
    from vstools.guest import Address
    from vstools.lifecycle.change import Edits
    from vstools.lifecycle.several import Act
    from vstools.lifecycle.upkeep import Switches


class Switch(StrEnum):
    """What an option wants a thing to be."""

    up = "up"
    down = "down"


def net(
    name: app.Names = None,
    everyone: app.All = False,
    vlan: Annotated[
        Switch | None, typer.Option("--vlan", help="the guest's links with their addresses", metavar="up|down")
    ] = None,
    route: Annotated[Switch | None, typer.Option("--route", help="the guest's routes", metavar="up|down")] = None,
    fw: Annotated[
        Switch | None,
        typer.Option("--fw", help="load firewall.conf, or let everything pass", metavar="up|down"),
    ] = None,
    put: Annotated[
        list[str] | None,
        typer.Option("--set", help="another address for interfaces/KEY (repeatable)", metavar="KEY=ADDR"),
    ] = None,
    add: Annotated[
        list[str] | None, typer.Option("--add", help="one more address (repeatable)", metavar="ADDR")
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option("--del", help="one address less (repeatable)", metavar="ADDR")
    ] = None,
    confirm: Annotated[
        int | None,
        typer.Option(
            "--confirm", help="go back after SECONDS unless --confirmed follows", min=1, max=86400, metavar="SECONDS"
        ),
    ] = None,
    confirmed: Annotated[bool, typer.Option("--confirmed", help="let the change stay")] = False,
    rules: Annotated[bool, typer.Option("--rules", help="the rules in force, with their counters")] = False,
    explain: Annotated[
        tuple[str, str, str] | None,
        typer.Option("--explain", help="which line decides about a new connection", metavar="from|to ADDR PROTO:PORT"),
    ] = None,
    drops: Annotated[
        bool, typer.Option("--drops", help="what was refused, counted since the rules were loaded")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", help="with --drops: each refused packet from now on")] = False,
    check: Annotated[bool, typer.Option("--check", help="what the kernel has otherwise than the files")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="the same, and make it as the files say")] = False,
    as_json: app.Json = False,
    table: app.Table = False,
    dry_run: app.DryRun = False,
) -> int:
    """Show and change the networks of guests.

    Prints <host>:<guest>:<ip>:<vlan>:<route>:<fw IN>:<fw OUT>, a line for each address; the last four are up or down,
    read from the kernel. --vlan, --route and --fw last until the guest's next start; with --all, running guests are
    meant. The rules are in the guest's firewall.conf. They are replaced at once, open connections go on, and where the
    file has faults the rules in force stay in force. --set, --add and --del change the guest's files as well, and all
    is as before where anything fails. --check ends with 1 when it finds a difference.

    --explain says which line of firewall.conf decides about a new connection between the guest and an address, and the
    line that would allow it where it is refused: --explain from 10.1.0.9 tcp:80, or to ADDR icmp, udp:53, 47.

    --drops counts what was refused, by the lines that refused it. --drops --follow prints each refused packet from now
    on, with the line that would allow it, until it is interrupted or the guest stops; --json: an object a line.
    """
    switches = {"vlan": vlan, "route": route, "fw": fw}
    changes, edits = any(switches.values()), bool(put or add or drop)
    shown = {"rules": rules, "drops": drops, "check": check, "repair": repair}
    app.exclusive(json=as_json, table=table, dry_run=dry_run)
    app.exclusive(**shown, explain=explain is not None, confirmed=confirmed, fw=changes, add=edits)
    app.exclusive(follow=follow, table=table)
    if follow and not drops:
        raise Refused("--follow goes with --drops")
    if (dry_run or confirm is not None) and not (changes or edits):
        words = "--dry-run" if dry_run else "--confirm"
        raise Refused(f"{words} goes with --vlan, --route, --fw, --set, --add or --del")
    read, line = _view(explain, next((key for key, value in shown.items() if value), ""))
    paths = installation.from_environment()
    names = app.selected(paths, name, everyone)
    late = netlines.go_back(paths, names)
    if follow:
        from vstools.cli import drops as dropped

        return dropped.follow(paths, names, as_json=as_json)
    status = 0
    if edits:
        status = _edit(paths, names, _edits(put or [], add or [], drop or []), confirm, dry_run=dry_run)
    elif changes:
        status = _switch(paths, names, switches, confirm, everyone=everyone, dry_run=dry_run)
    elif confirmed:
        from vstools.lifecycle import confirm as waiting

        status = _act(paths, names, waiting.accept)
    if dry_run:
        return status
    rows, failed = netlines.collect(paths, names, read)
    app.show(rows, line, as_json=as_json, table=table)
    return status or failed or late or int(check and bool(rows))


def _view(explain: tuple[str, str, str] | None, shown: str) -> tuple[netlines.Reader, netlines.Line]:
    """What is read of each guest, and how it is said in a line."""
    if explain is not None:
        from vstools.cli import explain as explained

        return explained.reader(explain), explained.line
    if shown == "drops":
        from vstools.cli import drops as dropped

        return dropped.rows, dropped.line
    return netlines.VIEWS[shown]


def _switch(
    paths: Paths,
    names: tuple[str, ...],
    switches: dict[str, Switch | None],
    seconds: int | None,
    *,
    everyone: bool,
    dry_run: bool,
) -> int:
    from vstools.alive import is_running
    from vstools.lifecycle import upkeep

    parts = upkeep.Switches(**{key: None if value is None else value == Switch.up for key, value in switches.items()})
    changed = tuple(guest for guest in names if not everyone or is_running(paths, guest))
    if not dry_run:
        if len(changed) == 1:
            ahead.load("vstools.network.status")  # for the line that is printed, while the rules are loaded
        return _act(paths, changed, partial(upkeep.switch, parts=parts, seconds=seconds))
    return netlines.each(changed, partial(_describe, paths, parts), alone=not everyone and len(names) == 1)


def _describe(paths: Paths, parts: "Switches", guest: str) -> None:
    """What a switch would do."""
    from vstools.lifecycle import upkeep

    upkeep.needed(paths, guest)
    rules = "" if parts.fw is None else upkeep.ruleset(paths, guest, up=parts.fw)
    print(f"# {guest}: {parts}\n{rules}", end="")


def _act(paths: Paths, names: tuple[str, ...], act: "Act") -> int:
    from vstools.lifecycle import several

    return several.act(paths, names, [act]) if names else 0


def _edits(put: list[str], add: list[str], drop: list[str]) -> "Edits":
    from vstools.lifecycle.change import Edits

    pairs = []
    for text in put:
        key, sign, address = text.partition("=")
        if not sign or not key:
            raise Refused(f"--set: {text!r} is not KEY=ADDR", "0=ADDR is the first interface")
        pairs.append((key, _address("--set", address)))
    return Edits(
        tuple(pairs),
        tuple(_address("--add", text) for text in add),
        tuple(_address("--del", text) for text in drop),
    )


def _address(option: str, text: str) -> "Address":
    try:
        return parse_address(text[1:-1] if text.startswith("[") and text.endswith("]") else text)
    except ValueError as error:
        raise Refused(f"{option}: {error}") from None


def _edit(paths: Paths, names: tuple[str, ...], edits: "Edits", seconds: int | None, *, dry_run: bool) -> int:
    from vstools.lifecycle import change

    guest = app.single(list(names))
    if dry_run:
        print("\n".join(change.decide(paths, guest, edits).describe()))
        return 0
    return _act(paths, names, partial(change.apply, edits=edits, seconds=seconds))


def main() -> None:
    """The command."""
    app.execute(net)

"""vs-limit: what guests may use, shown and changed while they run."""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vstools import paths as installation
from vstools.cli import app
from vstools.errors import BadFiles, Refused, VsError
from vstools.paths import Paths

if TYPE_CHECKING:
    from vstools.lifecycle.limit import Edits

LINE = ("rss", "disk", "tmpfs", "proc", "cpu")
RATES = ("net_rate", "io_rate")
UNITS = (
    "as core data fsize memlock msgqueue stack: bytes; cpu: seconds; rttime: microseconds; "
    "locks nofile sigpending: a number; nice rtprio: as man 2 getrlimit"
)


def limit(
    name: app.Names = None,
    everyone: app.All = False,
    rss: Annotated[str | None, typer.Option("--rss", help="memory", metavar="MIB")] = None,
    disk: Annotated[str | None, typer.Option("--disk", help="disk space", metavar="MIB")] = None,
    tmpfs: Annotated[str | None, typer.Option("--tmpfs", help="size of /tmp", metavar="MIB")] = None,
    proc: Annotated[str | None, typer.Option("--proc", help="number of processes", metavar="N")] = None,
    cpu: Annotated[str | None, typer.Option("--cpu", help="share of all the host's CPUs", metavar="R/T")] = None,
    burst: Annotated[
        str | None,
        typer.Option("--burst", help="milliseconds of CPU time saved up beyond the share", metavar="MS"),
    ] = None,
    rlimit: Annotated[
        list[str] | None,
        typer.Option("--rlimit", help=f"limit of each process (repeatable; {UNITS})", metavar="NAME=SOFT[:HARD]"),
    ] = None,
    nofile: Annotated[
        str | None, typer.Option("--nofile", help="open files of each process: --rlimit nofile=N", metavar="N")
    ] = None,
    swap: Annotated[str | None, typer.Option("--swap", help="swap beside --rss, 0 by itself", metavar="MIB")] = None,
    net_rate: Annotated[
        str | None,
        typer.Option("--net-rate", help="Mbit/s that each link sends and receives", metavar="OUT[/IN]"),
    ] = None,
    io_rate: Annotated[
        str | None,
        typer.Option("--io-rate", help="MiB/s read from and written to the disk", metavar="READ[/WRITE]"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="also below what is in use")] = False,
    advise: Annotated[bool, typer.Option("--advise", help="what should change, after what was used")] = False,
    as_json: app.Json = False,
    table: app.Table = False,
    dry_run: app.DryRun = False,
) -> int:
    """Show and change what guests may use.

    Prints <host>:<guest>:<rss>:<disk>:<tmpfs>:<proc>:<cpu>, the saved limits: numbers in MiB and counts, inf for none.
    A running guest has new limits at once; where the kernel refuses one, none of them is changed. inf lifts a limit.
    Lowering memory, disk space or processes below what is in use is refused without --force, which then may end
    processes of the guest, never its init. What this host cannot enforce is saved, and said. --advise prints
    <host>:<guest>:<limit>:<now>:<advised>:<reason> for each limit that should change, after what the guest used since
    its start.
    """
    app.exclusive(json=as_json, table=table)
    texts = {"rss": rss, "disk": disk, "tmpfs": tmpfs, "proc": proc, "cpu": cpu, "burst": burst, "swap": swap,
             "net_rate": net_rate, "io_rate": io_rate}  # fmt: skip
    rlimits = [("--rlimit", text) for text in rlimit or ()]
    rlimits += [("--nofile", f"nofile={nofile}")] if nofile is not None else []
    changes = bool(rlimits) or any(text is not None for text in texts.values())
    if advise and (changes or force or dry_run):
        raise Refused("--advise changes nothing", "give the limit in a second command")
    if (force or dry_run) and not changes:
        raise Refused(f"--{'force' if force else 'dry-run'} goes with a limit to set")
    edits = _edits(texts, rlimits, force=force) if changes else None
    paths = installation.from_environment()
    names = app.selected(paths, name, everyone)
    if advise:
        return _advise(paths, names, as_json=as_json, table=table)
    status = 0
    if edits is not None and dry_run:
        return _foresee(paths, names, edits)
    if edits is not None and names:
        from vstools.lifecycle import limit as change
        from vstools.lifecycle import several

        status = several.act(paths, names, [partial(change.apply, edits=edits)])
    rows, failed = _rows(paths, names, as_json=as_json, table=table)
    app.show(rows, line, as_json=as_json, table=table)
    return status or failed


def _edits(texts: dict[str, str | None], rlimits: list[tuple[str, str]], *, force: bool) -> "Edits":
    from vstools.cli.limitwords import parsed, values
    from vstools.guest import parse_rlimit
    from vstools.lifecycle.limit import Edits

    found = tuple(values(texts).items())
    pairs = [parsed(option, parse_rlimit, text) for option, text in rlimits]
    if len({name for name, _ in pairs}) < len(pairs):
        raise Refused("--rlimit: one of the names is given twice")
    return Edits(found, tuple(pairs), force)


def _foresee(paths: Paths, names: tuple[str, ...], edits: "Edits") -> int:
    from vstools.lifecycle import limit as change

    def foresee(guest: str) -> None:
        for words in change.decide(paths, guest, edits).describe():
            print(f"{guest}: {words}")

    return sum(_tried(guest, partial(foresee, guest), alone=len(names) == 1) for guest in names) and 1


def _tried(guest: str, act: Any, *, alone: bool) -> int:
    """1 where the act failed for a guest that is one of several: the others follow."""
    try:
        act()
    except VsError as error:
        if alone:
            raise
        print(error if isinstance(error, BadFiles) else f"vs-limit: guest {guest}: {error}", file=sys.stderr)
        return 1
    return 0


def _advise(paths: Paths, names: tuple[str, ...], *, as_json: bool, table: bool) -> int:
    from dataclasses import asdict

    from vstools.lifecycle import stats

    rows: list[dict[str, object]] = []

    def ask(guest: str) -> None:
        rows.extend({"host": app.host_name(), "guest": guest, **asdict(each)} for each in stats.advice(paths, guest))

    status = [_tried(guest, partial(ask, guest), alone=len(names) == 1) for guest in names]
    if not as_json:
        rows = [{**row, "now": row["now"] or "inf"} for row in rows]
    app.show(rows, lambda row: ":".join(str(word) for word in row.values()), as_json=as_json, table=table)
    return max(status, default=0)


def _rows(paths: Paths, names: tuple[str, ...], *, as_json: bool, table: bool) -> tuple[list[dict[str, object]], int]:
    rows: list[dict[str, object]] = []
    read = _details if as_json else _row
    status = [_tried(guest, lambda guest=guest: rows.append(read(paths, guest)), alone=len(names) == 1)
              for guest in names]  # fmt: skip
    if table:
        rows = [{key: "inf" if value is None else value for key, value in row.items()} for row in rows]
    return rows, max(status, default=0)


def _row(paths: Paths, guest: str) -> dict[str, object]:
    from vstools.config import guests

    limits = guests.load(paths, guest).limits
    values = {key: getattr(limits, key) for key in (*LINE, *RATES)}
    return {"host": app.host_name(), "guest": guest, **values}


def _details(paths: Paths, guest: str) -> dict[str, object]:
    """All limits; of each that is set or differs, whether it is enforced and what the kernel has instead."""
    from vstools.lifecycle import limit as change

    state = change.state(paths, guest)
    limits = state.limits
    row: dict[str, object] = {"host": app.host_name(), "guest": guest}
    row |= {key: getattr(limits, key) for key in (*LINE, "burst", "swap")}
    row["cpu"] = None if limits.cpu is None else str(limits.cpu)
    row["rlimits"] = {name: {"soft": each.soft, "hard": each.hard} for name, each in limits.rlimits}
    row |= {key: None if rate is None else asdict(rate)
            for key, rate in zip(RATES, (limits.net_rate, limits.io_rate), strict=True)}  # fmt: skip
    row["enforced"] = not state.unenforced
    about: dict[str, dict[str, object]] = {}
    for key in (*LINE, "burst", "swap", *RATES):
        if row[key] in (None, 0) and key not in state.applied:
            continue
        about[key] = {"enforced": key not in state.unenforced}
        if key in state.unenforced:
            about[key]["reason"] = state.unenforced[key]
        if key in state.applied:
            about[key]["applied"] = state.applied[key]
    row["limits"] = about
    return row


def line(row: Mapping[str, Any]) -> str:
    """2008's line: ``<host>:<guest>:<rss>:<disk>:<tmpfs>:<proc>:<cpu>``."""
    words = ("inf" if row[key] is None else str(row[key]) for key in LINE)
    return ":".join((row["host"], row["guest"], *words))


def main() -> None:
    """The command."""
    app.execute(limit)

"""The lines of vs-net: what is read for each guest, and how it is printed."""

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from vstools.cli import app
from vstools.errors import BadFiles, VsError
from vstools.guest import bracketed, parse_address
from vstools.paths import Paths

Row = Mapping[str, object]
Reader = Callable[[Paths, str], Iterator[Row]]
Line = Callable[[Mapping[str, Any]], str]


def collect(paths: Paths, names: tuple[str, ...], read: Reader) -> tuple[list[Row], int]:
    """The rows of all guests, and the exit status."""
    rows: list[Row] = []
    status = each(names, lambda guest: rows.extend(read(paths, guest)), alone=len(names) == 1)
    return rows, status


def go_back(paths: Paths, names: tuple[str, ...]) -> int:
    """Changes whose time is up go back first, also where the process that waited for that was killed; exit status."""
    from vstools.config.registry import WAITING

    def settle(guest: str) -> None:
        from vstools.lifecycle import confirm

        confirm.settle_expired(paths, guest)

    late = tuple(guest for guest in names if (paths.config_of(guest) / WAITING).exists())
    return each(late, settle, alone=len(names) == 1)


def each(names: tuple[str, ...], act: Callable[[str], object], *, alone: bool) -> int:
    """Do something for each guest; the exit status.

    Errors are raised for a guest that was named ``alone``; of several, one with faults, or that stops in this very
    moment, hides no other.
    """
    status = 0
    for guest in names:
        try:
            act(guest)
        except BrokenPipeError:
            raise
        except Exception as error:
            if alone:
                raise
            sentence = f"vs-net: {error}" if isinstance(error, VsError) else f"vs-net: guest {guest}: {error}"
            print(error if isinstance(error, BadFiles) else sentence, file=sys.stderr)
            status = 1
    return status


def addresses(paths: Paths, guest: str) -> Iterator[Row]:
    """A row for each address, with what is up of it."""
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


def address_line(row: Mapping[str, Any]) -> str:
    """2008's line: ``<host>:<guest>:<ip>:<vlan>:<route>:<fw IN>:<fw OUT>``."""
    words = ("up" if row[key] else "down" for key in ("vlan", "route", "fw IN", "fw OUT"))
    return ":".join((row["host"], row["guest"], bracketed(parse_address(row["ip"])), *words))


def rules(paths: Paths, guest: str) -> Iterator[Row]:
    """A row for each rule in force."""
    from dataclasses import asdict

    from vstools.lifecycle import net

    for rule in net.rules(paths, guest):
        yield {"host": app.host_name(), "guest": guest, **asdict(rule)}


def rule_line(row: Mapping[str, Any]) -> str:
    """A rule as one line."""
    where = f"{row['host']}:{row['guest']}:{row['chain']}"
    counted = f"packets {row['packets']} bytes {row['bytes']}"
    return f"{where}: {row['match']} {counted} {row['verdict']} ({row['place']})"


def differences(paths: Paths, guest: str) -> Iterator[Row]:
    """A row for each thing that the kernel has otherwise than the files say."""
    from vstools.lifecycle import upkeep

    yield from _different(guest, upkeep.differences(paths, guest))


def repaired(paths: Paths, guest: str) -> Iterator[Row]:
    """The same, after they were put right."""
    from vstools.lifecycle import upkeep

    yield from _different(guest, upkeep.repair(paths, guest))


def _different(guest: str, sentences: tuple[str, ...]) -> Iterator[Row]:
    for sentence in sentences:
        yield {"host": app.host_name(), "guest": guest, "difference": sentence}


def difference_line(row: Mapping[str, Any]) -> str:
    """A difference as one line."""
    return f"{row['host']}:{row['guest']}: {row['difference']}"


VIEWS: dict[str, tuple[Reader, Line]] = {
    "": (addresses, address_line),
    "rules": (rules, rule_line),
    "check": (differences, difference_line),
    "repair": (repaired, difference_line),
}
"""The option that asks for it -> what is read, and its line."""

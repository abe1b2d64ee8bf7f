"""vs-net --drops: what guests are refused, as rows and as lines."""

import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vstools import log
from vstools.cli import app
from vstools.errors import Refused
from vstools.paths import Paths

if TYPE_CHECKING:
    from vstools.lifecycle.drops import Moment

Row = Mapping[str, Any]


def rows(paths: Paths, guest: str) -> Iterator[Row]:
    """The rules that refused something."""
    from dataclasses import asdict

    from vstools.lifecycle import drops

    for count in drops.counts(paths, guest):
        yield {"host": app.host_name(), "guest": guest, **asdict(count)}


def line(row: Row) -> str:
    """``<host>:<guest>: IN 3 packets 180 bytes refused by PATH:LINE``, or ``refused: why`` where no line decided."""
    counted = f"{row['packets']} packets {row['bytes']} bytes"
    return f"{row['host']}:{row['guest']}: {row['direction']} {counted} {_by(row)}"


def follow(paths: Paths, names: tuple[str, ...], *, as_json: bool) -> int:
    """Print each refused packet until interrupted, or until the guest stops."""
    from vstools.lifecycle import drops

    if len(names) != 1:
        raise Refused("give one --name: --follow is about one guest")
    (guest,) = names
    with _interruptions() as wake:
        for moment in drops.follow(paths, guest, wake):
            for row in _moment(guest, moment):
                print(json.dumps(row) if as_json else followed_line(row), flush=True)
        if not _is_readable(wake):
            log.note(f"guest {guest} has stopped")
    return 0


@contextmanager
def _interruptions() -> Iterator[int]:
    """A descriptor that can be read after SIGINT or SIGTERM: both are the way to end what has no end."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield read
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(read)
        os.close(write)


def _is_readable(descriptor: int) -> bool:
    try:
        return bool(os.read(descriptor, 1))
    except BlockingIOError:
        return False


def _moment(guest: str, moment: "Moment") -> Iterator[Row]:
    from vstools.firewall.packet import NO_NUMBER

    head = {"host": app.host_name(), "guest": guest}
    for found in moment.refusals:
        packet = found.packet
        yield {
            **head,
            "direction": found.direction,
            "link": found.link,
            "time": found.time,
            "packets": found.count,
            "source": packet and str(packet.source),
            "source port": packet.source_port if packet and packet.source_port > NO_NUMBER else None,
            "destination": packet and str(packet.destination),
            "protocol": packet and packet.protocol,
            "service": packet and packet.service,
            "packet": _told(packet),
            "place": found.place,
            "reason": found.reason,
            "to allow": found.rule,
            "note": found.note,
        }
    if moment.more:
        yield {**head, "more": moment.more}
    if moment.lost:
        yield {**head, "lost": moment.lost}


def _told(packet: Any) -> str:
    from vstools.firewall.packet import told

    return told(packet) if packet else "a packet"


def followed_line(row: Row) -> str:
    """``<host>:<guest>: IN tcp A:P -> B:Q refused by PATH:LINE; to allow, before that line: allow from A to tcp:Q``."""
    head = f"{row['host']}:{row['guest']}:"
    if "more" in row:
        return f"{head} {row['more']} more refused, of too many kinds to tell them apart"
    if "lost" in row:
        return f"{head} {row['lost']} or more lost: they came faster than they could be read"
    times = f" ({row['packets']} packets)" if row["packets"] > 1 else ""
    said = f"{head} {row['direction']} {row['packet']}{times} {_by(row)}"
    if row["to allow"]:
        return f"{said}; to allow{', before that line' if row['place'] else ''}: {row['to allow']}"
    return f"{said}; {row['note']}"


def _by(row: Row) -> str:
    return f"refused by {row['place']}" if row["place"] else f"refused: {row['reason']}"

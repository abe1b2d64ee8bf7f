"""What vs-monitor remembers between two rounds and over its own restart: one JSON file, replaced as a whole."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from vstools.monitor.alerts import NOTHING, Alert, Event, Standing
from vstools.monitor.rate import GUEST, HOST, Bucket, Waiting, full
from vstools.monitor.sockets import Known

VERSION = 1


@dataclass(frozen=True)
class Disk:
    """The space that a guest's tree took at a time, and its limit then, in bytes; None: not known, no limit.

    ``late``: the last time it took too long to add up.
    """

    used: int | None = None
    limit: int | None = None
    at: float | None = None
    late: bool = False


@dataclass(frozen=True)
class Life:
    """One guest. ``token`` is that of the start it lives by, empty where it does not run.

    ``load_at``, ``disk.at`` and the bucket's are of the clock since the boot.
    """

    token: str = ""
    standing: Standing = NOTHING
    load: float = 0.0
    load_at: float | None = None
    known: Known = field(default_factory=Known)
    disk: Disk = field(default_factory=Disk)
    bucket: Bucket = field(default_factory=lambda: full(GUEST, 0.0))
    waiting: Waiting = field(default_factory=Waiting)


@dataclass(frozen=True)
class State:
    """All guests by name, the host's bucket, the number of the next mail, and the boot it was written in."""

    boot: str
    number: int
    bucket: Bucket
    guests: Mapping[str, Life]


def fresh(boot: str, number: int) -> State:
    """Nothing is known yet."""
    return State(boot, number, full(HOST, 0.0), {})


def dumps(state: State) -> str:
    """As JSON."""
    return json.dumps({"version": VERSION, **asdict(state)}, default=sorted, separators=(",", ":")) + "\n"


def loads(text: str, boot: str) -> State:
    """From JSON; raises ValueError when it is anything else than what ``dumps`` writes.

    What was known of running guests is forgotten after a boot of the host: all of them ended then.
    """
    try:
        found = json.loads(text)
        if found["version"] != VERSION:
            raise ValueError(f"it is of version {found['version']!r}")
        guests = {str(name): _life(fields) for name, fields in found["guests"].items()}
        state = State(str(found["boot"]), int(found["number"]), _bucket(found["bucket"]), guests)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is not a state of vs-monitor: {error}") from error
    if state.boot == boot:
        return state
    ended = {name: _after_boot(life) for name, life in state.guests.items()}
    return replace(state, boot=boot, bucket=replace(state.bucket, at=0.0), guests=ended)


def _after_boot(life: Life) -> Life:
    return replace(
        life, token="", load=0.0, load_at=None, known=Known(), disk=Disk(), bucket=replace(life.bucket, at=0.0)
    )


def _life(fields: dict[str, Any]) -> Life:
    standing, known, waiting = fields["standing"], fields["known"]["baseline"], fields["waiting"]
    return Life(
        token=str(fields["token"]),
        standing=Standing(
            {key: Alert(**alert) for key, alert in standing["open"].items()},
            {key: int(value) for key, value in standing["counts"].items()},
        ),
        load=float(fields["load"]),
        load_at=fields["load_at"],
        known=Known(None if known is None else frozenset(known)),
        disk=Disk(**fields["disk"]),
        bucket=_bucket(fields["bucket"]),
        waiting=Waiting(tuple(_event(event) for event in waiting["events"]), int(waiting["dropped"])),
    )


def _event(fields: dict[str, Any]) -> Event:
    return Event(**{**fields, "details": tuple(fields["details"])})


def _bucket(fields: dict[str, Any]) -> Bucket:
    return Bucket(float(fields["tokens"]), float(fields["at"]))

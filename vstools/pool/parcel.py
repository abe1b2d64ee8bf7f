"""A guest's description as it goes over the wire: files in base64, and back, checked for its shape."""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from vstools.config import owner
from vstools.config.carried import File, check
from vstools.config.owner import Owner
from vstools.errors import Refused, VsError
from vstools.lifecycle.arrival import Arrival
from vstools.lifecycle.arriving import Answer
from vstools.lifecycle.durations import LONGEST
from vstools.pool import wire
from vstools.pool.rsync import Passed

_MOST = 1 << 53
_MOST_LINES = 100


def packed(files: Iterable[File]) -> list[list[object]]:
    """Files as JSON has them."""
    return [[file.path, file.mode, base64.b64encode(file.content).decode()] for file in files]


def unpacked(rows: Any) -> list[File]:
    """Files from JSON, checked; raises Refused for what cannot be a guest's files."""
    try:
        found = [
            File(path=_text(path), mode=whole(mode) & 0o777, content=base64.b64decode(_text(content), validate=True))
            for path, mode, content in rows
        ]
    except (TypeError, ValueError, binascii.Error) as error:
        raise Refused(f"these are no files of a guest: {error}") from None
    check(found)
    return found


def files_of(host: str, rows: Any) -> list[File]:
    """The files of a guest of a host's; raises Refused, which names the host."""
    try:
        return unpacked(rows)
    except Refused as error:
        raise Refused(f"host {host}: {error.message}", error.hint) from None


class Measured(Protocol):
    """What a tree takes where it is now (bytes, inodes), and what that host is."""

    @property
    def size(self) -> int: ...
    @property
    def inodes(self) -> int: ...
    @property
    def arch(self) -> str: ...
    @property
    def version(self) -> str: ...


@dataclass(frozen=True)
class Told:
    """What a host says of a guest (departure.describe), as far as it is needed. ``size`` in bytes; None: no owner.

    ``start`` and ``stop``: seconds that those took last, None: not known there. ``snapshots``: whether the tree can be
    copied while the guest runs; None: an older vs-tools, which does not say.
    """

    owner: Owner | None
    size: int
    inodes: int
    arch: str
    version: str
    enabled: bool
    running: bool
    start: float | None = None
    stop: float | None = None
    snapshots: bool | None = None


def told(host: str, value: Any) -> Told:
    """A guest's description, checked; raises VsError where that cannot be one."""
    with _sense(host, "describes its guest in a way that cannot be"):
        return Told(
            owner=None if value["owner"] is None else _owner(value["owner"]), size=whole(value["size"]),
            inodes=whole(value["inodes"]), arch=_word(value["arch"]), version=_word(value["version"]),
            enabled=_flag(value["enabled"]), running=_flag(value["running"]),
            start=_seconds(value.get("start")), stop=_seconds(value.get("stop")),
            snapshots=None if value.get("snapshots") is None else _flag(value["snapshots"]),
        )  # fmt: skip


def answer(host: str, value: Any) -> Answer:
    """What speaks against a guest's coming, and what would be different; raises VsError where it is no such answer."""
    with _sense(host, "says nothing sensible of a guest that would come"):
        objections, notes = (tuple(wire.clean(_text(line)) for line in value[key]) for key in ("objections", "notes"))
        return Answer(objections[:_MOST_LINES], notes[:_MOST_LINES], whole(value["context"]))


def passed(host: str, value: Any) -> Passed:
    """What a pass of rsync took; raises VsError where it cannot be that."""
    with _sense(host, "says nothing of what it copied"):
        if not isinstance(seconds := value["seconds"], int | float):
            raise TypeError("a number is missing")
        numbers = {key: whole(value[key]) for key in ("files", "size", "transferred", "sent", "received")}
        return Passed(**numbers, seconds=max(0.0, float(seconds)))


@contextmanager
def _sense(host: str, what: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise VsError(f"host {host} {what}", wire.clean(f"{type(error).__name__}: {error}")) from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is missing")  # noqa: TRY004 - as for the rest of what is wrong
    value.encode()  # JSON has halves of letters, which no file's name can hold
    return value


def _word(value: object) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+~_-]{0,63}", _text(value)):
        raise ValueError(f"{str(value)[:64]!a} is no word")
    return str(value)


def whole(value: object) -> int:
    """A whole number that is not negative, and not larger than anything counted here; raises ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
        raise ValueError("a whole number is missing, or too large")
    return value


def _seconds(value: object) -> float | None:
    """A duration, or None; raises ValueError for what cannot be one."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LONGEST:
        raise ValueError("a number of seconds is missing")
    return float(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false is missing")  # noqa: TRY004 - as for the rest of what is wrong
    return value


def _owner(pair: Any) -> Owner:
    host, epoch = pair
    return Owner(owner.check_host(_text(host)), owner.check_epoch(whole(epoch)))


def coming(transfer: str, name: str, files: Iterable[File], owner: Owner, told: Measured) -> dict[str, Any]:
    """A guest that would come to a host, as JSON has it; ``arrival`` reads it there."""
    return {
        "transfer": transfer[:64], "name": name, "files": packed(files), "owner": [owner.host, owner.epoch],
        "size": told.size, "inodes": told.inodes, "arch": told.arch, "version": told.version,
    }  # fmt: skip


def arrival(words: dict[str, Any]) -> Arrival:
    """A guest that comes, from JSON; raises Refused where that is not its shape."""
    try:
        return Arrival(
            transfer=_text(words["transfer"]), name=_text(words["name"]), files=tuple(unpacked(words["files"])),
            owner=_owner(words["owner"]), size=whole(words["size"]), inodes=whole(words["inodes"]),
            arch=_text(words["arch"]), version=_text(words["version"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(f"this is no description of a guest: {error}") from None

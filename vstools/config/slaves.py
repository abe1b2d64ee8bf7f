"""/etc/vs-tools/slaves.conf: the hosts of the pool, on the master only.

One host a line, the format of 2008: ``host[:option,...]`` with ``noselect``, ``bwlimit=RATE`` and ``compress``, and
ours: ``address=``, ``port=``, ``user=``. ``#`` begins a comment.
"""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from vstools.config.text import Faults, statements, whole_number

FILE = "slaves.conf"
_UNITS = {"": 1, "k": 1, "m": 1 << 10, "g": 1 << 20}
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_SPLIT = re.compile(r",|\.(?=(?:noselect|mosselect|compress|bwlimit=|address=|port=|user=))")
"""Between options: a comma. A dot before an option's word is a scanned comma: 2008's sample has one."""


@dataclass(frozen=True)
class Slave:
    """One host of the pool. ``bwlimit`` is in KiB a second, as rsync's; None: as fast as it goes."""

    name: str
    noselect: bool = False
    bwlimit: int | None = None
    compress: bool = False
    address: str | None = None
    port: int = 22
    user: str = "root"

    @property
    def host(self) -> str:
        """The name in lines: up to the first dot, as the host itself begins its own."""
        return self.name.partition(".")[0]

    @property
    def place(self) -> str:
        """Where its sshd listens."""
        return self.address or self.name


def load(path: Path, faults: Faults) -> tuple[Slave, ...]:
    """Read slaves.conf; a missing file has no hosts. Faults are added to ``faults``."""
    found: dict[str, Slave] = {}
    for number, text in statements(path):
        slave = _parse(path, number, text, faults)
        if slave is not None and slave.host in found:
            faults.add(path, number, 1, f"host {slave.host} has a line already")
        elif slave is not None:
            found[slave.host] = slave
    return tuple(found.values())


def line(slave: Slave) -> str:
    """A host as its line says it."""
    pairs = (("bwlimit", slave.bwlimit), ("address", slave.address), ("port", slave.port), ("user", slave.user))
    usual = {"port": 22, "user": "root"}
    words = [word for word in ("noselect", "compress") if getattr(slave, word)]
    words += [f"{key}={value}" for key, value in pairs if value is not None and value != usual.get(key)]
    return slave.name + (":" + ",".join(words) if words else "")


def parse_host(text: str) -> str:
    """A host's name, as DNS has them; raises ValueError. Addresses are no names: lines could not be read."""
    if not _HOST.fullmatch(text) or len(text) > 253 or re.fullmatch(r"[0-9.]+", text):
        raise ValueError(f"{text!r} is not the name of a host")
    return text


def parse_rate(text: str) -> int:
    """KiB a second from rsync's notation (``512k``, ``10m``; without a letter KiB); raises ValueError."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})([kmg]?)", text.lower())
    if not match:
        raise ValueError(f"{text!r} is not a rate: a number of KiB a second, or one with k, m or g")
    return int(match[1]) * _UNITS[match[2]]


def parse_user(text: str) -> str:
    """The name of a user; raises ValueError."""
    if not _USER.fullmatch(text):
        raise ValueError(f"{text!r} is not the name of a user")
    return text


def parse_place(text: str) -> str:
    """A name or an address (IPv6 without brackets); raises ValueError."""
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        return parse_host(text)


_PARSERS = {"bwlimit": parse_rate, "address": parse_place, "port": whole_number(1, 65535), "user": parse_user}


def _parse(path: Path, number: int, text: str, faults: Faults) -> Slave | None:
    head, _, tail = text.partition(":")
    indent = len(head) - len(head.lstrip())
    name = faults.attempt(path, number, indent + 1, parse_host, head.strip())
    values: dict[str, object] = {}
    column = len(head) + 2
    for part in re.split(r",", _commas(tail)) if tail.strip() else ():
        _option(path, number, column + len(part) - len(part.lstrip()), part.strip(), values, faults)
        column += len(part) + 1
    return None if name is None else Slave(name, **values)  # type: ignore[arg-type]


def _commas(tail: str) -> str:
    return _SPLIT.sub(",", tail)


def _option(path: Path, number: int, column: int, word: str, values: dict[str, object], faults: Faults) -> None:
    key, sign, value = word.partition("=")
    key = "noselect" if key == "mosselect" else key  # as scanned
    if key in values:
        faults.add(path, number, column, f"{key} is given twice")
    elif key in ("noselect", "compress") and not sign:
        values[key] = True
    elif key in _PARSERS and sign:
        found = faults.attempt(path, number, column + len(key) + 1, _PARSERS[key], value)
        if found is not None:
            values[key] = found
    else:
        known = "noselect, compress, bwlimit=RATE, address=ADDRESS, port=PORT, user=USER"
        faults.add(path, number, column, f"{word!r} is no option of a host ({known})")

"""firewall.conf: who may talk to a guest and to whom it may talk. The syntax of 2008, one rule a line.

``enable`` or ``disable``; ``allow|deny from|to ADDR[,ADDR...] to PROTO[:PORTS][,...]``; ``include FILE``. An address
is one of IPv4 or IPv6, a network, ``any``, ``0/0``, ``::/0`` or an ``@alias`` of aliases.conf (``NAME = ADDR[,...]``).
The first matching line wins, then everything is denied: also where the file is missing.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vstools.config.networks import IpNetwork
from vstools.config.text import LIMIT, Faults, whole_number
from vstools.errors import VsError
from vstools.files import read_bounded

FILE, ALIASES = "firewall.conf", "aliases.conf"
FILES_MAX, RULES_MAX, NETS_MAX = 64, 4096, 65536
TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
EVERYBODY: tuple[IpNetwork, ...] = (ipaddress.IPv4Network("0.0.0.0/0"), ipaddress.IPv6Network("::/0"))
_PROTOCOLS = {"tcp": TCP, "udp": UDP, "icmp": ICMP, "icmp6": ICMP6, "all": None}
TYPES = {
    ICMP: {
        "echo-reply": 0, "destination-unreachable": 3, "redirect": 5, "echo-request": 8, "time-exceeded": 11,
        "parameter-problem": 12, "timestamp-request": 13, "timestamp-reply": 14,
    },
    ICMP6: {
        "destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3, "parameter-problem": 4,
        "echo-request": 128, "echo-reply": 129,
    },
}  # fmt: skip
"""The names of ICMP types (RFC 792, RFC 4443)."""
_QUAD = r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}"
_SCANNED = re.compile(rf"{_QUAD}(?::{_QUAD})+")  # on the slide a comma between IPv4 addresses became a colon
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_.@+/-]{1,255}")
_SHAPE = "a rule is allow|deny from|to ADDRESS[,ADDRESS...] to PROTOCOL[:PORTS][,...]"

T = TypeVar("T")
Word = tuple[int, str]
"""A column, from 1, and the text that begins there."""


@dataclass(frozen=True)
class Service:
    """What a rule lets through: a protocol (None: all) and its ports or ICMP types from ``low`` to ``high``."""

    protocol: int | None
    low: int | None = None
    high: int | None = None
    family: int | None = None


@dataclass(frozen=True)
class Rule:
    """One line: packets between the guest and ``nets``; ``incoming`` when the others begin."""

    allow: bool
    incoming: bool
    nets: tuple[IpNetwork, ...]
    services: tuple[Service, ...]
    place: str


@dataclass(frozen=True)
class Policy:
    """All lines of a file, those it includes in their places. Without any, nothing passes.

    ``advised``: the guest's links that hear routers' advertisements; its interfaces say so, not the file.
    """

    enabled: bool = True
    rules: tuple[Rule, ...] = ()
    advised: tuple[str, ...] = ()


def load(path: Path, conf: Path, faults: Faults) -> Policy:
    """Read a firewall.conf; ``conf`` holds aliases.conf and what is included by a relative name."""
    reader = _Reader(conf, faults)
    reader.read_aliases()
    if path.exists():
        reader.read(path, ())
    return Policy(reader.enabled is not False, tuple(reader.rules))


class _Reader:
    def __init__(self, conf: Path, faults: Faults) -> None:
        self.conf, self.faults = conf, faults
        self.enabled: bool | None = None
        self.rules: list[Rule] = []
        self.aliases: dict[str, tuple[IpNetwork, ...]] = {}
        self._seen: set[Path] = set()
        self._nets = 0

    def read_aliases(self) -> None:
        path = self.conf / ALIASES
        if not path.exists():
            return
        for place, text in self._lines(path):
            match = re.match(r"[ \t]*([^ \t=]+)[ \t]*=[ \t]*", text)
            words = _words(text[match.end() :], match.end()) if match else []
            if match is None or len(words) != 1 or not _ALIAS.fullmatch(match[1]):
                place.fault(_words(text)[0][0], "a line is NAME = ADDRESS[,ADDRESS...], without spaces in the list")
            elif match[1] in self.aliases:
                place.fault(match.start(1) + 1, f"the alias {match[1]} is there already")
            else:
                self.aliases[match[1]] = self._addresses(place, words[0], nested=False)

    def read(self, path: Path, around: tuple[Path, ...]) -> None:
        """Take over the lines of a file; ``around`` are those that include it, outermost first."""
        self._seen.add(path)
        for place, text in self._lines(path):
            words = _words(text)
            column, verb = words[0]
            if verb in ("enable", "disable"):
                self._switch(place, words, included=bool(around))
            elif verb == "include":
                self._include(place, words, (*around, path))
            elif verb in ("allow", "deny"):
                self._rule(place, words)
            else:
                place.fault(column, f"{verb!r} is not enable, disable, allow, deny or include")

    def _lines(self, path: Path) -> Iterator[tuple["_Place", str]]:
        """The lines that say something, without their comments.

        Only a newline ends a line: what an editor shows as one comment must not hold a rule.
        """
        if not path.is_file():  # a pipe would hold us for ever
            self.faults.add(path, 1, 1, "it is not a file")
            return
        try:
            content = read_bounded(path, LIMIT)
        except (OSError, VsError) as error:
            self.faults.add(path, 1, 1, error.message if isinstance(error, VsError) else str(error.strerror))
            return
        for number, line in enumerate(content.split("\n"), 1):
            text = re.split(r"(?:^|[ \t])#", line.removesuffix("\r"), maxsplit=1)[0].rstrip(" \t")
            if text:
                yield _Place(path, number, self.faults), text

    def _switch(self, place: "_Place", words: list[Word], *, included: bool) -> None:
        column, verb = words[0]
        if len(words) > 1:
            place.fault(words[1][0], f"nothing follows {verb}, but {words[1][1]!r} does")
        if included:
            place.fault(column, f"{verb} belongs into the guest's {FILE}, not into a file that is included")
        elif self.enabled is not None:
            place.fault(column, "enable or disable is said once, and it was said already")
        else:
            self.enabled = verb == "enable"

    def _include(self, place: "_Place", words: list[Word], around: tuple[Path, ...]) -> None:
        if len(words) != 2 or not _FILE_NAME.fullmatch(words[1][1]):
            place.fault(words[-1][0], "a line is include FILE; the name holds letters, digits and . _ - + @ / alone")
            return
        column, name = words[1]
        path = self.conf / name
        if path in around:
            place.fault(column, f"{path} includes itself")
        elif path in self._seen:
            pass  # its rules stand further up, and the first that matches wins
        elif not path.exists():
            place.fault(column, f"there is no file {path}")
        elif len(self._seen) >= FILES_MAX:
            place.fault(column, f"more than {FILES_MAX} files are included")
        else:
            self.read(path, around)

    def _rule(self, place: "_Place", words: list[Word]) -> None:
        for index, wanted in ((1, ("from", "to")), (3, ("to",))):
            if len(words) <= index:
                place.fault(words[-1][0] + len(words[-1][1]), f"the line ends here: {_SHAPE}")
                return
            if words[index][1] not in wanted:
                place.fault(words[index][0], f"{words[index][1]!r} is not {' or '.join(wanted)}: {_SHAPE}")
                return
        if len(words) != 5:
            column = words[5][0] if len(words) > 5 else words[-1][0] + len(words[-1][1])
            place.fault(
                column, f"{words[5][1]!r} is too much: {_SHAPE}" if len(words) > 5 else f"it ends here: {_SHAPE}"
            )
            return
        nets = self._addresses(place, words[2], nested=True)
        services = tuple(place.each(words[4], parse_service))
        self._nets += len(nets)
        if len(self.rules) >= RULES_MAX or self._nets > NETS_MAX:
            place.fault(words[0][0], f"a guest has at most {RULES_MAX} rules, with {NETS_MAX} addresses")
        elif nets and services:
            rule = Rule(words[0][1] == "allow", words[1][1] == "from", nets, services, place.name)
            self.rules.append(rule)

    def _addresses(self, place: "_Place", word: Word, *, nested: bool) -> tuple[IpNetwork, ...]:
        """The networks that a list names; ``nested`` lists may hold aliases."""

        def parse(text: str) -> tuple[IpNetwork, ...]:
            if not text.startswith("@") or not nested:
                return _nets(text)
            if text[1:] not in self.aliases:
                raise ValueError(f"there is no alias {text[1:]!r} in {self.conf / ALIASES}")
            return self.aliases[text[1:]]

        found: dict[IpNetwork, None] = {}
        for nets in place.each(word, parse):
            found.update(dict.fromkeys(nets))
        return tuple(found)


@dataclass(frozen=True)
class _Place:
    """A line of a file."""

    path: Path
    number: int
    faults: Faults

    @property
    def name(self) -> str:
        return f"{self.path}:{self.number}"

    def fault(self, column: int, sentence: str) -> None:
        self.faults.add(self.path, self.number, column, sentence)

    def each(self, word: Word, parse: Callable[[str], T]) -> Iterator[T]:
        """Parse each part of a list; the faults of all parts are remembered."""
        column, text = word
        for part in text.split(","):
            value = self.faults.attempt(self.path, self.number, column, parse, part)
            if value is not None:
                yield value
            column += len(part) + 1


def _words(text: str, offset: int = 0) -> list[Word]:
    return [(offset + match.start() + 1, match.group()) for match in re.finditer(r"[^ \t]+", text)]


def _nets(text: str) -> tuple[IpNetwork, ...]:
    """The networks of one part of an address list."""
    if text == "any":
        return EVERYBODY
    if text == "0/0":
        return EVERYBODY[:1]
    if _SCANNED.fullmatch(text):
        return tuple(_net(part) for part in text.split(":"))
    return (_net(text),)


def _net(text: str) -> IpNetwork:
    address, slash, prefix = text.partition("/")
    if "%" in text:
        raise ValueError(f"{text!r} has a zone, which means nothing in a rule")
    if slash and not re.fullmatch("[0-9]{1,3}", prefix):
        raise ValueError(f"{text!r} is not ADDRESS/PREFIX: the prefix is a number of bits")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        hint = (
            "; names of hosts are refused: a resolver must not decide a firewall" if re.search("[g-zG-Z]", text) else ""
        )
        raise ValueError(f"{text!r} is not an address, a network, any, 0/0, ::/0 or @ALIAS{hint}") from None
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(str(error)) from None


def parse_service(text: str) -> Service:
    """One part of a list of protocols, ``tcp:80``; raises ValueError with a sentence."""
    name, colon, rest = text.partition(":")
    if re.fullmatch("[0-9]+", name):
        if colon:
            raise ValueError(f"{text!r}: a protocol number takes no ports, tcp and udp do")
        return Service(_protocol(text))
    if name not in _PROTOCOLS:
        raise ValueError(f"{text!r} is not tcp, udp, icmp, icmp6, all or the number of a protocol")
    protocol = _PROTOCOLS[name]
    family = {ICMP: 4, ICMP6: 6}.get(protocol or 0)
    if not colon:
        return Service(protocol, family=family)
    if protocol is None:
        raise ValueError(f"{text!r}: all takes no ports")
    low, high = _types(protocol, rest) if family else _ports(rest)
    return Service(protocol, low, high, family)


def _protocol(text: str) -> int:
    try:
        return whole_number(0, 255)(text)
    except ValueError:
        raise ValueError(f"{text!r} is no protocol number (0 to 255); a port is written tcp:{text}") from None


def _types(protocol: int, text: str) -> tuple[int, int]:
    known = TYPES[protocol]
    if text in known:
        return known[text], known[text]
    if re.fullmatch("[0-9]{1,3}", text) and int(text) <= 255:
        return int(text), int(text)
    raise ValueError(f"{text!r} is no ICMP type: a number from 0 to 255, or {', '.join(known)}")


def _ports(text: str) -> tuple[int, int]:
    match = re.fullmatch("([0-9]{1,5})(?:-([0-9]{1,5}))?", text)
    if not match:
        raise ValueError(f"{text!r} is not a port or a range of ports like 8000-8080")
    low, high = int(match[1]), int(match[2] or match[1])
    if not 1 <= low <= high <= 65535:
        raise ValueError(f"{text!r} is not a range of ports: they go from 1 to 65535, the lower one first")
    return low, high

"""A second reading of firewall.conf and networks.conf, from their manuals alone: what the tests hold ours against.

It shares nothing with vstools, not even Python's ipaddress, knows no columns and stops at the first fault of a line.
"""

import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Net = tuple[int, int, int]
"""Version, first and last address as numbers."""
Service = tuple[int | None, int | None, int | None]
"""Protocol, and the first and last of its ports or types; None is all of them."""
Rule = tuple[bool, bool, frozenset[Net], frozenset[Service]]
"""Whether it allows, whether others begin, and what it says."""

NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1, "icmp6": 58}
TYPES = {
    "icmp": "echo-reply=0 destination-unreachable=3 redirect=5 echo-request=8 time-exceeded=11 parameter-problem=12 "
    "timestamp-request=13 timestamp-reply=14",
    "icmp6": "destination-unreachable=1 packet-too-big=2 time-exceeded=3 parameter-problem=4 echo-request=128 "
    "echo-reply=129",
}
EVERYBODY = {4: (4, 0, 2**32 - 1), 6: (6, 0, 2**128 - 1)}


class Bad(Exception):
    """The manual knows no such line."""


def need(condition: object) -> None:
    if not condition:
        raise Bad


def number(text: str, least: int, most: int, digits: int = 20) -> int:
    """A number; so many leading zeros that it has more digits is no number that anybody means."""
    need(re.fullmatch("[0-9]+", text) and len(text) <= digits and least <= int(text) <= most)
    return int(text)


def address(text: str) -> tuple[int, int]:
    """An address as version and number."""
    for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        try:
            return version, int.from_bytes(socket.inet_pton(family, text), "big")
        except (OSError, ValueError):
            continue
    raise Bad


def network(text: str, *, prefix: bool = False) -> Net:
    """ADDRESS/BITS without bits behind the prefix, or one address where no prefix is needed."""
    start, slash, bits = text.partition("/")
    version, first = address(start)
    size = {4: 32, 6: 128}[version]
    need(slash or not prefix)
    span = 1 << (size - (number(bits, 0, size, 3) if slash else size))
    need(first % span == 0)
    return version, first, first + span - 1


def networks(text: str, aliases: Mapping[str, frozenset[Net]]) -> frozenset[Net]:
    """A list of addresses; a colon between IPv4 addresses is a comma that was badly scanned."""
    found: set[Net] = set()
    for part in text.split(","):
        if part.startswith("@"):
            need(part[1:] in aliases)
            found |= aliases[part[1:]]
        elif part in ("any", "0/0"):
            found |= {EVERYBODY[4], EVERYBODY[6]} if part == "any" else {EVERYBODY[4]}
        elif "/" not in part and all("." in quad for quad in part.split(":")):
            found |= {network(quad) for quad in part.split(":")}
        else:
            found.add(network(part))
    return frozenset(found)


def service(text: str) -> Service:
    name, colon, detail = text.partition(":")
    if name == "all" or name not in NUMBERS:
        need(not colon)
        return (None if name == "all" else number(name, 0, 255)), None, None
    if not colon:
        return NUMBERS[name], None, None
    if name in TYPES:
        kind = dict(pair.split("=") for pair in TYPES[name].split()).get(detail, detail)
        return NUMBERS[name], number(kind, 0, 255, 3), number(kind, 0, 255, 3)
    low, dash, high = detail.partition("-")
    first = number(low, 1, 65535, 5)
    return NUMBERS[name], first, number(high, first, 65535, 5) if dash else first


def said(text: str) -> Iterator[tuple[int, list[str]]]:
    """The lines that are more than a comment: number and words."""
    for count, line in enumerate(text.split("\n"), 1):
        words = re.sub("(^|[ \t])#.*", "", line.removesuffix("\r"), flags=re.DOTALL).replace("\t", " ").split(" ")
        if any(words):
            yield count, [word for word in words if word]


@dataclass
class Reading:
    """What a firewall.conf says: its rules with their lines, and the lines that the manual does not know."""

    enabled: bool
    rules: list[tuple[int, Rule]]
    bad: set[int]


def firewall(text: str, aliases: Mapping[str, frozenset[Net]]) -> Reading:
    """Read a firewall.conf that includes nothing."""
    found, switches = Reading(True, [], set()), 0
    for line, words in said(text):
        try:
            if words[0] in ("enable", "disable"):
                switches += 1
                need(len(words) == switches == 1)
                found.enabled = words[0] == "enable"
                continue
            need(len(words) == 5 and words[0] in ("allow", "deny") and words[1] in ("from", "to") and words[3] == "to")
            services = frozenset(map(service, words[4].split(",")))
            rule = words[0] == "allow", words[1] == "from", networks(words[2], aliases), services
            found.rules.append((line, rule))
        except Bad:
            found.bad.add(line)
    return found


def aliases(text: str) -> tuple[dict[str, frozenset[Net]], set[int]]:
    """The aliases of aliases.conf, and the lines that are none."""
    found: dict[str, frozenset[Net]] = {}
    bad = set()
    for line, words in said(text):
        name, equals, nets = " ".join(words).partition("=")
        try:
            need(
                equals
                and re.fullmatch("[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", name.strip(" "))
                and " " not in nets.strip(" ")
            )
            need(name.strip(" ") not in found)
            found[name.strip(" ")] = frozenset()  # the name is taken, whatever follows
            found[name.strip(" ")] = networks(nets.strip(" "), {})
        except Bad:
            bad.add(line)
    return found, bad


Line = tuple[int, Net, tuple[int, int] | None, str | None, tuple[tuple[int, int], ...]]
"""VLAN, network, gateway, domain, name servers."""


def network_line(text: str) -> Line | None:
    """One line of networks.conf, None where it says nothing: VLAN:NETWORK[,GATEWAY[,DOMAIN[,NAMESERVER ...]]]."""
    words = re.sub(r"(^|\s)#.*", "", text).strip()
    if not words:
        return None
    vlan, colon, rest = words.partition(":")
    need(colon)
    net, gateway, domain, servers = (*(rest.split(",", 3)), "", "", "")[:4]
    found = (
        number(vlan.strip(), 0, 4094),
        network(net.strip(), prefix=True),
        address(gateway.strip()) if gateway.strip() else None,
        domain.strip() or None,
        tuple(map(address, servers.replace(",", " ").split())),
    )
    version, first, last = found[1]
    need(found[2] is None or (found[2][0] == version and first <= found[2][1] <= last))
    labels = (found[3] or "x").split(".")
    need(len(".".join(labels)) <= 253 and all(re.fullmatch("[A-Za-z0-9_-]{1,63}", label) for label in labels))
    need(not any("-" in (label[0], label[-1]) for label in labels))
    return found

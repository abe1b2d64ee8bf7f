"""Which line of a guest's firewall.conf decides about a connection that somebody wants to open."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from vstools.config import guests
from vstools.config.firewall import FILE, ICMP, ICMP6, Policy, Service, parse_service
from vstools.config.text import LIMIT
from vstools.errors import Refused, VsError
from vstools.files import read_bounded
from vstools.firewall import backend, explain, model
from vstools.guest import Address, Interface, parse_address
from vstools.lifecycle import filtering, net
from vstools.lifecycle.host import settings
from vstools.network import plan
from vstools.paths import Paths

_WAYS = ("from", "to")


@dataclass(frozen=True)
class Question:
    """A new connection between a guest and ``other``; ``incoming`` when the other opens it."""

    incoming: bool
    other: Address
    service: Service
    words: str


@dataclass(frozen=True)
class Answer:
    """What becomes of the connection: decided by the line at ``place``, or for a ``reason`` that stands in no file.

    ``rule`` is a line that would allow it, empty where it is allowed or no line can. ``filtered`` is whether the
    kernel filters that direction by a file's rules, ``in_force`` whether that is what the file says; both are None
    where the guest does not run.
    """

    allowed: bool
    service: str
    place: str = ""
    text: str = ""
    reason: str = ""
    rule: str = ""
    filtered: bool | None = None
    in_force: bool | None = None


def question(way: str, address: str, service: str) -> Question:
    """The question that three words ask; raises Refused with a sentence."""
    if way not in _WAYS:
        raise Refused(f"{way!r} is not from or to", "from: others open the connection; to: the guest does")
    try:
        other, asked = parse_address(address), parse_service(service)
    except ValueError as error:
        raise Refused(str(error)) from None
    if other.is_unspecified:
        raise Refused(f"{address} is nobody's address")
    if asked.protocol is None:
        raise Refused("all is no protocol of a packet", "ask for one, like tcp:80")
    if asked.family not in (None, other.version):
        fitting = {ICMP: "icmp6", ICMP6: "icmp"}[asked.protocol]
        raise Refused(f"{service} is not for an IPv{other.version} address", f"its messages are {fitting}")
    return Question(way == "from", other, asked, service)


def answers(paths: Paths, name: str, asked: Question) -> tuple[Answer, ...]:
    """What firewall.conf says of a connection: one answer, or several where ports are decided about differently.

    Raises BadFiles when the file has faults, Refused when a stopped guest's files do not tell its addresses.
    """
    guest, policy = guests.load(paths, name), filtering.policy(paths, name)
    from vstools.network import devices, namespace

    netns = net.namespace(paths, name)
    if netns is None:
        host = settings(paths)
        own = tuple(one for link in plan.links(guest, host.networks, host.conf) for one in link.addresses)
    else:
        own = namespace.addresses(netns)
    hosts = tuple(interface.ip for interface in devices.host_addresses())
    found = _answers(paths.config_of(name) / FILE, policy, asked, own, hosts)
    if netns is None:
        return tuple(found)
    filtered = backend.up(netns)["input" if asked.incoming else "output"]
    return tuple(replace(answer, filtered=filtered, in_force=filtered == policy.enabled) for answer in found)


def _answers(
    file: Path, policy: Policy, asked: Question, own: tuple[Interface, ...], hosts: tuple[Address, ...]
) -> Iterator[Answer]:
    packet = explain.first_packet(own, asked.other, asked.service, incoming=asked.incoming)
    if packet is None:
        yield Answer(False, asked.words, reason=f"the guest has no IPv{asked.other.version} address")
        return
    if asked.incoming and not explain.sends(asked.other, own):
        yield Answer(False, packet.service, reason=f"no packet comes from {asked.other}")
        return
    places, lines = {rule.place for rule in policy.rules}, cache(_lines)
    for found in explain.decide(model.chains(policy, own, hosts), packet):
        place, reason = (found.reason, "") if found.reason in places else ("", found.reason)
        if reason == "no firewall":
            place, reason = _disabled(file, lines(file)), ""
        rule = "" if found.allowed or reason in explain.WHY else explain.allowing(found.packet, own, hosts)
        told = _told(reason, asked, found, file, hosts) if reason else ""
        yield Answer(found.allowed, found.packet.service, place, _line_at(place, lines) if place else "", told, rule)


def _told(reason: str, asked: Question, found: explain.Decision, file: Path, hosts: tuple[Address, ...]) -> str:
    """A decision that no line made, in words about the address and the file."""
    if reason == "the host is isolated":
        why = "is the host's" if asked.other in hosts else "reaches the host as well"
        return f"{reason}: {asked.other} {why} and has to be named"
    if reason == "no rule allows it" and not file.exists():
        return f"{reason}: there is no {file}"
    return {
        "loopback": "loopback: the guest talks to itself",
        "neighbour discovery": "neighbour discovery always passes",
        "a forged address": f"a forged address: {asked.other} is the guest's own",
        "invalid": f"invalid: {found.packet.service} begins no connection, and passes with one that it belongs to",
    }.get(reason, reason)


def _disabled(file: Path, lines: list[str]) -> str:
    """The place of the line that disables the firewall; it can only stand in the guest's own file."""
    return next((f"{file}:{number}" for number, line in enumerate(lines, 1) if line == "disable"), str(file))


def _line_at(place: str, lines: Callable[[Path], list[str]]) -> str:
    """The line at a place, ``PATH:LINE``, without its comment; empty where it is not there any more."""
    path, _, number = place.rpartition(":")
    if not number.isdecimal():
        return ""
    found = lines(Path(path))
    return found[int(number) - 1] if 0 < int(number) <= len(found) else ""


def _lines(path: Path) -> list[str]:
    try:
        lines = read_bounded(path, LIMIT).split("\n")
    except (OSError, VsError):  # it was there a moment ago
        return []
    return [" ".join(re.split(r"(?:^|[ \t])#", line.removesuffix("\r"), maxsplit=1)[0].split()) for line in lines]

"""Who decides about a packet: the chains of ``model`` walked as the kernel does, and the line that would allow it."""

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from vstools.config.firewall import ICMP, ICMP6, TCP, UDP, Policy, Rule, Service, parse_service
from vstools.firewall import model
from vstools.firewall.model import ACCEPT, DROP, Chains, Entry, Match
from vstools.firewall.packet import NO_NUMBER, NUMBERED, PORTS, Packet, state_of_first
from vstools.guest import Address, Interface

Span = tuple[int, int]
_ECHO, _ECHO6 = (8, 8), (128, 128)
_ALL = {(TCP, 4): PORTS, (TCP, 6): PORTS, (UDP, 4): PORTS, (UDP, 6): PORTS, (ICMP, 4): _ECHO, (ICMP6, 6): _ECHO6}
END = Entry(Match(), DROP, "the end of the chain")
WHY = {
    "a forged address": "its sender is not who it says",
    "invalid": "it belongs to no connection and cannot begin one",
    "not an address of the guest": "rules are about the guest's own addresses",
    "a guest is no router": "a guest passes nothing on",
}
"""Refusals that no line of a file can change -> why."""
BY_RULES = ("no rule allows it", "the host is isolated")
"""Refusals for want of a line."""


@dataclass(frozen=True)
class Decision:
    """What becomes of the ports or types from ``low`` to ``high``; ``reason`` is a place in a file, or words."""

    packet: Packet
    allowed: bool
    reason: str


def decide(chains: Chains, packet: Packet) -> tuple[Decision, ...]:
    """What becomes of a packet, in order of its ports or types where it stands for several.

    Neighbours that the same line decides about are one.
    """
    parts = sorted(_walk(chains, "input" if packet.incoming else "output", packet, [(packet.low, packet.high)]))
    found: list[Decision] = []
    for low, high, verdict, reason in parts:
        if found and (found[-1].allowed, found[-1].reason) == (verdict == ACCEPT, reason):
            low = found.pop().packet.low
        found.append(Decision(replace(packet, low=low, high=high), verdict == ACCEPT, reason))
    return tuple(found)


def _walk(chains: Chains, name: str, packet: Packet, open_spans: list[Span]) -> Iterator[tuple[int, int, str, str]]:
    """(low, high, verdict, reason) of each part of the packet. A chain that is led to is never come back from."""
    for entry in (*chains[name], END):
        if not _matches(entry.match, packet):
            continue
        taken, open_spans = _divided(open_spans, entry.match.spans)
        if entry.verdict in (ACCEPT, DROP):
            yield from ((low, high, entry.verdict, entry.reason) for low, high in taken)
        elif taken:
            yield from _walk(chains, entry.verdict, packet, taken)
        if not open_spans:
            return


def _matches(match: Match, packet: Packet) -> bool:
    """Whether an entry is about the packet, its ports and types left aside."""
    end = packet.source if match.source else packet.destination
    link = match.iif or match.oif
    return (
        (not link or (link == packet.link and packet.incoming == bool(match.iif)))
        and match.family in (None, end.version)
        and (not match.nets or any(end in net for net in match.nets))
        and match.protocol in (None, packet.protocol)
        and match.hop_limit in (None, packet.hop_limit)
        and (not match.states or packet.state in match.states)
        and not match.marked
    )


def _divided(spans: list[Span], by: tuple[Span, ...]) -> tuple[list[Span], list[Span]]:
    """(what lies in ``by``, what does not); all lies in what names no spans."""
    if not by:
        return spans, []
    inside, rest = [], spans
    for first, last in by:
        left = []
        for low, high in rest:
            if max(low, first) > min(high, last):
                left.append((low, high))
                continue
            inside.append((max(low, first), min(high, last)))
            left += [(low, first - 1)] if low < first else []
            left += [(last + 1, high)] if last < high else []
        rest = left
    return inside, rest


def allowing(packet: Packet, own: Iterable[Interface], host: Iterable[Address]) -> str:
    """The line that lets a packet of a new connection through where it stands before others; empty where none would.

    It names the other end, the one way that holds for the host's addresses as well.
    """
    if packet.low == NO_NUMBER and (packet.protocol, packet.other.version) in NUMBERED:
        return ""  # its ports could not be read
    try:
        service = parse_service(packet.service)
    except ValueError:  # no rule can name port 0
        return ""
    rule = Rule(True, packet.incoming, (ipaddress.ip_network(packet.other),), (service,), "")
    packet = replace(packet, state=state_of_first(packet.protocol, packet.other.version, packet.low))
    if not all(found.allowed for found in decide(model.chains(Policy(rules=(rule,)), own, host), packet)):
        return ""
    return f"allow {'from' if packet.incoming else 'to'} {packet.other} to {packet.service}"


def sends(address: Address, own: Iterable[Interface]) -> bool:
    """Whether packets can come from an address by a link: not from loopback, multicast and broadcast ones."""
    broadcasts = [*model.broadcasts(own), ipaddress.ip_network("255.255.255.255")]
    return not (address.is_loopback or address.is_multicast or ipaddress.ip_network(address) in broadcasts)


def first_packet(own: Iterable[Interface], other: Address, service: Service, *, incoming: bool) -> Packet | None:
    """What begins a connection between a guest and another address; None where the guest has none of its family.

    Of ICMP without a type that is ping's request, of TCP and UDP without ports all ports.
    """
    mine = [interface.ip for interface in own if interface.version == other.version]
    if not mine:
        return None
    near = other if other in mine else mine[0]
    protocol, low, high = service.protocol or 0, service.low, service.high
    if low is None or high is None:
        low, high = _ALL.get((protocol, other.version), (NO_NUMBER, NO_NUMBER))
    source, destination = (other, near) if incoming else (near, other)
    itself = not incoming and (other in mine or other.is_loopback)
    state = state_of_first(protocol, other.version, low)
    return Packet(incoming, source, destination, protocol, low, high, link="lo" if itself else "", state=state)

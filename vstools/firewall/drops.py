"""Refused packets, told so that an admin can act: who refused them, and which line would let them through."""

from dataclasses import dataclass, field, replace

from vstools.config.firewall import Policy
from vstools.firewall import explain, model, nflog
from vstools.firewall.nflog import Dropped
from vstools.firewall.packet import NO_NUMBER, NUMBERED, SEVERAL, Packet, parse, state_of_first
from vstools.guest import Address, Interface

DIRECTIONS = {nflog.LOCAL_IN: "IN", nflog.LOCAL_OUT: "OUT"}
FORWARD = "FORWARD"
KINDS_MAX = 20
"""How many kinds of packets of each direction a tally tells apart: a flood of ever new ones must not fill terminal and
memory, and what the guest floods with must not hide what comes to it."""


@dataclass(frozen=True)
class Files:
    """What the guest's files say, for the addresses that it and the host have."""

    policy: Policy
    own: tuple[Interface, ...]
    hosts: tuple[Address, ...]
    chains: model.Chains = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "chains", model.chains(self.policy, self.own, self.hosts))


@dataclass(frozen=True)
class Refusal:
    """Packets of one kind: refused by the line at ``place``, or for a ``reason`` that stands in no file.

    ``rule`` is a line that allows them, where there is one (before ``place``); ``note`` says why there is none.
    """

    direction: str
    packet: Packet | None
    count: int
    link: str
    time: float
    place: str
    reason: str
    rule: str
    note: str


@dataclass
class _Kind:
    first: Dropped
    packet: Packet | None
    count: int = 0


class Tally:
    """Packets of one moment, those that differ in their source port at most counted together."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[object, ...], _Kind] = {}
        self._more = 0

    def __bool__(self) -> bool:
        return bool(self._kinds)

    def add(self, dropped: Dropped) -> None:
        """Count one packet."""
        packet = parse(dropped.payload, incoming=dropped.hook != nflog.LOCAL_OUT)
        ends = (packet.source, packet.destination, packet.protocol, packet.low) if packet else ()
        key = (dropped.hook, dropped.prefix, dropped.link, *ends)
        kind = self._kinds.get(key)
        if kind is None:
            if sum(key[0] == dropped.hook for key in self._kinds) >= KINDS_MAX:
                self._more += 1
                return
            kind = self._kinds[key] = _Kind(dropped, packet)
        elif packet and kind.packet and kind.packet.source_port != packet.source_port:
            kind.packet = replace(kind.packet, source_port=SEVERAL)
        kind.count += 1

    def take(self, files: Files, links: dict[int, str]) -> tuple[tuple[Refusal, ...], int]:
        """(what was counted since the last time, how many more packets there were of other kinds)."""
        kinds, more = tuple(self._kinds.values()), self._more
        self._kinds, self._more = {}, 0
        return tuple(_refusal(kind, files, links.get(kind.first.link, "")) for kind in kinds), more


def _refusal(kind: _Kind, files: Files, link: str) -> Refusal:
    first = kind.first
    place, reason = decider(first.prefix, files.policy)
    rule, note = _remedy(kind.packet, reason, files)
    direction = DIRECTIONS.get(first.hook, FORWARD)
    return Refusal(direction, kind.packet, kind.count, link, first.time, place, reason, rule, note)


def decider(prefix: str, policy: Policy) -> tuple[str, str]:
    """(place, reason), one of them empty, of a rule's prefix, which may have lost its front (``...tail``)."""
    known = (*explain.WHY, *explain.BY_RULES)
    if prefix in known:
        return "", prefix
    places = {rule.place for rule in policy.rules}
    tail = prefix.removeprefix("...")
    fitting = [place for place in places if _plain(place) == prefix]
    if not fitting and tail != prefix:
        fitting = [place for place in places if _plain(place).endswith(tail)]
    return (fitting[0] if len(fitting) == 1 else prefix), ""


def _plain(words: str) -> str:
    """Words as a rule can carry them: see ``nftables.quotable``."""
    return "".join(char if " " <= char <= "~" and char not in '"\\' else "?" for char in words)


def _remedy(packet: Packet | None, reason: str, files: Files) -> tuple[str, str]:
    """(the line that lets a packet through, why there is none)."""
    if packet is None:
        return "", "its header cannot be read"
    if reason == "a forged address":
        whose = "its sender has the guest's own address" if packet.incoming else "its sender is no address of the guest"
        return "", f"no line can allow it: {whose}"
    if reason in explain.WHY:
        return "", f"no line can allow it: {explain.WHY[reason]}"
    if packet.low == NO_NUMBER and (packet.protocol, packet.other.version) in NUMBERED:
        return "", "its port or type cannot be read"
    state = state_of_first(packet.protocol, packet.other.version, packet.low)
    now = explain.decide(files.chains, replace(packet, state=state))
    if all(found.allowed for found in now):
        return "", "the file allows it by now: vs-net --fw up loads it"
    rule = explain.allowing(packet, files.own, files.hosts)
    return rule, "" if rule else "no line can allow it"


def direction_of(chain: str) -> str:
    """IN, OUT or FORWARD for a chain of ``model``."""
    if chain == "forward":
        return FORWARD
    return "IN" if chain == "input" or chain.startswith("from_") else "OUT"

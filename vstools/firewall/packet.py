"""A packet as rules see it, and its headers read from bytes that a hostile sender chose.

IPv4: RFC 791; IPv6 and its extension headers: RFC 8200, walked as the kernel's ``ipv6_find_hdr`` does for nft's
``meta l4proto`` and iptables' ``-p``. What cannot be read is left out, never guessed.
"""

import ipaddress
import struct
from dataclasses import dataclass

from vstools.config.firewall import ICMP, ICMP6, TCP, TYPES, UDP
from vstools.guest import Address, bracketed

NO_NUMBER = -1
"""Where a packet has no port or type, or none that could be read: no range of a rule holds it."""
PORTS = (1, 65535)
SEVERAL = -2
"""Where packets that are told of together differ."""
NUMBERED = {(TCP, 4): "tcp", (TCP, 6): "tcp", (UDP, 4): "udp", (UDP, 6): "udp", (ICMP, 4): "icmp", (ICMP6, 6): "icmp6"}
"""(protocol, family) -> the word for it in firewall.conf, where rules can name its ports or types."""
_NAMES = {(protocol, number): name for protocol, names in TYPES.items() for name, number in names.items()}
_BEGIN = {(ICMP, 4): (8, 13, 15, 17), (ICMP6, 6): (128, 139)}
_UNTRACKED = {(ICMP6, 6): (*range(130, 137), 143)}
"""ICMP types that begin a connection, and those that belong to none (nf_conntrack_proto_icmp.c, ..._icmpv6.c)."""
_HOP, _ROUTING, _FRAGMENT, _AUTH, _OPTIONS = 0, 43, 44, 51, 60
_HEADERS_MAX = 32


@dataclass(frozen=True)
class Packet:
    """A packet to or from a guest. ``low`` to ``high`` are destination ports or ICMP types, one or several at once.

    ``link`` is named only where it is the loopback. ``state`` is conntrack's.
    """

    incoming: bool
    source: Address
    destination: Address
    protocol: int
    low: int = NO_NUMBER
    high: int = NO_NUMBER
    source_port: int = NO_NUMBER
    hop_limit: int = 255
    link: str = ""
    state: str = "new"

    @property
    def other(self) -> Address:
        """The end that is not the guest's."""
        return self.source if self.incoming else self.destination

    @property
    def service(self) -> str:
        """Protocol and ports as firewall.conf has them: ``tcp:80``, ``udp:1-9``, ``icmp:echo-request``, ``47``."""
        word = NUMBERED.get((self.protocol, self.other.version))
        if word is None or self.low == NO_NUMBER or (self.low, self.high) == PORTS:
            return word or str(self.protocol)
        if self.protocol in TYPES:
            return f"{word}:{_NAMES.get((self.protocol, self.low), self.low)}"
        return f"{word}:{self.low}" if self.low == self.high else f"{word}:{self.low}-{self.high}"


def state_of_first(protocol: int, family: int, number: int) -> str:
    """What conntrack makes of a packet that belongs to no connection: ``new``, ``untracked`` or ``invalid``."""
    kind = (protocol, family)
    if number in _UNTRACKED.get(kind, ()):
        return "untracked"
    return "new" if number in _BEGIN.get(kind, (number,)) else "invalid"


def told(packet: Packet) -> str:
    """``tcp 10.0.0.1:4000 -> 10.0.0.2:80``: protocol (with ICMP's type) and both ends, IPv6 in brackets."""
    source, destination = bracketed(packet.source), bracketed(packet.destination)
    if packet.protocol not in (TCP, UDP):
        return f"{packet.service} {source} -> {destination}"
    word = NUMBERED[packet.protocol, packet.other.version]
    ports = {NO_NUMBER: "?", SEVERAL: "*"}
    sport, dport = (ports.get(port, str(port)) for port in (packet.source_port, packet.low))
    return f"{word} {source}:{sport} -> {destination}:{dport}"


def parse(content: bytes, *, incoming: bool) -> Packet | None:
    """The packet whose first bytes these are, from its IP header on; None where that header is not whole."""
    version = content[0] >> 4 if content else 0
    if version == 4 and len(content) >= 20:
        return _ipv4(content, incoming=incoming)
    if version == 6 and len(content) >= 40:
        return _ipv6(content, incoming=incoming)
    return None


def _ipv4(content: bytes, *, incoming: bool) -> Packet:
    offset = struct.unpack_from("!H", content, 6)[0] & 0x1FFF
    start = max((content[0] & 15) * 4, 20) if not offset else len(content)
    source, destination = (ipaddress.IPv4Address(content[at : at + 4]) for at in (12, 16))
    low, sport = _numbers(content[9], 4, content[start : start + 4])
    return Packet(incoming, source, destination, content[9], low, low, sport, content[8])


def _ipv6(content: bytes, *, incoming: bool) -> Packet:
    source, destination = (ipaddress.IPv6Address(content[at : at + 16]) for at in (8, 24))
    protocol, start = _transport(content)
    low, sport = _numbers(protocol, 6, content[start : start + 4])
    return Packet(incoming, source, destination, protocol, low, low, sport, content[7])


def _transport(content: bytes) -> tuple[int, int]:
    """(protocol, where its header begins) behind the extension headers; the end where it is not there."""
    protocol, at = content[6], 40
    for _ in range(_HEADERS_MAX):
        if protocol not in (_HOP, _ROUTING, _FRAGMENT, _AUTH, _OPTIONS):
            return protocol, at
        if at + 8 > len(content):
            break
        following, length = content[at], content[at + 1]
        if protocol == _FRAGMENT:
            if struct.unpack_from("!H", content, at + 2)[0] & 0xFFF8:
                return following, len(content)
            size = 8
        else:
            size = (length + 2) * 4 if protocol == _AUTH else (length + 1) * 8
        protocol, at = following, at + size
    return protocol, len(content)


def _numbers(protocol: int, family: int, header: bytes) -> tuple[int, int]:
    """(destination port or ICMP type, source port) of a transport header's first four bytes."""
    kind = NUMBERED.get((protocol, family))
    if kind in ("icmp", "icmp6") and header:
        return header[0], NO_NUMBER
    if kind in ("tcp", "udp") and len(header) == 4:
        sport, dport = struct.unpack("!HH", header)
        return dport, sport
    return NO_NUMBER, NO_NUMBER

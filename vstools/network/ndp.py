"""IPv6 neighbour discovery on the wire (RFC 4861): announcing where an address is now, asking who has one."""

import struct
import time
from contextlib import suppress
from ipaddress import IPv6Address

from vstools.network.wire import Wire, mac_of, printable

ETHERTYPE = 0x86DD
_HEADER = struct.Struct("!IHBB16s16s")  # RFC 8200: version and flow, payload length, next header, hop limit, addresses
_MESSAGE = struct.Struct("!BBHI16s")  # type, code, checksum, flags, target
_ICMPV6 = 58
_HOPS = 255  # whatever came through a router has fewer
_SOLICITATION, _ADVERTISEMENT = 135, 136
_OVERRIDE = 0x20000000  # forget what you knew
_TARGET_MAC = 2  # an option; its length follows in units of 8 bytes
ALL_NODES = IPv6Address("ff02::1")
PERIOD = 0.3


def announcement(address: IPv6Address, mac: bytes) -> bytes:
    """The frame of an unsolicited advertisement (RFC 4861, 7.2.6): who has the address in its cache learns the MAC."""
    option = struct.pack("!BB", _TARGET_MAC, 1) + mac
    return _frame(mac, address, ALL_NODES, _ADVERTISEMENT, _OVERRIDE, address, option)


def question(address: IPv6Address, mac: bytes) -> bytes:
    """The frame of a solicitation as duplicate address detection sends it (RFC 4862, 5.4.2): from no address."""
    group = IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + address.packed[13:])
    return _frame(mac, IPv6Address("::"), group, _SOLICITATION, 0, address)


def _frame(
    mac: bytes, source: IPv6Address, group: IPv6Address, kind: int, flags: int, target: IPv6Address, option: bytes = b""
) -> bytes:
    """An ICMPv6 message to a multicast group in its Ethernet frame (RFC 2464, 7: 33:33 and the end of the group)."""
    message = _MESSAGE.pack(kind, 0, 0, flags, target.packed) + option
    pseudo = source.packed + group.packed + struct.pack("!II", len(message), _ICMPV6)
    message = _MESSAGE.pack(kind, 0, checksum(pseudo + message), flags, target.packed) + option
    header = _HEADER.pack(6 << 28, len(message), _ICMPV6, _HOPS, source.packed, group.packed)
    return b"\x33\x33" + group.packed[12:] + mac + struct.pack("!H", ETHERTYPE) + header + message


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes; 0 where it is part of them and right."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ask(device: str, address: IPv6Address) -> str | None:
    """The MAC of a neighbour on ``device`` that has the address; None when none answers in 300 ms."""
    own = mac_of(device)
    if own is None:
        return None
    with Wire(ETHERTYPE) as wire:
        with suppress(OSError):  # the device is down: nobody answers there
            wire.send(device, question(address, own))
        until = time.monotonic() + PERIOD
        while (found := wire.receive(until)) is not None:
            mac = holder_in(found[1], address) if found[0] == device else None
            if mac is not None and mac != printable(own):
                return mac
    return None


def holder_in(frame: bytes, address: IPv6Address) -> str | None:
    """The MAC of the machine that advertises ``address`` in a frame; None where the frame is something else."""
    start = 14 + _HEADER.size
    if len(frame) < start + _MESSAGE.size:
        return None
    _, _, following, hops, _, _ = _HEADER.unpack_from(frame, 14)
    kind, _, _, _, target = _MESSAGE.unpack_from(frame, start)
    if (following, hops, kind, target) != (_ICMPV6, _HOPS, _ADVERTISEMENT, address.packed):
        return None
    option = frame[start + _MESSAGE.size :]
    return printable(option[2:8] if option[:2] == bytes((_TARGET_MAC, 1)) else frame[6:12])

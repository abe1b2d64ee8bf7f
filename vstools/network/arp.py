"""ARP on the wire (RFC 5227): probing whether an address is in use, announcing where it is now."""

import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address

_ETHERTYPE = 0x0806
_ETHERNET = 1  # ARPHRD_ETHER
_PACKET = struct.Struct("!HHBBH6s4s6s4s")  # RFC 826: hardware, protocol, lengths, operation, sender, target
_REQUEST = 1
_BROADCAST = b"\xff" * 6
PROBES = 3
PERIOD = 0.3


def probe(device: str, address: IPv4Address, stop: Callable[[], bool] = lambda: False) -> str | None:
    """Ask the neighbours of ``device`` for ``address``: 3 requests in 300 ms. Returns the MAC that answered.

    None when nobody did, and where the device cannot carry ARP. ``stop`` ends the waiting early.
    """
    with _socket(device) as wire:
        own = _mac(wire)
        if own is None:
            return None
        packet = _packet(own, b"\0" * 4, address.packed)
        end = time.monotonic() + PERIOD
        for turn in range(PROBES):
            with suppress(OSError):  # the device is down: nobody answers there
                wire.send(packet)
            answered = _listen(wire, address, own, end - (PROBES - 1 - turn) * PERIOD / PROBES, stop)
            if answered:
                return answered
    return None


class Announcer:
    """Sends gratuitous ARP requests (RFC 5227, 2.3) for one address, from the namespace that it was made in."""

    def __init__(self, device: str, address: IPv4Address, mac: str) -> None:
        self._packet = _packet(bytes.fromhex(mac.replace(":", "")), address.packed, address.packed)
        self._wire = _socket(device)

    def __enter__(self) -> "Announcer":
        return self

    def __exit__(self, *_: object) -> None:
        self._wire.close()

    def announce(self) -> None:
        """Send one."""
        self._wire.send(self._packet)


def _socket(device: str) -> socket.socket:
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETHERTYPE))
    try:
        wire.bind((device, _ETHERTYPE))
    except OSError:
        wire.close()
        raise
    return wire


def _mac(wire: socket.socket) -> bytes | None:
    """The MAC of the device that the socket is bound to, None where it is no Ethernet."""
    _, _, _, kind, address = wire.getsockname()
    return bytes(address) if kind == _ETHERNET else None


def _packet(own: bytes, sender: bytes, target: bytes) -> bytes:
    frame = _BROADCAST + own + struct.pack("!H", _ETHERTYPE)
    return frame + _PACKET.pack(1, 0x0800, 6, 4, _REQUEST, own, sender, b"\0" * 6, target)


def _listen(
    wire: socket.socket, address: IPv4Address, own: bytes, until: float, stop: Callable[[], bool]
) -> str | None:
    while (left := until - time.monotonic()) > 0 and not stop():
        wire.settimeout(min(left, 0.05))
        try:
            frame = wire.recv(128)
        except TimeoutError:
            continue
        except OSError:  # the device went down
            return None
        if len(frame) < 14 + _PACKET.size:
            continue
        fields = _PACKET.unpack_from(frame, 14)
        if fields[6] == address.packed and fields[5] != own:
            return ":".join(f"{byte:02x}" for byte in fields[5])
    return None

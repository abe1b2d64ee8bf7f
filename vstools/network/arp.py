"""ARP on the wire (RFC 5227): probing whether an address is in use, announcing where it is now."""

import struct
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Address
from typing import Self

from vstools.network.wire import Wire, mac_of, printable

ETHERTYPE = 0x0806
_PACKET = struct.Struct("!HHBBH6s4s6s4s")  # RFC 826: hardware, protocol, lengths, operation, sender, target
_HEADER = (1, 0x0800, 6, 4)  # Ethernet, IPv4, and how long their addresses are
_REQUEST, _REPLY = 1, 2
_BROADCAST = b"\xff" * 6
_NOBODY = b"\0" * 4
_SENDER_AT = 14 + 14  # where the sender's address stands in a frame
PROBES = 3
PERIOD = 0.3
ANSWER_TIME = 0.1
"""Seconds after the first request in which a neighbour answers; whom the last one alone woke up has a third of it."""


def probe(device: str, address: IPv4Address, stop: Callable[[], bool] = lambda: False) -> str | None:
    """Ask the neighbours of ``device`` for ``address``: 3 requests in 300 ms. Returns the MAC that answered.

    None when nobody did, and where the device cannot carry ARP. ``stop`` ends the waiting early.
    """
    with Inquiry() as inquiry:
        end = time.monotonic() + PERIOD
        for turn in range(PROBES):
            inquiry.ask({(device, address): ""})
            until = end - (PROBES - 1 - turn) * PERIOD / PROBES
            while time.monotonic() < until and not stop():
                for _, mac in inquiry.answers(min(until, time.monotonic() + 0.05)):
                    return mac
    return None


class Inquiry:
    """Asks the neighbours of the host's devices for addresses, as often as ``ask`` is called.

    The requests carry the MAC of the host's device: an answer then comes back even from a machine that has the guest's
    own MAC, a copy of it that still runs somewhere. The guest itself, once its link is up, must not be asked: the last
    request is sent before that.
    """

    def __init__(self) -> None:
        self._wire: Wire | None = None
        self._wanted: dict[tuple[str, IPv4Address], str] = {}
        self._own: set[bytes] = set()  # the MACs that asked: a bridge's changes when a port comes
        self._first = self._last = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """No answer is read any more; doing it twice does no harm."""
        if self._wire is not None:
            self._wire.close()
        self._wire, self._wanted = None, {}

    def ask(self, wanted: Mapping[tuple[str, IPv4Address], str]) -> None:
        """Send one request for each address with no sender's address (RFC 5227, 2.1.1).

        So nobody learns from it, and Linux answers it only for what it has itself, never for others (proxy_arp).

        ``wanted``: (device, address) -> MAC of the guest that is about to have the address, "" where it has none yet.
        """
        if not wanted:
            return
        if wanted != self._wanted:
            self.close()
            self._wire, self._wanted = Wire(ETHERTYPE), dict(wanted)
            self._wire.keep_only(_SENDER_AT, {address.packed for _, address in wanted})
        self._last = time.monotonic()
        self._first = self._first or self._last
        for device, address in wanted:
            if self._wire is not None and (own := mac_of(device)) is not None:
                self._own.add(own)
                with suppress(OSError):  # the device is down: nobody answers there
                    self._wire.send(device, _frame(own, _NOBODY, address.packed))

    @property
    def over(self) -> float:
        """When neighbours have had the time to answer (``time.monotonic``)."""
        return max(self._first + ANSWER_TIME, self._last + ANSWER_TIME / 3)

    def answers(self, until: float) -> Iterator[tuple[IPv4Address, str]]:
        """Each address that a neighbour has with that one's MAC; what came already, then what comes until then."""
        while self._wire is not None and (found := self._wire.receive(until)) is not None:
            for (device, address), guest in self._wanted.items():
                holder = holder_in(found[1], address, self._own, guest) if device == found[0] else None
                if holder is not None:
                    yield address, holder


def holder_in(frame: bytes, address: IPv4Address, own: Collection[bytes], guest: str) -> str | None:
    """The MAC of the machine that shows by a frame that it has ``address``; None where it shows nothing.

    ``own`` are the MACs that asked. What the guest's own MAC says counts only as an answer to our very request (to one
    of these, and to no address): everything else can come from the guest itself, whose link is up meanwhile.
    """
    if len(frame) < 14 + _PACKET.size:
        return None
    *header, operation, sender, sender_address, target, target_address = _PACKET.unpack_from(frame, 14)
    if tuple(header) != _HEADER or sender_address != address.packed or sender in own:
        return None
    holder = printable(sender)
    if holder == guest.lower() and (operation, target_address, target in own) != (_REPLY, _NOBODY, True):
        return None
    return holder


def announcement(address: IPv4Address, mac: bytes) -> bytes:
    """The frame of a gratuitous request (RFC 5227, 2.3): who has the address in its cache learns the MAC."""
    return _frame(mac, address.packed, address.packed)


def _frame(own: bytes, sender: bytes, target: bytes) -> bytes:
    head = _BROADCAST + own + struct.pack("!H", ETHERTYPE)
    return head + _PACKET.pack(*_HEADER, _REQUEST, own, sender, b"\0" * 6, target)

"""A guest's addresses and the other machines: whether one of them has an address, and telling them where it is now.

The questions are asked beside the start and cost it nothing: IPv4's from the host's device while the namespace and the
firewall are made, IPv6's by the kernel from the moment the guest's link is up. The answers are looked at before LXC
starts the guest, and once more when its init runs.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from ipaddress import IPv4Address

from vstools import log
from vstools.guest import Address
from vstools.lifecycle.ownership import Taken
from vstools.network import arp, dad, devices, ndp
from vstools.network.namespace import inside
from vstools.network.plan import Link
from vstools.network.wire import Wire, mac_of

ANNOUNCEMENTS = 3
_PAUSE = 0.03


class Inquiry:
    """The ARP probes of one start.

    A bridge that filters VLANs lets the host itself into none of them: there the guest's own link asks, once it is up.
    """

    def __init__(self) -> None:
        self._host, self._guest = arp.Inquiry(), arp.Inquiry()

    def __enter__(self) -> "Inquiry":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """No answer is read any more; doing it twice does no harm."""
        self._host.close()
        self._guest.close()

    def ask(self, links: Iterable[Link]) -> None:
        """Ask once more for all IPv4 addresses, on the devices that are there: on another one nobody can be."""
        outside = (link for link in links if not link.member and devices.has_device(link.vlan_device))
        self._host.ask({(link.vlan_device, address): link.mac for link in outside for address in _ipv4(link)})

    def ask_inside(self, netns: str, links: Iterable[Link]) -> None:
        """The same from the guest's namespace, for those links that the host cannot ask for."""
        wanted = {(link.name, address): "" for link in links if link.member for address in _ipv4(link)}
        if wanted:
            with inside(netns):
                self._guest.ask(wanted)

    def check(self, *, wait: bool = False) -> None:
        """Raise Taken when a neighbour has one of the addresses; with ``wait``, when all have had their time."""
        for inquiry in (self._host, self._guest):
            for address, mac in inquiry.answers(inquiry.over if wait else 0):
                raise taken(address, mac)


def _ipv4(link: Link) -> list[IPv4Address]:
    return [interface.ip for interface in link.addresses if isinstance(interface.ip, IPv4Address)]


def taken(address: Address, mac: str | None) -> Taken:
    """The error for an address that another machine has."""
    who = mac or "another machine"
    return Taken(f"{address} is in use on the network by {who}", f"stop that machine, or take {address} from it")


def check_ipv6(netns: str, links: Iterable[Link], *, wait: bool = False) -> None:
    """Raise Taken when another machine has an IPv6 address of a guest; with ``wait``, when the kernel is sure."""
    names = [link.name for link in links if any(interface.version == 6 for interface in link.addresses)]
    if not names:
        return
    with inside(netns):
        if wait and not dad.wait():
            log.warn(f"the kernel has not found out whether other machines have the addresses in {netns}")
        for name, address in dad.duplicates():
            raise taken(address, ndp.ask(name, address))
        if wait:
            for name in names:
                dad.settle(name)


def announce(netns: str, links: Iterable[Link], meanwhile: Callable[[], None] = lambda: None) -> None:
    """Gratuitous ARP and unsolicited neighbour advertisements for each address, three times.

    They carry the MAC that the link has in the kernel. ``meanwhile`` is called when the first are sent.
    """
    with inside(netns):
        frames = [
            (link.name, _announcement(interface.ip, mac))
            for link in links
            if (mac := mac_of(link.name)) is not None
            for interface in link.addresses
        ]
        if not frames:
            return
        with Wire() as wire:
            for turn in range(ANNOUNCEMENTS):
                due = time.monotonic() + (_PAUSE if turn else 0)
                if turn == 1:
                    meanwhile()
                time.sleep(max(due - time.monotonic(), 0))
                for name, frame in frames:
                    with suppress(OSError):  # its cable is unplugged
                        wire.send(name, frame)


def _announcement(address: Address, mac: bytes) -> bytes:
    return arp.announcement(address, mac) if isinstance(address, IPv4Address) else ndp.announcement(address, mac)

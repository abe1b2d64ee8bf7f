"""Whether a guest may have an address, asked of the files and of this host; and the interface that holds it."""

import os
from collections.abc import Iterable
from ipaddress import IPv4Address

from vstools.config import guests
from vstools.errors import Refused
from vstools.guest import Address, Nic, bracketed
from vstools.lifecycle import confirm
from vstools.lifecycle.host import Settings
from vstools.network import plan
from vstools.paths import Paths


def check_free(paths: Paths, wanted: Iterable[Address], but: str = "") -> None:
    """Raise Refused when another guest of this host, or one that is being made, has one of the addresses.

    The caller holds the host's lock "allocation" where the answer has to stay true.
    """
    used = guests.addresses_in_use(paths)
    used.update((bracketed(address), name) for address, name in confirm.reserved(paths))
    for address in wanted:
        if (owner := used.get(bracketed(address))) is not None and owner != but:
            raise Refused(f"{address} is the address of guest {owner}", "choose another address")


def new_nic(
    key: str, address: Address, host: Settings, device: str | None = None, prefix: int | None = None, *, more: str = ""
) -> Nic:
    """The interface for an address; ``device`` and ``prefix`` are those of the command line.

    Raises Refused; ``more`` is what can be done about an address in no network beside a line for it.
    """
    check_network(address, host, device, prefix, more=more)
    network = host.networks.of(address)
    if (device or host.conf.device) is None:
        raise Refused(f"no network device for {address}", "set DEFAULT_DEVICE in create.conf, or give --device")
    nic = Nic(key, address, prefix, device, new_mac())
    plan.check_address(address, plan.interface(nic, network, host.conf), network.gateway if network else None)
    return nic


def check_network(
    address: Address, host: Settings, device: str | None = None, prefix: int | None = None, *, more: str = ""
) -> None:
    """Raise Refused for an address in no network of networks.conf, where nothing else says what it is connected to."""
    if host.networks.of(address) is None and not _may_be_outside(host, device, prefix):
        raise Refused(f"{address} is in no network of networks.conf", f"add a line for it{more}")


def _may_be_outside(host: Settings, device: str | None, prefix: int | None) -> bool:
    if prefix is not None and device is not None:
        return True
    return not host.networks.lines and (prefix or host.conf.prefix) is not None


def new_mac() -> str:
    """A random MAC, locally administered and unicast; it stays with the guest wherever it moves."""
    return ":".join(f"{byte:02x}" for byte in (0x02, *os.urandom(5)))


def check_links(links: tuple[plan.Link, ...], wanted: Iterable[Address]) -> None:
    """Raise Refused when a device is missing or cannot carry its link, or when an address is the host's own."""
    from vstools.network import devices, local

    local.check_devices(links)
    devices.check_own(wanted)


def check_wire(links: tuple[plan.Link, ...], wanted: Iterable[Address]) -> None:
    """Ask the neighbours for each IPv4 address; raises Refused when one of them answers."""
    from vstools.network import arp, devices

    asked = set(wanted)
    for link in links:
        if link.member:
            continue  # the host itself is in no VLAN of a bridge that filters them
        for address in (interface.ip for interface in link.addresses if interface.ip in asked):
            if isinstance(address, IPv4Address) and devices.has_device(link.vlan_device):
                mac = arp.probe(link.vlan_device, address)
                if mac:
                    raise Refused(f"{address} is in use on the network by {mac}", "choose another address")

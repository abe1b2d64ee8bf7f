"""What a guest's network namespace holds: read from the kernel, never from what we believe."""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vstools.guest import Address, Interface
from vstools.network import bridges, devices, kernel, routes
from vstools.network.namespace import inside
from vstools.network.netlink import IPRoute
from vstools.network.plan import Link

_UP = 1  # IFF_UP


@dataclass(frozen=True)
class State:
    """One address of a guest."""

    address: Address
    vlan: bool = False
    route: bool = False


def _addresses(ipr: Any) -> Iterator[tuple[Address, tuple[int, Interface]]]:
    """Address -> (index of its link, with its prefix), but for loopback and link-local ones."""
    for message in ipr.get_addr():
        local = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        address = ipaddress.ip_interface(f"{local}/{message['prefixlen']}")
        if not address.is_loopback and not address.is_link_local:
            yield address.ip, (message["index"], address)


def state(netns: str, links: tuple[Link, ...]) -> tuple[State, ...]:
    """Each address that the kernel or ``links`` (what the files say) knows; one the kernel has not is down."""
    with inside(netns), IPRoute() as ipr:
        there = dict(_addresses(ipr))
        up = {link["index"]: bool(link["flags"] & _UP) for link in ipr.get_links()}
        ways = routes.read(ipr)
    planned = {address.ip: link for link in links for address in link.addresses}
    found = []
    for address in dict.fromkeys((*planned, *there)):
        if address not in there:
            found.append(State(address))
            continue
        index, interface = there[address]
        link = planned.get(address)
        routed = ways.lead(interface, index, link.route_of(address) if link else None)
        found.append(State(address, up.get(index, False) and _vlan_is_up(link), routed))
    return tuple(found)


def _vlan_is_up(link: Link | None) -> bool:
    """Whether the host's device for the VLAN of a tagged link is up, or the link's port a member of the VLAN alone."""
    if link is None or not link.vlan:
        return True
    with IPRoute() as ipr:
        if devices.is_bridge(link.device):
            port = kernel.index_of(ipr, link.host_name)
            return port is not None and bridges.is_confined(ipr, port, link.vlan)
        index = kernel.index_of(ipr, link.vlan_device)
        return index is not None and any(found["flags"] & _UP for found in ipr.get_links(index))

"""The kernel beside the plan: what differs of a running guest's network, and putting it right.

Only what differs is touched, so that connections go on. Links that the plan does not know are somebody else's.
"""

import ipaddress
from collections.abc import Iterator
from typing import Any

from vstools.errors import VsError
from vstools.guest import Interface
from vstools.network import bridges, devices, kernel, rates, routes
from vstools.network.namespace import inside
from vstools.network.netlink import IPRoute, NetlinkError
from vstools.network.plan import Link

_UP = 1  # IFF_UP


def differences(netns: str, links: tuple[Link, ...]) -> Iterator[str]:
    """A sentence for each thing that is otherwise than planned; nothing is changed."""
    carriers, kinds = {link.name: _carrier(link) for link in links}, {link.name: _kind(link) for link in links}
    for link in links:
        yield from _carried(link)
    held = {link.name: tuple(rates.differences(netns, link)) for link in links}
    with inside(netns), IPRoute() as ipr:
        found = {str(message.get_attr("IFLA_IFNAME")): message for message in ipr.get_links()}
        ways = routes.read(ipr)
        there = {}
        for link in links:
            message = found.get(link.name)
            if message is None:
                yield f"the link {link.name} is missing"
                continue
            there[message["index"]] = link
            if not _stands(message, carriers[link.name]):
                yield f"{link.name} is not a link on {link.vlan_device}"
            if _kind_of(message) != kinds[link.name]:
                yield f"{link.name} is of the kind {_kind_of(message)} and not {kinds[link.name]}"
            if not _has_mac(message, link, kinds[link.name]):
                yield f"{link.name} has the MAC {message.get_attr('IFLA_ADDRESS')} and not {link.mac}"
            if link.mtu and message.get_attr("IFLA_MTU") != link.mtu:
                yield f"{link.name} has the MTU {message.get_attr('IFLA_MTU')} and not {link.mtu}"
            if not message["flags"] & _UP:
                yield f"{link.name} is down"
            yield from held[link.name]
            yield from _addressed(ipr, message["index"], link, ways)
        yield from (f"{stray} is too much" for stray in routes.strays(ways, there))


def _carried(link: Link) -> Iterator[str]:
    """What is wrong of the devices on the host that carry a link."""
    with IPRoute() as ipr:
        for name, what in ((link.device, "the device"), (link.vlan_device, "the VLAN's device")):
            index = kernel.index_of(ipr, name)
            if index is None:
                yield f"{what} {name} is missing"
            elif not any(message["flags"] & _UP for message in ipr.get_links(index)):
                yield f"{what} {name} is down"
            if link.device == link.vlan_device:
                return


def _addressed(ipr: Any, index: int, link: Link, ways: routes.Ways) -> Iterator[str]:
    has = set(_addresses(ipr, index))
    for address in link.addresses:
        if address not in has:
            yield f"{link.name} lacks the address {address}"
        elif not ways.lead(address, index, link.route_of(address.ip)):
            yield f"the routes of {address} are not all there"
    yield from (f"{link.name} has the address {address}, which is too much" for address in has - set(link.addresses))


def _addresses(ipr: Any, index: int) -> Iterator[Interface]:
    """The addresses of a link, but for link-local ones."""
    for message in ipr.get_addr(index=index):
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        address = ipaddress.ip_interface(f"{text}/{message['prefixlen']}")
        if not address.is_link_local:
            yield address


def _carrier(link: Link) -> int | None:
    """The index of what a link of the guest hangs on: its port on a bridge, else the device that carries it."""
    with IPRoute() as ipr:
        device = kernel.index_of(ipr, link.device)
        if not devices.is_bridge(link.device):
            return kernel.index_of(ipr, link.vlan_device)
        port = kernel.index_of(ipr, link.host_name)
        if port is None or (link.member and not bridges.is_confined(ipr, port, link.vlan)):
            return None
        masters = [message.get_attr("IFLA_MASTER") for message in ipr.get_links(port)]
        return port if masters == [device] else None


def _stands(message: Any, carrier: int | None) -> bool:
    return carrier is not None and message.get_attr("IFLA_LINK") == carrier


def _has_mac(message: Any, link: Link, kind: str) -> bool:
    """Whether a link has the MAC of its plan; an ipvlan has its device's."""
    return kind == "ipvlan" or message.get_attr("IFLA_ADDRESS") == link.mac


def _kind(link: Link) -> str:
    """What a link has to be; asked on the host, whose devices the guest's namespace does not know."""
    if devices.is_bridge(link.device):
        return "veth"
    return "ipvlan" if link.ipvlan else "macvlan"


def _kind_of(message: Any) -> str:
    info = message.get_attr("IFLA_LINKINFO")
    return str(info.get_attr("IFLA_INFO_KIND")) if info else "none"


def mend(netns: str, links: tuple[Link, ...], gone: tuple[str, ...] = ()) -> None:
    """Make the kernel as planned. ``gone``: names of links in the namespace that the guest has no longer.

    A link that hangs on something else, or has another MAC, is made anew; all others stay.
    """
    with inside(netns):
        _remove(gone)
    try:
        anew = [link for link in links if not _stays(netns, link)]
        with inside(netns):  # all of them first: two that change places have each other's MAC
            _remove(tuple(link.name for link in anew))
        for link in links:
            if link in anew:
                kernel.make(netns, link)
            else:
                _mend_link(netns, link)
        with inside(netns), IPRoute() as ipr:
            routes.prune(ipr, _by_index(ipr, links))
    except NetlinkError as error:
        raise VsError("the guest's links could not be changed", str(error)) from error


def _remove(names: tuple[str, ...]) -> None:
    """Inside the namespace: delete links, with what stands beside them for their rate."""
    kernel.remove_links((*names, *(rates.collector(name) for name in names)))


def _stays(netns: str, link: Link) -> bool:
    """Whether a link can be put right; else it has to be made anew."""
    carrier, kind = _carrier(link), _kind(link)
    with inside(netns), IPRoute() as ipr:
        index = kernel.index_of(ipr, link.name)
        return index is not None and all(
            _stands(message, carrier) and _kind_of(message) == kind and _has_mac(message, link, kind)
            for message in ipr.get_links(index)
        )


def _mend_link(netns: str, link: Link) -> None:
    """Put a link right."""
    with inside(netns), IPRoute() as ipr:
        index = kernel.index_of(ipr, link.name)
        if index is None:
            raise VsError(f"the link {link.name} vanished while it was mended", "try again")
        has = set(_addresses(ipr, index))
        for address in has - set(link.addresses):
            with routes.suppress_gone():
                ipr.addr("del", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
        kernel.fill(ipr, index, link, has)
    with IPRoute() as ipr:
        for name in {link.device, link.vlan_device, link.host_name}:
            if (index := kernel.index_of(ipr, name)) is not None:
                ipr.link("set", index=index, state="up")
    rates.put(netns, link)


def _by_index(ipr: Any, links: tuple[Link, ...]) -> dict[int, Link]:
    """Index in the namespace -> link, of those that are there."""
    return {index: link for link in links if (index := kernel.index_of(ipr, link.name)) is not None}


def switched_off(netns: str, links: tuple[Link, ...]) -> tuple[str, ...]:
    """Which of ``vlan`` and ``route`` are as ``take_down`` leaves them; routes go with links that are down."""
    with inside(netns), IPRoute() as ipr:
        there = _by_index(ipr, links)
        up = any(message["flags"] & _UP for message in ipr.get_links() if message["index"] in there)
        led = routes.lead_out(routes.read(ipr), there)
    return (*(() if up or not there else ("vlan",)), *(() if led or not there else ("route",)))


def take_down(netns: str, links: tuple[Link, ...], *, vlan: bool, route: bool) -> None:
    """Set the guest's links down, or take its routes away; ``mend`` brings both back."""
    try:
        with inside(netns), IPRoute() as ipr:
            if route:
                routes.prune(ipr, {}, on_link=True)
            if vlan:
                for index in _by_index(ipr, links):
                    ipr.link("set", index=index, state="down")
    except NetlinkError as error:
        raise VsError("the guest's links could not be changed", str(error)) from error

"""Links, addresses and routes in the kernel, by netlink. Everything here can be done twice, and undone twice."""

import errno
import ipaddress
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from vstools.errors import VsError
from vstools.files import wait_until
from vstools.guest import IDS, Interface
from vstools.network import bridges, dad, devices, routes
from vstools.network.namespace import inside, sysctl
from vstools.network.netlink import IPRoute, NetlinkError
from vstools.network.plan import Link
from vstools.paths import NAMESPACES

_GONE_PATIENCE = 10.0
GROUP = 0x7673  # "vs": marks a VLAN device as made by us from the moment it exists (``ip link show group 30323``)
_SCOPE_LINK = 253  # link-local addresses are the kernel's doing
_SILENT = {
    "net/ipv6/conf/{}/disable_ipv6": "1",
    "net/ipv4/conf/{}/arp_ignore": "8",
    "net/ipv4/conf/{}/rp_filter": "1",
    "net/ipv4/conf/{}/forwarding": "0",
}
"""The host has no address on a guest's VLAN: it answers for none of its others there and forwards nothing."""
_MACVLAN: dict[str, Any] = {"kind": "macvlan", "macvlan_mode": "bridge"}
_IPVLAN: dict[str, Any] = {"kind": "ipvlan", "ipvlan_mode": 0}  # L2, with the MAC of its device


def index_of(ipr: Any, name: str) -> int | None:
    """The index of a link of this namespace, None where there is no such link."""
    found = ipr.link_lookup(ifname=name)
    return int(found[0]) if found else None


def has_ipvlan() -> bool:
    """Whether the kernel has ipvlan: it looks for the kind of a link before it misses the device, and makes none."""
    with IPRoute() as ipr:
        try:
            ipr.link("add", ifname="vs-none", kind="ipvlan")
        except NetlinkError as error:
            return bool(error.code != errno.EOPNOTSUPP)
    return True


def host_networks() -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Every network that the host has an address in or a route to, but for the default route."""
    found = {interface.network for interface in devices.host_addresses()}
    with IPRoute() as ipr:
        for route in ipr.get_routes(family=2):
            if route["dst_len"] and (target := route.get_attr("RTA_DST")):
                found.add(ipaddress.ip_network(f"{target}/{route['dst_len']}", strict=False))
    return tuple(found)


def connect(netns: str, links: tuple[Link, ...], id_base: int) -> None:
    """Make all links of a guest in its namespace, with addresses and routes; the guest is not started yet."""
    with inside(netns):
        _namespace_settings(id_base)
        with IPRoute() as ipr:
            ipr.link("set", index=index_of(ipr, "lo"), state="up")
    for link in links:
        make(netns, link)


def make(netns: str, link: Link) -> None:
    """Make one link of a guest, with addresses and routes; one with its name on the host is replaced."""
    with _told(link):
        _make_link(netns, link)
        with inside(netns):
            _set_up(link)
        if link.rate is not None:
            from vstools.network import rates

            rates.put(netns, link)


@contextmanager
def _told(link: Link) -> Iterator[None]:
    """The kernel's error number as a sentence."""
    try:
        yield
    except NetlinkError as error:
        raise VsError(f"{link.name} on {link.vlan_device} could not be made", str(error)) from error


def _namespace_settings(id_base: int) -> None:
    """Let ordinary servers bind low ports and ping work without capabilities; take no advice from the wire."""
    sysctl("net/ipv4/ip_unprivileged_port_start", "0")
    sysctl("net/ipv4/ping_group_range", f"{id_base}\t{id_base + IDS - 1}", needed=False)
    for scope in ("all", "default"):
        for key in ("accept_ra", "autoconf", "accept_redirects"):
            sysctl(f"net/ipv6/conf/{scope}/{key}", "0", needed=False)
        for key in ("accept_redirects", "send_redirects", "secure_redirects"):
            sysctl(f"net/ipv4/conf/{scope}/{key}", "0")
    sysctl("net/ipv4/conf/all/promote_secondaries", "1")  # an address that goes takes no other one with it


def _make_link(netns: str, link: Link) -> None:
    """A veth port on a bridge, else a macvlan or ipvlan, under a name of its own; then moved into the namespace."""
    temporary = f"{link.host_name}t"
    handle = os.open(NAMESPACES / netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with IPRoute() as ipr:
            remove_links((link.host_name, temporary), ipr)
            device = index_of(ipr, link.device)
            if device is None:
                raise VsError(f"the network device {link.device} does not exist", "ip link shows those that do")
            if devices.is_bridge(link.device):
                peer = {"ifname": temporary, "address": link.mac, "net_ns_fd": handle}
                ipr.link("add", ifname=link.host_name, kind="veth", peer=peer)
                port = index_of(ipr, link.host_name)
                if link.mtu:
                    ipr.link("set", index=port, mtu=link.mtu)
                ipr.link("set", index=port, master=device)
                if link.vlan:
                    bridges.confine(ipr, int(port or 0), link.vlan)
                ipr.link("set", index=port, state="up")
            else:
                parent = _vlan(ipr, device, link) if link.vlan else device
                ipr.link("set", index=parent, state="up")
                kind = _IPVLAN if link.ipvlan else {**_MACVLAN, "address": link.mac}
                ipr.link("add", ifname=temporary, link=parent, net_ns_fd=handle, **kind)
    finally:
        os.close(handle)


def make_vlans(links: tuple[Link, ...]) -> None:
    """The devices of the VLANs that links are in, before the links: neighbours are asked for addresses there."""
    with IPRoute() as ipr:
        for link in links:
            device = index_of(ipr, link.device)
            if link.vlan and not link.member and device is not None:
                with _told(link):
                    ipr.link("set", index=_vlan(ipr, device, link), state="up")


def _vlan(ipr: Any, device: int, link: Link) -> int:
    """The index of the VLAN's own device, made where it is missing: with our group, and silent on the host's side."""
    name = link.vlan_device
    found = index_of(ipr, name)
    if found is None:
        ipr.link("set", index=device, state="up")
        ipr.link("add", ifname=name, kind="vlan", link=device, vlan_id=link.vlan, group=GROUP)
        found = index_of(ipr, name)
        if found is None:
            raise VsError(f"the VLAN device {name} could not be made")
    (message,) = ipr.get_links(found)
    if not is_vlan(message, device, link.vlan):
        raise VsError(f"{name} is not VLAN {link.vlan} of {link.device}", f"ip -d link show {name} tells what it is")
    if message.get_attr("IFLA_GROUP") == GROUP:  # each time: who made it may have been killed before this
        for key, value in _SILENT.items():
            sysctl(key.format(name), value, needed=False)
    return found


def is_vlan(message: Any, device: int, vlan: int) -> bool:
    """Whether a link is the VLAN of that number on the device with that index."""
    info = message.get_attr("IFLA_LINKINFO")
    if not info or info.get_attr("IFLA_INFO_KIND") != "vlan":
        return False
    number = info.get_attr("IFLA_INFO_DATA").get_attr("IFLA_VLAN_ID")
    return bool((message.get_attr("IFLA_LINK"), number) == (device, vlan))


def drop_vlans(names: tuple[str, ...]) -> None:
    """Delete VLAN devices that we made and that carry nothing of anybody else's: no address, no bridge or bond."""
    with IPRoute() as ipr:
        for name in names:
            index = index_of(ipr, name)
            if index is None:
                continue
            (link,) = ipr.get_links(index)
            ours = link.get_attr("IFLA_GROUP") == GROUP and link.get_attr("IFLA_MASTER") is None
            if ours and all(address["scope"] == _SCOPE_LINK for address in ipr.get_addr(index=index)):
                remove_links((name,), ipr)


def _set_up(link: Link) -> None:
    """Inside the namespace: name, MTU, addresses, routes."""
    with IPRoute() as ipr:
        index = index_of(ipr, f"{link.host_name}t")
        if index is None:
            raise VsError(f"the link {link.host_name} vanished while it was made", "try again")
        ipr.link("set", index=index, ifname=link.name)
        fill(ipr, index, link)


def fill(ipr: Any, index: int, link: Link, has: Collection[Interface] | None = None) -> None:
    """Inside the namespace: the link's settings, MTU, addresses and routes, and up.

    ``has``: the addresses of a link that was filled before; what the kernel makes once, with an address, is made again.
    """
    for key, value in (("autoconf", "0"), ("accept_ra", "1" if link.accept_ra else "0")):
        sysctl(f"net/ipv6/conf/{link.name}/{key}", value, needed=False)
    has_ipv6 = any(address.version == 6 for address in link.addresses)
    sysctl(f"net/ipv6/conf/{link.name}/disable_ipv6", "0" if has_ipv6 else "1", needed=has_ipv6)
    if has_ipv6:
        dad.hasten(link.name)
    if link.mtu:
        ipr.link("set", index=index, mtu=link.mtu)
    for address in (address for address in link.addresses if address not in (has or ())):
        net = address.network
        extra: dict[str, Any] = {"flags": dad.OPTIMISTIC}
        if net.version == 4:
            extra = {"broadcast": str(net.broadcast_address)}
        ipr.addr("add", index=index, address=str(address.ip), prefixlen=net.prefixlen, **extra)
    ipr.link("set", index=index, state="up")
    if has is not None:
        routes.connect(ipr, index, link)
    routes.install(ipr, index, link)


def disconnect(netns: str, host_names: tuple[str, ...], names: tuple[str, ...]) -> None:
    """Delete a guest's links and wait until they are gone: a namespace dies late, and its MAC stays in use."""
    if (NAMESPACES / netns).exists():
        with inside(netns):
            remove_links(names + tuple(f"{name}t" for name in host_names))
    remove_links(host_names)


def remove_links(names: tuple[str, ...], ipr: Any = None) -> None:
    """Delete links of this namespace by name where they are there, and wait until they are gone."""
    if ipr is None:
        with IPRoute() as own:
            remove_links(names, own)
        return
    for name in names:
        index = index_of(ipr, name)
        if index is None:
            continue
        with suppress(NetlinkError):
            ipr.link("del", index=index)
        if not wait_until(lambda name=name: index_of(ipr, name) is None, patience=_GONE_PATIENCE):  # type: ignore[misc]
            raise VsError(f"the link {name} cannot be deleted", "ip link may tell who holds it")

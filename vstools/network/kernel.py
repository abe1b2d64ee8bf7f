"""Links, addresses and routes in the kernel, by netlink. Everything here can be done twice, and undone twice."""

import ipaddress
import os
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from vstools import run
from vstools.errors import VsError
from vstools.files import wait_until
from vstools.guest import IDS
from vstools.libc import network_namespace
from vstools.network import routes
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


def inside(netns: str) -> AbstractContextManager[None]:
    """Be in a guest's network namespace: sockets opened and /proc/sys/net written here are the guest's."""
    return network_namespace(NAMESPACES / netns)


def make_namespace(netns: str) -> None:
    """Make the named namespace; the host owns it, so the guest's root may not change what is in it."""
    run.run(["ip", "netns", "add", netns])


def drop_namespace(netns: str) -> None:
    """Remove the namespace's name; it dies with its last process."""
    if (NAMESPACES / netns).exists():
        run.run(["ip", "netns", "delete", netns])


def index_of(ipr: Any, name: str) -> int | None:
    """The index of a link of this namespace, None where there is no such link."""
    found = ipr.link_lookup(ifname=name)
    return int(found[0]) if found else None


def is_bridge(name: str) -> bool:
    """Whether a device of this namespace is a bridge."""
    with IPRoute() as ipr:
        index = index_of(ipr, name)
        found = ipr.get_links(index) if index is not None else ()
        kinds = [info.get_attr("IFLA_INFO_KIND") for link in found if (info := link.get_attr("IFLA_LINKINFO"))]
    return "bridge" in kinds


def host_addresses() -> tuple[ipaddress.IPv4Interface | ipaddress.IPv6Interface, ...]:
    """Every address of the host, with its prefix."""
    with IPRoute() as ipr:
        return tuple(
            ipaddress.ip_interface(
                f"{message.get_attr('IFA_LOCAL') or message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}"
            )
            for message in ipr.get_addr()
        )


def host_networks() -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Every network that the host has an address in or a route to, but for the default route."""
    found = {interface.network for interface in host_addresses()}
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
    try:
        _make_link(netns, link)
        with inside(netns):
            _set_up(link)
    except NetlinkError as error:
        raise VsError(f"{link.name} on {link.vlan_device} could not be made", str(error)) from error


def _namespace_settings(id_base: int) -> None:
    """Let ordinary servers bind low ports and ping work without capabilities; take no advice from the wire."""
    _sysctl("net/ipv4/ip_unprivileged_port_start", "0")
    _sysctl("net/ipv4/ping_group_range", f"{id_base}\t{id_base + IDS - 1}", needed=False)
    for scope in ("all", "default"):
        for key in ("accept_ra", "autoconf", "accept_redirects"):
            _sysctl(f"net/ipv6/conf/{scope}/{key}", "0", needed=False)
        for key in ("accept_redirects", "send_redirects", "secure_redirects"):
            _sysctl(f"net/ipv4/conf/{scope}/{key}", "0")
    _sysctl("net/ipv4/conf/all/promote_secondaries", "1")  # an address that goes takes no other one with it


def _sysctl(key: str, value: str, *, needed: bool = True) -> None:
    """Write one kernel setting of the namespace we are in; kernels without IPv6 lack some."""
    try:
        Path("/proc/sys", key).write_text(value)
    except OSError as error:
        if needed:
            raise VsError(f"{key.replace('/', '.')} could not be set", str(error)) from error


def _make_link(netns: str, link: Link) -> None:
    """A veth port on a bridge, else a macvlan, under a name no other guest has; then moved into the namespace."""
    temporary = f"{link.host_name}t"
    handle = os.open(NAMESPACES / netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with IPRoute() as ipr:
            remove_links((link.host_name, temporary), ipr)
            device = index_of(ipr, link.device)
            if device is None:
                raise VsError(f"the network device {link.device} does not exist", "ip link shows those that do")
            if is_bridge(link.device):
                peer = {"ifname": temporary, "address": link.mac, "net_ns_fd": handle}
                ipr.link("add", ifname=link.host_name, kind="veth", peer=peer)
                port = index_of(ipr, link.host_name)
                if link.mtu:
                    ipr.link("set", index=port, mtu=link.mtu)
                ipr.link("set", index=port, master=device, state="up")
            else:
                parent = _vlan(ipr, device, link) if link.vlan else device
                ipr.link("set", index=parent, state="up")
                ipr.link(
                    "add",
                    ifname=temporary,
                    kind="macvlan",
                    link=parent,
                    macvlan_mode="bridge",
                    address=link.mac,
                    net_ns_fd=handle,
                )
    finally:
        os.close(handle)


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
        for key, value in _SILENT.items():
            _sysctl(key.format(name), value, needed=False)
    return found


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


def fill(ipr: Any, index: int, link: Link, *, again: bool = False) -> None:
    """Inside the namespace: the link's settings, MTU, addresses and routes, and up; what is there already stays.

    ``again``: it was filled before, and somebody may have taken away what the kernel makes of itself only once.
    """
    for key in ("accept_ra", "autoconf"):
        _sysctl(f"net/ipv6/conf/{link.name}/{key}", "0", needed=False)
    has_ipv6 = any(address.version == 6 for address in link.addresses)
    _sysctl(f"net/ipv6/conf/{link.name}/disable_ipv6", "0" if has_ipv6 else "1", needed=has_ipv6)
    if link.mtu:
        ipr.link("set", index=index, mtu=link.mtu)
    for address in link.addresses:
        extra = {"broadcast": str(address.network.broadcast_address)} if address.version == 4 else {}
        ipr.addr("replace", index=index, address=str(address.ip), prefixlen=address.network.prefixlen, **extra)
    ipr.link("set", index=index, state="up")
    if again:
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

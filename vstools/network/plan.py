"""Pure decisions: which links, addresses and routes a guest gets, from its directory and networks.conf.

networks.conf wins over create.conf, what was given for the guest on the command line wins over both.
"""

import ipaddress
from dataclasses import dataclass, replace

from vstools.config.create import CreateConf
from vstools.config.networks import IpNetwork, Network, Networks
from vstools.errors import Refused
from vstools.guest import Address, Guest, Interface, Names, NetRate, Nic

TABLES = range(1000, 2000)
"""Routing tables of ours; below are the kernel's own (253-255) and the small numbers that people like."""


@dataclass(frozen=True)
class Route:
    """The default route of a network: what the addresses in ``net`` send to anywhere else goes to ``gateway``.

    ``main``: it is the main table's as well, for all that has no source yet; the first of each family. ``table``: the
    routing table of this network alone, None where the guest has no other default route of the family.
    """

    net: IpNetwork
    gateway: Address
    main: bool = True
    table: int | None = None


@dataclass(frozen=True)
class Link:
    """One link of a guest: ``name`` inside, ``host_name`` on the host; addresses with the same device and VLAN.

    ``member``: the VLAN's link is a port of a bridge that filters VLANs, and needs no device of the VLAN's own. The
    kernel tells (``devices.resolve``), no file. ``ipvlan``: on a device that is no bridge, the link is an ipvlan and
    has the device's MAC instead of ``mac``. ``accept_ra``: its default route comes from routers' advertisements.
    ``rate``: what may pass, of this link alone.
    """

    name: str
    host_name: str
    device: str
    vlan: int
    mac: str
    mtu: int | None
    addresses: tuple[Interface, ...]
    routes: tuple[Route, ...] = ()
    member: bool = False
    ipvlan: bool = False
    accept_ra: bool = False
    rate: NetRate | None = None

    def route_of(self, address: Address) -> Route | None:
        """The default route for packets from an address; None where its network has no gateway."""
        return next((route for route in self.routes if address in route.net), None)

    @property
    def vlan_device(self) -> str:
        """The device that carries the link: the VLAN's own, ``DEV.ID``, where the link is tagged."""
        if not self.vlan or self.member:
            return self.device
        name = f"{self.device}.{self.vlan}"
        return name if len(name) <= 15 else f"vs-vlan{self.vlan}"


def netns(context: int) -> str:
    """The name of a guest's network namespace."""
    return f"vs{context}"


def links(guest: Guest, networks: Networks, conf: CreateConf) -> tuple[Link, ...]:
    """The guest's links, eth0 first; raises Refused when an address has no prefix or no device."""
    groups: dict[tuple[str, int], list[tuple[Nic, Network | None]]] = {}
    for nic in guest.nics:
        if nic.disabled:
            continue
        network = networks.of(nic.address)
        device = nic.device or conf.device
        if device is None:
            raise Refused(f"no network device for {nic.address}", "set DEFAULT_DEVICE in create.conf, or give --device")
        groups.setdefault((device, network.vlan if network else 0), []).append((nic, network))
    return _with_tables(
        tuple(
            _link(guest, index, device, vlan, members, conf)
            for index, ((device, vlan), members) in enumerate(groups.items())
        )
    )


def _with_tables(found: tuple[Link, ...]) -> tuple[Link, ...]:
    """The links with their routes told apart: which is the main table's, and who needs a table of its own."""
    routes = [route for link in found for route in link.routes]
    families = [route.gateway.version for route in routes]
    decided = iter(
        replace(
            route,
            main=families.index(family) == index,
            table=TABLES[index] if families.count(family) > 1 else None,
        )
        for index, (route, family) in enumerate(zip(routes, families, strict=True))
    )
    return tuple(replace(link, routes=tuple(next(decided) for _ in link.routes)) for link in found)


def _link(
    guest: Guest, index: int, device: str, vlan: int, members: list[tuple[Nic, Network | None]], conf: CreateConf
) -> Link:
    routes = [Route(network.net, network.gateway) for _, network in members if network and network.gateway]
    return Link(
        name=f"eth{index}",
        host_name=f"vs{guest.context}.{index}",
        device=device,
        vlan=vlan,
        mac=next((nic.mac for nic, _ in members if nic.mac), _mac_of(guest.context, index)),
        mtu=conf.mtu,
        addresses=tuple(interface(nic, network, conf) for nic, network in members),
        routes=tuple(dict.fromkeys(routes)),
        ipvlan=conf.link == "ipvlan",
        accept_ra=any(nic.accept_ra for nic, _ in members),
        rate=guest.limits.net_rate,
    )


def _mac_of(context: int, index: int) -> str:
    """For a guest that came without one: locally administered, the same at each start."""
    return f"02:76:73:{context >> 8:02x}:{context & 255:02x}:{index & 255:02x}"


def interface(nic: Nic, network: Network | None, conf: CreateConf) -> Interface:
    """The address with its prefix; raises Refused when nothing tells the prefix."""
    prefix = nic.prefix or (network.net.prefixlen if network else conf.prefix)
    if prefix is not None and prefix > nic.address.max_prefixlen:
        raise Refused(f"/{prefix} is no prefix length for {nic.address}", f"it is at most {nic.address.max_prefixlen}")
    if prefix is None:
        raise Refused(f"{nic.address} is in no network of networks.conf", "add a line for it, or give --prefix")
    return ipaddress.ip_interface(f"{nic.address}/{prefix}")


def names(guest: Guest, networks: Networks, conf: CreateConf) -> Names:
    """The guest's domain and name servers: its own, else those of its first network that has some, else the host's."""
    lines = [line for nic in guest.nics if not nic.disabled and (line := networks.of(nic.address))]
    domain = guest.domain or next((line.domain for line in lines if line.domain), conf.domain)
    servers = guest.nameservers or next((line.nameservers for line in lines if line.nameservers), conf.nameservers)
    return Names(domain, servers)


def check_address(address: Address, net: Interface, gateway: Address | None) -> None:
    """Raise Refused when a guest cannot have ``address`` in its network."""
    if address.is_multicast or address.is_loopback or address.is_unspecified or address.is_link_local:
        raise Refused(f"{address} cannot be a guest's address", "it is multicast, loopback, link-local or unspecified")
    network = net.network
    if network.prefixlen < network.max_prefixlen - 1:
        if address == network.network_address:
            raise Refused(f"{address} is the address of the network {network} itself", "choose another address")
        if address.version == 4 and address == network.broadcast_address:
            raise Refused(f"{address} is the broadcast address of {network}", "choose another address")
    if address == gateway:
        raise Refused(f"{address} is the gateway of {network}", "choose another address")

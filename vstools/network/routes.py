"""Routes and rules in a guest's namespace: by which gateway the packets from each of its addresses leave.

Where a guest has several default routes of a family, each network has a table of its own, with its on-link route and
its gateway, and a rule that sends the packets from its addresses there (``man 8 ip-rule``). So answers go back the way
that the questions came, and no router sees addresses that do not belong to its side.
"""

import errno
import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vstools.config.networks import IpNetwork
from vstools.guest import Address, Interface
from vstools.network.netlink import NetlinkError
from vstools.network.plan import TABLES, Link, Route

Rule = tuple[IpNetwork, int]
"""Source and table."""
_FAMILIES = {4: 2, 6: 10}  # AF_INET, AF_INET6
_ANY: dict[int, IpNetwork] = {4: ipaddress.IPv4Network("0.0.0.0/0"), 6: ipaddress.IPv6Network("::/0")}
_MAIN = 254
_LOCAL = 255  # the kernel's table of the own addresses
_KERNEL = 2  # RTPROT_KERNEL
_ANY_SCOPE = 255  # RT_SCOPE_NOWHERE: in a request to delete, any
_LINK = 253  # RT_SCOPE_LINK: reached without a gateway


def install(ipr: Any, index: int, link: Link) -> None:
    """Inside the namespace, the link being up: its default routes, and where they need it their tables and rules."""
    for route in link.routes:
        family = _FAMILIES[route.gateway.version]
        way = {"dst": "default", "gateway": str(route.gateway), "oif": index, "family": family}
        if route.main:
            _main(ipr, way, link, route)
        if route.table is None:
            continue
        for net in dict.fromkeys(address.network for address in link.addresses if address.ip in route.net):
            if not _is_single(net):
                ipr.route("replace", dst=str(net), oif=index, family=family, table=route.table, scope=_LINK)
        ipr.route("replace", **way, table=route.table)
        _rule(ipr, family, route.net, route.table)


def _main(ipr: Any, way: dict[str, Any], link: Link, route: Route) -> None:
    """The main table's default route. IPv6 would choose any of the guest's addresses for it: it gets its network's."""
    own = next((address.ip for address in link.addresses if address.ip in route.net), None)
    if route.table is not None and own is not None and own.version == 6:
        try:
            ipr.route("replace", **way, prefsrc=str(own))
        except NetlinkError as error:
            if error.code != errno.EINVAL:  # the kernel knows no optimistic addresses: it is none yet
                raise
        else:
            return
    ipr.route("replace", **way)


def connect(ipr: Any, index: int, link: Link) -> None:
    """Put back the main table's routes to the networks of the link's addresses, as the kernel makes them."""
    sources = {address.network: address for address in reversed(link.addresses) if not _is_single(address.network)}
    for net, address in sources.items():
        way = {"prefsrc": str(address.ip), "scope": _LINK} if net.version == 4 else {}
        ipr.route("replace", dst=str(net), oif=index, family=_FAMILIES[net.version], proto=_KERNEL, **way)


def prune(ipr: Any, links: dict[int, Link], *, on_link: bool = False) -> None:
    """Delete the default routes, tables and rules that do not belong to ``links`` (by index in the namespace).

    With ``on_link`` the main table's routes to the networks of addresses go, too.
    """
    ways = read(ipr)
    routes, rules = _wanted(links)
    for table, net, index, gateway in sorted(ways.routes - routes, key=str):
        ours = table in TABLES or (table == _MAIN and not net.prefixlen and not _advised(links, index, gateway))
        if ours or (on_link and table == _MAIN and gateway is None and not net.is_multicast and not net.is_link_local):
            way: dict[str, Any] = {"gateway": str(gateway)} if gateway else {}
            if net.version == 4:
                way["scope"] = _ANY_SCOPE
            with suppress_gone():
                family = _FAMILIES[net.version]
                ipr.route("del", dst=str(net), oif=index, family=family, table=table, proto=0, type=0, **way)
    for source, table in ways.rules:
        if table in TABLES and (source, table) not in rules:
            at, family = str(source.network_address), _FAMILIES[source.version]
            with suppress_gone():
                ipr.rule("del", family=family, src=at, src_len=source.prefixlen, table=table, priority=table)


def lead_out(ways: "Ways", links: dict[int, Link]) -> bool:
    """Whether one of the links has a route to a network, or a default route."""
    return any(
        index in links and (table == _MAIN or table in TABLES) and not (net.is_multicast or net.is_link_local)
        for table, net, index, _ in ways.routes
    )


@contextmanager
def suppress_gone() -> Iterator[None]:
    """What is gone already need not be deleted."""
    try:
        yield
    except NetlinkError as error:
        if error.code not in (errno.ESRCH, errno.ENOENT, errno.EADDRNOTAVAIL):
            raise


def _wanted(links: dict[int, Link]) -> "tuple[set[tuple[int, IpNetwork, int | None, Address | None]], set[Rule]]":
    """The routes and rules that ``install`` makes."""
    routes: set[tuple[int, IpNetwork, int | None, Address | None]] = set()
    rules: set[Rule] = set()
    for index, link in links.items():
        for route in link.routes:
            whole = _ANY[route.gateway.version]
            if route.main:
                routes.add((_MAIN, whole, index, route.gateway))
            if route.table is not None:
                nets = (address.network for address in link.addresses if address.ip in route.net)
                routes |= {(route.table, net, index, None) for net in nets if not _is_single(net)}
                routes.add((route.table, whole, index, route.gateway))
                rules.add((route.net, route.table))
    return routes, rules


def _advised(links: dict[int, Link], index: int | None, gateway: Address | None) -> bool:
    """Whether a default route may come from a router's advertisement, whose sender is always link-local."""
    link = links.get(index) if index is not None else None
    return link is not None and link.accept_ra and gateway is not None and gateway.is_link_local


def strays(ways: "Ways", links: dict[int, Link]) -> list[str]:
    """In words, the default routes, tables and rules that ``prune`` would delete."""
    routes, rules = _wanted(links)
    found = [
        f"the route to {net} in table {table}" if net.prefixlen else f"the default route by {gateway}"
        for table, net, index, gateway in ways.routes - routes
        if table in TABLES or (table == _MAIN and not net.prefixlen and not _advised(links, index, gateway))
    ]
    return found + [
        f"the rule for packets from {net}" for net, table in ways.rules if table in TABLES and (net, table) not in rules
    ]


def _rule(ipr: Any, family: int, net: IpNetwork, table: int) -> None:
    try:
        ipr.rule("add", family=family, src=str(net.network_address), src_len=net.prefixlen, table=table, priority=table)
    except NetlinkError as error:
        if error.code != errno.EEXIST:  # it is there: nothing to do
            raise


def _is_single(net: IpNetwork) -> bool:
    """Whether it is one address: there is no network to be routed to then."""
    return net.prefixlen == net.max_prefixlen


@dataclass(frozen=True)
class Ways:
    """What the kernel of one namespace knows.

    ``routes``: (table, destination, index of the link, gateway); ``rules``: (source, table), in the order in which the
    kernel asks them.
    """

    routes: frozenset[tuple[int, IpNetwork, int | None, Address | None]]
    rules: tuple[Rule, ...]

    def lead(self, interface: Interface, index: int, route: Route | None) -> bool:
        """Whether packets from an address find its network on the link, and its gateway where it has a ``route``."""
        net = interface.network
        on_link = _is_single(net) or (
            (_MAIN, net, index, None) in self.routes and self._first(interface, net) == (index, None)
        )
        return on_link and (route is None or self._first(interface) == (index, route.gateway))

    def _first(self, source: Interface, net: IpNetwork | None = None) -> tuple[int | None, Address | None] | None:
        """Which way packets from ``source`` leave, (link, gateway): into ``net``, without it by the default route."""
        wanted = [_ANY[source.version]] if net is None else [net, _ANY[source.version]]
        for table in (table for origin, table in self.rules if source.ip in origin and table != _LOCAL):
            for target in wanted:
                for where, destination, index, gateway in self.routes:
                    if (where, destination) == (table, target):
                        return index, gateway
        return None


def read(ipr: Any) -> Ways:
    """Ask the kernel, inside the namespace."""
    routes, rules = [], []
    for version, family in _FAMILIES.items():
        for message in ipr.get_routes(family=family):
            net = _net(version, message.get_attr("RTA_DST"), message["dst_len"])
            gateway = message.get_attr("RTA_GATEWAY")
            table = message.get_attr("RTA_TABLE") or message["table"]
            routes.append((table, net, message.get_attr("RTA_OIF"), gateway and ipaddress.ip_address(gateway)))
        for message in ipr.get_rules(family=family):
            source = _net(version, message.get_attr("FRA_SRC"), message["src_len"])
            priority = message.get_attr("FRA_PRIORITY") or 0
            rules.append((priority, source, message.get_attr("FRA_TABLE") or message["table"]))
    ordered = sorted(rules, key=lambda rule: rule[0])
    return Ways(frozenset(routes), tuple((source, table) for _, source, table in ordered))


def _net(version: int, address: str | None, prefix: int) -> IpNetwork:
    return ipaddress.ip_network((address or str(_ANY[version].network_address), prefix), strict=False)

"""Routes and rules in a guest's namespace: by which gateway the packets from each of its addresses leave.

Where a guest has several default routes of a family, each network has a table of its own, with its on-link route and
its gateway, and a rule that sends the packets from its addresses there (``man 8 ip-rule``). So answers go back the way
that the questions came, and no router sees addresses that do not belong to its side.
"""

import errno
import ipaddress
from dataclasses import dataclass
from typing import Any

from vstools.config.networks import IpNetwork
from vstools.guest import Address, Interface
from vstools.network.netlink import NetlinkError
from vstools.network.plan import Link, Route

_FAMILIES = {4: 2, 6: 10}  # AF_INET, AF_INET6
_ANY: dict[int, IpNetwork] = {4: ipaddress.IPv4Network("0.0.0.0/0"), 6: ipaddress.IPv6Network("::/0")}
_MAIN = 254
_LOCAL = 255  # the kernel's table of the own addresses
_LINK = 253  # RT_SCOPE_LINK: reached without a gateway


def install(ipr: Any, index: int, link: Link) -> None:
    """Inside the namespace, the link being up: its default routes, and where they need it their tables and rules."""
    for route in link.routes:
        family = _FAMILIES[route.gateway.version]
        way = {"dst": "default", "gateway": str(route.gateway), "oif": index, "family": family}
        if route.main:
            ipr.route("replace", **way)
        if route.table is None:
            continue
        for net in dict.fromkeys(address.network for address in link.addresses if address.ip in route.net):
            if not _is_single(net):
                ipr.route("replace", dst=str(net), oif=index, family=family, table=route.table, scope=_LINK)
        ipr.route("replace", **way, table=route.table)
        _rule(ipr, family, route.net, route.table)


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
    rules: tuple[tuple[IpNetwork, int], ...]

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

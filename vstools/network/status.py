"""What a guest's network namespace holds: read from the kernel, never from what we believe."""

import ipaddress
import json
from dataclasses import dataclass
from typing import Any

from vstools import run
from vstools.guest import Address
from vstools.network import kernel
from vstools.network.firewall import HOOKS, TABLE
from vstools.network.netlink import IPRoute
from vstools.network.plan import Interface, Link

_UP = 1  # IFF_UP
_VERDICTS = ("accept", "drop")


@dataclass(frozen=True)
class State:
    """One address of a guest."""

    address: Address
    vlan: bool = False
    route: bool = False


@dataclass(frozen=True)
class LiveRule:
    """One rule of the kernel's with its counter; ``place`` is the line of the file that it comes from."""

    chain: str
    packets: int
    bytes: int
    verdict: str
    match: str
    place: str


def addresses(netns: str) -> tuple[Interface, ...]:
    """The addresses of a guest, but for loopback and link-local ones."""
    return tuple(address for _, address in _addresses(netns))


def _addresses(netns: str) -> list[tuple[int, Interface]]:
    """(index of the link, address) of each."""
    with kernel.inside(netns), IPRoute() as ipr:
        found = [
            (message["index"], ipaddress.ip_interface(f"{_local(message)}/{message['prefixlen']}"))
            for message in ipr.get_addr()
        ]
    return [(index, address) for index, address in found if not address.is_loopback and not address.is_link_local]


def _local(message: Any) -> str:
    return str(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))


def state(netns: str, links: tuple[Link, ...]) -> tuple[State, ...]:
    """Each address that the kernel or ``links`` (what the files say) knows; one the kernel has not is down."""
    there = {address.ip: (index, address) for index, address in _addresses(netns)}
    with kernel.inside(netns), IPRoute() as ipr:
        up = {link["index"]: bool(link["flags"] & _UP) for link in ipr.get_links()}
        routes = [_route(route) for family in (2, 10) for route in ipr.get_routes(family=family, table=254)]
    planned = {address.ip: link for link in links for address in link.addresses}
    bearers = _bearers(links)
    found = []
    for address in dict.fromkeys((*planned, *there)):
        if address not in there:
            found.append(State(address))
            continue
        index, interface = there[address]
        link = planned.get(address)
        wanted = {interface.network}
        if link is not None and bearers.get(address.version) == link:
            wanted.add(ipaddress.ip_network("0.0.0.0/0" if address.version == 4 else "::/0"))
        single = interface.network.prefixlen == address.max_prefixlen  # it has no network to be routed to
        routed = all((net, index) in routes for net in wanted if not (single and net == interface.network))
        found.append(State(address, up.get(index, False) and _vlan_is_up(link), routed))
    return tuple(found)


def _bearers(links: tuple[Link, ...]) -> dict[int, Link]:
    """Family -> the link that has its default route: the first one with a gateway."""
    found: dict[int, Link] = {}
    for link in links:
        for gateway in link.gateways:
            found.setdefault(gateway.version, link)
    return found


def _route(route: Any) -> tuple[Any, int | None]:
    default = "0.0.0.0" if route["family"] == 2 else "::"  # noqa: S104 - the start of a network
    net = ipaddress.ip_network(f"{route.get_attr('RTA_DST') or default}/{route['dst_len']}", strict=False)
    return net, route.get_attr("RTA_OIF")


def _vlan_is_up(link: Link | None) -> bool:
    """Whether the host's device for the VLAN of a tagged link is up."""
    if link is None or not link.vlan:
        return True
    with IPRoute() as ipr:
        index = kernel.index_of(ipr, link.vlan_device)
        return index is not None and any(found["flags"] & _UP for found in ipr.get_links(index))


def firewall(netns: str) -> dict[str, bool]:
    """Base chain -> whether the kernel filters there by a file's rules: the chain drops, and leads to them."""
    found = _table(netns)
    chains = {entry["chain"]["name"]: entry["chain"] for entry in found if "chain" in entry}
    rules = [entry["rule"] for entry in found if "rule" in entry]
    up = {}
    for hook, word in HOOKS.items():
        chain = chains.get(hook, {})
        leads = any(rule["chain"] == hook and {"goto": {"target": f"{word}_all"}} in rule["expr"] for rule in rules)
        holds = any(rule["chain"] == f"{word}_all" for rule in rules)
        up[hook] = chain.get("hook") == hook and chain.get("policy") == "drop" and leads and holds
    return up


def rules(netns: str) -> tuple[LiveRule, ...]:
    """The rules that decide, in the kernel's order, with their counters."""
    found = []
    for rule in (entry["rule"] for entry in _table(netns) if "rule" in entry):
        counter = next((part["counter"] for part in rule["expr"] if "counter" in part), None)
        verdict = next((word for word in _VERDICTS for part in rule["expr"] if word in part), None)
        if counter is None or verdict is None:
            continue  # it leads to another chain
        match = " ".join(_match(part["match"]) for part in rule["expr"] if "match" in part)
        comment = rule.get("comment", "")
        found.append(LiveRule(rule["chain"], counter["packets"], counter["bytes"], verdict, match or "all", comment))
    return tuple(found)


def _table(netns: str) -> list[dict[str, Any]]:
    """The entries of our table as ``nft -j`` has them (``man 5 libnftables-json``); none where there is no table."""
    with kernel.inside(netns):
        said = run.run(["nft", "-j", "list", "ruleset"]).out
    entries: list[dict[str, Any]] = json.loads(said)["nftables"]
    return [entry for entry in entries if any(body.get("table", body.get("name")) == TABLE for body in entry.values())]


def _match(match: dict[str, Any]) -> str:
    """A match as nft would write it."""
    left, right, sign = match["left"], match["right"], "" if match["op"] in ("==", "in") else f"{match['op']} "
    ((kind, words),) = left.items()
    field = f"{words['protocol']} {words['field']}" if kind == "payload" else f"{kind} {words['key']}"
    return f"{field} {sign}{_value(right)}"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_value, value))
    if not isinstance(value, dict):
        return str(value)
    ((kind, parts),) = value.items()
    if kind == "range":
        return "-".join(map(str, parts))
    if kind == "prefix":
        return f"{parts['addr']}/{parts['len']}"
    return f"{{ {', '.join(map(_value, parts))} }}"

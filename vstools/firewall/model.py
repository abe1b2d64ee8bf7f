"""What becomes of a guest's packets, as data: chains of entries that every back end gives to the kernel in its words.

A packet's other end is looked at first. Addresses of the host, and those that reach it as well (link-local, multicast,
broadcast), are matched only by rules that name them; everything else by all rules. In both cases the first rule wins.

A window lets a guest open connections to a few places for a while, whatever its rules say. The kernel keeps the time:
what the window lets through says until when, and connections that were opened through it bear a mark by which
they are told from others that are established.
"""

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from vstools.config.firewall import Policy, Rule, Service
from vstools.config.networks import IpNetwork
from vstools.guest import Address, Interface

HOOKS = {"input": "from", "output": "to"}
"""Base chain -> the word of firewall.conf for its direction; ``from_all`` and ``to_all`` hold a file's rules."""
ACCEPT, DROP = "accept", "drop"
WINDOW = "a window for packages"
_GOING_ON = ("established", "related")
TCP, ICMP6 = 6, 58
MARK = 1 << 31
"""The bit of the conntrack mark that connections bear which a window opened; the others say which window."""
_SOLICITATION, _ADVERTISEMENT = 133, 134  # of routers (RFC 4861)
_NEIGHBOURS = (135, 136)  # neighbour solicitation and advertisement (RFC 4861)
_ALSO_HOST = tuple(ipaddress.ip_network(net) for net in (
    "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32", "fe80::/10", "ff00::/8",
))  # fmt: skip


@dataclass(frozen=True)
class Match:
    """Which packets an entry is about; a field that is empty matches all.

    ``nets`` are of the one ``family`` (4 or 6), and are the packet's source where ``source`` is true, else its
    destination. ``spans`` are ranges of destination ports or ICMP types, in order and apart. ``iif`` and ``oif`` name
    the link that it comes by or leaves by. ``marked`` is its connection's mark, 0 for none of a window's. ``since`` and
    ``until`` are times in seconds since 1970: nothing matches before the one, and from the other on.
    """

    family: int | None = None
    nets: tuple[IpNetwork, ...] = ()
    source: bool = False
    protocol: int | None = None
    spans: tuple[tuple[int, int], ...] = ()
    states: tuple[str, ...] = ()
    hop_limit: int | None = None
    iif: str = ""
    oif: str = ""
    marked: int | None = None
    since: int | None = None
    until: int | None = None


@dataclass(frozen=True)
class Entry:
    """One rule: ``verdict`` is accept, drop or the chain where it goes on; ``reason`` says whose decision that is.

    With ``marks``, the packet's connection bears that mark from then on.
    """

    match: Match
    verdict: str
    reason: str = ""
    marks: int = 0


Chains = dict[str, tuple[Entry, ...]]
"""Base chains ``input``, ``output`` and ``forward``, which drop what gets to their end, and those they lead to."""


def chains(policy: Policy, own: Iterable[Interface], host: Iterable[Address], *, up: bool = True) -> Chains:
    """The chains for a guest with the addresses ``own`` on a host with the addresses ``host``.

    Without ``up``, or where the policy is disabled, everything passes but what is forged and what is the host's.
    """
    own, up = tuple(own), up and policy.enabled
    guarded = tuple(_per_family((*_ALSO_HOST, *broadcasts(own), *map(ipaddress.ip_network, host))))
    mine = tuple(_per_family(ipaddress.ip_network(interface.ip) for interface in own))
    found: Chains = {"forward": (Entry(Match(), DROP, "a guest is no router"),)}
    for hook, word in HOOKS.items():
        incoming = hook == "input"
        found[hook] = (*_always(policy.advised, incoming=incoming), *_ends(mine, incoming=incoming, up=up))
        found[f"{word}_known"] = (
            Entry(Match(states=_GOING_ON, marked=0), ACCEPT, "established"),
            Entry(Match(states=("invalid",)), DROP, "invalid"),
            *(Entry(_end(nets, source=incoming), f"{word}_host") for nets in guarded),
            Entry(Match(), f"{word}_all") if up else Entry(Match(), ACCEPT, "no firewall"),
        )
        begun = [rule for rule in policy.rules if rule.incoming == incoming]
        isolated = Entry(Match(), DROP, "the host is isolated")
        found[f"{word}_host"] = (*(entry for rule in begun for entry in _named(rule, guarded)), isolated)
        last = Entry(Match(), DROP, "no rule allows it")
        found[f"{word}_all"] = (*(entry for rule in begun for entry in _entries(rule, rule.nets)), last) if up else ()
    return found


def unmarked(filters: Chains) -> Chains:
    """The same for a kernel that keeps no marks of connections, and where no window can be opened therefore."""
    return {
        chain: tuple(replace(entry, match=replace(entry.match, marked=None)) for entry in entries)
        for chain, entries in filters.items()
    }


def window(ends: Iterable[tuple[Address, int]], since: int, until: int) -> Chains:
    """What goes before the entries of these chains while a window is open: two times in seconds since 1970.

    A clock that is put back before ``since`` closes it, too. It leads to ``ends``, pairs of an address and a TCP port;
    what it opened passes both ways. Each window has a mark of its own: what an earlier one opened is not accepted
    again.
    """
    mark = MARK | until % MARK
    going_on = Entry(Match(states=_GOING_ON, marked=mark, since=since, until=until), ACCEPT, WINDOW)
    new = Match(protocol=TCP, states=("new",), since=since, until=until)
    opened = []
    for address, port in ends:
        end = _end((ipaddress.ip_network(address),), source=False)
        match = replace(new, family=end.family, nets=end.nets, spans=((port, port),))
        opened.append(Entry(match, ACCEPT, WINDOW, marks=mark))
    return {"from_known": (going_on,), "to_known": (going_on, *opened)}


def broadcasts(own: Iterable[Interface]) -> Iterator[IpNetwork]:
    """The broadcast addresses of the guest's networks."""
    for address in own:
        if address.version == 4 and address.network.prefixlen < 31:
            yield ipaddress.ip_network(address.network.broadcast_address)


def _per_family(nets: Iterable[IpNetwork]) -> Iterator[tuple[IpNetwork, ...]]:
    """The networks of each family that has some, without what others contain."""
    nets = tuple(nets)
    v4 = tuple(ipaddress.collapse_addresses(net for net in nets if isinstance(net, ipaddress.IPv4Network)))
    v6 = tuple(ipaddress.collapse_addresses(net for net in nets if isinstance(net, ipaddress.IPv6Network)))
    yield from (found for found in (v4, v6) if found)


def _always(advised: tuple[str, ...], *, incoming: bool) -> Iterator[Entry]:
    yield Entry(Match(iif="lo") if incoming else Match(oif="lo"), ACCEPT, "loopback")
    yield Entry(Match(family=6, protocol=ICMP6, spans=(_NEIGHBOURS,), hop_limit=255), ACCEPT, "neighbour discovery")
    kind = ((_ADVERTISEMENT, _ADVERTISEMENT),) if incoming else ((_SOLICITATION, _SOLICITATION),)
    for link in advised:
        match = Match(family=6, protocol=ICMP6, spans=kind, hop_limit=255)
        yield Entry(replace(match, iif=link) if incoming else replace(match, oif=link), ACCEPT, "router discovery")


def _ends(mine: tuple[tuple[IpNetwork, ...], ...], *, incoming: bool, up: bool) -> Iterator[Entry]:
    """Only a liar sends from the wire with the guest's own address, or from the guest with another's."""
    if incoming:
        yield from (Entry(_end(nets, source=True), DROP, "a forged address") for nets in mine)
        yield from (Entry(_end(nets, source=False), "from_known") for nets in mine)
        yield Entry(Match(), DROP, "not an address of the guest") if up else Entry(Match(), "from_known")
    else:
        yield from (Entry(_end(nets, source=True), "to_known") for nets in mine)
        yield Entry(Match(), DROP, "a forged address")


def _end(nets: tuple[IpNetwork, ...], *, source: bool) -> Match:
    """A match on one end of the packet; a family as a whole is matched without an address."""
    family = nets[0].version
    return Match(family, () if any(not net.prefixlen for net in nets) else nets, source)


def _named(rule: Rule, guarded: tuple[tuple[IpNetwork, ...], ...]) -> Iterator[Entry]:
    """The entries for the addresses that a rule names one by one, as far as they are the host's."""
    others = tuple(other for nets in guarded for other in nets)
    single = (net for net in rule.nets if net.prefixlen == net.max_prefixlen)
    yield from _entries(rule, (net for net in single if any(net.network_address in other for other in others)))


def _entries(rule: Rule, nets: Iterable[IpNetwork]) -> Iterator[Entry]:
    """One entry for each family and protocol of a rule of the file."""
    for some in _per_family(nets):
        end = _end(some, source=rule.incoming)
        services = tuple(service for service in rule.services if service.family in (None, end.family))
        for protocol, spans in _services(services):
            match = Match(end.family, end.nets, end.source, protocol, spans)
            yield Entry(match, ACCEPT if rule.allow else DROP, rule.place)


def _services(services: tuple[Service, ...]) -> Iterator[tuple[int | None, tuple[tuple[int, int], ...]]]:
    """(protocol, spans) of each protocol; no protocol where all are meant."""
    if any(service.protocol is None for service in services):
        yield None, ()
        return
    whole = {service.protocol for service in services if service.low is None}
    for protocol in dict.fromkeys(service.protocol for service in services):
        spans = ((service.low, service.high) for service in services if service.protocol == protocol)
        yield protocol, () if protocol in whole else tuple(_merged(spans))


def _merged(spans: Iterable[tuple[int | None, int | None]]) -> Iterator[tuple[int, int]]:
    """The ranges in order, those that touch or overlap as one."""
    numbers = sorted((low or 0, high or 0) for low, high in spans)
    low, high = numbers[0]
    for first, last in [*numbers[1:], (1 << 20, 1 << 20)]:
        if first > high + 1:
            yield low, high
            low, high = first, last
        high = max(high, last)

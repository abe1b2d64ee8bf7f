"""A guest's packet filter: rules in the guest's own network namespace, which the host owns.

``ruleset`` is the pure part: the text of one nftables table. ``load`` gives it to the kernel in one transaction. The
base chains stay hooked and only their rules are exchanged, so no packet passes that both rulesets refuse, and none is
lost that both accept.

A packet's other end is looked at first. Addresses of the host, and those that reach it as well (link-local, multicast,
broadcast), are matched only by rules that name them; everything else by all rules. In both cases the first rule wins.
"""

import ipaddress
from collections.abc import Iterable, Iterator

from vstools import run
from vstools.config.firewall import Policy, Rule, Service
from vstools.config.networks import IpNetwork
from vstools.guest import Address
from vstools.network.plan import Interface

TABLE = "vs"
HOOKS = {"input": "from", "output": "to"}
"""Base chain -> the word of firewall.conf for its direction; ``from_all`` and ``to_all`` hold a file's rules."""
_COMMENT_MAX = 120  # the kernel's userdata has room for 128 bytes
_ALSO_HOST = tuple(ipaddress.ip_network(net) for net in (
    "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32", "fe80::/10", "ff00::/8",
))  # fmt: skip
_FRAME = """\
table inet {table} {{
    chain input {{ type filter hook input priority filter; policy drop; }}
    chain output {{ type filter hook output priority filter; policy drop; }}
    chain forward {{ type filter hook forward priority filter; policy drop; }}
    chain from_host {{ }}
    chain from_all {{ }}
    chain to_host {{ }}
    chain to_all {{ }}
}}
flush table inet {table}
"""
_NEIGHBOURS = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255"


def ruleset(policy: Policy, own: Iterable[Interface], host: Iterable[Address], *, up: bool = True) -> str:
    """The text for ``nft -f``: the policy for a guest with the addresses ``own`` on a host with ``host``.

    Without ``up``, or where the policy is disabled, everything passes but what is forged and what is the host's.
    """
    own, up = tuple(own), up and policy.enabled
    guarded = (*_ALSO_HOST, *_broadcasts(own), *(ipaddress.ip_network(address) for address in host))
    text = _FRAME.format(table=TABLE)
    for chain, rules in _chains(policy, tuple(ipaddress.ip_network(address.ip) for address in own), guarded, up=up):
        body = "".join(f"        {rule}\n" for rule in rules)
        text += f"table inet {TABLE} {{\n    chain {chain} {{\n{body}    }}\n}}\n"
    return text


def _broadcasts(own: tuple[Interface, ...]) -> Iterator[IpNetwork]:
    for address in own:
        if address.version == 4 and address.network.prefixlen < 31:
            yield ipaddress.ip_network(address.network.broadcast_address)


def _chains(
    policy: Policy, own: tuple[IpNetwork, ...], guarded: tuple[IpNetwork, ...], *, up: bool
) -> Iterator[tuple[str, list[str]]]:
    """Each chain with its rules."""
    for hook, word in HOOKS.items():
        theirs, link = ("saddr", "iif") if hook == "input" else ("daddr", "oif")
        forged = [_counted(match, "drop", "a forged address") for match in _forged(hook, own)]
        others = _no_match("daddr", own) if hook == "input" else ()
        foreign = [_counted(match, "drop", "not an address of the guest") for match in others]
        yield (
            hook,
            [
                _counted(f'{link} "lo"', "accept", "loopback"),
                _counted(_NEIGHBOURS, "accept", "neighbour discovery"),
                *forged,
                _counted("ct state established,related", "accept", "established"),
                _counted("ct state invalid", "drop", "invalid"),
                *(f"{match} goto {word}_host" for match in _matches(theirs, guarded)),
                f"goto {word}_all" if up else _counted("", "accept", "no firewall"),
            ],
        )
        begun = [rule for rule in policy.rules if rule.incoming == (word == "from")]
        named = [line for rule in begun for line in _lines(rule, theirs, _named(rule, guarded))]
        yield f"{word}_host", [*foreign, *named, _counted("", "drop", "the host is isolated")]
        if up:
            lines = [line for rule in begun for line in _lines(rule, theirs, rule.nets)]
            yield f"{word}_all", [*foreign, *lines, _counted("", "drop", "no rule allows it")]
    yield "forward", [_counted("", "drop", "a guest is no router")]


def _forged(hook: str, own: tuple[IpNetwork, ...]) -> list[str]:
    """What only a liar sends: from the wire with the guest's own address, from the guest with another's."""
    return list(_matches("saddr", own)) if hook == "input" else list(_no_match("saddr", own))


def _matches(field: str, nets: Iterable[IpNetwork]) -> Iterator[str]:
    """One match for each family that has networks; a family as a whole is matched without an address."""
    nets = tuple(nets)
    v4 = ipaddress.collapse_addresses(net for net in nets if isinstance(net, ipaddress.IPv4Network))
    v6 = ipaddress.collapse_addresses(net for net in nets if isinstance(net, ipaddress.IPv6Network))
    for word, name, found in (("ip", "ipv4", tuple(v4)), ("ip6", "ipv6", tuple(v6))):
        if any(not net.prefixlen for net in found):
            yield f"meta nfproto {name}"
        elif found:
            yield f"{word} {field} {{ {', '.join(map(_element, found))} }}"


def _no_match(field: str, own: tuple[IpNetwork, ...]) -> Iterator[str]:
    """Every packet whose address is not in ``own``; of a family that has none there, every packet."""
    found = {4: "meta nfproto ipv4", 6: "meta nfproto ipv6"}
    for match in _matches(field, own):
        found[6 if match.startswith("ip6") else 4] = match.replace(" {", " != {", 1)
    yield from found.values()


def _element(net: IpNetwork) -> str:
    return str(net.network_address) if net.prefixlen == net.max_prefixlen else str(net)


def _named(rule: Rule, guarded: tuple[IpNetwork, ...]) -> tuple[IpNetwork, ...]:
    """The addresses that a rule names one by one, as far as they are the host's."""
    single = (net for net in rule.nets if net.prefixlen == net.max_prefixlen)
    return tuple(net for net in single if any(net.network_address in other for other in guarded))


def _lines(rule: Rule, field: str, nets: tuple[IpNetwork, ...]) -> Iterator[str]:
    """The kernel's rules for one rule of the file: one for each family and protocol."""
    verdict = "accept" if rule.allow else "drop"
    for match in _matches(field, nets):
        family = 6 if match.startswith(("ip6", "meta nfproto ipv6")) else 4
        services = tuple(service for service in rule.services if service.family in (None, family))
        for wanted in _services(services):
            yield _counted(f"{match} {wanted}".rstrip(), verdict, rule.place)


def _services(services: tuple[Service, ...]) -> Iterator[str]:
    """One match for each protocol; nothing more where all are meant."""
    if any(service.protocol is None for service in services):
        yield ""
        return
    whole = {service.protocol for service in services if service.low is None}
    for protocol in dict.fromkeys(service.protocol for service in services):
        if protocol in whole:
            yield f"meta l4proto {protocol}"
        else:
            spans = [(service.low, service.high) for service in services if service.protocol == protocol]
            words = {6: "tcp dport", 17: "udp dport", 1: "icmp type", 58: "icmpv6 type"}
            yield f"{words[protocol or 0]} {{ {', '.join(_merged(spans))} }}"


def _merged(spans: Iterable[tuple[int | None, int | None]]) -> Iterator[str]:
    """The ranges in order, those that overlap as one: nft takes no others in a set."""
    numbers = sorted((low or 0, high or 0) for low, high in spans)
    low, high = numbers[0]
    for first, last in [*numbers[1:], (1 << 20, 1 << 20)]:
        if first > high + 1:
            yield str(low) if low == high else f"{low}-{high}"
            low, high = first, last
        high = max(high, last)


def _counted(match: str, verdict: str, comment: str) -> str:
    return f'{match} counter {verdict} comment "{_quotable(comment)}"'.lstrip()


def _quotable(text: str) -> str:
    """nft's strings know no escapes; of a long name the end is kept."""
    plain = "".join(char if " " <= char <= "~" and char not in '"\\' else "?" for char in text)
    return plain if len(plain) <= _COMMENT_MAX else f"...{plain[3 - _COMMENT_MAX :]}"


def load(netns: str, text: str) -> None:
    """Give a ruleset to the kernel, in the guest's namespace: all of it, or nothing changes and VsError is raised."""
    from vstools.network import kernel

    with kernel.inside(netns):
        run.run(["nft", "-f", "-"], stdin=text)

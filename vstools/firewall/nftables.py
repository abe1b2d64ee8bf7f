"""The back end for kernels with nf_tables: one table, given and read by ``nft``.

The base chains stay hooked and only their rules are exchanged, in one transaction: no packet passes that both rulesets
refuse, and none is lost that both accept.
"""

import json
from collections.abc import Iterator
from typing import Any

from vstools import run
from vstools.firewall import present
from vstools.firewall.live import NOTHING, Live, LiveRule
from vstools.firewall.model import ACCEPT, DROP, ICMP6, Chains, Entry, Match
from vstools.libc import network_namespace
from vstools.paths import NAMESPACES

NAME = "nftables"
TABLE = "vs"
LOG_GROUP = 0x7673  # "vs": what is dropped is told to who listens to this NFLOG group (``man 8 nft``, log)
_COMMENT_MAX = 120  # the kernel's userdata has room for 128 bytes, as has a log's prefix
_BASE = ("input", "output", "forward")
_PORTS = {6: "tcp dport", 17: "udp dport", 1: "icmp type", ICMP6: "icmpv6 type"}


def text(chains: Chains) -> str:
    """The chains as ``nft -f`` reads them."""
    lines = [f"table inet {TABLE} {{"]
    for chain in chains:
        head = f" type filter hook {chain} priority filter; policy drop;" if chain in _BASE else ""
        lines.append(f"    chain {chain} {{{head} }}")
    lines += ["}", f"flush table inet {TABLE}"]
    for chain, entries in chains.items():
        lines += [f"table inet {TABLE} {{", f"    chain {chain} {{"]
        lines += [f"        {_rule(entry)}" for entry in entries]
        lines += ["    }", "}"]
    return "\n".join(lines) + "\n"


def _rule(entry: Entry) -> str:
    match = " ".join(_words(entry.match))
    if entry.verdict not in (ACCEPT, DROP):
        return f"{match} goto {entry.verdict}".lstrip()
    reason = quotable(entry.reason)
    logged = f'log prefix "{reason}" group {LOG_GROUP} ' if entry.verdict == DROP else ""
    return f'{match} counter {logged}{entry.verdict} comment "{reason}"'.lstrip()


def _words(match: Match) -> Iterator[str]:
    for side, link in (("iif", match.iif), ("oif", match.oif)):
        if link:  # by its index, which lo has always; other links are not there yet when the rules are loaded
            yield f'{side}{"" if link == "lo" else "name"} "{link}"'
    if match.nets:
        elements = (str(net.network_address) if net.prefixlen == net.max_prefixlen else str(net) for net in match.nets)
        header, field = "ip" if match.family == 4 else "ip6", "saddr" if match.source else "daddr"
        yield f"{header} {field} {{ {', '.join(elements)} }}"
    elif match.family is not None:
        yield f"meta nfproto ipv{match.family}"
    if match.spans:
        spans = (str(low) if low == high else f"{low}-{high}" for low, high in match.spans)
        yield f"{_PORTS[match.protocol or 0]} {{ {', '.join(spans)} }}"
    elif match.protocol is not None:
        yield f"meta l4proto {match.protocol}"
    if match.hop_limit is not None:
        yield f"ip6 hoplimit {match.hop_limit}"
    if match.states:
        yield f"ct state {','.join(match.states)}"


def quotable(words: str, most: int = _COMMENT_MAX) -> str:
    """nft's strings know no escapes, and a ``$`` in a log's prefix is a variable; of a long name the end is kept."""
    plain = "".join(char if " " <= char <= "~" and char not in '"\\$' else "?" for char in words)
    return plain if len(plain) <= most else f"...{plain[3 - most :]}"


def load(netns: str, words: str) -> None:
    """Give a text to the kernel, in the guest's namespace: all of it, or nothing changes and VsError is raised.

    Then the legacy tables are emptied, which would go on filtering.
    """
    with network_namespace(NAMESPACES / netns):
        run.run(["nft", "-f", "-"], stdin=words)
        others = present.legacy_tables()
    if others:
        from vstools.firewall import iptables

        iptables.clear(netns)


def clear(netns: str) -> None:
    """Take our table away, where there is one."""
    with network_namespace(NAMESPACES / netns):
        if present.nft_table(TABLE):
            run.run(["nft", "delete", "table", "inet", TABLE])


def saved(netns: str) -> str:
    """What the kernel holds, as a text for ``load``, without counters; empty where there is no table of ours."""
    with network_namespace(NAMESPACES / netns):
        listed = run.run(["nft", "--stateless", "list", "table", "inet", TABLE], check=False)
    return "" if listed.code else f"table inet {TABLE} {{ }}\nflush table inet {TABLE}\n{listed.out}"


def read(netns: str) -> Live:
    """What the kernel holds of our table; nothing where there is none."""
    found = _table(netns)
    if not found:
        return NOTHING
    chains = (entry["chain"] for entry in found if "chain" in entry)
    hooks = {chain["name"]: chain["policy"] for chain in chains if chain.get("hook") == chain["name"]}
    return Live(hooks, tuple(_live(entry["rule"]) for entry in found if "rule" in entry))


def _table(netns: str) -> list[dict[str, Any]]:
    """The entries of our table as ``nft -j`` has them (``man 5 libnftables-json``)."""
    with network_namespace(NAMESPACES / netns):
        said = run.run(["nft", "-j", "list", "ruleset"]).out
    entries: list[dict[str, Any]] = json.loads(said)["nftables"]
    return [entry for entry in entries if any(body.get("table", body.get("name")) == TABLE for body in entry.values())]


def _live(rule: dict[str, Any]) -> LiveRule:
    """A rule as ``LiveRule``; what we never write is shown as JSON has it."""
    packets = size = 0
    verdict, matches = "", []
    for part in rule["expr"]:
        ((kind, body),) = part.items()
        if kind == "counter":
            packets, size = body["packets"], body["bytes"]
        elif kind == "match":
            matches.append(_match(body))
        elif kind in (ACCEPT, DROP):
            verdict = kind
        elif kind == "goto":
            verdict = body["target"]
        elif kind != "log":
            matches.append(json.dumps(part))
    return LiveRule(rule["chain"], packets, size, verdict, " ".join(matches) or "all", rule.get("comment", ""))


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

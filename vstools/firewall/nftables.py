"""The back end for kernels with nf_tables: one table, given and read by ``nft``.

The base chains stay hooked and only their rules are exchanged, in one transaction: no packet passes that both rulesets
refuse, and none is lost that both accept.
"""

import json
from collections.abc import Iterator
from typing import Any

from vstools import run
from vstools.firewall import nfnetlink, present
from vstools.firewall.live import NOTHING, Live, LiveRule
from vstools.firewall.model import ACCEPT, DROP, HOOKS, ICMP6, MARK, Chains, Entry, Match
from vstools.libc import network_namespace
from vstools.paths import NAMESPACES

NAME = "nftables"
TABLE = "vs"
LOG_GROUP = 0x7673  # "vs": what is dropped is told to who listens to this NFLOG group (``man 8 nft``, log)
_INET = 1  # NFPROTO_INET
_GETCHAIN, _GETRULE = 0x0A04, 0x0A07  # NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_* (linux/netfilter/nf_tables.h)
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_USE = 1, 3, 4, 5, 6  # NFTA_CHAIN_*
_HOOK_NUMBER = 1  # NFTA_HOOK_HOOKNUM
_HOOK_NUMBERS = (1, 3)  # NF_INET_LOCAL_IN, NF_INET_LOCAL_OUT
_NF_DROP = b"\0\0\0\0"
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4  # NFTA_RULE_*
_EXPR_NAME, _EXPR_DATA, _IMMEDIATE_DATA, _DATA_VERDICT, _VERDICT_CHAIN = 1, 2, 2, 2, 2
_CLOCK = {"TZ": "UTC"}  # nft reads and writes times as the local ones, of which one hour a year is there twice
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
    marks = f"ct mark set {entry.marks} " if entry.marks else ""
    return f'{match} {marks}counter {logged}{entry.verdict} comment "{reason}"'.lstrip()


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
    if match.marked is not None:
        yield f"ct mark {match.marked}" if match.marked else f"ct mark < {MARK}"
    if match.since is not None:
        yield f"meta time >= {match.since}"
    if match.until is not None:
        yield f"meta time < {match.until}"


def quotable(words: str, most: int = _COMMENT_MAX) -> str:
    """nft's strings know no escapes, and a ``$`` in a log's prefix is a variable; of a long name the end is kept."""
    plain = "".join(char if " " <= char <= "~" and char not in '"\\$' else "?" for char in words)
    return plain if len(plain) <= most else f"...{plain[3 - most :]}"


def opened(words: str, before: Chains) -> str:
    """A text of ``saved`` or ``text`` with more entries at the heads of chains."""
    lines = (
        f"insert rule inet {TABLE} {chain} {_rule(entry)}\n"
        for chain, entries in before.items()
        for entry in reversed(entries)
    )
    return words + "".join(lines)


def tells_marks(words: str) -> bool:
    """Whether a text of ``saved`` accepts nothing established that a window opened."""
    going_on = [line for line in words.splitlines() if "ct state established" in line and ACCEPT in line]
    return bool(going_on) and all("ct mark" in line for line in going_on)


def load(netns: str, words: str) -> None:
    """Give a text to the kernel, in the guest's namespace: all of it, or nothing changes and VsError is raised.

    Then the legacy tables are emptied, which would go on filtering.
    """
    with network_namespace(NAMESPACES / netns):
        run.run(["nft", "-f", "-"], stdin=words, env=_CLOCK)
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
        listed = run.run(["nft", "--stateless", "list", "table", "inet", TABLE], check=False, env=_CLOCK)
    return "" if listed.code else f"table inet {TABLE} {{ }}\nflush table inet {TABLE}\n{listed.out}"


def up(netns: str) -> dict[str, bool]:
    """``live.is_up`` of this namespace, asked by netlink: a program that lists rules takes longer than all the rest."""
    with network_namespace(NAMESPACES / netns):
        chains = {
            nfnetlink.name(found.get(_CHAIN_NAME)): found
            for found in nfnetlink.dump(_GETCHAIN, _INET)
            if nfnetlink.name(found.get(_CHAIN_TABLE)) == TABLE
        }
        return {
            hook: _drops(chains.get(hook, {}), number)
            and _goes(hook, f"{word}_known")
            and _goes(f"{word}_known", f"{word}_all")
            and (nfnetlink.number(chains[f"{word}_all"].get(_CHAIN_USE)) or 0)
            > 1  # a rule leads there, others are in it
            for number, (hook, word) in zip(_HOOK_NUMBERS, HOOKS.items(), strict=True)
        }


def _drops(chain: nfnetlink.Attributes, number: int) -> bool:
    """Whether a chain is hooked at its place with the policy drop."""
    hook = dict(nfnetlink.attributes(chain.get(_CHAIN_HOOK, b"")))
    return nfnetlink.number(hook.get(_HOOK_NUMBER)) == number and chain.get(_CHAIN_POLICY) == _NF_DROP


def _goes(chain: str, target: str) -> bool:
    """Whether one of a chain's rules leads to another chain."""
    wanted = (nfnetlink.named(_RULE_TABLE, TABLE), nfnetlink.named(_RULE_CHAIN, chain))
    return any(
        target in _targets(rule.get(_RULE_EXPRESSIONS, b"")) for rule in nfnetlink.dump(_GETRULE, _INET, *wanted)
    )


def _targets(expressions: bytes) -> Iterator[str]:
    """The chains that a rule's expressions lead to: a verdict is an ``immediate`` value."""
    for _, element in nfnetlink.attributes(expressions):
        found = dict(nfnetlink.attributes(element))
        if nfnetlink.name(found.get(_EXPR_NAME)) != "immediate":
            continue
        for inner in (_EXPR_DATA, _IMMEDIATE_DATA, _DATA_VERDICT):
            found = dict(nfnetlink.attributes(found.get(inner, b"")))
        yield nfnetlink.name(found.get(_VERDICT_CHAIN))


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
        said = run.run(["nft", "-j", "list", "ruleset"], env=_CLOCK).out
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
        elif kind not in ("log", "mangle"):
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

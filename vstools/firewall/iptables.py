"""The back end for kernels without nf_tables: the legacy tables of IPv4 and IPv6, by python-iptables.

A child of the system's Python does that (``iptables_child.py``), with a commit for each family. A commit exchanges all
of a family's rules at once, chains and policies included: no packet passes that both rulesets refuse, and none is
lost that both accept. A fresh table accepts; that is while there is no link yet, or while nft's rules still filter.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from vstools import run
from vstools.errors import VsError
from vstools.firewall import nftables
from vstools.firewall.live import NOTHING, Live, LiveRule, is_up
from vstools.firewall.model import ACCEPT, DROP, ICMP6, MARK, Chains, Entry, Match
from vstools.libc import network_namespace
from vstools.paths import NAMESPACES

NAME = "iptables"
_BASE = {"input": "INPUT", "forward": "FORWARD", "output": "OUTPUT"}
_HOOKS = {name: hook for hook, name in _BASE.items()}
_CHILD = Path(__file__).with_name("iptables_child.py")
_PYTHON = "/usr/bin/python3"  # Debian's own: its packages are for no other
_COMMENT_MAX, _PREFIX_MAX = 255, 63  # xt_comment_info.comment, xt_nflog_info.prefix
_TCP, _UDP, _ICMP = 6, 17, 1
_PROTOCOLS = {_TCP: "tcp", _UDP: "udp", _ICMP: "icmp", ICMP6: "icmpv6"}
_SLOTS = 15  # xt_multiport.ports: a range takes two
_ANY_TYPE = 255  # to the kernel's match for IPv4 this number means every type
_PROTOCOL_0, _TYPE_255 = "0x6&0xff=0x0", "0x0>>0x16&0x3c@0x0>>0x18=0xff"
"""What iptables has no words for: a byte of IPv4's header, and the first behind it (``man 8 iptables-extensions``)."""
_ENDS = {"-s": "saddr", "-d": "daddr"}
_MEANINGS = {
    "-i": "meta iif", "-o": "meta oif", "--dport": "{} dport", "--dports": "{} dport", "--icmp-type": "icmp type",
    "--icmpv6-type": "icmpv6 type", "--ctstate": "ct state", "--hl-eq": "ip6 hoplimit", "--mark": "ct mark",
    "--datestart": "meta time >=", "--datestop": "meta time <",
}  # fmt: skip
"""iptables' options in nft's words."""
_SAYS_PROTOCOL = {"--dport", "--dports", "--icmp-type", "--icmpv6-type"}
_SAID = {*_ENDS, "-p", "-m", "-j", "-g", "--comment"}
_OPTION = re.compile(r'(?<!\S)(--?\S+)((?: (?!-)(?:"[^"]*"|\S+))*)')
_COUNTED = re.compile(r"\[(\d+):(\d+)\] -A (\S+) (.*)")


def text(chains: Chains) -> str:
    """The chains as iptables-restore reads them, for IPv4 and then for IPv6."""
    return "".join(f"# IPv{family}\n{_table(chains, family)}" for family in (4, 6))


def _table(chains: Chains, family: int) -> str:
    rules = [
        rule
        for chain, entries in chains.items()
        for number, entry in enumerate(entries, 1)
        if entry.match.family in (None, family)
        for rule in _rules(_BASE.get(chain, chain), f"{chain}_{number}", entry, family)
    ]
    names = (*_BASE.values(), *(chain for chain in chains if chain not in _BASE), *(chain for chain, _ in rules))
    heads = (f":{name} {'DROP' if name in _BASE.values() else '-'} [0:0]" for name in dict.fromkeys(names))
    return "\n".join(("*filter", *heads, *(f"-A {chain} {words}" for chain, words in rules), "COMMIT", ""))


def _rules(chain: str, inner: str, entry: Entry, family: int) -> Iterator[tuple[str, str]]:
    """The rules of an entry, each with its chain: a rule has one address, so several addresses share a chain."""
    end = "-s" if entry.match.source else "-d"
    ends = [f"{end} {net} " for net in entry.match.nets] or [""]
    bodies = [f"{way}{verdict}" for way in _ways(entry.match, family) for verdict in _verdicts(entry)]
    if len(ends) > 1 and len(bodies) > 1:
        yield from ((inner, body) for body in bodies)
        bodies = [f"-j {inner}"]
    yield from ((chain, f"{end}{body}") for end in ends for body in bodies)


def _verdicts(entry: Entry) -> Iterator[str]:
    if entry.verdict not in (ACCEPT, DROP):
        yield f"-g {entry.verdict}"
        return
    if entry.verdict == DROP:
        yield f'-j NFLOG --nflog-prefix "{_told(entry.reason, _PREFIX_MAX)}" --nflog-group {nftables.LOG_GROUP}'
    if entry.marks:
        yield f"-j CONNMARK --set-mark {entry.marks:#x}"
    yield f'-m comment --comment "{_told(entry.reason, _COMMENT_MAX)}" -j {entry.verdict.upper()}'


def _told(reason: str, most: int) -> str:
    return nftables.quotable(reason, most).replace("'", "?")  # iptables-save escapes it as no shell does


def _ways(match: Match, family: int) -> Iterator[str]:
    """The words for all but addresses, once for each rule that it takes."""
    before = f"-i {match.iif} " * bool(match.iif) + f"-o {match.oif} " * bool(match.oif)
    after = f"-m hl --hl-eq {match.hop_limit} " * (match.hop_limit is not None)
    if match.states:
        after += f"-m conntrack --ctstate {','.join(sorted(match.states, reverse=True)).upper()} "  # the kernel's order
    if match.marked is not None:
        after += f"-m connmark --mark {f'{match.marked:#x}' if match.marked else f'0x0/{MARK:#x}'} "
    if match.since is not None or match.until is not None:
        ends = {"--datestart": match.since, "--datestop": match.until}
        after += "".join(("-m time ", *(f"{word} {_time(at)} " for word, at in ends.items() if at is not None)))
    for service in _services(match, family):
        yield f"{before}{service}{after}"


def _time(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def _services(match: Match, family: int) -> Iterator[str]:
    number = match.protocol
    if not number:
        # For iptables 0 means every protocol. In IPv6 it is a header that others follow, and no packet's protocol.
        if number is None:
            yield ""
        elif family == 4:
            yield f'-m u32 --u32 "{_PROTOCOL_0}" '
        return
    name = _PROTOCOLS.get(number, str(number))
    if not match.spans:
        yield f"-p {name} "
    elif number in (_TCP, _UDP):
        for ports in _shares([f"{low}:{high}" if low != high else str(low) for low, high in match.spans]):
            kind = f"{name} --dport" if len(ports) == 1 else "multiport --dports"
            yield f"-p {name} -m {kind} {','.join(ports)} "
    else:
        for value in (value for low, high in match.spans for value in range(low, high + 1)):
            if number == ICMP6:
                yield f"-p {name} -m icmp6 --icmpv6-type {value} "
            elif value == _ANY_TYPE:
                yield f'-p {name} -m u32 --u32 "{_TYPE_255}" '
            else:
                yield f"-p {name} -m icmp --icmp-type {value} "


def _shares(ports: list[str]) -> Iterator[list[str]]:
    """The ports and ranges in as many parts as there must be rules."""
    share: list[str] = []
    for port in ports:
        if sum(1 + (":" in each) for each in (*share, port)) > _SLOTS:
            yield share
            share = []
        share.append(port)
    yield share


def opened(words: str, before: Chains) -> str:
    """A text of ``saved`` or ``text`` with more entries, each of one address at most, at the heads of chains."""
    lines: list[str] = []
    waiting: dict[str, tuple[Entry, ...]] = {}
    family = 0
    for line in words.splitlines():
        if line.startswith("# IPv"):
            family, waiting = int(line.removeprefix("# IPv")), dict(before)
        if line.startswith("-A "):
            chain = line.split(" ", 2)[1]
            lines += (
                f"-A {chain} {body}"
                for entry in waiting.pop(chain, ())
                if entry.match.family in (None, family)
                for _, body in _rules(chain, "", entry, family)
            )
        lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def tells_marks(words: str) -> bool:
    """Whether a text of ``saved`` accepts nothing established that a window opened."""
    going_on = [line for line in words.splitlines() if "ESTABLISHED" in line and "-j ACCEPT" in line]
    return bool(going_on) and all("--mark" in line for line in going_on)


def load(netns: str, words: str) -> None:
    """Give a text to the kernel, in the guest's namespace: all of it, or nothing changes and VsError is raised.

    Then nft's table is taken away, which would go on filtering.
    """
    _child(netns, "load", words)
    nftables.clear(netns)


def clear(netns: str) -> None:
    """Leave empty tables that accept, where there are rules of ours."""
    _child(netns, "clear")


def saved(netns: str) -> str:
    """What the kernel holds, as a text for ``load``, without counters; empty where there are no rules of ours."""
    return _child(netns, "save")


def read(netns: str) -> Live:
    """What the kernel holds of our rules, in nft's words; nothing where there are none."""
    parts: list[Live] = []
    for block in _child(netns, "count").split("# IPv")[1:]:
        family, *lines = block.splitlines()
        heads = (line[1:].split(" ") for line in lines if line.startswith(":"))
        policies = {head[0]: head[1].lower() for head in heads}
        rules = (_live(line, family) for line in lines if line.startswith("["))
        hooks = {hook: policies[name] for hook, name in _BASE.items()}
        parts.append(Live(hooks, tuple(rule for rule in rules if rule)))
    if not parts:
        return NOTHING
    hooks = {hook: next((part.hooks[hook] for part in parts if part.hooks[hook] != DROP), DROP) for hook in _BASE}
    return Live(hooks, tuple(rule for part in parts for rule in part.rules), tuple(parts))


def up(netns: str) -> dict[str, bool]:
    """``live.is_up`` of this namespace."""
    return is_up(read(netns))


def _live(line: str, family: str) -> LiveRule | None:
    """A line as ``LiveRule``; None for what only tells of, or marks, the packets that the next rule decides about."""
    found = _COUNTED.fullmatch(line)
    if found is None:
        raise VsError(f"the child for iptables wrote {line!r}", "is the package python3-iptables a newer one?")
    options: list[tuple[str, str]] = [
        (word, value.strip().replace('"', "")) for word, value in _OPTION.findall(found[4])
    ]
    given: dict[str, str] = dict(options)
    verdict, protocol = given.get("-j", given.get("-g", "")), given.get("-p", "")
    if verdict in ("NFLOG", "CONNMARK"):
        return None
    header, whole = ("ip", "/32") if family == "4" else ("ip6", "/128")
    ends = [f"{header} {_ENDS[word]} {value.removesuffix(whole)}" for word, value in options if word in _ENDS]
    matches = ends or [f"meta nfproto ipv{family}"]
    for word, value in options:
        if word in _MEANINGS:
            matches.append(f"{_MEANINGS[word].format(protocol)} {_value(word, value)}")
        elif word == "-p" and _SAYS_PROTOCOL.isdisjoint(given):
            matches.append(f"meta l4proto {value}")
        elif word not in _SAID:
            matches.append(f"{word} {value}".rstrip())
    verdict = {"ACCEPT": ACCEPT, "DROP": DROP}.get(verdict, verdict)
    return LiveRule(
        _HOOKS.get(found[3], found[3]),
        int(found[1]),
        int(found[2]),
        verdict,
        " ".join(matches),
        given.get("--comment", ""),
    )


def _value(word: str, value: str) -> str:
    """A value as nft writes it."""
    if word in ("--datestart", "--datestop"):
        return value.replace("T", " ")
    if word == "--mark":
        number, _, mask = value.partition("/")
        return f"< {int(mask, 16)}" if mask else str(int(number, 16))  # the highest bit is not set
    values = value.replace(":", "-").lower().split(",")
    if word == "--ctstate":
        return ",".join(sorted(values))
    return values[0] if len(values) == 1 else f"{{ {', '.join(values)} }}"


def _child(netns: str, act: str, words: str = "") -> str:
    """Let the child do something in the guest's namespace; what it prints."""
    with network_namespace(NAMESPACES / netns):
        done = run.run(
            [_PYTHON, "-I", str(_CHILD), act],
            stdin=words,
            check=False,
            env={"SETUPTOOLS_USE_DISTUTILS": "stdlib"},  # python-iptables would load setuptools for it: 0.1 s
        )
    if done.code:
        said = [line.strip() for line in done.err.splitlines() if line.strip()] or [f"exit status {done.code}"]
        raise VsError(said[-1], "FIREWALL_BACKEND in create.conf names what filters; install.sh installs what it needs")
    return done.out

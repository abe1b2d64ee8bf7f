"""firewall.conf and aliases.conf from random text, from valid lines that were damaged, and from the grammar.

Whatever a file holds, it is read exactly as its manual says (tests/readings.py is a second reading of that) or refused,
with every wrong line named. A rule that is wider than its line is a hole.
"""

import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import readings
from vstools.config import firewall
from vstools.config.firewall import Policy
from vstools.config.text import Faults
from vstools.errors import BadFiles

ALIASES = "# who\nadmins = 10.0.0.1,2001:db8::/32\n  dns=10.0.0.53:10.0.0.54\nnobody = 0.0.0.0/32\neverybody = any\n"
CORPUS = [
    *("enable", "disable", "# a comment", "", "\tallow from any to all\r"),
    "allow to 10.9.53.27,10.7.21.12 to udp:53",
    "allow to 10.9.53.27:10.7.21.12 to udp:53 # DNS",
    "allow from 10.8.3.5 to tcp:5666,tcp:4949,47",
    "deny from 10.10.1.0/24,10.9.1.62 to tcp:22",
    "allow from 0/0,::/0 to tcp:8000-8080",
    "deny to 2001:db8::/32,2001:db8::1 to tcp:80,icmp6:echo-request,icmp:8",
    "allow from @admins,@dns,any to icmp,icmp6,all",
    "deny from ::ffff:10.0.0.1,fe80::/10,255.255.255.255,0.0.0.0/1 to icmp:255,0,255,udp:1-65535",
]
ALIAS_CORPUS = ALIASES.split("\n")
NASTY = st.sampled_from(
    [*" \t#,:/-@=.%0123456789abcdefx*!+_", "\r", "\n", "\x0b", "\x85", "\u2028", "\xa0", "\0", "²", "٣", "\ufeff"]
)
PIECES = st.sampled_from(
    ["any", "all", "0/0", "::/0", "::", "/0", "/32", "/33", "10.0.0.0/8", "10.0.0.1", "@admins", "@", ",", "tcp", ":0",
     ":65535", "tcp:1-2", "6", "256", " to ", " from ", "allow ", "deny ", "enable", "0x0", "1e3", "fe80::1%lo",
     "/0.0.0.0", "10.0.0.01", "1-", "-1", "=", "10.0.0.1:10.0.0.2"]
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, corpus: list[str]) -> str:
    """A line of the corpus after a few accidents: something is put in, taken out, doubled, or another's."""
    line = draw(st.sampled_from(corpus))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(line)))
        end = min(len(line), start + draw(st.integers(0, 4)))
        middle = draw(st.one_of(NASTY, PIECES, st.just(""), st.just(line[start:end] * 2), st.text(max_size=3)))
        line = line[:start] + middle + line[end:]
    return line


def _net(kind: type[IPv4Network] | type[IPv6Network], size: int) -> st.SearchStrategy[str]:
    pairs = st.tuples(st.integers(0, 2**size - 1), st.integers(0, size))
    return pairs.map(lambda pair: str(kind(pair, strict=False)))


NETS = st.one_of(
    _net(IPv4Network, 32),
    _net(IPv6Network, 128),
    st.ip_addresses().map(str),
    st.lists(st.ip_addresses(v=4).map(str), min_size=2, max_size=3).map(":".join),
    st.sampled_from(["any", "0/0", "::/0", "@admins", "@dns", "@everybody"]),
)
SPANS = st.lists(st.integers(1, 65535), min_size=1, max_size=2).map(lambda ports: "-".join(map(str, sorted(ports))))
SERVICES = st.one_of(
    st.sampled_from(["all", "tcp", "udp", "icmp", "icmp6", "icmp:redirect", "icmp6:packet-too-big"]),
    st.builds("{}:{}".format, st.sampled_from(["tcp", "udp"]), SPANS),
    st.builds("{}:{}".format, st.sampled_from(["icmp", "icmp6"]), st.integers(0, 255)),
    st.integers(0, 255).map(str),
)
LINES = st.builds(
    "{} {} {} to {}".format,
    st.sampled_from(["allow", "deny"]),
    st.sampled_from(["from", "to"]),
    st.lists(NETS, min_size=1, max_size=4).map(",".join),
    st.lists(SERVICES, min_size=1, max_size=4).map(",".join),
)
ALMOST = st.builds(
    "{} {} {} to {}".format,
    st.sampled_from(["allow", "deny", "Allow"]),
    st.sampled_from(["from", "to"]),
    st.lists(
        st.one_of(
            NETS,
            st.builds("{}/{}".format, st.ip_addresses(), st.integers(0, 129)),
            st.sampled_from(["", "ANY", "1/0", "10.0.0.0/", "@dn", "10.0.0.1:", "10.0.0.1:::1", "10.0.0.0/8:10.0.0.1"]),
        ),
        min_size=1,
        max_size=2,
    ).map(",".join),
    st.lists(
        st.one_of(
            SERVICES,
            st.builds("{}:{}-{}".format, st.sampled_from(["tcp", "udp"]), st.integers(0, 99999), st.integers(0, 99999)),
            st.builds("{}:{}".format, st.sampled_from(["tcp", "icmp", "icmp6", "all", "6"]), st.integers(0, 99999)),
            st.integers(0, 999).map(str),
            st.sampled_from(
                ["", "TCP", "tcp:", "udp:1-", "udp:-1", "icmp:Redirect", "icmp:1-2", "icmp:packet-too-big"]
            ),
        ),
        min_size=1,
        max_size=2,
    ).map(",".join),
)
"""Lines that are right or wrong in one of their parts."""


ANYTHING = st.lists(
    st.one_of(st.text(max_size=40), damaged(CORPUS), ALMOST, st.lists(PIECES, max_size=6).map(" ".join)), max_size=8
)


def read(path: Path, text: str, aliases: str = ALIASES) -> tuple[Policy | None, list[tuple[str, int, int]]]:
    """The policy that a caller gets, or the places (file, line, column) of all faults; both never."""
    path.write_bytes(text.encode("utf-8", "replace"))
    (path.parent / "aliases.conf").write_bytes(aliases.encode("utf-8", "replace"))
    faults = Faults()
    policy = firewall.load(path, path.parent, faults)
    if not faults:
        return policy, []
    with pytest.raises(BadFiles) as caught:
        faults.check()
    places = []
    for fault in caught.value.faults:
        match = re.fullmatch(rf"{re.escape(str(path.parent))}/([a-z.]+):([0-9]+):([0-9]+): .+", fault)
        assert match, fault
        assert fault.isprintable(), "what a file holds must not reach a terminal as it is"
        places.append((match[1], int(match[2]), int(match[3])))
    return None, places


def reread(path: Path) -> str:
    """The text as every reader of the file sees it."""
    return path.read_bytes().decode("utf-8", "replace")


def told(policy: Policy) -> list[tuple[int, readings.Rule]]:
    """A policy in the words of the second reading."""
    found = []
    for rule in policy.rules:
        assert len(set(rule.nets)) == len(rule.nets)
        nets = frozenset((net.version, int(net[0]), int(net[-1])) for net in rule.nets)
        services = frozenset((one.protocol, one.low, one.high) for one in rule.services)
        line = int(rule.place.rpartition(":")[2])
        found.append((line, (rule.allow, rule.incoming, nets, services)))
    return found


def assert_places(places: list[tuple[str, int, int]], texts: dict[str, str]) -> None:
    for name, line, column in places:
        lines = texts[name].split("\n")
        assert 1 <= line <= len(lines)
        assert 1 <= column <= len(lines[line - 1].removesuffix("\r")) + 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "firewall.conf"


@settings(max_examples=250)
@given(lines=ANYTHING)
def test_a_file_says_what_the_second_reading_finds_or_is_refused_at_each_wrong_line(
    path: Path, lines: list[str]
) -> None:
    policy, places = read(path, "\n".join(lines))
    known, _ = readings.aliases(ALIASES)
    reading = readings.firewall(reread(path), known)
    assert {line for _, line, _ in places} == reading.bad
    assert_places(places, {"firewall.conf": reread(path)})
    if policy is not None:
        assert policy.enabled == reading.enabled
        assert told(policy) == reading.rules


@settings(max_examples=250)
@given(lines=st.lists(st.one_of(damaged(ALIAS_CORPUS), st.text(max_size=30)), max_size=6))
def test_an_alias_is_what_its_line_says_or_no_policy_is_read(path: Path, lines: list[str]) -> None:
    names = ("admins", "dns", "nobody", "everybody")
    policy, places = read(path, "".join(f"allow from @{name} to all\n" for name in names), "\n".join(lines))
    text = reread(path.parent / "aliases.conf")
    known, bad = readings.aliases(text)
    assert {line for name, line, _ in places if name == "aliases.conf"} == bad
    missing = {line for line, name in enumerate(names, 1) if name not in known}
    assert {line for name, line, _ in places if name == "firewall.conf"} == missing
    assert_places(places, {"firewall.conf": reread(path), "aliases.conf": text})
    if policy is not None:
        assert [nets for _, (_, _, nets, _) in told(policy)] == [known[name] for name in names]


@settings(max_examples=200)
@given(lines=st.lists(LINES, max_size=6), switch=st.sampled_from(["", "enable\n", "disable\n"]))
def test_every_line_of_the_grammar_is_accepted_and_said_again(path: Path, lines: list[str], switch: str) -> None:
    text = switch + "".join(f"{line}\n" for line in lines)
    policy, places = read(path, text)
    reading = readings.firewall(text, readings.aliases(ALIASES)[0])
    assert (places, reading.bad, len(reading.rules)) == ([], set(), len(lines))
    assert policy is not None
    assert (policy.enabled, told(policy)) == (reading.enabled, reading.rules)


@settings(max_examples=150)
@given(data=st.data(), lines=st.lists(LINES, min_size=1, max_size=8))
def test_included_rules_stand_where_they_are_included(path: Path, data: st.DataObject, lines: list[str]) -> None:
    """The lines are cut into files that include each other in a chain: read, they are in their order again."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(lines)), max_size=3)))
    rest, name = lines, "firewall.conf"
    for number, cut in enumerate(cuts):
        (path.parent / name).write_text("\n".join([*rest[:cut], f"include part{number}.conf", *rest[cut + 1 :]]))
        rest, name = rest[cut : cut + 1], f"part{number}.conf"
        cuts[number + 1 :] = [min(later, 1) for later in cuts[number + 1 :]]
    (path.parent / name).write_text("\n".join(rest))
    policy, places = read(path, (path.parent / "firewall.conf").read_text())
    reading = readings.firewall("\n".join(lines), readings.aliases(ALIASES)[0])
    assert places == []
    assert policy is not None
    assert [rule for _, rule in told(policy)] == [rule for _, rule in reading.rules]


@settings(max_examples=150)
@given(
    lines=st.lists(LINES, min_size=1, max_size=5),
    wrong=damaged(CORPUS),
    where=st.sampled_from(["own", "part", "alias"]),
)
def test_one_wrong_line_anywhere_leaves_no_policy(path: Path, lines: list[str], wrong: str, where: str) -> None:
    known, _ = readings.aliases(ALIASES)
    bad = readings.aliases(f"{ALIASES}{wrong}")[1] if where == "alias" else readings.firewall(wrong, known).bad
    (path.parent / "part.conf").write_text(wrong if where == "part" else "", newline="")
    text = "\n".join([*lines, "include part.conf", wrong if where == "own" else ""])
    policy, places = read(path, text, ALIASES + wrong if where == "alias" else ALIASES)
    assert (policy is None) == bool(places)
    if bad:
        assert policy is None

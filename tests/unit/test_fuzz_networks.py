"""networks.conf from random text, from damaged lines, and from the grammar: read as it is written, or refused."""

import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import readings
from vstools.config import networks
from vstools.config.networks import Networks
from vstools.config.text import Faults
from vstools.errors import BadFiles

CORPUS = [
    *("# a comment", "", "  4094:10.4.0.0/31\r"),
    "1:10.0.1.0/24,10.0.1.1,foo.bar,10.0.3.6",
    "2:10.0.2.0/24,10.0.2.1 # the second",
    "3:10.0.3.0/24,10.0.3.1,foo.bar,10.0.3.5,10.0.3.6",
    "0:2001:db8:1::/64,2001:db8:1::1,,2001:db8::53 10.0.0.53",
    "0 : 192.168.0.0/16 , 192.168.255.254 , x_1-y.z ,  1.1.1.1   8.8.8.8",
    "10:0.0.0.0/1",
]
NASTY = st.sampled_from([*" \t#,:/-.%0123456789abcdefx_", "\r", "\n", "\x0b", "\x85", "\u2028", "\xa0", "\0", "²", "٣"])
PIECES = st.sampled_from(
    ["1:", "10.9.0.0/16", "/24", "/33", "/255.255.0.0", "/0.0.0.255", "2001:db8::/32", "::", ",,", "10.0.1.255", "%lo",
     "a..b", "-a", "10.0.0.01", "4095", "0.0.0.0/0", "::/0", "1,2"]
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A line of the corpus after a few accidents: something is put in, taken out, doubled, or another's."""
    line = draw(st.sampled_from(CORPUS))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(line)))
        end = min(len(line), start + draw(st.integers(0, 4)))
        middle = draw(st.one_of(NASTY, PIECES, st.just(""), st.just(line[start:end] * 2), st.text(max_size=3)))
        line = line[:start] + middle + line[end:]
    return line


RIGHT = ("1", "10.0.0.0", "24", "10.0.0.1", "a.b", "10.0.0.53,2001:db8::53")
DOUBTFUL = (
    ["", "-1", "+1", "0x1", "007", "1 2", "4095"],
    ["10.0.0.1", "::", "10.0.0", "10.0.0.256", "010.0.0.0", "2001:db8::%lo", "fe80::1:"],
    ["", "+8", "08", "23", "7", "33", "24/24", "255.255.255.0", "0.0.0.255", "0.0.0.0"],  # noqa: S104
    ["", "10.0.0.0", "10.0.1.0", "2001:db8::1", "any", "10.0.0.1/24", "10.0.0.1%lo"],
    ["", "a", "a..b", ".a", "a.", "-a", "a-", "_a", "a b", "é", "x" * 63, "x" * 64],
    ["", "10.0.0.53 ::1", "a", "10.0.0.53/32", ",,", "fe80::1%lo"],
)


@st.composite
def almost(draw: st.DrawFn) -> str:
    """A right line with one or two fields that are right or wrong."""
    fields = list(RIGHT)
    for index in draw(st.lists(st.integers(0, len(fields) - 1), min_size=1, max_size=2)):
        fields[index] = draw(st.sampled_from(DOUBTFUL[index]))
    return "{}:{}/{},{},{},{}".format(*fields)


ANYTHING = st.one_of(damaged(), almost(), st.text(max_size=30), st.lists(PIECES, max_size=4).map("".join))


def read(path: Path, text: str) -> tuple[Networks | None, list[tuple[int, int]]]:
    """The networks that a caller gets, or the places of all faults; both never."""
    path.write_bytes(text.encode("utf-8", "replace"))
    faults = Faults()
    found = networks.load(path, faults)
    if not faults:
        return found, []
    with pytest.raises(BadFiles) as caught:
        faults.check()
    places = []
    for fault in caught.value.faults:
        match = re.fullmatch(rf"{re.escape(str(path))}:([0-9]+):([0-9]+): .+", fault)
        assert match, fault
        assert fault.isprintable(), "what a file holds must not reach a terminal as it is"
        places.append((int(match[1]), int(match[2])))
    return None, places


def told(found: Networks) -> list[readings.Line]:
    """What was read, in the words of the second reading."""
    return [
        (
            line.vlan,
            (line.net.version, int(line.net[0]), int(line.net[-1])),
            (line.gateway.version, int(line.gateway)) if line.gateway else None,
            line.domain,
            tuple((server.version, int(server)) for server in line.nameservers),
        )
        for line in found.lines
    ]


def overlap(one: readings.Net, other: readings.Net) -> bool:
    return one[0] == other[0] and one[1] <= other[2] and other[1] <= one[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "networks.conf"


@settings(max_examples=300)
@given(lines=st.lists(ANYTHING, max_size=4))
def test_a_file_says_what_the_second_reading_finds_or_is_refused_at_each_wrong_line(
    path: Path, lines: list[str]
) -> None:
    found, places = read(path, "\n".join(lines))
    text = path.read_bytes().decode("utf-8", "replace").split("\n")
    for line, column in places:
        assert 1 <= line <= len(text)
        assert 1 <= column <= len(text[line - 1].removesuffix("\r")) + 1
    expected, bad = [], set()
    for number, line in enumerate(text, 1):
        try:
            said = readings.network_line(line.removesuffix("\r"))
        except readings.Bad:
            bad.add(number)
        else:
            expected += [said] if said else []
    assert bad <= {line for line, _ in places}
    clash = any(overlap(one[1], other[1]) for number, one in enumerate(expected) for other in expected[:number])
    assert (found is None) == bool(bad or clash)
    if found is not None:
        assert told(found) == expected


BLANK = st.sampled_from(["", " ", "\t", "  "])
DOMAINS = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,10}[a-z0-9_])?(\.[a-z0-9_]{1,5}){0,3}", fullmatch=True)


@st.composite
def one_line(draw: st.DrawFn) -> tuple[str, readings.Line]:
    """A line and what it says; its gateway and name servers lie in its network."""
    version, size, kind = draw(st.sampled_from([(4, 32, IPv4Network), (6, 128, IPv6Network)]))
    net = kind((draw(st.integers(0, 2**size - 1)), draw(st.integers(0, size))), strict=False)
    vlan = draw(st.integers(0, 4094))
    gateway = net[draw(st.integers(0, net.num_addresses - 1))] if draw(st.booleans()) else None
    domain = draw(st.one_of(st.none(), DOMAINS))
    servers = draw(st.lists(st.ip_addresses(), max_size=3))
    names = draw(st.sampled_from([",", " ", " , ", "\t"])).join(map(str, servers))
    fields = [f"{vlan}:{net}", str(gateway or ""), domain or "", names]
    text = draw(BLANK) + (draw(BLANK) + "," + draw(BLANK)).join(fields) + draw(st.sampled_from(["", " # why", "\r"]))
    said = (
        vlan,
        (version, int(net[0]), int(net[-1])),
        (version, int(gateway)) if gateway is not None else None,
        domain,
        tuple((server.version, int(server)) for server in servers),
    )
    return text, said


@settings(max_examples=150)
@given(pairs=st.lists(one_line(), max_size=3))
def test_every_line_of_the_grammar_is_accepted_and_said_again(
    path: Path, pairs: list[tuple[str, readings.Line]]
) -> None:
    nets = [said[1] for _, said in pairs]
    clashes = {number for number, net in enumerate(nets, 1) if any(overlap(net, one) for one in nets[: number - 1])}
    found, places = read(path, "\n".join(text for text, _ in pairs))
    assert {line for line, _ in places} == clashes
    if found is not None:
        assert told(found) == [said for _, said in pairs]
        for _, said in pairs:
            assert [said] == [readings.network_line(text) for text, one in pairs if one is said][:1]

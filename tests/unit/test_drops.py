"""vs-net --drops: packets of hostile senders are read without a crash, told once, and never flood anything."""

import json
import os
import struct
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vstools.config.firewall import EVERYBODY, Policy, Rule, Service
from vstools.errors import Refused
from vstools.firewall import drops, nflog, nfnetlink, nftables
from vstools.firewall.live import LiveRule
from vstools.firewall.nflog import Dropped
from vstools.firewall.packet import Packet, parse, told
from vstools.lifecycle import drops as dropped
from vstools.paths import Paths

from .made import guest, nic, saved
from .test_net import said

SELF = os.uname().nodename.partition(".")[0]
OWN = (ip_interface("10.7.1.2/24"), ip_interface("2001:db8::2/64"))
HOSTS = (ip_address("10.7.1.1"),)
DENY = Rule(False, True, EVERYBODY, (Service(6, 81, 81),), "/etc/vservers/web/firewall.conf:2")
FILES = drops.Files(Policy(rules=(DENY,)), OWN, HOSTS)


def four(protocol: int, rest: bytes, *, source: str = "10.9.9.9", fragment: int = 0, words: int = 5) -> bytes:
    """An IPv4 packet to the guest."""
    head = struct.pack("!BBHHHBBH", 0x40 | words, 0, 20 + len(rest), 1, fragment, 64, protocol, 0)
    return head + ip_address(source).packed + OWN[0].ip.packed + b"\1" * (words - 5) * 4 + rest


def six(following: int, rest: bytes) -> bytes:
    """An IPv6 packet to the guest."""
    head = struct.pack("!IHBB", 6 << 28, len(rest), following, 64)
    return head + ip_address("2001:db8::9").packed + OWN[1].ip.packed + rest


PORTS = struct.pack("!HH", 4000, 80)
OPTIONS = bytes([6, 0, 1, 4, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (four(6, PORTS), "tcp 10.9.9.9:4000 -> 10.7.1.2:80"),
        (four(17, PORTS, words=8), "udp 10.9.9.9:4000 -> 10.7.1.2:80"),
        (four(6, PORTS[:3]), "tcp 10.9.9.9:? -> 10.7.1.2:?"),
        (four(6, PORTS, fragment=5), "tcp 10.9.9.9:? -> 10.7.1.2:?"),
        (four(1, b"\x08\0"), "icmp:echo-request 10.9.9.9 -> 10.7.1.2"),
        (four(1, b"\x2a\0"), "icmp:42 10.9.9.9 -> 10.7.1.2"),
        (four(1, b""), "icmp 10.9.9.9 -> 10.7.1.2"),
        (four(47, PORTS), "47 10.9.9.9 -> 10.7.1.2"),
        (four(58, b"\x80"), "58 10.9.9.9 -> 10.7.1.2"),
        (six(6, PORTS), "tcp [2001:db8::9]:4000 -> [2001:db8::2]:80"),
        (six(58, b"\x80\0"), "icmp6:echo-request [2001:db8::9] -> [2001:db8::2]"),
        (six(0, OPTIONS + PORTS), "tcp [2001:db8::9]:4000 -> [2001:db8::2]:80"),
        (six(60, b"\x2b\1" + b"\0" * 14 + OPTIONS + PORTS), "tcp [2001:db8::9]:4000 -> [2001:db8::2]:80"),
        (six(51, b"\x06\1" + b"\0" * 10 + PORTS), "tcp [2001:db8::9]:4000 -> [2001:db8::2]:80"),
        (six(44, b"\x06\0\0\1" + b"\0" * 4 + PORTS), "tcp [2001:db8::9]:4000 -> [2001:db8::2]:80"),
        (six(44, b"\x06\0\0\x08" + b"\0" * 4 + PORTS), "tcp [2001:db8::9]:? -> [2001:db8::2]:?"),
        (six(0, b"\x06\xff" + b"\0" * 20), "tcp [2001:db8::9]:? -> [2001:db8::2]:?"),
        (six(59, PORTS), "59 [2001:db8::9] -> [2001:db8::2]"),
        (six(0, b"\0\0\1\4\0\0\0\0" * 100), "0 [2001:db8::9] -> [2001:db8::2]"),
    ],
)
def test_headers_are_read_as_far_as_they_can_be(content: bytes, words: str) -> None:
    packet = parse(content, incoming=True)
    assert packet is not None
    assert told(packet) == words


@pytest.mark.parametrize("content", [b"", b"\x45", four(6, PORTS)[:19], six(6, PORTS)[:39], b"\0" * 40, b"\xff" * 99])
def test_what_has_no_whole_header_is_no_packet(content: bytes) -> None:
    assert parse(content, incoming=True) is None


HEADERS = st.lists(
    st.sampled_from([0, 1, 6, 17, 43, 44, 51, 58, 59, 60, 255]).map(lambda n: bytes([n, 0])), max_size=40
)


@given(junk=st.one_of(st.binary(max_size=300), HEADERS.map(b"\0\0\0\0\0\0".join)), incoming=st.booleans())
@example(junk=b"", incoming=False)
def test_no_packet_crashes_the_reader_or_what_is_said_of_it(junk: bytes, incoming: bool) -> None:
    for content in (junk, b"\x45" + junk, b"\x60" + junk, six(junk[0] if junk else 0, junk), four(6, junk)):
        parse(content, incoming=incoming)
        tally = drops.Tally()
        tally.add(Dropped(1 if incoming else 3, "no rule allows it", content))
        ((found,), more) = tally.take(FILES, {})
        assert (found.count, more) == (1, 0)
        assert bool(found.rule) != bool(found.note)


@given(content=st.binary(max_size=400))
def test_no_message_crashes_the_netlink_reader(content: bytes) -> None:
    head = struct.pack("=IHHII", 16 + len(content), 4 << 8, 0, 0, 0)
    for message in (content, head + content, head + b"\2\0\0\0" + content):
        list(nflog.packets(message))
        nfnetlink.error(message)


def attribute(kind: int, content: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(content), kind) + content + b"\0" * (-len(content) % 4)


def message(number: int, prefix: str, payload: bytes, hook: int = 1) -> bytes:
    """What the kernel sends of one packet."""
    body = b"\2\0\x76\x73" + attribute(1, b"\x08\0" + bytes([hook]) + b"\0") + attribute(10, prefix.encode() + b"\0")
    body += attribute(4, b"\0\0\0\2") + attribute(3, struct.pack("!QQ", 17, 500000))
    body += attribute(9, payload) + attribute(12, struct.pack("!I", number))
    return struct.pack("=IHHII", 16 + len(body), 4 << 8, 0, 0, 0) + body


def test_a_message_of_the_kernels_is_read() -> None:
    content = message(1, "/x:1", b"abc") + message(2, "invalid", b"", hook=3)
    assert list(nflog.packets(content)) == [
        Dropped(1, "/x:1", b"abc", 2, 17.5, 1),
        Dropped(3, "invalid", b"", 2, 17.5, 2),
    ]


def test_the_kernel_is_asked_for_the_group_and_for_numbers() -> None:
    (asked,) = nfnetlink.messages(nflog.bind_message(0x7673))
    assert asked[0] == 0x401
    assert asked[1][:4] == b"\0\0\x76\x73"
    assert dict(nfnetlink.attributes(asked[1][4:])) == {
        1: b"\1",
        2: b"\0\0\1\0\2\0",
        4: b"\0\0\0\x0a",
        6: b"\0\1",
    }


class Wire:
    """A socket that gives what it was told to."""

    def __init__(self, *pieces: bytes | OSError) -> None:
        self.pieces = list(pieces)

    def recvfrom(self, _: int) -> tuple[bytes, tuple[int, int]]:
        piece = self.pieces.pop(0)
        if isinstance(piece, OSError):
            raise piece
        return piece, (0, 0)


def listener(*pieces: bytes | OSError) -> nflog.Listener:
    found = object.__new__(nflog.Listener)
    found.__dict__.update(_wire=Wire(*pieces), _expected=None, _overrun=False, _lost=0, _ahead=0)
    return found


def test_what_was_lost_is_counted_by_its_numbers() -> None:
    overrun = OSError(105, "No buffer space available")
    found = listener(message(7, "x", b""), overrun, message(8, "x", b"") + message(18, "x", b""), overrun)
    assert [len(list(found.read())) for _ in range(3)] == [1, 0, 2]
    assert (found.lost(), found.lost()) == (9, 0)
    assert not list(found.read())
    assert (found.lost(), found.lost()) == (1, 0), "it is not known how many, but one at least"
    found._wire = Wire(message(24, "x", b""), BlockingIOError())  # type: ignore[assignment]
    assert len(list(found.read())) == 1
    assert (found.lost(), list(found.read())) == (4, [])


def test_a_flood_of_ever_new_packets_is_bounded() -> None:
    tally = drops.Tally()
    for number in range(5000):
        tally.add(Dropped(3, "no rule allows it", four(17, struct.pack("!HH", 1, number))))
    tally.add(Dropped(1, "no rule allows it", four(6, PORTS)))
    found, more = tally.take(FILES, {})
    assert (len(found), more) == (drops.KINDS_MAX + 1, 5000 - drops.KINDS_MAX)
    assert found[-1].direction == "IN", "what the guest sends hides nothing that comes to it"
    assert not tally


def test_packets_that_differ_in_their_source_port_alone_are_told_together() -> None:
    tally = drops.Tally()
    for port in (4000, 4000, 4001):
        tally.add(Dropped(1, "no rule allows it", four(17, struct.pack("!HH", port, 53)), 2))
    ((found,), _) = tally.take(FILES, {2: "eth0"})
    assert (found.count, found.link, found.direction) == (3, "eth0", "IN")
    assert found.packet is not None
    assert told(found.packet) == "udp 10.9.9.9:* -> 10.7.1.2:53"


LONG = "/etc/vs-tools/" + "d" * 150 + '/"common".conf:7'


@pytest.mark.parametrize(
    ("prefix", "found"),
    [
        ("no rule allows it", ("", "no rule allows it")),
        (DENY.place, (DENY.place, "")),
        (nftables.quotable(LONG), (LONG, "")),
        ("..." + LONG.replace('"', "?")[-60:], (LONG, "")),
        ("...firewall.conf:2", (DENY.place, "")),
        ("...conf:3", ("...conf:3", "")),
        ("...:7", ("...:7", "")),
        ("/gone:1", ("/gone:1", "")),
    ],
)
def test_a_prefix_that_was_cut_is_found_where_one_line_alone_can_be_meant(prefix: str, found: tuple[str, str]) -> None:
    rules = (DENY, *(Rule(True, True, EVERYBODY, (Service(None),), place) for place in (LONG, "/x:7")))
    assert drops.decider(prefix, Policy(rules=rules)) == found


@pytest.mark.parametrize(
    ("hook", "prefix", "content", "rule", "note"),
    [
        (1, DENY.place, four(6, struct.pack("!HH", 1, 81)), "allow from 10.9.9.9 to tcp:81", ""),
        (
            1,
            "the host is isolated",
            four(1, b"\x08", source="10.7.1.1"),
            "allow from 10.7.1.1 to icmp:echo-request",
            "",
        ),
        (1, "no rule allows it", four(47, b""), "allow from 10.9.9.9 to 47", ""),
        (1, "no rule allows it", four(6, b"\0\1\0\0"), "", "no line can allow it"),
        (1, "no rule allows it", four(6, b""), "", "its port or type cannot be read"),
        (1, "invalid", four(6, PORTS), "", "no line can allow it: it belongs to no connection and cannot begin one"),
        (1, "a forged address", four(6, PORTS), "", "no line can allow it: its sender has the guest's own address"),
        (2, "a guest is no router", four(6, PORTS), "", "no line can allow it: a guest passes nothing on"),
        (1, "no rule allows it", b"", "", "its header cannot be read"),
    ],
)
def test_the_remedy_is_a_line_or_a_reason(hook: int, prefix: str, content: bytes, rule: str, note: str) -> None:
    tally = drops.Tally()
    tally.add(Dropped(hook, prefix, content))
    ((found,), _) = tally.take(FILES, {})
    assert (found.rule, found.note) == (rule, note)


def test_what_the_files_allow_by_now_needs_no_line() -> None:
    allowed = drops.Files(Policy(rules=(Rule(True, True, EVERYBODY, (Service(None),), "/x:1"),)), OWN, HOSTS)
    tally = drops.Tally()
    tally.add(Dropped(1, "no rule allows it", four(6, PORTS)))
    ((found,), _) = tally.take(allowed, {})
    assert (found.rule, found.note) == ("", "the file allows it by now: vs-net --fw up loads it")


@pytest.fixture
def web(as_root: Paths) -> Paths:
    """A host with one guest, which does not run."""
    saved(as_root, guest(nics=(nic("10.7.1.2"),)))
    return as_root


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--name web --follow", "--follow goes with --drops"),
        ("--name web --drops --follow", "guest web does not run"),
        ("--name web --drops --follow --table", "contradict"),
        ("--name web --drops --rules", "contradict"),
        ("--name web --drops --fw up", "contradict"),
    ],
)
def test_what_cannot_be_followed_is_refused_in_a_sentence(
    capsys: pytest.CaptureFixture[str], web: Paths, words: str, sentence: str
) -> None:
    code, out, err = said(capsys, *words.split())
    assert (code, out, len(err)) == (2, [], 1), err
    assert sentence in err[0]


def test_only_one_guest_is_followed(capsys: pytest.CaptureFixture[str], web: Paths) -> None:
    saved(web, guest("db", 10001))
    for words in ("--all", "--name web --name db"):
        code, _, err = said(capsys, *words.split(), "--drops", "--follow")
        assert (code, err) == (2, ["vs-net: give one --name: --follow is about one guest"])


def test_without_follow_the_rules_are_counted(
    capsys: pytest.CaptureFixture[str], web: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said(capsys, "--all", "--drops") == (0, [], [])
    rules = (
        LiveRule("input", 1, 40, "drop", "all", "a forged address"),
        LiveRule("from_all", 0, 0, "drop", "all", "no rule allows it"),
        LiveRule("from_all", 9, 9, "accept", "all", "/x:1"),
        LiveRule("to_host", 3, 180, "drop", "all", "/x:2"),
        LiveRule("forward", 2, 80, "drop", "all", "a guest is no router"),
    )
    monkeypatch.setattr(dropped.net, "rules", lambda *_: rules)
    assert said(capsys, "--name", "web", "--drops")[1] == [
        f"{SELF}:web: IN 1 packets 40 bytes refused: a forged address",
        f"{SELF}:web: OUT 3 packets 180 bytes refused by /x:2",
        f"{SELF}:web: FORWARD 2 packets 80 bytes refused: a guest is no router",
    ]
    _, out, _ = said(capsys, "--name", "web", "--drops", "--json")
    assert json.loads("".join(out))[1] == {
        **{"host": SELF, "guest": "web", "direction": "OUT", "packets": 3, "bytes": 180, "place": "/x:2"},
        **{"reason": ""},
    }


def test_each_moment_is_told_in_lines(
    capsys: pytest.CaptureFixture[str], web: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    packet = Packet(True, ip_address("2001:db8::9"), OWN[1].ip, 6, 81, 81, 4000)
    one = drops.Refusal("IN", packet, 1, "eth0", 17.5, "/x:2", "", "allow from 2001:db8::9 to tcp:81", "")
    two = drops.Refusal("OUT", None, 2, "", 17.5, "", "invalid", "", "no line can allow it: so it is")

    def moments(*_: object) -> Iterator[dropped.Moment]:
        yield dropped.Moment((one, two), 5, 0)
        yield dropped.Moment((), 0, 7)

    monkeypatch.setattr(dropped, "follow", moments)
    code, out, err = said(capsys, "--name", "web", "--drops", "--follow")
    assert (code, err) == (0, ["vs-test: guest web has stopped"])
    assert out == [
        f"{SELF}:web: IN tcp [2001:db8::9]:4000 -> [2001:db8::2]:81 refused by /x:2"
        "; to allow, before that line: allow from 2001:db8::9 to tcp:81",
        f"{SELF}:web: OUT a packet (2 packets) refused: invalid; no line can allow it: so it is",
        f"{SELF}:web: 5 more refused, of too many kinds to tell them apart",
        f"{SELF}:web: 7 or more lost: they came faster than they could be read",
    ]
    _, out, _ = said(capsys, "--name", "web", "--drops", "--follow", "--json")
    rows = [json.loads(line) for line in out]
    assert rows[0] == {
        **{"host": SELF, "guest": "web", "direction": "IN", "link": "eth0", "time": 17.5, "packets": 1},
        **{"source": "2001:db8::9", "source port": 4000, "destination": "2001:db8::2", "protocol": 6},
        **{"service": "tcp:81", "packet": "tcp [2001:db8::9]:4000 -> [2001:db8::2]:81", "place": "/x:2"},
        **{"reason": "", "to allow": "allow from 2001:db8::9 to tcp:81", "note": ""},
    }
    assert rows[2:] == [{"host": SELF, "guest": "web", "more": 5}, {"host": SELF, "guest": "web", "lost": 7}]


def test_who_listens_already_is_an_error_in_one_sentence(tmp_path: Path) -> None:
    busy = object.__new__(nflog.Listener)

    class Busy:
        def settimeout(self, _: float) -> None: ...
        def send(self, _: bytes) -> None: ...
        def recv(self, _: int) -> bytes:
            return struct.pack("=IHHIIi", 20, 2, 0, 1, 0, -1)

    busy.__dict__.update(_wire=Busy())
    with pytest.raises(Refused, match="somebody else listens"):
        busy._bind(1)

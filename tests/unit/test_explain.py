"""vs-net --explain: the chains are walked as the kernel walks them, and every answer says whose decision it is."""

import json
import os
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstools.config import firewall
from vstools.config.text import Faults
from vstools.firewall import explain, model
from vstools.lifecycle import explain as explained
from vstools.network import devices, namespace
from vstools.paths import Paths

from .made import guest, nic, saved
from .test_net import said

SELF = os.uname().nodename.partition(".")[0]
OWN = (ip_interface("10.7.1.2/24"), ip_interface("10.7.1.3/24"), ip_interface("2001:db8:7::2/64"))
HOSTS = (ip_address("10.7.1.1"), ip_address("2001:db8:7::1"), ip_address("fe80::1"))
OTHERS = (
    *("10.7.1.1", "10.7.1.9", "10.8.0.1", "8.8.8.8", "10.7.1.255", "224.0.0.1", "169.254.1.1", "10.7.1.3"),
    *("2001:db8:7::1", "2001:db8:7::9", "2001:db8::5", "2606::1", "fe80::1", "fe80::9", "ff02::1", "2001:db8:7::2"),
)
ADDRESSES = ("any", "0/0", "::/0", "10.0.0.0/8", "10.7.1.0/24", "2001:db8::/32", "fe80::/10", *OTHERS)
SERVICES = (
    *("all", "tcp", "udp", "tcp:80", "tcp:79-81", "tcp:1-65535", "udp:53", "icmp", "icmp6", "icmp:8", "icmp:0"),
    *("icmp6:128", "icmp6:135", "icmp6:133", "1", "6", "58", "47"),
)
KINDS = ("tcp:80", "tcp:81", "udp:53", "icmp:8", "icmp:0", "icmp6:128", "icmp6:135", "icmp6:133", "icmp6:1", "47", "1")
FIRST = {"icmp:0", "icmp6:1"}
"""Kinds that only belong to a connection that there is."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rules") / "firewall.conf"


def policy(path: Path, *lines: str) -> firewall.Policy:
    """What a file of these lines says."""
    path.write_text("".join(f"{line}\n" for line in lines))
    faults = Faults()
    found = firewall.load(path, path.parent, faults)
    faults.check()
    return found


def serves(words: str, kind: str, version: int) -> bool:
    """Whether a list of services means a packet of this kind."""
    name, _, number = kind.partition(":")
    protocol = {"tcp": "6", "udp": "17", "icmp": "1", "icmp6": "58"}.get(name, name)
    for word in words.split(","):
        service, _, span = word.partition(":")
        only = {"icmp": 4, "icmp6": 6}.get(service, version)
        same = {"tcp": "6", "udp": "17", "icmp": "1", "icmp6": "58"}.get(service, service) == protocol
        low, _, high = (span or "0-65535").partition("-")
        if only == version and (
            service == "all" or (same and (not span or int(low) <= int(number) <= int(high or low)))
        ):
            return True
    return False


def covers(words: str, other: str) -> list[str]:
    """The parts of a list of addresses that mean this one."""
    everybody = {"any": "0.0.0.0/0 ::/0", "0/0": "0.0.0.0/0"}
    return [w for w in words.split(",") for net in everybody.get(w, w).split() if ip_address(other) in ip_network(net)]


def reference(lines: list[tuple[str, str, str, str]], way: str, other: str, kind: str) -> tuple[str, int]:
    """(verdict, number of the line that decides, 0 where none does): written for reading, from the manual alone."""
    address = ip_address(other)
    own = [str(interface.ip) for interface in OWN]
    if other in own:
        return ("deny", 0) if way == "from" else ("allow", 0)
    if kind == "icmp6:135":
        return "allow", 0
    if kind in FIRST:
        return "deny", 0
    isolated = address in HOSTS or address.is_link_local or address.is_multicast or other == "10.7.1.255"
    for number, (verb, direction, addresses, services) in enumerate(lines, 1):
        meant = covers(addresses, other)
        if isolated:
            meant = [word for word in meant if word == other]
        if direction == way and meant and serves(services, kind, address.version):
            return verb, number
    return "deny", 0


LINES = st.lists(
    st.tuples(
        st.sampled_from(["allow", "allow", "deny"]),
        st.sampled_from(["from", "to"]),
        st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=3).map(",".join),
        st.lists(st.sampled_from(SERVICES), min_size=1, max_size=3).map(",".join),
    ),
    max_size=8,
)


@given(lines=LINES, way=st.sampled_from(["from", "to"]), other=st.sampled_from(OTHERS), kind=st.sampled_from(KINDS))
def test_it_agrees_with_the_reference_and_its_rule_really_allows(
    path: Path, lines: list[tuple[str, str, str, str]], way: str, other: str, kind: str
) -> None:
    version = ip_address(other).version
    if kind.partition(":")[0] == {4: "icmp6", 6: "icmp"}[version]:
        return
    texts = [f"{verb} {direction} {addresses} to {services}" for verb, direction, addresses, services in lines]
    said = policy(path, *texts)
    asked = explained.question(way, other, kind)
    packet = explain.first_packet(OWN, asked.other, asked.service, incoming=asked.incoming)
    assert packet is not None
    (found,) = explain.decide(model.chains(said, OWN, HOSTS), packet)
    verdict, number = reference(lines, way, other, kind)
    assert ("allow" if found.allowed else "deny") == verdict
    assert found.reason == f"{path}:{number}" if number else f"{path}:" not in found.reason
    if found.allowed:
        return
    rule = explain.allowing(packet, OWN, HOSTS)
    assert bool(rule) == (found.reason not in explain.WHY)
    if rule:
        texts.insert(number - 1 if number else len(texts), rule)
        (again,) = explain.decide(model.chains(policy(path, *texts), OWN, HOSTS), packet)
        assert again.allowed
        assert "any" not in rule


@given(lines=LINES, other=st.sampled_from(OTHERS[:3]), down=st.booleans())
def test_several_ports_at_once_are_each_port_by_itself(
    path: Path, lines: list[tuple[str, str, str, str]], other: str, down: bool
) -> None:
    said = policy(path, *(f"{verb} {way} {addresses} to {services}" for verb, way, addresses, services in lines))
    chains = model.chains(said, OWN, HOSTS, up=not down)
    everything = explained.question("from", other, "tcp")
    whole = explain.first_packet(OWN, everything.other, everything.service, incoming=True)
    assert whole is not None
    parts = explain.decide(chains, whole)
    assert [part.packet.low for part in parts] == [1, *(part.packet.high + 1 for part in parts[:-1])]
    assert parts[-1].packet.high == 65535
    for port in (1, 78, 79, 80, 81, 82, 65535):
        one = explained.question("from", other, f"tcp:{port}")
        packet = explain.first_packet(OWN, one.other, one.service, incoming=True)
        assert packet is not None
        (found,) = explain.decide(chains, packet)
        (part,) = (part for part in parts if part.packet.low <= port <= part.packet.high)
        assert (found.allowed, found.reason) == (part.allowed, part.reason)


def test_every_refusal_of_the_model_is_known_here() -> None:
    """A reason that the model gets anew needs its words."""
    found = model.chains(firewall.Policy(), OWN, HOSTS)
    reasons = {entry.reason for entries in found.values() for entry in entries if entry.verdict == "drop"}
    assert reasons == {*explain.WHY, *explain.BY_RULES}


@pytest.fixture
def web(as_root: Paths, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A stopped guest with an address of each family, on a host with one of each."""
    as_root.conf.mkdir(parents=True)
    (as_root.conf / "create.conf").write_text("DEFAULT_DEVICE=vsbr0\nDEFAULT_PREFIX=24\n")
    (as_root.conf / "networks.conf").write_text("0:10.7.1.0/24,10.7.1.1\n0:2001:db8:7::/64,2001:db8:7::1\n")
    saved(as_root, guest(nics=(nic("10.7.1.2"), nic("2001:db8:7::2", "1"))))
    monkeypatch.setattr(
        devices, "host_addresses", lambda: tuple(map(ip_interface, ("10.7.1.1/24", "2001:db8:7::1/64")))
    )
    return as_root


RULES = """enable   # and this
allow from any to tcp:80
deny  from 10.7.1.9 to all  # him
allow from 10.0.0.0/8,10.7.1.1 to tcp:22
allow to any to all
"""


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("from 10.7.1.9 tcp:80", "allow from 10.7.1.9 to tcp:80 (FILE:2: allow from any to tcp:80)"),
        ("from 2001:db8::9 tcp:80", "allow from 2001:db8::9 to tcp:80 (FILE:2: allow from any to tcp:80)"),
        (
            "from 10.7.1.9 tcp:22",
            "deny from 10.7.1.9 to tcp:22 (FILE:3: deny from 10.7.1.9 to all)"
            "; to allow, before that line: allow from 10.7.1.9 to tcp:22",
        ),
        ("from 10.7.1.1 6", None),
        (
            "from 10.7.1.1 tcp:80",
            "deny from 10.7.1.1 to tcp:80 (the host is isolated: 10.7.1.1 is the host's and has to be named)"
            "; to allow: allow from 10.7.1.1 to tcp:80",
        ),
        (
            "to 224.0.0.251 udp:5353",
            "deny to 224.0.0.251 to udp:5353 (the host is isolated: 224.0.0.251 reaches the host as well and has to be"
            " named); to allow: allow to 224.0.0.251 to udp:5353",
        ),
        ("from 10.8.0.1 47", "deny from 10.8.0.1 to 47 (no rule allows it); to allow: allow from 10.8.0.1 to 47"),
        ("from 10.7.1.2 tcp:80", "deny from 10.7.1.2 to tcp:80 (a forged address: 10.7.1.2 is the guest's own)"),
        ("to 10.7.1.2 tcp:80", "allow to 10.7.1.2 to tcp:80 (loopback: the guest talks to itself)"),
        ("from 127.0.0.1 tcp:80", "deny from 127.0.0.1 to tcp:80 (no packet comes from 127.0.0.1)"),
        ("from 10.7.1.255 47", "deny from 10.7.1.255 to 47 (no packet comes from 10.7.1.255)"),
        ("from ff02::1 udp", "deny from ff02::1 to udp (no packet comes from ff02::1)"),
        ("from 10.8.0.1 udp", "deny from 10.8.0.1 to udp (no rule allows it); to allow: allow from 10.8.0.1 to udp"),
        ("to ::1 tcp:80", "allow to ::1 to tcp:80 (loopback: the guest talks to itself)"),
        ("to fe80::5 icmp6:135", "allow to fe80::5 to icmp6:135 (neighbour discovery always passes)"),
        ("to 8.8.8.8 icmp", "allow to 8.8.8.8 to icmp:echo-request (FILE:5: allow to any to all)"),
        (
            "to 8.8.8.8 icmp:echo-reply",
            "deny to 8.8.8.8 to icmp:echo-reply"
            " (invalid: icmp:echo-reply begins no connection, and passes with one that it belongs to)",
        ),
    ],
)
def test_a_line_says_who_decides(capsys: pytest.CaptureFixture[str], web: Paths, words: str, line: str | None) -> None:
    file = web.config_of("web") / "firewall.conf"
    file.write_text(RULES)
    code, out, err = said(capsys, "--name", "web", "--explain", *words.split())
    assert (code, err) == (0, [])
    if line is not None:
        assert out == [f"{SELF}:web: {line.replace('FILE', str(file))}"]


def test_ports_that_are_decided_about_differently_have_a_line_each(
    capsys: pytest.CaptureFixture[str], web: Paths
) -> None:
    (web.config_of("web") / "firewall.conf").write_text(RULES)
    _, out, _ = said(capsys, "--all", "--explain", "from", "10.8.0.1", "tcp")
    assert [line.split(" (")[0].removeprefix(f"{SELF}:web: ") for line in out] == [
        "deny from 10.8.0.1 to tcp:1-21",
        "allow from 10.8.0.1 to tcp:22",
        "deny from 10.8.0.1 to tcp:23-79",
        "allow from 10.8.0.1 to tcp:80",
        "deny from 10.8.0.1 to tcp:81-65535",
    ]


def test_json_has_each_word_by_itself(capsys: pytest.CaptureFixture[str], web: Paths) -> None:
    file = web.config_of("web") / "firewall.conf"
    file.write_text(RULES)
    _, out, _ = said(capsys, "--name", "web", "--json", "--explain", "from", "10.7.1.9", "udp:53")
    (row,) = json.loads("".join(out))
    assert row == {
        **{"host": SELF, "guest": "web", "verdict": "deny"},
        **{"direction": "from", "address": "10.7.1.9", "service": "udp:53"},
        **{"place": f"{file}:3", "text": "deny from 10.7.1.9 to all", "reason": ""},
        **{"to allow": "allow from 10.7.1.9 to udp:53", "fw": None, "in force": None},
    }


def test_a_missing_file_a_disabled_one_and_a_missing_family_are_told(
    capsys: pytest.CaptureFixture[str], web: Paths
) -> None:
    file = web.config_of("web") / "firewall.conf"
    ask = ("--name", "web", "--explain", "from", "10.8.0.1", "tcp:80")
    assert f"(no rule allows it: there is no {file})" in said(capsys, *ask)[1][0]
    file.write_text("# off\ndisable\n")
    assert f"allow from 10.8.0.1 to tcp:80 ({file}:2: disable)" in said(capsys, *ask)[1][0]
    saved(web, guest("four", 10001, nics=(nic("10.7.1.7"),)))
    _, out, _ = said(capsys, "--name", "four", "--explain", "to", "2001:db8::1", "tcp:80")
    assert out == [f"{SELF}:four: deny to 2001:db8::1 to tcp:80 (the guest has no IPv6 address)"]


@pytest.mark.parametrize(
    ("file", "up", "note"), [("enable", False, "down"), ("disable", True, "up"), ("enable", True, "")]
)
def test_what_is_not_in_force_is_said(
    capsys: pytest.CaptureFixture[str], web: Paths, monkeypatch: pytest.MonkeyPatch, file: str, up: bool, note: str
) -> None:
    (web.config_of("web") / "firewall.conf").write_text(f"{file}\n")
    monkeypatch.setattr(explained.net, "namespace", lambda *_: "vs10000")
    monkeypatch.setattr(namespace, "addresses", lambda _: OWN)
    monkeypatch.setattr(explained.backend, "up", lambda _: {"input": up, "output": False})
    _, out, _ = said(capsys, "--name", "web", "--explain", "from", "10.8.0.1", "tcp:80")
    end = (
        f"; not in force: in the kernel the firewall is {note}" if note else "; to allow: allow from 10.8.0.1 to tcp:80"
    )
    assert out[0].endswith(end)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("with 10.0.0.1 tcp:80", "'with' is not from or to"),
        ("from web tcp:80", "'web' is not an IPv4 or IPv6 address"),
        ("from 10.0.0.0/8 tcp:80", "'10.0.0.0/8' is not an IPv4 or IPv6 address"),
        ("from fe80::1%eth0 tcp:80", "has a zone"),
        ("from 0.0.0.0 tcp:80", "0.0.0.0 is nobody's address"),
        ("from 10.0.0.1 all", "all is no protocol of a packet"),
        ("from 10.0.0.1 tcp:0", "'0' is not a range of ports"),
        ("from 10.0.0.1 tcp:80,udp:53", "'80,udp:53' is not a port"),
        ("from 10.0.0.1 http", "'http' is not tcp"),
        ("from 10.0.0.1 icmp6", "icmp6 is not for an IPv4 address: its messages are icmp"),
        ("from ::2 icmp:8", "icmp:8 is not for an IPv6 address: its messages are icmp6"),
        ("from 10.0.0.1", "--explain"),
        ("from 10.0.0.1 tcp:80 --rules", "contradict"),
        ("from 10.0.0.1 tcp:80 --fw up", "contradict"),
    ],
)
def test_a_question_that_is_none_is_refused_in_a_sentence(
    capsys: pytest.CaptureFixture[str], web: Paths, words: str, sentence: str
) -> None:
    code, out, err = said(capsys, "--name", "web", "--explain", *words.split())
    assert (code, out, len(err)) == (2, [], 1), err
    assert sentence in err[0]


def test_a_file_with_faults_is_no_answer(capsys: pytest.CaptureFixture[str], web: Paths) -> None:
    file = web.config_of("web") / "firewall.conf"
    file.write_text("allow any\n")
    code, out, err = said(capsys, "--name", "web", "--explain", "from", "10.8.0.1", "tcp:80")
    assert (code, out) == (2, [])
    assert err[0].startswith(f"{file}:1:7: ")

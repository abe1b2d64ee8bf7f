"""networks.conf: the slides' lines, IPv6, and every fault at its place."""

import ipaddress
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstools.config import networks
from vstools.config.networks import Network, Networks
from vstools.config.text import Faults, lines_of
from vstools.errors import BadFiles

from .made import DATA
from .parsed import fault_lines, reader

read = reader(networks.load)
faults_of = fault_lines(networks.load)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "networks.conf"


def test_the_lines_on_the_slide_load_as_printed() -> None:
    faults = Faults()
    found = networks.load(DATA / "networks.conf.2008", faults)
    faults.check()
    assert found.lines == (
        Network(1, ip_network("10.0.1.0/24"), ip_address("10.0.1.1"), "foo.bar", (ip_address("10.0.3.6"),)),
        Network(2, ip_network("10.0.2.0/24"), ip_address("10.0.2.1")),
        Network(
            3,
            ip_network("10.0.3.0/24"),
            ip_address("10.0.3.1"),
            "foo.bar",
            (ip_address("10.0.3.5"), ip_address("10.0.3.6")),
        ),
    )


def test_the_network_of_an_address_is_the_one_it_lies_in() -> None:
    found = networks.load(DATA / "networks.conf.2008", Faults())
    assert [network and network.vlan for network in map(found.of, map(ip_address, ("10.0.2.255", "10.0.4.1")))] == [
        2,
        None,
    ]
    assert found.of(ip_address("2001:db8::1")) is None


def test_a_missing_file_has_no_networks(path: Path) -> None:
    faults = Faults()
    assert networks.load(path, faults) == Networks()
    assert not faults


def test_an_ipv6_network_needs_no_brackets(path: Path) -> None:
    (line,) = read(path, "12:2001:db8:1::/64,2001:db8:1::1,foo.bar,2001:db8::53\n").lines
    assert line == Network(
        12, ip_network("2001:db8:1::/64"), ip_address("2001:db8:1::1"), "foo.bar", (ip_address("2001:db8::53"),)
    )


@pytest.mark.parametrize(
    ("line", "gateway", "domain", "servers"),
    [
        ("0:10.0.0.0/8", None, None, []),
        ("0:10.0.0.0/8,", None, None, []),
        ("0:10.0.0.0/8,,foo.bar", None, "foo.bar", []),
        ("0:10.0.0.0/8,,,10.1.0.1", None, None, ["10.1.0.1"]),
        ("0:10.0.0.0/8,10.0.0.1,,10.1.0.1 10.1.0.2,10.1.0.3", "10.0.0.1", None, ["10.1.0.1", "10.1.0.2", "10.1.0.3"]),
        (
            " 0 : 10.0.0.0/8 , 10.0.0.1 , foo.bar , 10.1.0.1 , # the old one",
            "10.0.0.1",
            "foo.bar",
            ["10.1.0.1"],
        ),
    ],
)
def test_fields_may_be_empty_and_spaced(
    path: Path, line: str, gateway: str | None, domain: str | None, servers: list[str]
) -> None:
    (found,) = read(path, f"# networks\n\n{line}\n").lines
    assert (found.vlan, str(found.net)) == (0, "10.0.0.0/8")
    assert (found.gateway and str(found.gateway), found.domain) == (gateway, domain)
    assert [str(server) for server in found.nameservers] == servers


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("10.0.1.0/24", "1:1: a line is VLAN:ADDRESS/PREFIX[,GATEWAY[,...]]"),
        ("  eth0:10.0.1.0/24", "1:3: a line is VLAN:ADDRESS/PREFIX[,GATEWAY[,...]]"),
        ("²:10.0.1.0/24", "1:1: '²' is not a whole number from 0 to 4094"),
        (" 4095:10.0.1.0/24", "1:2: '4095' is not a whole number from 0 to 4094"),
        (
            "000000000000000000000001:10.0.1.0/24",
            "1:1: '000000000000000000000001' is not a whole number from 0 to 4094",
        ),
        ("1:10.0.1.0", "1:3: '10.0.1.0' is not ADDRESS/PREFIX"),
        ("1:", "1:3: '' is not ADDRESS/PREFIX"),
        ("1:10.0.1.0/255.255.255.0", "1:3: '10.0.1.0/255.255.255.0' is not ADDRESS/PREFIX"),
        ("1:10.0.1.0/0.0.0.255", "1:3: '10.0.1.0/0.0.0.255' is not ADDRESS/PREFIX"),
        ("# never\x0b1:10.0.1.0\n2", "2:1: a line is VLAN:ADDRESS/PREFIX[,GATEWAY[,...]]"),
        ("1:10.0.1.5/24", "1:3: 10.0.1.5/24 has host bits set"),
        ("1: 2001:db8::%eth0/64", "1:4: '2001:db8::%eth0/64' has a zone, which means nothing to another host"),
        ("1:10.0.1.0/24,10.0.2.1", "1:15: the gateway 10.0.2.1 is outside 10.0.1.0/24"),
        ("1:10.0.1.0/24,2001:db8::1", "1:15: the gateway 2001:db8::1 is outside 10.0.1.0/24"),
        ("1:10.0.1.0/24,  gw", "1:17: 'gw' is not an IPv4 or IPv6 address"),
        ("1:10.0.1.0/24,10.0.1.1,foo bar", "1:24: 'foo bar' is not a domain name"),
        ("1:10.0.1.0/24,10.0.1.1,foo.bar,10.0.3.5 10.0.3.600", "1:41: '10.0.3.600' is not an IPv4 or IPv6 address"),
        ("1:10.0.1.0/24,,,10.0.3.5, x", "1:27: 'x' is not an IPv4 or IPv6 address"),
    ],
)
def test_a_wrong_field_is_an_error_at_its_place(path: Path, line: str, fault: str) -> None:
    assert faults_of(path, line + "\n") == [fault]


def test_networks_that_overlap_are_an_error_even_in_different_vlans(path: Path) -> None:
    text = "1:10.0.0.0/16\n2:192.168.0.0/24\n  3:10.0.3.0/24,10.0.3.1\n"
    assert faults_of(path, text) == ["3:5: 10.0.3.0/24 overlaps 10.0.0.0/16 of an earlier line"]


def test_an_ipv6_network_overlaps_no_ipv4_one(path: Path) -> None:
    assert len(read(path, "1:0.0.0.0/0\n1:::/0\n").lines) == 2


def test_all_faults_of_a_line_and_of_a_file_are_told_at_once(path: Path) -> None:
    text = "9999:10.0.1.0/24,x,-,y\n# fine\nnonsense\n"
    assert [fault.split(": ")[0] for fault in faults_of(path, text)] == ["1:1", "1:18", "1:20", "1:22", "3:1"]


WORDS = st.sampled_from(["0", "1", "4095", "10.0.0.0/8", "10.0.0.1", "2001:db8::/32", "::1", "a.b", "x y", "", "%"])


@given(lines=st.lists(st.one_of(st.text(), st.builds("{}:{},{},{},{}".format, WORDS, WORDS, WORDS, WORDS, WORDS))))
def test_whatever_the_file_holds_reading_it_collects_faults_and_raises_nothing(path: Path, lines: list[str]) -> None:
    path.write_bytes("\n".join(lines).encode("utf-8", "replace"))
    faults = Faults()
    found = networks.load(path, faults)
    text = lines_of(path)
    if not faults:
        for one in found.lines:
            assert all(other is one or not other.net.overlaps(one.net) for other in found.lines if _same(one, other))
        return
    with pytest.raises(BadFiles) as caught:
        faults.check()
    for fault in caught.value.faults:
        line, column, _ = fault.removeprefix(f"{path}:").split(":", 2)
        assert 1 <= int(column) <= len(text[int(line) - 1]) + 1


def _same(one: Network, other: Network) -> bool:
    return one.net.version == other.net.version


NETS = st.one_of(
    st.builds(
        lambda number, prefix: ipaddress.ip_network((number, prefix), strict=False),
        st.integers(0, 2**32 - 1),
        st.integers(1, 32),
    ),
    st.builds(
        lambda number, prefix: ipaddress.ip_network((number, prefix), strict=False),
        st.integers(2**64, 2**128 - 1),
        st.integers(1, 128),
    ),
)


@given(
    vlan=st.integers(0, 4094),
    net=NETS,
    servers=st.lists(st.ip_addresses(), max_size=3),
    domain=st.sampled_from([None, "foo.bar"]),
)
def test_every_network_written_as_the_manual_says_is_read_as_it_is(
    path: Path, vlan: int, net: networks.IpNetwork, servers: list[ipaddress.IPv4Address], domain: str | None
) -> None:
    gateway = net[-1]
    line = ",".join([f"{vlan}:{net}", str(gateway), domain or "", *map(str, servers)])
    expected = Network(vlan, net, gateway, domain, tuple(servers))
    assert read(path, line + "\n").lines == (expected,)

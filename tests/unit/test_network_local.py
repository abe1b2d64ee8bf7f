"""The local network of a single machine."""

from ipaddress import IPv4Network, ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from vstools.config.networks import Network, Networks
from vstools.errors import Refused
from vstools.lifecycle import demo
from vstools.network import local, plan
from vstools.paths import Paths
from vstools.render import render

from .made import guest, nic, saved

LAN = Network(0, ip_network("10.77.0.0/24"), ip_address("10.77.0.1"))


def link(*addresses: str, device: str = local.BRIDGE) -> plan.Link:
    return plan.Link("eth0", "vs2.0", device, 0, "02:00:00:00:00:01", None, tuple(map(ip_interface, addresses)))


def test_the_bridge_gets_the_gateways_of_the_networks_that_guests_on_it_are_in() -> None:
    second = Network(0, ip_network("2001:db8::/64"), ip_address("2001:db8::1"))
    links = (link("10.77.0.5/24", "10.77.0.6/24", "2001:db8::5/64"), link("10.0.0.5/24", device="eth0"))
    assert local._networks(links, Networks((LAN, second))) == (LAN, second)


@pytest.mark.parametrize("line", [Network(0, LAN.net), Network(7, LAN.net, LAN.gateway), None])
def test_a_bridge_that_no_untagged_network_with_a_gateway_describes_is_refused(line: Network | None) -> None:
    with pytest.raises(Refused, match=r"vsbr0 does not exist and no line of networks\.conf tells its address"):
        local._networks((link("10.77.0.5/24"),), Networks((line,) if line else ()))


def rules(*, most: int = 4096, only_for_guests: bool = False) -> str:
    """The local network's rules."""
    values = {"table": "vs_local", "bridge": "vsbr0", "nets": ("10.77.0.0/24",)}
    return render("local.nft", **values, most=most, only_for_guests=only_for_guests)


@pytest.mark.parametrize(
    ("size", "most"), [("262144\n", 4096), ("65536", 4096), ("8192", 512), ("1024", 256), (None, 4096)]
)
def test_an_address_may_have_a_sixteenth_of_the_hosts_connections(
    size: str | None, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "nf_conntrack_max"
    if size is not None:
        table.write_text(size)
    monkeypatch.setattr(local, "_TABLE_SIZE", table)
    monkeypatch.setattr(local.run, "run", lambda *_, **__: None)
    assert local.most_connections() == most


def test_connections_are_bounded_before_they_are_confirmed_or_not_at_all() -> None:
    bound = 'iifname "vsbr0" ct state new add @begun { ip saddr ct count over 512 } counter drop'
    assert bound in rules(most=512)
    assert "begun" not in rules(most=0)


@pytest.mark.parametrize("forwards", [True, False])
def test_a_host_that_forwarded_nothing_before_forwards_for_its_guests_alone(forwards: bool) -> None:
    text = rules(only_for_guests=not forwards)
    lines = [line.strip() for line in text.splitlines()]
    forward = lines[lines.index("chain forward {") : lines.index("chain postrouting {")]
    assert ("drop" in forward) is not forwards
    assert 'oifname "vsbr0" drop' in forward, "nobody outside opens a connection to a guest"
    assert 'ip saddr { 10.77.0.0/24 } oifname != "vsbr0" masquerade' in lines
    assert text.count("{") == text.count("}")
    assert lines[:2] == ["table ip vs_local", "delete table ip vs_local"], "loading it twice is loading it once"


@pytest.mark.parametrize(
    ("taken", "chosen"),
    [
        ([], "10.77.0.0/24"),
        (["10.77.0.0/24", "10.78.0.128/25"], "10.79.0.0/24"),
        (["10.76.0.0/14"], "10.87.0.0/24"),
        (["192.168.0.0/16"], "10.77.0.0/24"),
    ],
)
def test_the_demo_takes_the_first_private_network_that_overlaps_no_other(taken: list[str], chosen: str) -> None:
    assert demo.choose_network(tuple(map(IPv4Network, taken))) == IPv4Network(chosen)


def test_a_host_without_a_free_private_network_is_told_to_choose_one() -> None:
    with pytest.raises(Refused, match="no private network is free"):
        demo.choose_network((IPv4Network("10.0.0.0/8"),))


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A host with a network of its own; returns its resolv.conf."""
    resolv = tmp_path / "resolv.conf"
    monkeypatch.setattr(demo, "_taken", lambda _: (IPv4Network("10.77.0.0/24"),))
    monkeypatch.setattr(demo, "_RESOLV", (tmp_path / "missing", resolv))
    return resolv


def test_the_demo_writes_one_line_and_two_keys_and_twice_is_once(paths: Paths, quiet: Path) -> None:
    quiet.write_text("nameserver 127.0.0.53\nnameserver 192.168.1.1\nnameserver fe80::1%eth0\nsearch lan.test other\n")
    paths.conf.mkdir(parents=True)
    (paths.conf / "networks.conf").write_text("# ours\n5:10.0.5.0/24")
    assert demo.configure(paths, "/t/debian.tar.zst") == "0:10.78.0.0/24,10.78.0.1,lan.test,192.168.1.1"
    once = {path.name: path.read_text() for path in paths.conf.iterdir()}
    assert once == {
        "networks.conf": "# ours\n5:10.0.5.0/24\n0:10.78.0.0/24,10.78.0.1,lan.test,192.168.1.1\n",
        "firewall.conf": "# What new guests begin with; firewall.conf.sample describes the lines.\nenable\n"
        "allow to 192.168.1.1 to udp:53,tcp:53\nallow from 10.78.0.1 to icmp,tcp:22\n",
        "create.conf": "DEFAULT_DEVICE=vsbr0\nDEFAULT_TEMPLATE=/t/debian.tar.zst\n",
    }
    assert demo.configure(paths, "/t/debian.tar.zst") == "0:10.78.0.0/24,10.78.0.1"
    assert {path.name: path.read_text() for path in paths.conf.iterdir()} == once


@pytest.mark.parametrize(
    ("text", "domain", "servers"),
    [
        ("", "internal", []),
        ("search .\nnameserver ::1\n", "internal", []),
        ("domain lan.test.\nnameserver 10.0.0.1 # x\nnameserver 10.0.0.1\n", "lan.test", ["10.0.0.1"]),
        ("search a/b\nnameserver x\n", "internal", []),
        ("".join(f"nameserver 10.0.0.{n}\n" for n in range(1, 6)), "internal", ["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
    ],
)
def test_name_servers_of_the_demo_are_the_hosts_but_for_those_on_loopback(
    quiet: Path, text: str, domain: str, servers: list[str]
) -> None:
    quiet.write_text(text)
    assert demo._resolver() == (domain, servers)


def test_the_demos_guest_takes_the_first_free_address(paths: Paths) -> None:
    paths.conf.mkdir(parents=True)
    with pytest.raises(Refused, match=r"networks\.conf has no local network"):
        demo.address(paths)
    (paths.conf / "networks.conf").write_text("5:10.0.5.0/24\n0:10.78.0.0/24,10.78.0.1\n")
    assert demo.address(paths) == "10.78.0.2"
    saved(paths, guest(nics=tuple(nic(f"10.78.0.{number}", str(number)) for number in range(2, 255) if number != 200)))
    assert demo.address(paths) == "10.78.0.200"
    saved(paths, guest("last", 10001, nics=(nic("10.78.0.200"),)))
    with pytest.raises(Refused, match=r"every address of 10\.78\.0\.0/24 is taken"):
        demo.address(paths)

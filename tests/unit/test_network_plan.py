"""Which links, addresses and routes a guest gets; whose word wins; which addresses nobody gets."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstools.config.create import CreateConf
from vstools.config.networks import Network, Networks
from vstools.errors import Refused
from vstools.guest import Names
from vstools.network import plan

from .made import guest, nic

LAN = Network(0, ip_network("10.0.1.0/24"), ip_address("10.0.1.1"), "lan.test", (ip_address("10.0.1.53"),))
DMZ = Network(7, ip_network("10.0.7.0/24"), ip_address("10.0.7.1"))
LAN6 = Network(0, ip_network("2001:db8:1::/64"), ip_address("2001:db8:1::1"))
NETWORKS = Networks((LAN, DMZ, LAN6))
CONF = CreateConf(device="eth0", domain="conf.test", nameservers=(ip_address("10.9.9.9"),), prefix=16)


def test_one_address_is_one_link_with_what_its_network_says() -> None:
    (link,) = plan.links(guest(nics=(nic("10.0.1.5", mac="02:00:00:00:00:05"),)), NETWORKS, CONF)
    assert link == plan.Link(
        name="eth0",
        host_name="vs10000.0",
        device="eth0",
        vlan=0,
        mac="02:00:00:00:00:05",
        mtu=None,
        addresses=(ip_interface("10.0.1.5/24"),),
        routes=(plan.Route(LAN.net, ip_address("10.0.1.1"), main=True, table=None),),
    )


def test_addresses_with_the_same_device_and_vlan_share_a_link_in_order_of_first_use() -> None:
    made = guest(
        nics=(
            nic("10.0.7.5", "0"),
            nic("10.0.1.5", "1"),
            nic("10.0.7.6", "2"),
            nic("2001:db8:1::5", "3"),
            nic("10.0.1.6", "4", device="br0"),
        )
    )
    found = plan.links(made, NETWORKS, CONF)
    assert [(link.name, link.host_name, link.device, link.vlan) for link in found] == [
        ("eth0", "vs10000.0", "eth0", 7),
        ("eth1", "vs10000.1", "eth0", 0),
        ("eth2", "vs10000.2", "br0", 0),
    ]
    assert [[str(address) for address in link.addresses] for link in found] == [
        ["10.0.7.5/24", "10.0.7.6/24"],
        ["10.0.1.5/24", "2001:db8:1::5/64"],
        ["10.0.1.6/24"],
    ]
    assert [[str(route.gateway) for route in link.routes] for link in found] == [
        ["10.0.7.1"],
        ["10.0.1.1", "2001:db8:1::1"],
        ["10.0.1.1"],
    ]


def test_where_a_family_has_several_default_routes_each_network_has_a_table_and_the_first_is_mains() -> None:
    nics = (nic("10.0.7.5"), nic("10.0.7.6", "1"), nic("10.0.1.5", "2"), nic("2001:db8:1::5", "3"))
    first, second = plan.links(guest(nics=nics), NETWORKS, CONF)
    assert first.routes == (plan.Route(DMZ.net, ip_address("10.0.7.1"), main=True, table=1000),)
    assert second.routes == (
        plan.Route(LAN.net, ip_address("10.0.1.1"), main=False, table=1001),
        plan.Route(LAN6.net, ip_address("2001:db8:1::1"), main=True, table=None),
    )
    assert second.route_of(ip_address("10.0.1.5")) == second.routes[0]
    assert second.route_of(ip_address("10.0.7.5")) is None


def test_a_disabled_interface_is_left_out() -> None:
    made = guest(nics=(nic("10.0.7.5", "0", disabled=True), nic("10.0.1.5", "1")))
    assert [(link.name, link.vlan) for link in plan.links(made, NETWORKS, CONF)] == [("eth0", 0)]


def test_a_guest_without_an_address_has_no_link() -> None:
    assert plan.links(guest(), NETWORKS, CONF) == ()


def test_the_mac_of_a_link_is_the_first_that_was_given() -> None:
    made = guest(nics=(nic("10.0.1.5"), nic("10.0.1.6", "1", mac="02:00:00:00:00:06")))
    assert plan.links(made, NETWORKS, CONF)[0].mac == "02:00:00:00:00:06"


@given(contexts=st.sets(st.integers(2, 65534), min_size=2, max_size=2))
def test_a_guest_that_came_without_a_mac_gets_its_own_and_always_the_same(contexts: set[int]) -> None:
    nics = (nic("10.0.1.5"), nic("10.0.7.5", "1"))
    macs = [[link.mac for link in plan.links(guest(context=one, nics=nics), NETWORKS, CONF)] for one in contexts]
    assert macs == [
        [link.mac for link in plan.links(guest(context=one, nics=nics), NETWORKS, CONF)] for one in contexts
    ]
    flat = [mac for some in macs for mac in some]
    assert len(set(flat)) == 4
    assert all(int(mac[:2], 16) & 3 == 2 for mac in flat), "locally administered and unicast"


def test_the_device_of_the_command_line_wins_over_create_conf() -> None:
    made = guest(nics=(nic("10.0.1.5", device="br0"),))
    assert plan.links(made, NETWORKS, CONF)[0].device == "br0"


def test_no_device_anywhere_is_refused() -> None:
    with pytest.raises(Refused, match=r"no network device for 10\.0\.1\.5"):
        plan.links(guest(nics=(nic("10.0.1.5"),)), NETWORKS, replace(CONF, device=None))


@pytest.mark.parametrize(
    ("given_prefix", "networks", "conf_prefix", "prefix"),
    [(25, NETWORKS, 16, 25), (None, NETWORKS, 16, 24), (None, Networks(), 16, 16)],
)
def test_a_prefix_is_that_of_the_command_line_then_of_networks_conf_then_of_create_conf(
    given_prefix: int | None, networks: Networks, conf_prefix: int, prefix: int
) -> None:
    made = guest(nics=(nic("10.0.1.5", prefix=given_prefix),))
    (link,) = plan.links(made, networks, replace(CONF, prefix=conf_prefix))
    assert link.addresses[0].network.prefixlen == prefix


@pytest.mark.parametrize(
    ("prefix", "sentence"),
    [(None, r"10\.0\.1\.5 is in no network of networks\.conf"), (33, r"/33 is no prefix length for 10\.0\.1\.5")],
)
def test_an_address_with_no_prefix_or_one_too_long_is_refused(prefix: int | None, sentence: str) -> None:
    with pytest.raises(Refused, match=sentence):
        plan.links(guest(nics=(nic("10.0.1.5", prefix=prefix),)), Networks(), replace(CONF, prefix=None))


def test_the_mtu_is_create_confs() -> None:
    assert plan.links(guest(nics=(nic("10.0.1.5"),)), NETWORKS, replace(CONF, mtu=1496))[0].mtu == 1496


@pytest.mark.parametrize(
    ("domain", "address", "expected"),
    [("own.test", "10.0.1.5", "own.test"), (None, "10.0.1.5", "lan.test"), (None, "10.0.7.5", "conf.test")],
)
def test_a_domain_is_the_guests_then_of_networks_conf_then_of_create_conf(
    domain: str | None, address: str, expected: str
) -> None:
    assert plan.names(guest(nics=(nic(address),), domain=domain), NETWORKS, CONF).domain == expected


@pytest.mark.parametrize(
    ("own", "address", "expected"),
    [("10.0.0.53", "10.0.1.5", "10.0.0.53"), (None, "10.0.1.5", "10.0.1.53"), (None, "10.0.7.5", "10.9.9.9")],
)
def test_name_servers_are_the_guests_then_of_networks_conf_then_of_create_conf(
    own: str | None, address: str, expected: str
) -> None:
    servers = (ip_address(own),) if own else ()
    found = plan.names(guest(nics=(nic(address),), nameservers=servers), NETWORKS, CONF)
    assert found.nameservers == (ip_address(expected),)


def test_names_come_from_the_first_network_that_has_some_and_from_no_disabled_one() -> None:
    nics = (nic("10.0.7.5", "0"), nic("10.0.1.5", "1"))
    assert plan.names(guest(nics=nics), NETWORKS, CONF) == Names("lan.test", (ip_address("10.0.1.53"),))
    off = (nics[0], replace(nics[1], disabled=True))
    assert plan.names(guest(nics=off), NETWORKS, CONF) == Names("conf.test", (ip_address("10.9.9.9"),))


@pytest.mark.parametrize(
    ("address", "prefix", "sentence"),
    [
        ("10.0.1.0", 24, "is the address of the network 10.0.1.0/24 itself"),
        ("10.0.1.255", 24, "is the broadcast address of 10.0.1.0/24"),
        ("10.0.1.127", 25, "is the broadcast address of 10.0.1.0/25"),
        ("10.0.1.1", 24, "is the gateway of 10.0.1.0/24"),
        ("2001:db8:1::", 64, "is the address of the network 2001:db8:1::/64 itself"),
        ("127.0.0.1", 8, "cannot be a guest's address"),
        ("::1", 64, "cannot be a guest's address"),
        ("0.0.0.0", 8, "cannot be a guest's address"),  # noqa: S104 - an address, nothing is bound
        ("224.0.0.1", 24, "cannot be a guest's address"),
        ("ff02::1", 64, "cannot be a guest's address"),
        ("169.254.1.1", 16, "cannot be a guest's address"),
        ("fe80::1", 64, "cannot be a guest's address"),
    ],
)
def test_addresses_that_belong_to_the_network_are_no_guests(address: str, prefix: int, sentence: str) -> None:
    with pytest.raises(Refused, match=sentence):
        plan.check_address(ip_address(address), ip_interface(f"{address}/{prefix}"), ip_address("10.0.1.1"))


@pytest.mark.parametrize(
    ("address", "prefix"),
    [
        ("10.0.1.2", 24),
        ("10.0.1.254", 24),
        ("10.0.2.0", 31),
        ("10.0.2.1", 31),
        ("10.0.2.0", 32),
        ("10.0.2.255", 16),
        ("2001:db8:1:0:ffff:ffff:ffff:ffff", 64),
        ("2001:db8::", 127),
    ],
)
def test_any_other_address_is_a_guests(address: str, prefix: int) -> None:
    plan.check_address(ip_address(address), ip_interface(f"{address}/{prefix}"), ip_address("10.0.1.1"))


@pytest.mark.parametrize(
    ("device", "vlan", "name"),
    [
        ("eth0", 0, "eth0"),
        ("eth0", 7, "eth0.7"),
        ("enp0s31f6", 4094, "enp0s31f6.4094"),
        ("enp0s31f6x", 4094, "enp0s31f6x.4094"),
        ("enp0s31f6xy", 4094, "vs-vlan4094"),
        ("fifteen-letters", 0, "fifteen-letters"),
    ],
)
def test_a_vlan_device_is_named_after_its_device_unless_that_has_over_15_letters(
    device: str, vlan: int, name: str
) -> None:
    link = plan.Link("eth0", "vs2.0", device, vlan, "02:00:00:00:00:01", None, ())
    assert link.vlan_device == name
    assert len(name) <= 15


def test_links_and_namespaces_are_named_after_the_context_and_fit_the_kernel() -> None:
    (link,) = plan.links(guest("a-very-long-name-indeed", 65534, nics=(nic("10.0.1.5"),)), NETWORKS, CONF)
    assert (plan.netns(65534), link.host_name) == ("vs65534", "vs65534.0")

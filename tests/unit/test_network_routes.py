"""Whether a guest's packets find their way: what the kernel knows, compared with what the plan says."""

from ipaddress import ip_address, ip_interface, ip_network

import pytest

from vstools.network.plan import Route
from vstools.network.routes import Ways

OWN = ip_interface("10.0.7.5/24")
ALL, LAN, DMZ = ip_network("0.0.0.0/0"), ip_network("10.0.1.0/24"), ip_network("10.0.7.0/24")
ROUTE = Route(DMZ, ip_address("10.0.7.1"), main=False, table=1001)
LINK = 5
KERNEL = ((ALL, 255), (ALL, 254), (ALL, 253))
HELD = (
    (254, LAN, 4, None),
    (254, DMZ, LINK, None),
    (254, ALL, 4, ip_address("10.0.1.1")),
    (1001, DMZ, LINK, None),
    (1001, ALL, LINK, ip_address("10.0.7.1")),
)
RULES = (KERNEL[0], (LAN, 1000), (DMZ, 1001), *KERNEL[1:])


def test_a_network_with_its_own_table_and_rule_finds_its_gateway() -> None:
    assert Ways(frozenset(HELD), RULES).lead(OWN, LINK, ROUTE)


@pytest.mark.parametrize("missing", [HELD[1], HELD[3], HELD[4]], ids=["on-link", "on-link of its own", "default"])
def test_each_of_its_routes_is_needed(missing: tuple[int, object, int, object]) -> None:
    assert not Ways(frozenset(HELD) - {missing}, RULES).lead(OWN, LINK, ROUTE)


def test_without_its_rule_the_table_is_of_no_use() -> None:
    assert not Ways(frozenset(HELD), KERNEL).lead(OWN, LINK, ROUTE)


def test_the_right_link_with_anothers_gateway_is_not_its_way() -> None:
    other = (1001, ALL, LINK, ip_address("10.0.7.2"))
    assert not Ways(frozenset({*HELD[:4], other}), RULES).lead(OWN, LINK, ROUTE)


def test_a_single_default_route_is_the_main_tables() -> None:
    held = frozenset({HELD[1], (254, ALL, LINK, ip_address("10.0.7.1"))})
    assert Ways(held, KERNEL).lead(OWN, LINK, Route(DMZ, ip_address("10.0.7.1")))
    assert not Ways(frozenset({HELD[1]}), KERNEL).lead(OWN, LINK, Route(DMZ, ip_address("10.0.7.1")))


def test_a_network_without_a_gateway_needs_its_link_alone_and_a_single_address_not_even_that() -> None:
    assert Ways(frozenset({HELD[1]}), KERNEL).lead(OWN, LINK, None)
    assert not Ways(frozenset(), KERNEL).lead(OWN, LINK, None)
    assert Ways(frozenset(), KERNEL).lead(ip_interface("10.0.7.5/32"), LINK, None)

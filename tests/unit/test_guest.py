"""Names, contexts, limits, shares, addresses: what a guest may be."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstools.errors import Refused
from vstools.guest import (
    Cpu,
    bracketed,
    check_context,
    check_name,
    parse_address,
    parse_cpu,
    parse_device,
    parse_domain,
    parse_limit,
    parse_mac,
)

from .made import guest


@pytest.mark.parametrize("name", ["web", "0", "a" * 63, "www.foo-bar_2", "1-2.3_4", "a-", "a."])
def test_a_name_is_1_to_63_letters_digits_dots_underscores_and_hyphens(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "a" * 64, ".web", "-web", "_web", "a..b", "a b", "a/b", "a\n", "a\0", "wéb", "ä", "a:b", "%n", "../web"],
)
def test_a_name_of_anything_else_is_refused(name: str) -> None:
    with pytest.raises(Refused, match="cannot name a guest"):
        check_name(name)
    with pytest.raises(Refused, match="cannot name a guest"):
        check_name(name, imported=True)


def test_capitals_are_for_imported_guests_only() -> None:
    assert check_name("Web1", imported=True) == "Web1"
    with pytest.raises(Refused, match="capitals are not allowed, 'web1' would do"):
        check_name("Web1")


@pytest.mark.parametrize("imported", [True, False])
def test_the_name_of_the_directory_of_templates_is_reserved(imported: bool) -> None:
    with pytest.raises(Refused, match="the name is reserved"):
        check_name("TEMPLATES", imported=imported)


@given(name=st.text(max_size=70))
def test_no_accepted_name_leads_anywhere_but_to_its_own_directory(name: str) -> None:
    try:
        check_name(name, imported=True)
    except Refused:
        return
    assert name.isascii()
    assert name.isprintable()
    assert "/" not in name
    assert ".." not in name
    assert name[0] not in ".-_"


@pytest.mark.parametrize("context", [2, 10000, 65534])
def test_a_context_lies_between_2_and_65534(context: int) -> None:
    assert check_context(context) == context


@pytest.mark.parametrize("context", [-1, 0, 1, 65535, 65536, 1 << 32])
def test_any_other_context_is_refused_for_0_would_be_the_hosts_root(context: int) -> None:
    with pytest.raises(Refused, match="cannot be a context"):
        check_context(context)


@given(first=st.integers(2, 65534), second=st.integers(2, 65534))
def test_the_ids_of_two_contexts_never_meet_and_never_reach_the_hosts_own(first: int, second: int) -> None:
    one, other = guest(context=first).id_base, guest(context=second).id_base
    assert one > 65535
    assert one + 65535 < 2**32 - 1
    assert (one == other) == (first == second)
    assert first == second or abs(one - other) >= 65536


@pytest.mark.parametrize(("text", "limit"), [("1", 1), ("128", 128), ("inf", None), ("8796093022207", (1 << 43) - 1)])
def test_a_limit_is_a_whole_number_or_inf(text: str, limit: int | None) -> None:
    assert parse_limit(text) == limit


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "128M", "", " 1", "infinite", "8796093022208", "9" * 16, "²"])
def test_a_limit_of_nothing_or_past_2_to_the_63_bytes_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"whole number|past what a kernel counts"):
        parse_limit(text)


@pytest.mark.parametrize(("text", "cpu"), [("9/10", Cpu(9, 10)), ("1/1", Cpu(1, 1)), ("10/100", Cpu(10, 100))])
def test_a_share_is_tokens_by_ticks_and_is_shown_as_it_was_typed(text: str, cpu: Cpu) -> None:
    assert parse_cpu(text) == cpu
    assert str(parse_cpu(text)) == text


@pytest.mark.parametrize(
    "text", ["0/10", "11/10", "1/0", "0/0", "9", "0.9", "9 / 10", "-1/2", "1/2/3", "", "1/9999999999"]
)
def test_a_share_of_nothing_or_of_more_than_the_host_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="share"):
        parse_cpu(text)


def test_an_address_carries_no_prefix_and_no_zone() -> None:
    assert parse_address("10.0.1.5") == ip_address("10.0.1.5")
    assert parse_address("2001:DB8::5") == ip_address("2001:db8::5")
    for text in ("10.0.1.5/24", "fe80::1%eth0", "10.0.1", "010.0.1.5", "[::1]", "localhost", ""):
        with pytest.raises(ValueError, match=r"is not an IPv4|has a zone"):
            parse_address(text)


@pytest.mark.parametrize("text", ["foo.bar", "univ-reims.fr", "a", "_tcp.foo", "1.2", "a" * 63 + ".b"])
def test_a_domain_is_labels_joined_by_dots(text: str) -> None:
    assert parse_domain(text) == text


@pytest.mark.parametrize(
    "text", ["", ".", "foo.", ".foo", "a..b", "-a", "a-", "a b", "a\nb", "é.fr", "a" * 64, "a." * 127 + "a"]
)
def test_a_domain_of_anything_else_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="is not a domain name"):
        parse_domain(text)


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "a b", "a:b", "a%d", "sixteen-letters-", "a\n"])
def test_a_device_name_is_one_that_the_kernel_takes(text: str) -> None:
    assert parse_device("enp0s31f6.100") == "enp0s31f6.100"
    with pytest.raises(ValueError, match="is not the name of a network device"):
        parse_device(text)


def test_a_mac_address_is_that_of_one_device() -> None:
    assert parse_mac("02:AB:00:00:00:01") == "02:ab:00:00:00:01"
    for text in ("01:00:5e:00:00:01", "02:ab:00:00:00", "02-ab-00-00-00-01", "02:ab:00:00:00:0g", ""):
        with pytest.raises(ValueError, match="is not the MAC address of one device"):
            parse_mac(text)


def test_ipv6_addresses_stand_in_brackets_in_lines_joined_by_colons() -> None:
    assert [bracketed(ip_address(text)) for text in ("10.0.1.5", "2001:db8::5")] == ["10.0.1.5", "[2001:db8::5]"]

"""ARP and neighbour discovery as they are on the wire."""

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstools.network import arp, ndp

OWN, OTHER, GUEST = (bytes.fromhex(f"02000000000{number}") for number in (1, 2, 3))
ADDRESS, ADDRESS6 = IPv4Address("10.0.1.5"), IPv6Address("2001:db8:1::12:3456")
NOBODY = b"\0" * 4


def test_a_probe_is_a_broadcast_request_with_an_empty_sender() -> None:
    assert arp._frame(OWN, NOBODY, ADDRESS.packed).hex(" ") == (
        "ff ff ff ff ff ff 02 00 00 00 00 01 08 06 "
        "00 01 08 00 06 04 00 01 02 00 00 00 00 01 00 00 00 00 00 00 00 00 00 00 0a 00 01 05"
    )


def reply(sender: bytes, target: bytes = OWN, to: bytes = NOBODY, address: IPv4Address = ADDRESS) -> bytes:
    """An answer, as RFC 826 makes one of a request."""
    return target + sender + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 2) + sender + address.packed + target + to


@pytest.mark.parametrize(
    ("frame", "holder"),
    [
        (b"", None),
        (b"short", None),
        (reply(OTHER), "02:00:00:00:00:02"),
        (reply(OTHER) + b"\0" * 18, "02:00:00:00:00:02"),
        (reply(OTHER)[:41], None),
        (reply(OTHER, address=IPv4Address("10.0.1.6")), None),
        (arp.announcement(ADDRESS, OTHER), "02:00:00:00:00:02"),
        (arp._frame(OTHER, ADDRESS.packed, IPv4Address("10.0.1.1").packed), "02:00:00:00:00:02"),
        (arp._frame(OTHER, NOBODY, ADDRESS.packed), None),
        (arp.announcement(ADDRESS, OWN), None),
        (reply(GUEST), "02:00:00:00:00:03"),
        (reply(GUEST, to=IPv4Address("10.0.1.1").packed), None),
        (reply(GUEST, target=OTHER), None),
        (arp.announcement(ADDRESS, GUEST), None),
        (reply(OTHER).replace(b"\x08\x00\x06\x04", b"\x86\xdd\x06\x04"), None),
    ],
    ids=[
        "nothing", "short", "answer", "padded answer", "cut answer", "another address", "announcement", "request",
        "somebody's probe", "our own", "a copy of the guest", "the guest to the host", "the guest to somebody",
        "the guest's announcement", "no IPv4",
    ],
)  # fmt: skip
def test_who_has_an_address_shows_it_and_the_guest_itself_is_no_stranger(frame: bytes, holder: str | None) -> None:
    assert arp.holder_in(frame, ADDRESS, {OWN}, "02:00:00:00:00:03") == holder


@given(frame=st.binary(max_size=80))
def test_no_frame_is_a_reason_to_fail(frame: bytes) -> None:
    arp.holder_in(frame, ADDRESS, {OWN}, "")
    ndp.holder_in(frame, ADDRESS6)


def test_an_unsolicited_advertisement_overrides_what_neighbours_know() -> None:
    frame = ndp.announcement(ADDRESS6, GUEST)
    assert frame.hex(" ", 2) == (
        "3333 0000 0001 0200 0000 0003 86dd "  # to all nodes
        "6000 0000 0020 3aff "  # 32 bytes of ICMPv6, hop limit 255
        "2001 0db8 0001 0000 0000 0000 0012 3456 ff02 0000 0000 0000 0000 0000 0000 0001 "
        "8800 9058 2000 0000 2001 0db8 0001 0000 0000 0000 0012 3456 "  # override, neither router nor solicited
        "0201 0200 0000 0003"  # the target's link-layer address
    )
    assert verified(frame)
    assert ndp.holder_in(frame, ADDRESS6) == "02:00:00:00:00:03"
    assert ndp.holder_in(frame, IPv6Address("2001:db8:1::12:3457")) is None


def verified(frame: bytes) -> bool:
    """Whether the checksum of an ICMPv6 message is right, by the definition in RFC 8200, 8.1."""
    pseudo = frame[22:54] + struct.pack("!II", len(frame) - 54, 58)
    words = struct.unpack(f"!{(len(frame) - 14) // 2}H", pseudo + frame[54:])
    total = sum(words)
    return total % 0xFFFF == 0 and total > 0


def test_a_question_is_what_the_kernel_asks_for_duplicates() -> None:
    frame = ndp.question(ADDRESS6, OWN)
    assert frame[:6].hex(":") == "33:33:ff:12:34:56"
    assert IPv6Address(frame[22:38]) == IPv6Address("::")
    assert IPv6Address(frame[38:54]) == IPv6Address("ff02::1:ff12:3456")
    assert frame[54:56] == bytes((135, 0))
    assert len(frame) == 78, "no option: nobody is to learn from it"
    assert verified(frame)


def test_an_advertisement_without_the_option_is_its_senders() -> None:
    assert ndp.holder_in(ndp.announcement(ADDRESS6, OTHER)[:78], ADDRESS6) == "02:00:00:00:00:02"

"""Which links a host's devices can carry, and as what; the kernel's answers are made up here."""

import struct
from dataclasses import replace
from ipaddress import ip_interface

import pytest

from vstools.config.create import CreateConf
from vstools.config.networks import Networks
from vstools.errors import Refused
from vstools.network import devices, plan
from vstools.network.kernel import is_vlan
from vstools.network.netlink import IPRoute

from .made import guest, nic

LINK = plan.Link("eth0", "vs2.0", "br0", 7, "02:00:00:00:00:01", None, (ip_interface("10.0.7.5/24"),))


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """br0 and br1 are bridges, br1 filters VLANs, eth0 is none; the kernel has no ipvlan."""
    monkeypatch.setattr(devices, "has_device", lambda name: name in ("br0", "br1", "eth0"))
    monkeypatch.setattr(devices, "is_bridge", lambda name: name in ("br0", "br1"))
    monkeypatch.setattr(devices, "_filters", lambda name: name == "br1")
    monkeypatch.setattr(devices, "_has_ipvlan", lambda: False)


def test_a_vlan_on_a_bridge_has_no_device_of_its_own() -> None:
    tagged, on_bridge, untagged = devices.resolve((
        replace(LINK, device="eth0"), replace(LINK, device="br1"), replace(LINK, vlan=0),
    ))  # fmt: skip
    assert [link.member for link in (tagged, on_bridge, untagged)] == [False, True, False]
    assert [link.vlan_device for link in (tagged, on_bridge, untagged)] == ["eth0.7", "br1", "br0"]


def test_a_bridge_carries_vlans_where_it_filters_them() -> None:
    devices.check_devices((replace(LINK, device="br1"), replace(LINK, vlan=0), replace(LINK, device="eth0")))
    with pytest.raises(Refused, match="br0 is a bridge without vlan_filtering and cannot carry VLAN 7"):
        devices.check_devices((LINK,))


def test_ipvlan_is_asked_for_in_create_conf_and_refused_where_the_kernel_has_none() -> None:
    made = guest(nics=(nic("10.0.1.5", prefix=24, device="eth0"),))
    (link,) = plan.links(made, Networks(), CreateConf(link="ipvlan"))
    assert link.ipvlan
    assert not plan.links(made, Networks(), CreateConf())[0].ipvlan
    with pytest.raises(Refused, match="this kernel has no ipvlan"):
        devices.check_devices((link,))
    devices.check_devices((replace(link, device="br0"),))


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(Refused, match="the network device eth9 does not exist"):
        devices.check_devices((replace(LINK, device="eth9"),))


def vlan_message(kind: bytes, number: int, device: int) -> object:
    """A link as the kernel tells of it, decoded by pyroute2."""

    def attribute(code: int, content: bytes) -> bytes:
        return struct.pack("=HH", 4 + len(content), code) + content + b"\0" * (-len(content) % 4)

    info = attribute(1, kind + b"\0") + attribute(2, attribute(1, struct.pack("=H", number)))
    body = struct.pack("=BxHiII", 0, 1, 9, 0, 0) + attribute(5, struct.pack("=I", device)) + attribute(18, info)
    assert IPRoute  # pyroute2 without the rest of it
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    message = ifinfmsg(struct.pack("=IHHII", 16 + len(body), 16, 0, 0, 0) + body)
    message.decode()
    return message


def test_a_vlan_is_told_from_everything_else_with_its_name() -> None:
    assert is_vlan(vlan_message(b"vlan", 7, 3), 3, 7)
    assert not is_vlan(vlan_message(b"vlan", 8, 3), 3, 7)
    assert not is_vlan(vlan_message(b"vlan", 7, 4), 3, 7)
    assert not is_vlan(vlan_message(b"macvlan", 7, 3), 3, 7)

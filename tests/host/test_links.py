"""What a guest's link can be on this host's devices; what they cannot carry is refused before anything is made."""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_interface
from pathlib import Path

import pytest
from conftest import NET, Host, create
from wire import bridge, sh

from vstools.network import kernel, mend, plan


@pytest.fixture
def lan(host: Host) -> Iterator[str]:
    """A bridge without vlan_filtering, and the cable vscard0 to it."""
    with bridge("vst0") as name:
        sh(f"ip link add vscard0 type veth peer name vscard1; ip link set vscard1 master {name} up")
        yield name
        sh("ip link delete vscard0")


def test_a_vlan_on_a_bridge_that_does_not_filter_them_is_refused(host: Host, lan: str, small: Path) -> None:
    host.configure(networks=f"7:{NET}.0/24\n", DEFAULT_DEVICE=lan)
    done = create(host, "web", 10, small)
    assert (done.code, "vst0 is a bridge without vlan_filtering" in done.err) == (2, True), done
    host.configure(DEFAULT_DEVICE=lan)
    assert create(host, "web", 10, small).code == 0
    host.configure(networks=f"7:{NET}.0/24\n", DEFAULT_DEVICE=lan)
    before = host.state()
    done = host.vs("vs-control", "--name", "web", "--start")
    assert (done.code, "cannot carry VLAN 7" in done.err) == (2, True), done
    assert (host.state(), host.leftovers()) == (before, [])


def test_ipvlan_works_or_is_refused(host: Host, lan: str, small: Path) -> None:
    host.configure(DEFAULT_DEVICE="vscard0")
    assert create(host, "web", 10, small).code == 0
    host.configure(DEFAULT_DEVICE="vscard0", LINK="ipvlan")
    done = host.vs("vs-control", "--name", "web", "--start")
    if kernel.has_ipvlan():
        assert done.code == 0, done
        assert sh("cat /sys/class/net/vscard0/address") == sh("ip netns exec vs60000 cat /sys/class/net/eth0/address")
    else:
        assert (done.code, "this kernel has no ipvlan" in done.err, host.leftovers()) == (2, True, []), done
        done = create(host, "other", 11, small)
        assert (done.code, "this kernel has no ipvlan" in done.err) == (2, True), done
    host.configure(DEFAULT_DEVICE=lan, LINK="ipvlan")
    host.ok("vs-control", "--name", "web", "--restart")


def test_another_kind_of_link_is_an_error_of_the_file(host: Host, small: Path) -> None:
    host.configure(LINK="macvtap")
    done = create(host, "web", 10, small)
    assert (done.code, "create.conf:3:6: 'macvtap' is not one of: auto, ipvlan" in done.err) == (2, True), done


def test_two_links_change_places(host: Host, lan: str) -> None:
    """Each gets the MAC that the other one has: no device carries two macvlans with the same."""
    one = plan.Link("eth0", "vs60000.0", "vscard0", 0, "02:00:00:00:00:01", None, (ip_interface(f"{NET}.10/24"),))
    other = replace(one, name="eth1", host_name="vs60000.1", device="vscard1", mac="02:00:00:00:00:02")
    sh("ip link set vscard1 nomaster up; ip netns add vs60000")
    try:
        kernel.connect("vs60000", (one, other), 60000 * 65536)
        swapped = replace(one, device="vscard1", mac=other.mac), replace(other, device="vscard0", mac=one.mac)
        mend.mend("vs60000", swapped)
        assert [line for line in mend.differences("vs60000", swapped) if "route" not in line] == []
    finally:
        sh("ip netns delete vs60000")


def test_another_kind_of_link_and_another_mac_are_seen_whatever_create_conf_says(host: Host, lan: str) -> None:
    link = plan.Link("eth0", "vs60000.0", "vscard0", 0, "02:00:00:00:00:01", None, (ip_interface(f"{NET}.10/24"),))
    port = replace(link, name="eth1", host_name="vs60000.1", device=lan, mac="02:00:00:00:00:02", ipvlan=True)
    sh("ip netns add vs60000")
    try:
        kernel.connect("vs60000", (link, port), 60000 * 65536)
        (line,) = (line for line in mend.differences("vs60000", (replace(link, ipvlan=True),)) if "kind" in line)
        assert line == "eth0 is of the kind macvlan and not ipvlan"
        sh("ip -n vs60000 link set eth1 address 02:00:00:00:00:99")
        assert "eth1 has the MAC 02:00:00:00:00:99 and not 02:00:00:00:00:02" in mend.differences("vs60000", (port,))
        mend.mend("vs60000", (link, port))
        assert not [line for line in mend.differences("vs60000", (link, port)) if "route" not in line]
    finally:
        sh("ip netns delete vs60000")

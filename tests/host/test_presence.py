"""Who has an address already keeps it: a guest with it does not start. Who has it now is told to the neighbours."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from conftest import NET, Host, create, wait
from wire import Machine, bridge, machine, sh

from vstools.errors import Refused
from vstools.libc import network_namespace
from vstools.lifecycle import change
from vstools.network import arp, kernel, ndp
from vstools.network.wire import Wire
from vstools.paths import Paths

NET6 = "fd99:7:"
GUEST, GUEST6 = f"{NET}.10", f"{NET6}:10"
OLD_MAC = "02:00:00:00:00:99"


@pytest.fixture
def lan(host: Host) -> Iterator[str]:
    """A bridge that guests are linked to, with the host's address on it."""
    with bridge("vst0") as name:
        sh(f"ip address add {NET}.1/24 dev {name}; ip address add {NET6}:1/64 dev {name} nodad")
        host.configure(DEFAULT_DEVICE=name)
        yield name


@pytest.fixture
def web(host: Host, lan: str, small: Path) -> Host:
    """A host with a guest that has an IPv4 address, not started."""
    assert create(host, "web", 10, small).code == 0
    return host


@pytest.fixture
def both(host: Host, lan: str, small: Path) -> Host:
    """A host with a guest that has an IPv4 and an IPv6 address, not started."""
    assert create(host, "web", 10, small, "--interface", GUEST6).code == 0
    return host


def refused(host: Host, *words: str) -> None:
    """The guest does not start: one sentence with these words, and nothing is left."""
    done = host.vs("vs-control", "--name", "web", "--start")
    assert (done.code, len(done.err.strip().splitlines())) == (1, 1), done
    assert all(word in done.err for word in words), done
    assert host.leftovers() == []


def mac_of_guest(host: Host) -> str:
    return (host.guests / "web/interfaces/0/mac").read_text().strip()


@pytest.mark.parametrize("address", [f"{GUEST}/24", f"{GUEST6}/64"], ids=["IPv4", "IPv6"])
def test_an_address_that_another_machine_has_is_left_to_it(both: Host, lan: str, address: str) -> None:
    with machine("vsother", lan, address) as other:
        refused(both, address.partition("/")[0], "in use on the network by", other.mac)
        refused(both, address.partition("/")[0], other.mac)
    both.ok("vs-control", "--name", "web", "--start")


def test_a_copy_of_the_guest_with_its_very_mac_is_found(web: Host, lan: str) -> None:
    with machine("vsother", lan, f"{GUEST}/24", mac=mac_of_guest(web)):
        refused(web, GUEST, mac_of_guest(web))


def test_after_a_start_the_detection_is_over(both: Host) -> None:
    both.ok("vs-control", "--name", "web", "--start")
    now = sh("ip -n vs60000 -6 address show dev eth0")
    assert f"{GUEST6}/64" in now
    assert "tentative" not in now
    assert sh("ip netns exec vs60000 cat /proc/sys/net/ipv6/neigh/eth0/retrans_time_ms") == "1000\n"


def test_the_detection_takes_a_third_of_a_second(both: Host, lan: str) -> None:
    both.ok("vs-control", "--name", "web", "--start")
    sh("ip -n vs60000 link set eth0 down; ip netns exec vs60000 sysctl -qw net.ipv6.neigh.eth0.retrans_time_ms=100")
    sh("ip -n vs60000 link set eth0 up; ip -n vs60000 address add fd99:7::11/64 dev eth0")
    begun = time.monotonic()
    wait(lambda: "tentative" not in sh("ip -n vs60000 -6 address"))
    assert 0.15 < time.monotonic() - begun < 1


def test_a_link_without_a_carrier_is_not_waited_for(both: Host, lan: str) -> None:
    sh("ip link add vsnc0 type veth peer name vsnc1")  # the other end stays down: no carrier
    try:
        both.configure(DEFAULT_DEVICE="vsnc0")
        both.ok("vs-control", "--name", "web", "--start")
        assert "tentative" in sh("ip -n vs60000 -6 address")
        both.ok("vs-control", "--name", "web", "--stop")
    finally:
        sh("ip link delete vsnc0")


def test_the_host_and_the_guests_own_lives_are_no_strangers(both: Host, lan: str) -> None:
    with ExitStack() as stack:
        stack.enter_context(bridge("vst1"))
        stack.callback(sh, "ip link delete vsback0")
        sh(f"""
        ip link add vsback0 type veth peer name vsback1
        ip link set vsback1 master {lan} up; ip link set vsback0 up
        sysctl -qw net.ipv4.conf.{lan}.proxy_arp=1 net.ipv4.conf.vsback0.proxy_arp=1
        sysctl -qw net.ipv4.conf.vsback0.forwarding=1 net.ipv4.conf.{lan}.forwarding=1
        ip route add {GUEST}/32 dev vst1
        ip neighbour replace {GUEST} lladdr {mac_of_guest(both)} dev {lan} nud permanent
        """)
        both.ok("vs-control", "--name", "web", "--start")
        sh(f"ip route delete {GUEST}/32 dev vst1; ping -c 1 -W 2 {GUEST} > /dev/null")
        for _ in range(3):
            both.ok("vs-control", "--name", "web", "--restart")
        life = both.ok("vs-fonctions", "guest_init_pid", "web")
        both.inside("web", "reboot")
        wait(lambda: both.vs("vs-fonctions", "guest_init_pid", "web").out not in (life, ""))
        wait(lambda: both.inside("web", "true").code == 0)
        os.kill(int(both.ok("vs-fonctions", "guest_init_pid", "web")), 9)
        wait(lambda: both.leftovers() == [])
        both.ok("vs-control", "--name", "web", "--start")


def test_an_address_of_the_hosts_own_is_refused(web: Host, lan: str) -> None:
    sh(f"ip address add {GUEST}/32 dev {lan}")
    done = web.vs("vs-control", "--name", "web", "--start")
    assert (done.code, "this host's own address" in done.err) == (2, True), done


@pytest.mark.parametrize("copy", [False, True], ids=["a stranger", "a copy"])
def test_with_macvlan_the_other_end_of_the_cable_is_asked(web: Host, lan: str, *, copy: bool) -> None:
    sh(f"ip link add vscard0 type veth peer name vscard1; ip link set vscard1 master {lan} up; ip link set vscard0 up")
    try:
        web.configure(DEFAULT_DEVICE="vscard0")
        with machine("vsother", lan, f"{GUEST}/24", mac=mac_of_guest(web) if copy else "") as other:
            refused(web, GUEST, other.mac)
        web.ok("vs-control", "--name", "web", "--start")
        web.ok("vs-control", "--name", "web", "--restart")
        web.ok("vs-control", "--name", "web", "--stop")
    finally:
        sh("ip link delete vscard0")


@pytest.fixture
def neighbour(lan: str) -> Iterator[Machine]:
    """A machine that remembers the guest's addresses with another MAC, from where it was before."""
    with machine("vsother", lan, f"{NET}.20/24", f"{NET6}:20/64") as other:
        for address in (GUEST, GUEST6):
            other.sh(f"ip neighbour replace {address} lladdr {OLD_MAC} dev eth0 nud stale")
        yield other


def listening(where: Machine, ethertype: int) -> Wire:
    """What a machine hears from now on."""
    with network_namespace(where.path):
        return Wire(ethertype)


def test_neighbours_learn_where_a_started_guest_is(both: Host, neighbour: Machine) -> None:
    mac = bytes.fromhex(mac_of_guest(both).replace(":", ""))
    wanted = (arp.announcement(IPv4Address(GUEST), mac), ndp.announcement(IPv6Address(GUEST6), mac))
    with ExitStack() as stack:
        wires = [stack.enter_context(listening(neighbour, kind)) for kind in (arp.ETHERTYPE, ndp.ETHERTYPE)]
        both.ok("vs-control", "--name", "web", "--start")
        heard = []
        for wire in wires:
            while (found := wire.receive(time.monotonic() + 0.2)) is not None:
                heard.append(found[1])
    assert [heard.count(frame) for frame in wanted] == [3, 3]
    for address in (GUEST, GUEST6):
        assert mac_of_guest(both) in neighbour.sh(f"ip neighbour show {address}")
        neighbour.sh(f"ping -c 1 -W 5 {address} > /dev/null")


def test_nothing_is_announced_for_an_address_that_is_in_use(both: Host, neighbour: Machine, lan: str) -> None:
    with machine("vsowner", lan, f"{GUEST}/24"), listening(neighbour, arp.ETHERTYPE) as wire:
        refused(both, GUEST)
        while (found := wire.receive(time.monotonic() + 0.2)) is not None:
            assert found[1][28:32] != IPv4Address(GUEST).packed, "it would have taken the owner's packets"
    assert OLD_MAC in neighbour.sh(f"ip neighbour show {GUEST}")


@pytest.mark.parametrize("count", [300, 3000])
def test_many_addresses_are_asked_for_at_once(host: Host, lan: str, count: int) -> None:
    """The kernel's filter for what is heard leaps over 255 instructions at most, and has 4096."""
    first = int(IPv4Address("10.99.128.1"))
    taken = IPv4Address(first + count - 1)
    with machine("vsother", lan, f"{taken}/16") as other, arp.Inquiry() as inquiry:
        inquiry.ask({(lan, IPv4Address(first + number)): "" for number in range(count)})
        assert list(inquiry.answers(time.monotonic() + 1)) == [(taken, other.mac)]


def test_in_a_vlan_without_a_device_a_running_guests_new_address_is_asked_for_first(
    web: Host, lan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cable to another bridge stands for the VLAN's device."""
    web.ok("vs-control", "--name", "web", "--start")
    web.configure(f"0:{NET}.0/24\n7:10.99.70.0/24\n", DEFAULT_DEVICE="vscard0")
    (web.guests / "web/interfaces/0/dev").write_text(f"{lan}\n")
    monkeypatch.setattr(kernel, "_vlan", lambda ipr, *_: made(ipr))

    def made(ipr: object) -> int | None:
        sh("ip link add vscard0.7 type veth peer name vst7; ip link set vst7 master vst1 up")
        return kernel.index_of(ipr, "vscard0.7")

    sh("ip link add vscard0 type veth peer name vscard1; ip link set vscard0 up")
    try:
        with bridge("vst1") as other, machine("vsother", other, "10.99.70.5/24") as taken:
            before = web.state()
            edits = change.Edits(add=(IPv4Address("10.99.70.5"),))
            with pytest.raises(Refused, match=f"in use on the network by {taken.mac}"):
                change.apply(Paths(web.root), "web", edits)
            assert web.state() == before
            assert "eth1" not in sh("ip -n vs60000 link")
    finally:
        sh("ip link delete vscard0.7; ip link delete vscard0")

"""The trunk between real hosts: VLANs are kept apart, tags are on the wire, and neighbours hear where a guest is."""

import shlex
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.templates import small_template
from vstools.libc import network_namespace

if TYPE_CHECKING:
    from conftest import Hosts

FIRST, SECOND, GATEWAY = "vsh-00", "vsh-01", "vsh-02"
NETWORKS = "2:10.99.2.0/24,10.99.2.1\n3:10.99.3.0/24,10.99.3.1\n2:fd99:2::/64,fd99:2::1\n"
OLD_MAC = "02:00:00:00:00:99"
VLANS = "ip -o link show type vlan | cut -d ' ' -f 2 | cut -d @ -f 1"
PING = "ping -c 1 -W 3 {} > /dev/null"
NO_PING = "! ping -c 2 -W 2 {} > /dev/null"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A template of one program."""
    return small_template(tmp_path)


def make(hosts: "Hosts", host: str, small: Path, guests: dict[str, str], **settings: str) -> None:
    """Small guests with these addresses (the words of --interface), not started."""
    hosts.configure(host, NETWORKS, **settings)
    hosts.copy(host, small, "/root")
    lines = []
    for name, addresses in guests.items():
        words = " ".join(f"--interface {address}" for address in addresses.split())
        lines.append(f"vs-create --name {name} {words} --template /root/small.tar")
    hosts.ok(host, " && ".join(lines))


def in_guest(hosts: "Hosts", host: str, guest: str, *lines: str) -> None:
    """Run shell lines in a guest's network; all must succeed. Busybox has no ping for those without CAP_NET_RAW."""
    script = shlex.quote(" && ".join(lines))
    hosts.ok(host, f"ip netns exec vs$(cat /etc/vservers/{guest}/context) sh -c {script}")


def reach(net: str, guest: str) -> str:
    """The line that lets a guest look for a network on its own link: its gateway is not there to help."""
    return f"ip -n vs$(cat /etc/vservers/{guest}/context) route replace {net} dev eth0"


class Tap:
    """All frames on the lab's trunk from now on, with their tags, which the kernel takes out and tells beside."""

    def __init__(self, namespace: str) -> None:
        with network_namespace(Path("/run/netns", namespace)):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
        self._socket.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA
        self._socket.settimeout(0)

    def frames(self, mac: str) -> list[tuple[int, bytes]]:
        """(VLAN, frame) of what came from a MAC; 0 is untagged."""
        found = []
        while True:
            try:
                frame, extra, _, _ = self._socket.recvmsg(2048, 64)
            except BlockingIOError:
                return found
            if frame[6:12].hex(":") == mac and extra:
                status, *_, tag, _ = struct.unpack_from("IIIHHHH", extra[0][2])
                found.append((tag & 0xFFF if status & 16 else 0, frame))  # TP_STATUS_VLAN_VALID


@pytest.mark.hosts(3)
def test_vlans_of_the_trunk(hosts: "Hosts", small: Path) -> None:
    make(hosts, FIRST, small, {"a": "10.99.2.10 fd99:2::10", "b": "10.99.3.10"})
    make(hosts, SECOND, small, {"c": "10.99.2.11", "d": "10.99.3.11"})
    hosts.ok(
        GATEWAY,
        "ip link add link eth1 name eth1.2 type vlan id 2; ip link set eth1.2 up;"
        "ip address add 10.99.2.1/24 dev eth1.2;"
        "ip address add fd99:2::1/64 dev eth1.2 nodad;"
        f"ip neighbour replace 10.99.2.10 lladdr {OLD_MAC} dev eth1.2 nud stale;"
        f"ip neighbour replace fd99:2::10 lladdr {OLD_MAC} dev eth1.2 nud stale",
    )
    mac = hosts.ok(FIRST, "cat /etc/vservers/a/interfaces/0/mac").strip()
    tap = Tap(hosts.places.namespace)
    hosts.ok(FIRST, "vs-control --all --start")
    seen = tap.frames(mac)
    assert {vlan for vlan, _ in seen} == {2}
    announced = [frame for _, frame in seen if frame[12:14] == b"\x08\x06" and frame[28:32] == frame[38:42]]
    advertised = [frame for _, frame in seen if frame[20:21] == b"\x3a" and frame[54:55] == b"\x88"]
    assert len({bytes(frame) for frame in announced}) == 1
    assert len(announced) >= 3
    assert len(advertised) >= 3
    known = hosts.ok(GATEWAY, "ip neighbour show 10.99.2.10; ip neighbour show fd99:2::10")
    assert (known.count(mac), OLD_MAC in known) == (2, False), known
    hosts.ok(SECOND, "vs-control --all --start")
    hosts.ok(FIRST, f"{reach('10.99.3.0/24', 'a')}; {reach('10.99.2.0/24', 'b')}")
    in_guest(hosts, FIRST, "a", PING.format("10.99.2.11"), PING.format("10.99.2.1"), NO_PING.format("10.99.3.11"))
    in_guest(hosts, FIRST, "b", PING.format("10.99.3.11"), NO_PING.format("10.99.2.11"))
    hosts.ok(GATEWAY, f"ip address add 10.99.2.9/24 dev eth1 && {NO_PING.format('-I eth1 10.99.2.11')}")  # untagged
    for host in (FIRST, SECOND):
        hosts.ok(host, f"vs-control --all --stop && ! {VLANS} | grep .")


BRIDGE = """
ip link add br0 type bridge vlan_filtering 1 && ip link set br0 up && ip link set eth1 master br0
bridge vlan add dev eth1 vid 2 && bridge vlan add dev eth1 vid 3
"""


FORGED = 5
FORGE = f"""
import os, socket, sys, time
def wire(guest):
    context = open(f"/etc/vservers/{{guest}}/context").read().strip()
    os.setns(os.open(f"/run/netns/vs{{context}}", os.O_RDONLY), os.CLONE_NEWNET)
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
source = bytes((2, 2, 2, 2, 2, 2))
a, b, c = map(wire, "abc")
for vlan in [3] * {FORGED} + [2] * {FORGED}:
    a.sendto(bytes([255] * 6) + source + bytes((0x81, 0, 0, vlan, 8, 6)) + bytes(46), ("eth0", 0))
def count(wire, wanted):
    found, end = 0, time.monotonic() + 5
    while found < wanted and time.monotonic() < end:
        wire.settimeout(max(end - time.monotonic(), 0.01))
        try:
            found += wire.recv(2048)[6:12] == source
        except TimeoutError:
            break
    return found
print(count(c, {FORGED}), count(b, 1))
"""
"""Broadcasts with the tags of both VLANs from a's link: root in the guest cannot send such frames, the host does it for
the test. Says how many came to c, in the same VLAN, and to b, in the other."""


@pytest.mark.hosts(2)
def test_vlans_of_a_bridge_that_filters_them(hosts: "Hosts", small: Path) -> None:
    hosts.ok(FIRST, BRIDGE)
    guests = {"a": "10.99.2.10 fd99:2::10", "b": "10.99.3.10", "c": "10.99.2.12"}
    make(hosts, FIRST, small, guests, DEFAULT_DEVICE="br0")
    make(hosts, SECOND, small, {"d": "10.99.2.11"})
    hosts.ok(SECOND, "vs-control --name d --start")
    hosts.ok(FIRST, "vs-control --all --start")
    assert hosts.ok(FIRST, f"vs-net --all; {VLANS}").splitlines() == [
        f"{FIRST}:a:10.99.2.10:up:up:up:up",
        f"{FIRST}:a:[fd99:2::10]:up:up:up:up",
        f"{FIRST}:b:10.99.3.10:up:up:up:up",
        f"{FIRST}:c:10.99.2.12:up:up:up:up",
    ]
    in_guest(hosts, FIRST, "a", PING.format("10.99.2.12"), PING.format("10.99.2.11"))
    hosts.ok(FIRST, f"{reach('10.99.3.0/24', 'a')}; {reach('10.99.2.0/24', 'b')}")
    in_guest(hosts, FIRST, "a", NO_PING.format("10.99.3.10"))
    assert hosts.ok(FIRST, f"python3 -c {shlex.quote(FORGE)}") == f"{FORGED} 0\n"
    code, said = hosts.call(FIRST, "vs-net --name a --add 10.99.2.11")
    assert (code, "10.99.2.11 is in use on the network by" in said) == (1, True), said
    assert "10.99.2.11" not in hosts.ok(FIRST, "vs-net --name a; ip -n vs$(cat /etc/vservers/a/context) address")
    hosts.ok(FIRST, "bridge vlan add vid 3 dev vs$(cat /etc/vservers/a/context).0")
    assert ":a:10.99.2.10:down:" in hosts.ok(FIRST, "vs-net --name a"), "it is a member of another VLAN as well"
    hosts.ok(FIRST, "vs-control --name a --stop; bridge vlan show | grep -q vs && vs-control --all --stop")
    hosts.ok(
        SECOND, "vs-control --name d --stop; ip link add link eth1 name eth1.2 type vlan id 2; ip link set eth1.2 up"
    )
    mac = hosts.ok(SECOND, "ip address add 10.99.2.10/24 dev eth1.2; cat /sys/class/net/eth1.2/address").strip()
    code, said = hosts.call(FIRST, "vs-control --name a --start")
    assert (code, f"10.99.2.10 is in use on the network by {mac}" in said) == (1, True), said
    hosts.ok(FIRST, "ip link set br0 type bridge vlan_filtering 0")
    code, said = hosts.call(FIRST, "vs-create --name e --interface 10.99.2.20 --template /root/small.tar")
    assert (code, "without vlan_filtering" in said) == (2, True), said
    assert hosts.ok(FIRST, "ls /run/vs-tools/guests; ip netns list; ip -o link | grep vs1 || true") == ""


@pytest.mark.hosts(2)
def test_guests_with_the_mac_of_their_device(hosts: "Hosts", small: Path) -> None:
    make(hosts, FIRST, small, {"a": "10.99.2.10 fd99:2::10", "c": "10.99.2.12"}, LINK="ipvlan")
    make(hosts, SECOND, small, {"d": "10.99.2.11"})
    hosts.ok(SECOND, "vs-control --name d --start")
    mac = hosts.ok(FIRST, "cat /sys/class/net/eth1/address").strip()
    old = f"ip -n vs10000 neighbour replace 10.99.2.10 lladdr {OLD_MAC} dev eth0 nud stale"
    hosts.ok(SECOND, old)
    hosts.ok(FIRST, "vs-control --all --start && vs-control --name a --restart")
    assert mac in hosts.ok(SECOND, "ip -n vs10000 neighbour show 10.99.2.10")
    assert mac in hosts.inside(FIRST, "a", "cat /sys/class/net/eth0/address")
    in_guest(hosts, FIRST, "a", PING.format("10.99.2.12"), PING.format("10.99.2.11"))
    in_guest(hosts, FIRST, "a", NO_PING.format("10.99.1.10"))
    assert hosts.ok(FIRST, "vs-net --all").count(":up:up:up:up") == 3
    hosts.ok(FIRST, f"vs-control --all --stop && ! {VLANS} | grep .")

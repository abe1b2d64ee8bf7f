"""Random policies and random packets: the kernel decides as a reference does that was written for reading.

Packets are made by hand, sent from any address and to any. What comes in is counted by raw sockets, which are behind
the filter; what goes out by a packet socket at the other end of the wire.
"""

import os
import random
import select
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from vstools.config import firewall
from vstools.config.text import Faults
from vstools.firewall import backend, model
from vstools.guest import Address
from vstools.libc import network_namespace

OWN = tuple(map(ip_interface, ("10.99.7.10/24", "10.99.8.10/25", "fd99:7::10/64", "fd99:8::10/64")))
HOSTS = tuple(map(ip_address, ("10.99.7.1", "192.0.2.1", "fd99:7::1")))
NEAR = tuple(map(ip_network, ("169.254.0.0/16", "fe80::/10", "224.0.0.0/4", "ff00::/8", "10.99.7.255", "10.99.8.127")))
NEAR_SOURCES = (*HOSTS, *map(ip_address, ("169.254.1.2", "fe80::66")))
NEAR_TARGETS = (*NEAR_SOURCES, *map(ip_address, ("10.99.7.255", "10.99.8.127", "224.0.0.1", "ff02::1")))
POOLS = tuple(map(ip_network, ("10.99.7.0/24", "10.20.0.0/16", "198.51.0.0/22", "fd99:7::/64", "2001:db8::/48")))
SENTRY = ip_address("203.0.113.9")
"""What goes with it passes every policy, and shows that all that was sent before has been decided on."""
TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
OTHERS = {"from": (47, 89, 254), "to": (94, 253, 0)}
"""Other protocols have no ports: what went one way would open the other, if they were the same ones."""
NAMES = {"tcp": TCP, "udp": UDP, "icmp": ICMP, "icmp6": ICMP6}
EVERYBODY = {"any": ("0.0.0.0/0", "::/0"), "0/0": ("0.0.0.0/0",)}
MAGIC = b"vs-p"
POLICIES, PACKETS = 30, 400

Line = tuple[str, str, list[str], list[str]]
"""allow or deny, from or to, addresses, services: the words of a line of firewall.conf."""


@dataclass(frozen=True)
class Packet:
    """One packet between the guest (``local``) and somebody; ``detail`` is a port or an ICMP type."""

    way: str
    local: Address
    remote: Address
    protocol: int
    detail: int = 0
    hops: int = 64


def allowed(lines: list[Line], packet: Packet, *, enabled: bool) -> bool:
    """Whether a packet that begins a connection passes: the reference."""
    own = [interface.ip for interface in OWN]
    if packet.remote.version == 6 and packet.protocol == ICMP6 and packet.detail in (135, 136) and packet.hops == 255:
        return True  # neighbour discovery
    if packet.way == "from" and (packet.remote in own or (enabled and packet.local not in own)):
        return False
    if packet.way == "to" and packet.local not in own:
        return False
    if not begins(packet):
        return False
    near = packet.remote in HOSTS or any(packet.remote in net for net in NEAR)
    for verdict, way, addresses, services in lines:
        nets = [ip_network(net) for word in addresses for net in EVERYBODY.get(word, (word,))]
        if near:  # only lines that name an address of the host are about it
            nets = [net for net in nets if net.prefixlen == net.max_prefixlen]
        elif not enabled:
            continue
        serving = any(serves(service, packet) for service in services)
        if way == packet.way and serving and any(packet.remote in net for net in nets):
            return verdict == "allow"
    return not near and not enabled


def serves(service: str, packet: Packet) -> bool:
    """Whether a service of the file means this packet."""
    name, _, detail = service.partition(":")
    if name == "all":
        return True
    if str(NAMES.get(name, name)) != str(packet.protocol):
        return False
    if name in ("icmp", "icmp6") and (packet.remote.version == 6) != (name == "icmp6"):
        return False
    low, _, high = detail.partition("-")
    return not detail or int(low) <= packet.detail <= int(high or low)


def begins(packet: Packet) -> bool:
    """Whether connection tracking takes the packet for a beginning (nf_conntrack_proto_icmp.c and _icmpv6.c).

    Some messages of ICMPv6 are not tracked at all; others, and errors that belong to nothing, are invalid.
    """
    if packet.protocol not in (ICMP, ICMP6):
        return True
    if (packet.protocol == ICMP6) != (packet.remote.version == 6):
        return False
    return packet.detail in ((8, 13, 15, 17) if packet.protocol == ICMP else (128, 139, *range(130, 137), 143))


class Chance(random.Random):
    """Draws policies, and packets that have something to do with them."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.known = [self.address(self.choice(POOLS)) for _ in range(10)]
        self.ports = [self.randint(1, 65000) for _ in range(5)]

    def address(self, net: IPv4Network | IPv6Network) -> Address:
        """Any address of a network but its first and its last, which nobody has."""
        own = [interface.ip for interface in OWN]
        while True:
            found = net[self.randint(2, min(net.num_addresses, 1 << 64) - 2)]
            if found not in own and found not in HOSTS:
                return found

    def lines(self) -> list[Line]:
        """A policy, after the lines for the sentry."""
        open_ways: list[Line] = [("allow", way, [str(SENTRY)], ["udp:9"]) for way in ("from", "to")]
        return open_ways + [
            (
                self.choice(("allow", "allow", "deny")),
                self.choice(("from", "to")),
                [self.word() for _ in range(self.randint(1, 4))],
                self.services(),
            )
            for _ in range(self.randint(3, 12))
        ]

    def word(self) -> str:
        """One part of an address list."""
        kind = self.random()
        if kind < 0.2:
            return self.choice(("any", "0/0", "::/0"))
        address = self.choice(self.known) if kind < 0.9 else self.choice(NEAR_TARGETS)
        most = address.max_prefixlen
        prefix = most if kind < 0.5 or kind > 0.95 else self.randint(most // 8, most - 1)
        return str(ip_network((address, prefix), strict=False)).removesuffix(f"/{most}")

    def services(self) -> list[str]:
        """A list of services; some have more ports than one rule of iptables takes."""
        if self.random() < 0.15:
            name = self.choice(("tcp", "udp"))
            near = (port + 2 * turn for port in self.ports for turn in range(7))
            return [f"{name}:{port}-{port + turn % 2}" for turn, port in enumerate(near)]
        return [self.service() for _ in range(self.randint(1, 4))]

    def service(self) -> str:
        """One part of a list of services."""
        port = self.choice(self.ports)
        other = str(self.choice((*OTHERS["from"], *OTHERS["to"], 1, 6, 58)))
        return self.choice((
            "all", "tcp", "udp", f"tcp:{port}", f"udp:{port}", f"tcp:{port}-{port + 9}", f"udp:{port}-{port}", "icmp",
            "icmp:8", "icmp:13", "icmp:255", "icmp6", "icmp6:128", "icmp6:134", "icmp6:135", "0", other, other,
        ))  # fmt: skip

    def packet(self) -> Packet:
        """A packet from or to an address near those that the policy knows, or the host's, or a forged one."""
        way = self.choice(("from", "to"))
        kind = self.random()
        remote = self.choice(self.known)
        if kind < 0.2:
            remote = self.choice(NEAR_SOURCES if way == "from" else NEAR_TARGETS)
        elif kind < 0.5:
            pool = ip_network((remote, self.randint(remote.max_prefixlen // 2, remote.max_prefixlen - 3)), strict=False)
            remote = self.address(pool)
        elif kind < 0.6:
            remote = self.address(self.choice(POOLS))
        own = [interface.ip for interface in OWN if interface.version == remote.version]
        local = self.choice(own)
        if self.random() < 0.08:
            if way == "to":
                local = self.address(next(pool for pool in POOLS if pool.version == remote.version))
            else:
                local = ip_address("10.99.7.255" if remote.version == 4 else "ff02::1")
        protocol = self.choice((TCP, TCP, TCP, UDP, UDP, UDP, ICMP, ICMP6, self.choice(OTHERS[way])))
        if not protocol and remote.version == 6:
            protocol = TCP  # there it announces a header
        if protocol in (TCP, UDP):
            port = self.choice(self.ports) + self.choice((-1, 0, 0, 0, 1, 9, 10))
            return Packet(way, local, remote, protocol, max(port, 1))
        if protocol in (ICMP, ICMP6):
            usual = (8, 8, 13, 0, 3, 5, 255) if protocol == ICMP else (128, 128, 129, 1, 134, 135, 136, 139)
            return Packet(way, local, remote, protocol, self.choice(usual), self.choice((64, 255)))
        return Packet(way, local, remote, protocol)


def checksum(data: bytes) -> int:
    """The Internet's checksum (RFC 1071)."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def encode(packet: Packet, number: int) -> bytes:
    """The packet as it is on the wire, with a number at its end. No two have the same tuple to be tracked by."""
    source, target = (packet.remote, packet.local) if packet.way == "from" else (packet.local, packet.remote)
    mark = MAGIC + struct.pack("!I", number)
    port = 1024 + number % 60000
    if packet.protocol == TCP:
        head = struct.pack("!HHIIBBHHH", port, packet.detail, number, 0, 5 << 4, 2, 1024, 0, 0)  # SYN
    elif packet.protocol == UDP:
        head = struct.pack("!HHHH", port, packet.detail, 8 + len(mark), 0)
    elif packet.protocol in (ICMP, ICMP6):
        head = struct.pack("!BBHHH", packet.detail, 0, 0, number % (1 << 16), 0)
    else:
        head = bytes(4)
    body = bytearray(head + mark)
    where = {TCP: 16, UDP: 6, ICMP: 2, ICMP6: 2}.get(packet.protocol)
    if where is not None:
        pseudo = source.packed + target.packed + struct.pack("!IHBB", len(body), 0, 0, packet.protocol)
        body[where : where + 2] = struct.pack("!H", checksum(bytes(body) if packet.protocol == ICMP else pseudo + body))
    if packet.remote.version == 6:
        head = struct.pack("!IHBB", 6 << 28, len(body), packet.protocol, packet.hops)
        return head + source.packed + target.packed + bytes(body)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), number & 0xFFFF, 0, packet.hops, packet.protocol, 0)
    head += source.packed + target.packed
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + bytes(body)


def number_of(data: bytes) -> int:
    """The number of a packet of ours; -1 for another's."""
    return int(struct.unpack("!I", data[-4:])[0]) if data[-8:-4] == MAGIC else -1


class Wire:
    """The guest's namespace and the world's, which has no address: whatever comes is only looked at."""

    def __init__(self) -> None:
        self.count = 0
        with network_namespace(Path("/run/netns/vsprop")):
            self.index = socket.if_nametoindex("eth0")
            self.out = {
                4: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
                6: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW),
            }
            protocols = (TCP, UDP, ICMP, ICMP6, *OTHERS["from"])
            families = (socket.AF_INET, socket.AF_INET6)
            self.came = [
                socket.socket(family, socket.SOCK_RAW, protocol) for family in families for protocol in protocols
            ]
        self.out[4].setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        with network_namespace(Path("/run/netns/vsworld")):
            self.world = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self.world.bind(("eth0", 3))
        for one in (*self.came, self.world):
            one.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE
            one.setblocking(False)

    def close(self) -> None:
        """Close all sockets."""
        for one in (*self.came, *self.out.values(), self.world):
            one.close()

    def send(self, packet: Packet) -> int:
        """Send a packet, from the world or from the guest; its number."""
        self.count += 1
        data, version = encode(packet, self.count), packet.remote.version
        if packet.way == "from":
            kind = {4: b"\x08\x00", 6: b"\x86\xdd"}[version]
            self.world.send(GUEST_MAC + WORLD_MAC + kind + data)
            return self.count
        where = (str(packet.remote), 0) if version == 4 else (str(packet.remote), 0, 0, self.index)
        with suppress(PermissionError):  # the filter's verdict
            self.out[version].sendto(data, where)
        return self.count

    def arrived(self, last: set[int]) -> set[int]:
        """The numbers of all packets that came through, when the ``last`` ones are among them."""
        found: set[int] = set()
        while not last <= found:
            ready, _, _ = select.select([*self.came, self.world], [], [], 30)
            assert ready, "what passes every policy never came"
            for one in ready:
                while True:
                    try:
                        found.add(number_of(one.recv(2048)))
                    except BlockingIOError:
                        break
        return found


GUEST_MAC, WORLD_MAC = bytes.fromhex("02767300000a"), bytes.fromhex("027673000001")
SETUP = """
ip netns add vsprop; ip netns add vsworld
ip -n vsprop link add eth0 address 02:76:73:00:00:0a type veth peer name eth0 address 02:76:73:00:00:01 netns vsworld
ip netns exec vsprop sh -c 'cd /proc/sys/net/ipv6/conf/eth0; echo 0 > accept_ra; echo 0 > accept_redirects'
ip -n vsworld link set eth0 up; ip -n vsprop link set eth0 up; ip -n vsprop link set lo up
for address in 10.99.7.10/24 10.99.8.10/25; do ip -n vsprop address add $address broadcast + dev eth0; done
for address in fd99:7::10/64 fd99:8::10/64; do ip -n vsprop address add $address nodad dev eth0; done
for address in 10.99.7.254 fd99:7::fffe fe80::66; do
    ip -n vsprop neigh replace $address lladdr 02:76:73:00:00:01 nud permanent dev eth0
done
for net in 10.99.7.0/25 10.99.7.128/25 10.99.8.0/26 10.99.8.64/26 default; do
    ip -n vsprop route add $net via 10.99.7.254 onlink dev eth0
done
for net in fd99:7::/65 fd99:7:0:0:8000::/65 fd99:8::/65 fd99:8:0:0:8000::/65 default; do
    ip -n vsprop route add $net via fd99:7::fffe onlink dev eth0
done
"""


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    """Two namespaces and a wire; packets go one way through one processor, so that none overtakes another."""
    processors = os.sched_getaffinity(0)
    try:
        subprocess.run(["sh", "-ec", SETUP], check=True, capture_output=True, text=True)
        os.sched_setaffinity(0, {min(processors)})
        found = Wire()
        yield found
        found.close()
    finally:
        os.sched_setaffinity(0, processors)
        for name in ("vsprop", "vsworld"):
            subprocess.run(["ip", "netns", "delete", name], check=False)


@pytest.mark.parametrize("seed", range(POLICIES))
@pytest.mark.parametrize("tool", ["nftables", "iptables"])
def test_the_kernel_decides_as_the_reference_does(tmp_path: Path, wire: Wire, tool: str, seed: int) -> None:
    chance = Chance(seed)
    enabled, lines = seed % 8 != 7, chance.lines()
    text = ["enable" if enabled else "disable"]
    text += [f"{verdict} {way} {','.join(nets)} to {','.join(kinds)}" for verdict, way, nets, kinds in lines]
    (tmp_path / "firewall.conf").write_text("\n".join(text))
    faults = Faults()
    policy = firewall.load(tmp_path / "firewall.conf", tmp_path, faults)
    faults.check()
    chosen = backend.choose(tool)
    chosen.load("vsprop", chosen.text(model.chains(policy, OWN, HOSTS)))

    packets = {wire.send(packet): packet for packet in (chance.packet() for _ in range(PACKETS))}
    last = {wire.send(Packet(way, OWN[0].ip, SENTRY, UDP, 9)) for way in ("from", "to")}
    arrived = wire.arrived(last)
    wrong = [
        f"{'passed' if number in arrived else 'was lost'}: {packet}"
        for number, packet in packets.items()
        if (number in arrived) != allowed(lines, packet, enabled=enabled)
    ]
    assert not wrong, "\n".join([*text, *wrong])


def test_the_draws_have_something_to_say() -> None:
    """Of all packets some pass and some do not, in each way, family and kind of protocol."""
    verdicts: dict[tuple[str, int, int], set[bool]] = {}
    for seed in range(POLICIES):
        chance = Chance(seed)
        lines = chance.lines()
        for packet in (chance.packet() for _ in range(PACKETS)):
            kind = (packet.way, packet.remote.version, packet.protocol)
            verdicts.setdefault(kind, set()).add(allowed(lines, packet, enabled=True))
    never = {kind for kind, found in verdicts.items() if found == {False}}
    assert never == {(way, version, number) for way in ("from", "to") for version, number in ((4, ICMP6), (6, ICMP))}
    assert all(False in found for found in verdicts.values())
    assert len(verdicts) == 2 * 2 * 4 + 3 * 2 + 2 * 2 + 1

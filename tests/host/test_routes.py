"""Several networks, several gateways: what a guest sends leaves by the gateway of the address that it comes from."""

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import Host, create, wait
from wire import Machine, bridge, machine, sh

from vstools.libc import network_namespace

NETWORKS = """\
0:10.99.7.0/24,10.99.7.1
0:10.99.8.0/24,10.99.8.1
0:10.99.9.0/24
0:fd99:7::/64,fd99:7::1
0:fd99:8::/64,fd99:8::1
"""
WORLD, WORLD6 = "203.0.113.1", "2001:db8:77::1"
"""Somewhere behind both gateways: each of them says that it is there."""
GUEST = Path("/run/netns/vs60000")


@pytest.fixture
def routers() -> Iterator[dict[str, Machine]]:
    """The bridges vst0 and vst1 with the gateways of two networks: both on vst0, the second on vst1 as well."""
    with ExitStack() as stack:
        for name in ("vst0", "vst1"):
            stack.enter_context(bridge(name))
        found = {
            "7": stack.enter_context(machine("vsr7", "vst0", "10.99.7.1/24", "fd99:7::1/64")),
            "8": stack.enter_context(machine("vsr8", "vst0", "10.99.8.1/24", "fd99:8::1/64")),
            "other 8": stack.enter_context(machine("vsr88", "vst1", "10.99.8.1/24", "fd99:8::1/64")),
        }
        for router in found.values():
            router.sh(f"ip address add {WORLD}/32 dev lo; ip address add {WORLD6}/128 dev lo nodad")
        yield found


def reached(routers: dict[str, Machine], source: str) -> str | None:
    """Which router a connection from a guest's address to the world comes to."""
    family, world = (socket.AF_INET6, WORLD6) if ":" in source else (socket.AF_INET, WORLD)
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(router.socket(family, socket.SOCK_STREAM)) for name, router in routers.items()
        }
        for server in servers.values():
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((world, 77))
            server.listen()
            server.settimeout(0)
        with network_namespace(GUEST):
            client = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        client.settimeout(5)
        client.bind((source, 0))
        client.connect((world, 77))
        for name, server in servers.items():
            try:
                server.accept()[0].close()
            except BlockingIOError:
                continue
            return name
    return None


def settled() -> bool:
    """Whether the guest has all its addresses for good."""
    return "tentative" not in sh("ip -n vs60000 -6 address")


@pytest.mark.parametrize("second", ["vst0", "vst1"], ids=["one link", "two links"])
def test_each_network_leaves_by_its_own_gateway(
    host: Host, small: Path, routers: dict[str, Machine], second: str
) -> None:
    host.configure(networks=NETWORKS, DEFAULT_DEVICE="vst0")
    more = [word for address in ("10.99.9.10", "fd99:7::10") for word in ("--interface", address)]
    assert create(host, "web", 10, small, *more).code == 0
    for number, address in ((7, "10.99.8.10"), (8, "fd99:8::10")):
        folder = host.guests / f"web/interfaces/{number}"
        folder.mkdir()
        (folder / "ip").write_text(f"{address}\n")
        (folder / "dev").write_text(f"{second}\n")
    host.ok("vs-control", "--name", "web", "--start")
    wait(settled)
    eight = "8" if second == "vst0" else "other 8"
    sources = {"10.99.7.10": "7", "10.99.8.10": eight, "fd99:7::10": "7", "fd99:8::10": eight}
    assert {source: reached(routers, source) for source in sources} == sources
    assert reached(routers, "0.0.0.0") == "7", "what has no source yet takes the first network's gateway"  # noqa: S104
    assert "src fd99:7::10 " in sh(f"ip -n vs60000 -6 route get {WORLD6}"), "no address of the other network"
    assert reached(routers, "::") == "7"
    lines = host.ok("vs-net", "--name", "web").splitlines()
    assert len(lines) == 5
    assert all(line.endswith(":up:up:up:up") for line in lines), lines


def test_a_route_is_up_only_where_the_kernel_has_the_table_and_the_rule(
    host: Host, small: Path, routers: dict[str, Machine]
) -> None:
    host.configure(networks=NETWORKS, DEFAULT_DEVICE="vst0")
    assert create(host, "web", 10, small, "--interface", "10.99.8.10", "--start").code == 0

    def up() -> list[bool]:
        return [line.split(":")[4] == "up" for line in host.ok("vs-net", "--name", "web").splitlines()]

    assert up() == [True, True]
    rule = "rule {} from 10.99.8.0/24 lookup 1001 priority 1001"
    sh(f"ip -n vs60000 {rule.format('delete')}")
    assert up() == [True, False]
    sh(f"ip -n vs60000 {rule.format('add')}; ip -n vs60000 route delete default table 1001")
    assert up() == [True, False]
    sh("ip -n vs60000 route add default via 10.99.7.1 table 1001")
    assert up() == [True, False], "that is the other network's gateway"
    sh("ip -n vs60000 route replace default via 10.99.8.1 table 1001")
    assert up() == [True, True]
    sh("ip -n vs60000 route delete default table 1000")
    assert up() == [True, True], "the main table has the same default route"
    sh("ip -n vs60000 route delete 10.99.8.0/24 dev eth0")
    assert up() == [True, False]


def test_one_gateway_needs_no_rule(host: Host, small: Path, routers: dict[str, Machine]) -> None:
    host.configure(networks=NETWORKS, DEFAULT_DEVICE="vst0")
    assert create(host, "web", 10, small, "--interface", "10.99.9.10", "--interface", "fd99:7::10", "--start").code == 0
    assert "lookup 1" not in sh("ip -n vs60000 rule; ip -n vs60000 -6 rule")
    assert reached(routers, "10.99.7.10") == "7"


def advertise(router: Machine) -> None:
    """A router advertisement (RFC 4861, 4.2): an hour as default router, a prefix for addresses of one's own."""
    group, prefix = "ff02::1", socket.inet_pton(socket.AF_INET6, "2001:db8:5::")
    message = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 3600, 0, 0)
    message += struct.pack("!BBBBIII16s", 3, 4, 64, 0xC0, 3600, 3600, 0, prefix)
    with (
        router.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sender,
        network_namespace(router.path),
    ):
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        sender.sendto(message, (group, 0, 0, socket.if_nametoindex("eth0")))


def test_routers_advertisements_are_heard_only_where_they_are_asked_for(
    host: Host, small: Path, routers: dict[str, Machine]
) -> None:
    host.configure(networks="0:10.99.7.0/24\n0:fd99:7::/64\n", DEFAULT_DEVICE="vst0")
    assert create(host, "web", 10, small, "--interface", "fd99:7::10", "--start").code == 0

    def ways() -> str:
        return sh("ip -n vs60000 -6 route show default; ip -n vs60000 -6 address show dev eth0 scope global")

    wait(settled)
    routers["7"].sh("sysctl -q net.ipv6.conf.all.forwarding=1")
    Path("/proc/sys/net/ipv6/conf/vst0/accept_ra").write_text("0")  # the host is no guest of that router's
    before = ways()
    for _ in range(3):
        advertise(routers["7"])
    refused = "nsenter --net=/run/netns/vs60000 nft list chain inet vs input | grep 'not an address of the guest'"
    wait(lambda: "packets 0 " not in sh(refused))
    assert ways() == before
    (host.guests / "web/interfaces/1/accept_ra").touch()
    assert host.vs("vs-net", "--name", "web", "--check").code == 1, "the rules let no advertisement pass yet"
    host.ok("vs-control", "--name", "web", "--restart")
    wait(settled)

    def heard() -> bool:
        advertise(routers["7"])
        return "default via fe80:" in ways()

    wait(heard)
    assert "2001:db8:5" not in ways(), "the host gives addresses, no router does"
    assert host.ok("vs-net", "--name", "web", "--check") == ""
    host.ok("vs-net", "--name", "web", "--repair")
    assert "default via fe80:" in ways()

"""The local network of a single machine: made with its first guest, closed from outside, gone when it is told to go."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import NET, Host, create
from wire import bridge, machine

from vstools.network import local

INTERNET = "198.51.100"
"""TEST-NET-2: the world outside, a namespace behind a second link of the test run's own."""


def _sh(script: str) -> str:
    return subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def internet() -> Iterator[str]:
    """A namespace that is the host's default route and knows nothing of the guests' network; its address."""
    forwarding = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    _sh(f"""
    ip netns add internet
    ip link add wan0 type veth peer name eth0 netns internet
    ip address add {INTERNET}.2/24 dev wan0; ip link set wan0 up
    ip -n internet address add {INTERNET}.1/24 dev eth0; ip -n internet link set eth0 up; ip -n internet link set lo up
    ip -n internet route add {NET}.0/24 via {INTERNET}.2
    ip route add default via {INTERNET}.1
    """)
    server = subprocess.Popen(
        ["ip", "netns", "exec", "internet", "busybox", "nc", "-ll", "-p", "7", "-e", "echo", "world"]
    )
    try:
        yield f"{INTERNET}.1"
    finally:
        server.kill()
        server.wait()
        _sh("ip link delete wan0; ip netns delete internet")
        Path("/proc/sys/net/ipv4/ip_forward").write_text(forwarding)
        subprocess.run(["nft", "flush", "ruleset"], check=True)


@pytest.fixture
def web(host: Host, small: Path) -> Host:
    """A host with one small guest, which serves on port 80."""
    assert create(host, "web", 10, small, "--start").code == 0
    host.inside("web", "nc -ll -p 80 -e echo served > /dev/null 2>&1 &")
    return host


@pytest.fixture
def answering() -> Iterator[str]:
    """A server of the host's own; its port."""
    server = subprocess.Popen(["busybox", "nc", "-ll", "-p", "7", "-e", "echo", "host"])
    try:
        yield "7"
    finally:
        server.kill()
        server.wait()


def _ask(where: str, port: int, *, within: str = "") -> str:
    """What a server says; nothing when it cannot be reached."""
    argv = ["busybox", "nc", "-w", "3", where, str(port)]
    enter = ["ip", "netns", "exec", within] if within else []
    done = subprocess.run([*enter, *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def test_bridge_is_made_at_the_first_start_with_the_gateways_address(host: Host, small: Path) -> None:
    assert create(host, "web", 10, small).code == 0
    assert not Path("/proc/sys/net/ipv4/conf/vsbr0").exists(), "making a guest makes no network"
    host.ok("vs-control", "--name", "web", "--start")
    address = _sh("ip -o -4 address show dev vsbr0")
    assert f"inet {NET}.1/24" in address
    assert "inet6 fd99:7::1" not in _sh("ip -o -6 address show dev vsbr0"), "the guest has no IPv6 address"
    host.ok("vs-control", "--name", "web", "--stop")
    assert f"inet {NET}.1/24" in _sh("ip -o -4 address show dev vsbr0"), "it stays for the next one"


def test_guest_and_host_reach_each_other(web: Host, answering: str) -> None:
    assert _ask(f"{NET}.10", 80) == "served"
    assert web.inside("web", f"nc -w 3 {NET}.1 {answering} < /dev/null").out == "host\n"


def test_guests_reach_each_other(web: Host, small: Path) -> None:
    assert create(web, "other", 11, small, "--start").code == 0
    assert web.inside("other", f"nc -w 3 {NET}.10 80 < /dev/null").out == "served\n"


def test_both_families_at_once(host: Host, small: Path, answering: str) -> None:
    assert create(host, "web", 10, small, "--interface", "fd99:7::10", "--start").code == 0
    assert "inet6 fd99:7::1/64" in _sh("ip -o -6 address show dev vsbr0")
    _sh("busybox ping6 -c 3 -W 3 fd99:7::10")
    assert host.inside("web", f"nc -w 3 {NET}.1 {answering} < /dev/null").out == "host\n"


def test_guest_reaches_the_world_by_nat_and_the_world_not_the_guest(internet: str, web: Host) -> None:
    assert web.inside("web", f"nc -w 3 {internet} 7 < /dev/null").out == "world\n"
    assert _ask(f"{INTERNET}.2", 80, within="internet") == ""
    assert _ask(f"{NET}.10", 80, within="internet") == "", "although it knows the way"
    assert _sh(f"ip netns exec internet busybox ping -c 1 -W 1 {NET}.10 || echo closed").endswith("closed\n")
    assert _ask(f"{NET}.10", 80) == "served"
    seen = _sh("ip -n internet neighbour")
    assert NET not in seen, "no packet with the guest's address went out"


def test_rules_that_somebody_emptied_are_missed_and_come_back(internet: str, web: Host) -> None:
    """As a reload of the host's nftables.service does, which runs ``vs-net --all --repair`` afterwards."""
    assert web.ok("vs-net", "--name", "web", "--check") == ""
    _sh("nft flush ruleset")
    done = web.vs("vs-net", "--name", "web", "--check")
    assert (done.code, "rules of the local network vsbr0 are missing" in done.out) == (1, True), done
    assert "vsbr0 are missing" in web.ok("vs-net", "--all", "--repair")
    assert web.inside("web", f"nc -w 3 {internet} 7 < /dev/null").out == "world\n"
    assert web.ok("vs-net", "--name", "web", "--check") == ""
    assert "masquerade" in _sh(f"nft list table ip {local.TABLE}")
    assert NET not in _sh("ip -n internet neighbour")


def test_host_that_forwarded_nothing_forwards_for_its_guests_alone(internet: str, host: Host, small: Path) -> None:
    """A third network on the same host is not connected to the world by our bridge."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    _sh("""
    ip netns add third; ip link add lan0 type veth peer name eth0 netns third
    ip address add 203.0.113.1/24 dev lan0; ip link set lan0 up
    ip -n third address add 203.0.113.2/24 dev eth0; ip -n third link set eth0 up
    ip -n third route add default via 203.0.113.1; ip -n internet route add 203.0.113.0/24 via 198.51.100.2
    """)
    try:
        assert create(host, "web", 10, small, "--start").code == 0
        assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"
        assert _ask(internet, 7, within="third") == ""
        assert host.inside("web", f"nc -w 3 {internet} 7 < /dev/null").out == "world\n"
    finally:
        _sh("ip link delete lan0; ip netns delete third")


def test_what_other_bridges_pass_on_is_not_forwarding(host: Host, small: Path) -> None:
    """With br_netfilter the frames of all bridges come by the host's rules for what it forwards."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    seen = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if seen.exists():
        seen.write_text("1")
    assert create(host, "web", 10, small, "--start").code == 0
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"
    with (
        bridge("vst0"),
        machine("vsleft", "vst0", "203.0.113.1/24") as left,
        machine("vsright", "vst0", "203.0.113.2/24"),
    ):
        left.sh("ping -c 1 -W 5 203.0.113.2")


def test_host_that_is_a_router_stays_one(internet: str, host: Host, small: Path) -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    _sh("""
    ip netns add third; ip link add lan0 type veth peer name eth0 netns third
    ip address add 203.0.113.1/24 dev lan0; ip link set lan0 up
    ip -n third address add 203.0.113.2/24 dev eth0; ip -n third link set eth0 up
    ip -n third route add default via 203.0.113.1; ip -n internet route add 203.0.113.0/24 via 198.51.100.2
    """)
    try:
        assert create(host, "web", 10, small, "--start").code == 0
        assert _ask(internet, 7, within="third") == "world"
        assert _ask(f"{NET}.10", 80, within="third") == "", "but not to the guests"
    finally:
        _sh("ip link delete lan0; ip netns delete third")


def test_it_is_taken_away_and_comes_back_with_the_next_start(host: Host, small: Path, answering: str) -> None:
    assert create(host, "web", 10, small, "--start").code == 0
    host.ok("vs-control", "--name", "web", "--stop")
    host.ok("vs-fonctions", "local_network_remove")
    host.ok("vs-fonctions", "local_network_remove")
    assert "vsbr0" not in _sh("ip -o link")
    assert "vs_local" not in _sh("nft list tables")
    host.ok("vs-control", "--name", "web", "--start")
    assert host.inside("web", f"nc -w 3 {NET}.1 {answering} < /dev/null").out == "host\n"


def test_bridge_without_a_line_of_networks_conf_is_refused(host: Host, small: Path) -> None:
    host.configure(networks="", DEFAULT_PREFIX="24")
    assert create(host, "web", 10, small).code == 0
    done = host.vs("vs-control", "--name", "web", "--start")
    assert (done.code, "vsbr0 does not exist" in done.err) == (2, True), done
    assert len(done.err.strip().splitlines()) == 1
    assert "vsbr0" not in _sh("ip -o link")


FLOOD = """
import socket, sys
for source in range(20000, 20004):
    for where in sys.argv[1:]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
            flood.bind(("", source))
            for port in range(1, 5000):
                try:
                    flood.sendto(b"", (where, port))
                except OSError:
                    pass
"""


def test_a_guest_that_begins_connections_without_end_leaves_the_hosts_table_to_others(
    web: Host, small: Path, internet: str, answering: str
) -> None:
    """40000 flows, out by the NAT and to the host itself; a sixteenth of the table, at most 4096, is what it gets."""
    assert create(web, "next", 11, small, "--start").code == 0
    count = Path("/proc/sys/net/netfilter/nf_conntrack_count")
    before, most = int(count.read_text()), local.most_connections()
    assert _ask(internet, 7, within="vs60000") == "world"
    flood = ["nsenter", "--net=/run/netns/vs60000", sys.executable, "-c", FLOOD, internet, f"{NET}.1"]
    subprocess.run(flood, check=True, timeout=300)
    taken = int(count.read_text())
    assert most // 2 < taken - before, "it took what it may"
    assert taken - before <= most + 200, "and what the host and the other one began meanwhile"
    refused = int(_sh(f"nft list chain ip {local.TABLE} prerouting").partition("packets ")[2].split()[0])
    assert refused > 10000
    for _ in range(20):
        assert _ask(internet, 7, within="vs60001") == "world", "the neighbour begins connections"
        assert _ask(internet, 7) == "world", "so does the host"
        assert _ask(f"{NET}.1", int(answering), within="vs60001") == "host"
    assert _ask(f"{NET}.10", 80) == "served", "from outside the greedy one is reached"

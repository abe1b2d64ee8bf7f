"""The firewall with real packets: from a guest, to it, between it and the host, in IPv4 and IPv6, by both back ends."""

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import NET, wait
from filtered import (
    ALL_OF_WORLD,
    GUEST,
    GUEST6,
    HOST,
    HOST6,
    NET6,
    OTHER,
    SELF,
    WORLD,
    WORLD6,
    Net,
    neighbourhood,
    open_ways,
    sh,
    tcp,
)


@pytest.fixture(scope="module", params=["nftables", "iptables"])
def machine(small: Path, request: pytest.FixtureRequest) -> Iterator[Net]:
    """A host with one guest, and a neighbour on its bridge."""
    with neighbourhood(small, request.param) as net:
        yield net


@pytest.fixture
def net(machine: Net) -> Net:
    """The same, with nothing allowed."""
    machine.rules("enable")
    return machine


def test_nothing_passes_that_no_rule_allows(net: Net) -> None:
    assert open_ways(net) == set()


@pytest.mark.parametrize(
    ("line", "ways"),
    [
        ("allow from any to tcp:80", {"from world tcp", "from world tcp6"}),
        ("allow from 0/0 to tcp:80", {"from world tcp"}),
        ("allow from ::/0 to udp:80", {"from world udp6"}),
        (f"allow to {WORLD} to udp:79-81", {"to world udp"}),
        ("allow to any to 1,17", {"to world icmp", "to world udp", "to world udp6"}),
        ("allow from any to icmp6:echo-request", {"from world icmp6"}),
        (f"allow from {HOST}:{OTHER} to tcp:80", {"from host tcp"}),
        (f"allow to {HOST},{HOST6} to icmp,icmp6", {"to host icmp", "to host icmp6"}),
        (f"allow to {NET}.0/24,{NET6}:/64 to udp", {"to world udp", "to world udp6"}),
    ],
)
def test_a_rule_lets_pass_what_it_says_and_nothing_else(net: Net, line: str, ways: set[str]) -> None:
    net.rules("enable", line)
    assert open_ways(net) == ways


def test_the_first_matching_line_wins(net: Net) -> None:
    net.rules("enable", f"deny from {OTHER} to tcp:80", "allow from any to tcp:80", f"allow from {OTHER} to all")
    assert tcp(net.world, net.guest, 80)
    assert not tcp(net.world, net.guest, 80, bind=OTHER)
    assert tcp(net.world, net.guest, 81, bind=OTHER)
    assert not tcp(net.world, net.guest, 81)


def test_each_rule_counts_and_tells_its_line(net: Net) -> None:
    net.rules("enable", "allow from any to tcp:80", "deny from any to tcp:81")
    assert tcp(net.world, net.guest, 80)
    assert not tcp(net.world, net.guest, 81)
    assert net.counted("web/firewall.conf:2") == 1
    assert net.counted("web/firewall.conf:3") >= 1
    assert net.counted("established") >= 1
    lines = net.machine.ok("vs-net", "--name", "web", "--rules").splitlines()
    wanted = f"{SELF}:web:from_all: meta nfproto ipv4 tcp dport 80 packets 1 "
    assert any(line.startswith(wanted) and line.endswith("web/firewall.conf:2)") for line in lines), lines


def test_files_that_are_included_and_aliases_reach_the_guest(net: Net) -> None:
    conf = net.machine.conf
    (conf / "aliases.conf").write_text(f"world = {WORLD},{WORLD6}\n")
    (conf / "common.conf").write_text("allow from @world to udp:80\n")
    try:
        net.rules("enable", "include common.conf")
        assert open_ways(net) == {"from world udp", "from world udp6"}
        assert net.counted("common.conf:1") == 2
    finally:
        (conf / "aliases.conf").unlink()
        (conf / "common.conf").unlink()


def test_down_lets_everything_pass_but_the_host(net: Net) -> None:
    net.machine.ok("vs-net", "--name", "web", "--fw", "down")
    assert open_ways(net) == ALL_OF_WORLD
    net.rules("disable", f"allow from {HOST} to tcp:80")
    assert open_ways(net) == ALL_OF_WORLD | {"from host tcp"}


EACH = "for tool in iptables-legacy ip6tables-legacy; do"
BREAK = {
    "nftables": 'handle=$(nft -a list chain inet vs from_known | sed -n "s/.*goto from_all # handle //p"); '
    "nft delete rule inet vs from_known handle $handle",
    "iptables": "ip6tables-legacy -D from_known -g from_all",
}
"""Take away the way to the rules; where each family has a table of its own, in one of them."""
FLUSH = {
    "nftables": "nft flush ruleset",
    "iptables": f"{EACH} for chain in INPUT OUTPUT FORWARD; do $tool -P $chain ACCEPT; done; $tool -F; $tool -X; done",
}


def test_lines_tell_what_the_kernel_holds(net: Net) -> None:
    def lines(*words: str) -> list[str]:
        return net.machine.ok("vs-net", *words).splitlines()

    def told(vlan: str, route: str, fw_in: str, fw_out: str) -> list[str]:
        return [f"{SELF}:web:{ip}:{vlan}:{route}:{fw_in}:{fw_out}" for ip in (GUEST, f"[{GUEST6}]")]

    assert lines("--name", "web") == lines("--all") == told("up", "up", "up", "up")
    assert lines("--name", "web", "--fw", "down") == told("up", "up", "down", "down")
    assert lines("--all", "--fw", "up") == told("up", "up", "up", "up")
    net.within(BREAK[net.tool])
    assert lines("--name", "web") == told("up", "up", "down", "up")
    net.within(FLUSH[net.tool])
    assert lines("--name", "web") == told("up", "up", "down", "down")
    sh("ip -n vs60000 route delete default")
    assert lines("--name", "web")[0] == f"{SELF}:web:{GUEST}:up:down:down:down"
    sh(f"ip -n vs60000 route add default via {HOST}")
    assert lines("--name", "web", "--fw", "up") == told("up", "up", "up", "up")
    rows = json.loads(net.machine.ok("vs-net", "--name", "web", "--json"))
    assert rows[1] == {
        **{"host": SELF, "guest": "web", "ip": GUEST6, "vlan": True, "route": True},
        **{"fw IN": True, "fw OUT": True},
    }
    assert lines("--name", "web", "--table")[0].split() == [
        "HOST",
        "GUEST",
        "IP",
        "VLAN",
        "ROUTE",
        "FW",
        "IN",
        "FW",
        "OUT",
    ]


def test_a_file_with_faults_leaves_the_rules_in_force(net: Net) -> None:
    net.rules("enable", "allow from any to tcp:80")
    before = [{**rule, "packets": 0, "bytes": 0} for rule in net.live()]
    file = net.machine.guests / "web/firewall.conf"
    file.write_text("enable\nallow from web to all\nallow any\n")
    done = net.machine.vs("vs-net", "--name", "web", "--fw", "up")
    assert done.code == 2, done
    assert [line.partition(": ")[0] for line in done.err.splitlines()] == [f"{file}:2:12", f"{file}:3:7"]
    assert [{**rule, "packets": 0, "bytes": 0} for rule in net.live()] == before
    assert tcp(net.world, net.guest, 80)


def test_a_dry_run_prints_the_ruleset_and_changes_nothing(net: Net) -> None:
    (net.machine.guests / "web/firewall.conf").write_text("allow from any to tcp:80\n")
    text = net.machine.ok("vs-net", "--name", "web", "--fw", "up", "--dry-run")
    wanted = {"nftables": "tcp dport { 80 } counter accept", "iptables": "-p tcp -m tcp --dport 80 -m comment"}
    assert wanted[net.tool] in text
    assert not tcp(net.world, net.guest, 80)


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        ("nft flush ruleset", "Operation not permitted"),
        ("nft delete table inet vs", "Operation not permitted"),
        ("nft add table inet mine", "Operation not permitted"),
        ("iptables-legacy -F", "Permission denied (you must be root)"),
        ("iptables-legacy -P INPUT ACCEPT", "Permission denied (you must be root)"),
        ("ip6tables-legacy -I OUTPUT -j ACCEPT", "Permission denied (you must be root)"),
    ],
)
def test_the_guests_root_cannot_touch_the_rules(net: Net, words: str, refusal: str) -> None:
    before = net.live()
    init = net.machine.ok("vs-fonctions", "guest_init_pid", "web").strip()
    argv = ["nsenter", f"--target={init}", "--user", "--net", "env", "XTABLES_LOCKFILE=/dev/null", *words.split()]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode != 0, refusal in done.stderr) == (True, True), done
    assert net.live() == before


def test_forged_addresses_stay_inside(net: Net) -> None:
    """An ordinary process may bind an IPv6 address that is not there (IPV6_FREEBIND): the kernel would send from it."""
    net.machine.ok("vs-net", "--name", "web", "--fw", "down")
    freebind = 78
    with net.guest.socket(socket.AF_INET6, socket.SOCK_DGRAM) as liar:
        liar.setsockopt(socket.IPPROTO_IPV6, freebind, 1)
        liar.bind((f"{NET6}:66", 0))
        with pytest.raises(PermissionError):
            liar.sendto(b"x", (WORLD6, 7))
    assert net.counted("a forged address") == 1


def test_multicast_and_broadcast_do_not_reach_the_host(net: Net) -> None:
    net.rules("enable", "allow to any to all")
    with net.guest.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for address in (f"{NET}.255", "255.255.255.255", "224.0.0.1"):
            with pytest.raises(PermissionError):
                sender.sendto(b"x", (address, 7))
    assert net.counted("the host is isolated") >= 3


def test_only_the_loopback_link_is_loopback(net: Net) -> None:
    """A link whose name has the same lowest bits in each letter; python-iptables looks at no others for IPv6."""
    sh(f"""
    ip link add be netns {net.guest.netns} type veth peer name peer netns world
    ip -n {net.guest.netns} address add fd99:9::1/64 nodad dev be; ip -n {net.guest.netns} link set be up
    ip -n world address add fd99:9::2/64 nodad dev peer; ip -n world link set peer up
    """)
    try:
        with (
            net.guest.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server,
            net.world.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client,
        ):
            server.bind(("fd99:9::1", 7))
            client.sendto(b"x", ("fd99:9::1", 7))
            wait(lambda: net.counted("not an address of the guest") > 0)
            with pytest.raises(TimeoutError):
                server.recv(16)
    finally:
        sh("ip -n world link delete peer")

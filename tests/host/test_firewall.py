"""The firewall with real packets: from a guest, to it, between it and the host, in IPv4 and IPv6."""

import json
import os
import random
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from conftest import NET, Host, create, installation, wait

from vstools.libc import network_namespace

NET6 = "fd99:7:"
GUEST, WORLD, OTHER, HOST = f"{NET}.10", f"{NET}.200", f"{NET}.201", f"{NET}.1"
GUEST6, WORLD6, HOST6 = f"{NET6}:10", f"{NET6}:200", f"{NET6}:1"
SELF = os.uname().nodename.partition(".")[0]
PATIENCE = 0.4


def _sh(script: str) -> str:
    return subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=True).stdout


class Place:
    """Where packets come from and go to: a network namespace with its addresses."""

    def __init__(self, netns: str, v4: str, v6: str) -> None:
        self.netns, self.v4, self.v6 = netns, v4, v6

    def there(self) -> AbstractContextManager[None]:
        """Be there: sockets that are opened belong to it."""
        return network_namespace(Path("/run/netns", self.netns)) if self.netns else nullcontext()

    def socket(self, family: int, kind: int) -> socket.socket:
        """A socket of that place."""
        with self.there():
            found = socket.socket(family, kind)
        found.settimeout(PATIENCE)
        return found


class Net:
    """One guest that runs, the host and the world, which is a neighbour with two IPv4 addresses."""

    def __init__(self, machine: Host) -> None:
        self.machine = machine
        self.guest, self.world = Place("vs60000", GUEST, GUEST6), Place("world", WORLD, WORLD6)
        self.host = Place("", HOST, HOST6)

    def rules(self, *lines: str) -> None:
        """Put the lines into firewall.conf and load them."""
        (self.machine.guests / "web/firewall.conf").write_text("".join(f"{line}\n" for line in lines))
        self.machine.ok("vs-net", "--name", "web", "--fw", "up")

    def live(self) -> list[dict[str, object]]:
        """The rules in force."""
        return list(json.loads(self.machine.ok("vs-net", "--name", "web", "--rules", "--json")))

    def counted(self, place: str) -> int:
        """How many packets the rules of a place (a line of a file) counted."""
        return sum(int(str(rule["packets"])) for rule in self.live() if str(rule["place"]).endswith(place))


@pytest.fixture(scope="module")
def machine(small: Path) -> Iterator[Net]:
    """A host with one guest, and a neighbour on its bridge."""
    with installation() as host:
        assert create(host, "web", 10, small, "--interface", GUEST6, "--start").code == 0
        _sh(f"""
        ip netns add world; ip link add world0 type veth peer name eth0 netns world
        ip link set world0 master vsbr0 up
        ip -n world address add {WORLD}/24 dev eth0; ip -n world address add {OTHER}/24 dev eth0
        ip -n world address add {WORLD6}/64 dev eth0 nodad
        ip -n world link set eth0 up; ip -n world link set lo up
        """)
        try:
            wait(lambda: "tentative" not in _sh("ip -n vs60000 -6 address; ip -6 address show dev vsbr0"))
            yield Net(host)
        finally:
            _sh("ip link delete world0; ip netns delete world")


@pytest.fixture
def net(machine: Net) -> Net:
    """The same, with nothing allowed."""
    machine.rules("enable")
    return machine


def tcp(source: Place, target: Place, port: int, *, v6: bool = False, bind: str = "") -> bool:
    """Whether a connection can be opened."""
    family, address = (socket.AF_INET6, target.v6) if v6 else (socket.AF_INET, target.v4)
    with target.socket(family, socket.SOCK_STREAM) as server, source.socket(family, socket.SOCK_STREAM) as client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen()
        if bind:
            client.bind((bind, 0))
        try:
            client.connect((address, port))
        except OSError:
            return False
        return True


def udp(source: Place, target: Place, port: int, *, v6: bool = False) -> bool:
    """Whether a datagram arrives, and its answer."""
    family, address = (socket.AF_INET6, target.v6) if v6 else (socket.AF_INET, target.v4)
    with target.socket(family, socket.SOCK_DGRAM) as server, source.socket(family, socket.SOCK_DGRAM) as client:
        server.bind((address, port))
        try:
            client.sendto(b"ask", (address, port))
            _, asker = server.recvfrom(16)
            server.sendto(b"answer", asker)
            return client.recv(16) == b"answer"
        except OSError:
            return False


def ping(source: Place, target: Place, *, v6: bool = False) -> bool:
    """Whether an echo request is answered."""
    enter = ["ip", "netns", "exec", source.netns] if source.netns else []
    argv = [*enter, "ping", "-c1", "-W1", target.v6 if v6 else target.v4]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def open_ways(net: Net, port: int = 80) -> set[str]:
    """All the ways that packets of new connections pass between guest, world and host."""
    found = set()
    for name, other in (("world", net.world), ("host", net.host)):
        probes = {}
        with ThreadPoolExecutor(12) as pool:  # a namespace is entered by a thread
            for way, source, target in (("from", other, net.guest), ("to", net.guest, other)):
                for v6, six in ((False, ""), (True, "6")):
                    probes[f"{way} {name} tcp{six}"] = pool.submit(tcp, source, target, port, v6=v6)
                    probes[f"{way} {name} udp{six}"] = pool.submit(udp, source, target, port, v6=v6)
                    probes[f"{way} {name} icmp{six}"] = pool.submit(ping, source, target, v6=v6)
        found |= {way for way, probe in probes.items() if probe.result()}
    return found


KINDS = ("tcp", "tcp6", "udp", "udp6", "icmp", "icmp6")
ALL_OF_WORLD = {f"{way} world {kind}" for way in ("from", "to") for kind in KINDS}


def test_nothing_passes_that_no_rule_allows(net: Net) -> None:
    assert open_ways(net) == set()


@pytest.mark.parametrize(
    ("line", "ways"),
    [
        ("allow from any to tcp:80", {"from world tcp", "from world tcp6"}),
        ("allow from 0/0 to tcp:80", {"from world tcp"}),
        ("allow from ::/0 to udp:80", {"from world udp6"}),
        (f"allow to {WORLD} to udp:79-81", {"to world udp"}),
        (f"allow to {NET}.128/25,{NET6}:/64 to tcp", {"to world tcp", "to world tcp6"}),
        ("allow to any to icmp", {"to world icmp"}),
        ("allow from any to icmp6:echo-request", {"from world icmp6"}),
        ("allow from any to icmp:echo-reply,6", {"from world tcp", "from world tcp6"}),
        (f"allow from {OTHER} to all", set()),
        ("allow from any to tcp:81,udp:79", set()),
        ("allow from any,10.0.0.1 to all", {way for way in ALL_OF_WORLD if way.startswith("from")}),
        (f"allow from {HOST}:{OTHER} to tcp:80", {"from host tcp"}),
        (f"allow to {HOST},{HOST6} to icmp,icmp6", {"to host icmp", "to host icmp6"}),
        (f"allow to {NET}.0/24,{NET6}:/64 to udp", {"to world udp", "to world udp6"}),
    ],
)
def test_a_rule_lets_pass_what_it_says_and_nothing_else(net: Net, line: str, ways: set[str]) -> None:
    net.rules("enable", line)
    assert open_ways(net) == ways


VOCABULARY = {
    "addresses": [
        "any",
        "0/0",
        "::/0",
        f"{NET}.0/24",
        f"{NET6}:/64",
        f"{NET}.192/26",
        WORLD,
        WORLD6,
        OTHER,
        HOST,
        HOST6,
    ],
    "services": [
        "all",
        "tcp",
        "udp:80",
        "tcp:79-81",
        "tcp:81",
        "icmp",
        "icmp:echo-reply",
        "icmp6:echo-request",
        "icmp6",
        "1",
        "58",
        "6",
    ],
}
NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1, "icmp6": 58}
EVERYBODY = {"any": ("0.0.0.0/0", "::/0"), "0/0": ("0.0.0.0/0",)}


def model(lines: list[tuple[str, str, list[str], list[str]]]) -> set[str]:
    """What passes by these lines: the reference, written for reading."""
    found = set()
    for name, remotes in (("world", (WORLD, WORLD6)), ("host", (HOST, HOST6))):
        for remote in map(ip_address, remotes):
            for way in ("from", "to"):
                for kind in ("tcp", "udp", "icmp"):
                    verdict = "deny"
                    for said, direction, addresses, services in reversed(lines):  # the first one that matches wins
                        nets = [ip_network(net) for word in addresses for net in EVERYBODY.get(word, (word,))]
                        near = [net for net in nets if name == "world" or net.prefixlen == net.max_prefixlen]
                        meant = any(serves(service, kind, remote.version) for service in services)
                        if direction == way and meant and any(remote in net for net in near):
                            verdict = said
                    if verdict == "allow":
                        found.add(f"{way} {name} {kind}{'6' if remote.version == 6 else ''}")
    return found


def serves(service: str, kind: str, version: int) -> bool:
    """Whether a service of the file means this kind of packet, to port 80 or an echo request."""
    protocol = 58 if (kind, version) == ("icmp", 6) else NUMBERS[kind]
    name, _, detail = service.partition(":")
    if name != "all" and NUMBERS.get(name, name) not in (protocol, str(protocol)):
        return False
    return detail in ("", "80", "79-81", "echo-request")


@pytest.mark.parametrize("seed", range(10))
def test_the_kernel_decides_as_the_reference_does(net: Net, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - the same policies each time
    lines = [
        (
            chance.choice(("allow", "allow", "deny")),
            chance.choice(("from", "to")),
            chance.sample(VOCABULARY["addresses"], chance.randint(1, 3)),
            chance.sample(VOCABULARY["services"], chance.randint(1, 3)),
        )
        for _ in range(chance.randint(2, 8))
    ]
    net.rules(*(f"{verdict} {way} {','.join(nets)} to {','.join(kinds)}" for verdict, way, nets, kinds in lines))
    assert open_ways(net) == model(lines)


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


def test_lines_tell_what_the_kernel_holds(net: Net) -> None:
    def lines(*words: str) -> list[str]:
        return net.machine.ok("vs-net", *words).splitlines()

    def told(vlan: str, route: str, fw_in: str, fw_out: str) -> list[str]:
        return [f"{SELF}:web:{ip}:{vlan}:{route}:{fw_in}:{fw_out}" for ip in (GUEST, f"[{GUEST6}]")]

    assert lines("--name", "web") == lines("--all") == told("up", "up", "up", "up")
    assert lines("--name", "web", "--fw", "down") == told("up", "up", "down", "down")
    assert lines("--all", "--fw", "up") == told("up", "up", "up", "up")
    within = "nsenter --net=/run/netns/vs60000 nft"
    handle = _sh(f"{within} -a list chain inet vs from_known | sed -n 's/.*goto from_all # handle //p'")
    _sh(f"{within} delete rule inet vs from_known handle {handle}")
    assert lines("--name", "web") == told("up", "up", "down", "up")
    _sh("nsenter --net=/run/netns/vs60000 nft flush ruleset")
    assert lines("--name", "web") == told("up", "up", "down", "down")
    _sh("ip -n vs60000 route delete default")
    assert lines("--name", "web")[0] == f"{SELF}:web:{GUEST}:up:down:down:down"
    _sh(f"ip -n vs60000 route add default via {HOST}")
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
    assert "tcp dport { 80 } counter accept" in text
    assert not tcp(net.world, net.guest, 80)


def test_open_connections_survive_a_replacement(net: Net) -> None:
    net.rules("enable", "allow from any to tcp:80")
    with net.guest.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind((GUEST, 80))
        server.listen()
        with net.world.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.connect((GUEST, 80))
            accepted, _ = server.accept()
            with accepted:
                net.rules("enable")
                for one, other in ((client, accepted), (accepted, client)):
                    one.sendall(b"still here")
                    assert other.recv(16) == b"still here"
                assert not tcp(net.world, net.guest, 81)


def test_a_replacement_under_load_loses_nothing_that_both_rulesets_allow(net: Net) -> None:
    """Nobody answers, so each datagram is a new connection's and has to pass the rules."""
    net.rules("enable", "allow from any to udp:7")
    enough, sent = threading.Event(), 0
    with (
        net.guest.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        net.world.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE
        server.bind((GUEST, 7))
        client.sendto(b"0", (GUEST, 7))
        assert server.recv(16) == b"0"

        def flood() -> None:
            nonlocal sent
            while not enough.is_set():
                client.sendto(b"x", (GUEST, 7))
                sent += 1
                enough.wait(0.0002)

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            for turn in range(6):
                net.rules("enable", "deny from any to udp:8" if turn % 2 else "", "allow from any to udp:7")
        finally:
            enough.set()
            thread.join()
        received = 0
        with suppress(TimeoutError):
            while server.recv(16):
                received += 1
    assert sent > 100
    assert received == sent


def test_the_guests_root_cannot_touch_the_rules(net: Net) -> None:
    before = net.live()
    init = net.machine.ok("vs-fonctions", "guest_init_pid", "web").strip()
    for words in ("flush ruleset", "delete table inet vs", "add rule inet vs input accept", "add table inet mine"):
        argv = ["nsenter", f"--target={init}", "--user", "--net", "nft", *words.split()]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode != 0, words
        assert "Operation not permitted" in done.stderr
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

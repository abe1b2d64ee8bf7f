"""Rules are exchanged while packets come: by the same back end, and by the other one."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from filtered import GUEST, GUEST6, Net, neighbourhood, tcp

from vstools.errors import VsError
from vstools.firewall import backend, iptables

OPEN, SHUT = 7, 9


@pytest.fixture(scope="module", params=["nftables", "iptables"])
def machine(small: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Net, str]]:
    """A host with one guest and a neighbour on its bridge, and the back end that the guest begins with."""
    with neighbourhood(small, request.param) as net:
        yield net, request.param


@pytest.fixture
def net(machine: tuple[Net, str]) -> Net:
    """The same, with nothing allowed, whatever the test before left."""
    net, tool = machine
    net.filtered_by(tool)
    net.rules("enable")
    return net


@contextmanager
def flood(net: Net) -> Iterator[None]:
    """Datagrams to a port that is open and to one that is shut, in both families, as fast as they go.

    Nobody answers, so each is a new connection's and has to pass the rules. At the end all that were sent to the open
    port have arrived, and of the others none.
    """
    enough, sent = threading.Event(), 0
    with ExitStack() as stack:
        ways = [
            (family, address, port)
            for family, address in ((socket.AF_INET, GUEST), (socket.AF_INET6, GUEST6))
            for port in (OPEN, SHUT)
        ]
        servers = {way: stack.enter_context(net.guest.socket(way[0], socket.SOCK_DGRAM)) for way in ways}
        clients = {way: stack.enter_context(net.world.socket(way[0], socket.SOCK_DGRAM)) for way in ways}
        for (_, address, port), server in servers.items():
            server.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE
            server.bind((address, port))
        for (_, address, port), client in clients.items():
            client.sendto(b"first", (address, port))
        for (_, _, port), server in servers.items():
            if port == OPEN:  # the neighbours know each other now
                assert server.recv(16) == b"first"

        def send() -> None:
            nonlocal sent
            while not enough.is_set():
                for (_, address, port), client in clients.items():
                    client.sendto(b"x", (address, port))
                sent += 1
                enough.wait(0.0002)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            enough.set()
            thread.join()
        assert sent > 100
        arrived = {way: received(server) for way, server in servers.items()}
        assert arrived == {way: sent if way[2] == OPEN else 0 for way in ways}


def received(server: socket.socket) -> int:
    """How many datagrams have come."""
    count = 0
    while True:
        try:
            server.recv(16)
        except TimeoutError:
            return count
        count += 1


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


def test_a_replacement_under_load_loses_nothing_and_lets_nothing_through(net: Net) -> None:
    net.rules("enable", f"allow from any to udp:{OPEN}")
    with flood(net):
        for turn in range(6):
            net.rules("enable", "deny from any to udp:8" if turn % 2 else "", f"allow from any to udp:{OPEN}")


def test_the_other_back_end_takes_over_under_load(net: Net) -> None:
    first = net.tool
    other = {"nftables": "iptables", "iptables": "nftables"}[first]
    net.rules("enable", f"allow from any to udp:{OPEN}")
    assert in_the_kernel(net) == {first}
    with flood(net):
        for tool in (other, first, other, first):
            net.filtered_by(tool)
            net.rules("enable", f"allow from any to udp:{OPEN}")
            assert in_the_kernel(net) == {tool}
            assert [rule["place"] for rule in net.live()].count("established") == {"nftables": 2, "iptables": 4}[tool]


def in_the_kernel(net: Net) -> set[str]:
    """The back ends whose rules are there, as the kernel's own tools tell it."""
    tools = {"nftables": "nft list ruleset", "iptables": "iptables-legacy -S; ip6tables-legacy -S"}
    return {name for name, words in tools.items() if "established" in net.within(words).lower()}


def test_one_family_is_not_changed_without_the_other(net: Net) -> None:
    """The kernel refuses a rule for TCP's ports that does not say TCP: the second commit fails."""
    net.filtered_by("iptables")
    net.rules("enable", "allow from any to tcp:82")
    netns = net.guest.netns
    before = iptables.saved(netns)
    assert before.count("--dport 82") == 2
    v4, v6 = before.replace("--dport 82", "--dport 83").split("# IPv6")
    with pytest.raises(VsError, match="can't commit"):
        iptables.load(netns, f"{v4}# IPv6{v6.replace('-p tcp -m tcp', '-m tcp')}")
    assert iptables.saved(netns) == before
    for text in ("", v4):
        with pytest.raises(VsError, match="both families"):
            iptables.load(netns, text)
    assert iptables.saved(netns) == before
    assert tcp(net.world, net.guest, 82)


def test_what_is_saved_can_be_loaded_again(net: Net) -> None:
    net.rules("enable", "allow from any to tcp:80,icmp", "deny to 10.0.0.0/8,10.99.0.1 to udp:1-2,udp:4,tcp:9")
    netns = net.guest.netns
    chosen = backend.choose(net.tool)
    before, live = chosen.saved(netns), [{**rule, "packets": 0, "bytes": 0} for rule in net.live()]
    net.rules("disable")
    assert chosen.saved(netns) != before
    chosen.load(netns, before)
    assert chosen.saved(netns) == before
    assert [{**rule, "packets": 0, "bytes": 0} for rule in net.live()] == live


def test_the_kernels_own_tools_see_the_same_rules(net: Net) -> None:
    net.filtered_by("iptables")
    net.rules(
        "enable", "deny from any to tcp:1-5,tcp:9,icmp:8,icmp:255,icmp6,0,47", "allow to 10.1.0.0/16,fd00::/9 to all"
    )
    names = {"-p gre ": "-p 47 ", "-p ipv6-icmp ": "-p icmpv6 ", '"': ""}
    told = [net.within(f"{tool}-save") for tool in ("iptables-legacy", "ip6tables-legacy")]
    for ours, theirs in zip(iptables.saved(net.guest.netns).split("# IPv6"), told, strict=True):
        same = [[line for line in text.splitlines() if line.startswith("-A")] for text in (ours, theirs)]
        for old, new in names.items():
            same = [[line.replace(old, new) for line in lines] for lines in same]
        assert same[0] == same[1]
        assert len(same[0]) > 30

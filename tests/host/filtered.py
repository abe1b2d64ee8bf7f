"""A guest behind its firewall and its neighbours, and real connections between them."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from conftest import NET, Host, create, installation, wait

from vstools.libc import network_namespace

NET6 = "fd99:7:"
GUEST, WORLD, OTHER, HOST = f"{NET}.10", f"{NET}.200", f"{NET}.201", f"{NET}.1"
GUEST6, WORLD6, HOST6 = f"{NET6}:10", f"{NET6}:200", f"{NET6}:1"
SELF = os.uname().nodename.partition(".")[0]
PATIENCE = 0.4


def sh(script: str) -> str:
    """What a shell script says; it must end well."""
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

    def __init__(self, machine: Host, tool: str) -> None:
        self.machine, self.tool = machine, tool
        self.guest, self.world = Place("vs60000", GUEST, GUEST6), Place("world", WORLD, WORLD6)
        self.host = Place("", HOST, HOST6)

    def rules(self, *lines: str) -> None:
        """Put the lines into firewall.conf and load them."""
        (self.machine.guests / "web/firewall.conf").write_text("".join(f"{line}\n" for line in lines))
        self.machine.ok("vs-net", "--name", "web", "--fw", "up")

    def filtered_by(self, tool: str) -> None:
        """Say what filters from the next load on."""
        self.machine.configure(FIREWALL_BACKEND=tool)
        self.tool = tool

    def within(self, script: str) -> str:
        """What a shell script of the host's says in the guest's network namespace."""
        return sh(f"nsenter --net=/run/netns/{self.guest.netns} sh -ec '{script}'")

    def live(self) -> list[dict[str, object]]:
        """The rules in force."""
        return list(json.loads(self.machine.ok("vs-net", "--name", "web", "--rules", "--json")))

    def counted(self, place: str) -> int:
        """How many packets the rules of a place (a line of a file) counted."""
        return sum(int(str(rule["packets"])) for rule in self.live() if str(rule["place"]).endswith(place))


@contextmanager
def neighbourhood(template: Path, tool: str) -> Iterator[Net]:
    """A host with one guest, filtered by this back end, and a neighbour on its bridge."""
    with installation() as host:
        host.configure(FIREWALL_BACKEND=tool)
        assert create(host, "web", 10, template, "--interface", GUEST6, "--start").code == 0
        sh(f"""
        ip netns add world; ip link add world0 type veth peer name eth0 netns world
        ip link set world0 master vsbr0 up
        ip -n world address add {WORLD}/24 dev eth0; ip -n world address add {OTHER}/24 dev eth0
        ip -n world address add {WORLD6}/64 dev eth0 nodad
        ip -n world link set eth0 up; ip -n world link set lo up
        """)
        try:
            wait(lambda: "tentative" not in sh("ip -n vs60000 -6 address; ip -6 address show dev vsbr0"))
            yield Net(host, tool)
        finally:
            sh("ip link delete world0; ip netns delete world")


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
    argv = [*enter, "ping", "-c1", f"-W{PATIENCE}", target.v6 if v6 else target.v4]
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

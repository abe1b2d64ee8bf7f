"""vs-net --explain and --drops with real packets: what is said is what happens, and what is suggested helps."""

import json
import random
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import test_firewall
from conftest import wait
from filtered import GUEST, GUEST6, HOST, HOST6, NET, NET6, OTHER, SELF, WORLD, WORLD6, Net, open_ways, ping, tcp, udp

from vstools.firewall.nftables import LOG_GROUP
from vstools.lifecycle import explain
from vstools.paths import Paths

machine, net = test_firewall.machine, test_firewall.net
NFLOG_TABLE = "/proc/thread-self/net/netfilter/nfnetlink_log"
PROBES = {"tcp": tcp, "udp": udp, "icmp": ping}
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
Row = dict[str, Any]


class Watch:
    """``vs-net --drops --follow`` while it runs; ``rows`` are what it has said so far."""

    def __init__(self, net: Net, *words: str) -> None:
        self.net = net
        self.process = net.machine.start("vs-net", "--name", "web", "--drops", "--follow", *words)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        wait(lambda: listens(net) or self.process.poll() is not None)

    def _read(self) -> None:
        assert self.process.stdout
        self.lines.extend(iter(self.process.stdout.readline, ""))

    @property
    def rows(self) -> list[Row]:
        """The objects that were printed."""
        return [json.loads(line) for line in tuple(self.lines)]

    def row(self, direction: str, service: str, other: str) -> Row:
        """Wait until a packet is told of."""

        def find() -> list[Row]:
            end = "source" if direction == "IN" else "destination"
            kind = (direction, service, other)
            return [row for row in self.rows if (row.get("direction"), row.get("service"), row.get(end)) == kind]

        wait(lambda: bool(find()))
        return find()[0]

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """Interrupt it: exit status and what it said on stderr."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        code = self.process.wait(30)
        self._reader.join()
        assert self.process.stderr
        return code, self.process.stderr.read()


def listens(net: Net) -> bool:
    """Whether somebody listens to our group in the guest's namespace."""
    with net.guest.there(), open(NFLOG_TABLE) as table:  # noqa: PTH123 - the thread's namespace
        return any(line.split()[0] == str(LOG_GROUP) for line in table)


@contextmanager
def watching(net: Net, *words: str) -> Iterator[Watch]:
    """Watch what is refused; Ctrl-C ends it quietly."""
    watch = Watch(net, *words)
    try:
        yield watch
    except BaseException:
        watch.end(signal.SIGKILL)
        raise
    assert watch.end() == (0, "")


def addresses(net: Net) -> str:
    """What ip says of the guest's IPv6 addresses."""
    argv = ["ip", "-n", net.guest.netns, "-6", "address"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def raw(net: Net, family: int, protocol: int) -> socket.socket:
    """A socket of the world's that sends what it is given: IP headers too where the protocol is IPPROTO_RAW."""
    with net.world.there():
        return socket.socket(family, socket.SOCK_RAW, protocol)


def opened(net: Net, name: str, *, v6: bool) -> dict[tuple[str, str], bool]:
    """(way, kind) -> whether a connection with the world or the host can be opened."""
    other = net.world if name == "world" else net.host
    with ThreadPoolExecutor(6) as pool:  # a namespace is entered by a thread
        probes = {}
        for way, source, target in (("from", other, net.guest), ("to", net.guest, other)):
            for kind, probe in PROBES.items():
                port = () if kind == "icmp" else (80,)
                probes[way, kind] = pool.submit(probe, source, target, *port, v6=v6)
    return {kind: probe.result() for kind, probe in probes.items()}


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("name", ["world", "host"])
def test_each_refusal_is_told_and_the_rule_that_is_suggested_lets_it_through(net: Net, name: str, v6: bool) -> None:
    other = net.world if name == "world" else net.host
    address = other.v6 if v6 else other.v4
    services = {"tcp": "tcp:80", "udp": "udp:80", "icmp": "icmp6:echo-request" if v6 else "icmp:echo-request"}
    with watching(net, "--json") as watch:
        assert not any(opened(net, name, v6=v6).values())
        rules = []
        for way, direction in (("from", "IN"), ("to", "OUT")):
            for service in services.values():
                row = watch.row(direction, service, address)
                assert row["to allow"] == f"allow {way} {address} to {service}"
                assert row["reason"] == ("no rule allows it" if name == "world" else "the host is isolated")
                assert (row["guest"], row["link"], row["place"]) == ("web", "eth0", "")
                rules.append(row["to allow"])
        net.rules("enable", *rules)
        assert all(opened(net, name, v6=v6).values())


def test_a_line_for_people_says_who_refused_what(net: Net) -> None:
    file = net.machine.guests / "web/firewall.conf"
    net.rules("enable", f"deny from {NET}.0/24,{NET6}:/64 to tcp:81-90", "allow from any to all")
    with watching(net) as watch:
        assert not tcp(net.world, net.guest, 81)
        assert not tcp(net.world, net.guest, 82, v6=True)
        with net.guest.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind((GUEST, 4000))
            with pytest.raises(PermissionError):
                sender.sendto(b"x", (WORLD, 53))
        wait(lambda: len(watch.lines) >= 3)
    four, six, out = sorted(watch.lines, key=lambda line: ("OUT" in line, "[" in line))
    assert four.startswith(f"{SELF}:web: IN tcp {WORLD}:")
    assert f" -> {GUEST}:81 refused by {file}:2; to allow, before that line: allow from {WORLD} to tcp:81" in four
    assert six.startswith(f"{SELF}:web: IN tcp [{WORLD6}]:")
    assert f" -> [{GUEST6}]:82 refused by {file}:2; to allow, before that line: allow from {WORLD6} to tcp:82" in six
    text = f"{SELF}:web: OUT udp {GUEST}:4000 -> {WORLD}:53 refused: no rule allows it"
    assert out == f"{text}; to allow: allow to {WORLD} to udp:53\n"
    net.rules("enable", four.rpartition("line: ")[2].strip(), *file.read_text().splitlines()[1:])
    assert tcp(net.world, net.guest, 81)


def test_the_same_within_a_second_is_told_once(net: Net) -> None:
    with watching(net, "--json") as watch, net.world.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(50):
            sender.sendto(b"x", (GUEST, 7))
        wait(lambda: sum(row["packets"] for row in watch.rows if row["service"] == "udp:7") == 50)
        assert len(watch.rows) <= 4


@pytest.mark.parametrize("busy", [False, True])
def test_a_flood_by_the_guest_is_counted_and_fills_no_terminal(net: Net, busy: bool) -> None:
    """Also where nothing is read for a while: the kernel keeps some packets, and tells how many it lost."""
    amount = 40000
    with watching(net, "--json") as watch:
        if busy:
            watch.process.send_signal(signal.SIGSTOP)
        with net.guest.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(amount):
                with suppress(PermissionError):
                    sender.sendto(b"x" * 300, (WORLD, 1 + number % 5000))
        watch.process.send_signal(signal.SIGCONT)

        def told() -> bool:
            """Once all of it is told, or a packet more shows what was lost."""
            with net.world.socket(socket.AF_INET, socket.SOCK_DGRAM) as marker:
                marker.sendto(b"x", (GUEST, 7))
            rows = watch.rows
            outgoing = sum(row["packets"] for row in rows if row.get("direction") == "OUT")
            return int(outgoing) + sum(row.get("more", 0) + row.get("lost", 0) for row in rows) >= amount

        wait(told)
        assert len(watch.rows) < amount / 100
        assert any("lost" in row for row in watch.rows) or not busy
        assert watch.row("IN", "udp:7", WORLD)


def test_what_no_line_can_allow_says_why(net: Net) -> None:
    net.rules("enable", "allow from any to all")
    with watching(net, "--json") as watch:
        with raw(net, socket.AF_INET, 1) as wire:
            wire.sendto(b"\0\0\xff\xff\0\0\0\0", (GUEST, 0))  # an echo reply that nobody asked for
        assert watch.row("IN", "icmp:echo-reply", WORLD)["note"].startswith("no line can allow it: it belongs to no")
        with net.guest.socket(socket.AF_INET6, socket.SOCK_DGRAM) as liar:
            liar.setsockopt(socket.IPPROTO_IPV6, 78, 1)  # IPV6_FREEBIND
            liar.bind((f"{NET6}:66", 0))
            with pytest.raises(PermissionError):
                liar.sendto(b"x", (WORLD6, 7))
        row = watch.row("OUT", "udp:7", WORLD6)
        assert (row["reason"], row["to allow"]) == ("a forged address", "")
        assert row["note"] == "no line can allow it: its sender is no address of the guest"


def test_hostile_packets_are_read_as_far_as_they_can_be(net: Net) -> None:
    chance = random.Random(7)  # noqa: S311 - the same packets each time
    with watching(net, "--json") as watch:
        with (
            raw(net, socket.AF_INET, socket.IPPROTO_RAW) as four,
            raw(net, socket.AF_INET6, socket.IPPROTO_RAW) as six,
        ):
            for _ in range(300):
                junk = chance.randbytes(chance.randint(0, 600))
                protocol = chance.choice([0, 6, 17, 43, 44, 51, 58, 60, chance.randint(0, 255)])
                head = b"\x45\0\0\0\0\0\0\0\x40" + bytes([protocol]) + b"\0\0" + socket.inet_aton(WORLD)
                four.sendto(head + socket.inet_aton(GUEST) + junk, (GUEST, 0))
                head6 = b"\x60\0\0\0" + len(junk).to_bytes(2, "big") + bytes([protocol]) + b"\x40"
                ends = socket.inet_pton(socket.AF_INET6, WORLD6) + socket.inet_pton(socket.AF_INET6, GUEST6)
                six.sendto(head6 + ends + junk, (GUEST6, 0))
        assert not tcp(net.world, net.guest, 80)
        wait(lambda: any(row.get("more") or row.get("service") == "tcp:80" for row in watch.rows))


def test_without_follow_the_rules_say_how_much_they_refused(net: Net) -> None:
    file = net.machine.guests / "web/firewall.conf"
    net.rules("enable", "deny from any to tcp:81", "allow from any to tcp:82")
    assert not net.machine.ok("vs-net", "--name", "web", "--drops")
    assert not tcp(net.world, net.guest, 81)
    assert not udp(net.guest, net.world, 81)
    assert tcp(net.world, net.guest, 82)
    rows = json.loads(net.machine.ok("vs-net", "--name", "web", "--drops", "--json"))
    found = {(row["direction"], row["place"], row["reason"]): row["packets"] for row in rows}
    assert found.keys() == {("IN", f"{file}:2", ""), ("OUT", "", "no rule allows it")}
    assert found["OUT", "", "no rule allows it"] == 1
    lines = net.machine.ok("vs-net", "--all", "--drops").splitlines()
    assert any(line.startswith(f"{SELF}:web: IN ") and line.endswith(f"refused by {file}:2") for line in lines), lines
    assert any(line.endswith(" bytes refused: no rule allows it") for line in lines), lines


def test_only_one_may_listen_and_the_guests_root_never(net: Net) -> None:
    init = net.machine.ok("vs-fonctions", "guest_init_pid", "web").strip()
    script = """
import socket, sys
wire = socket.socket(16, 3, 12)
wire.bind((0, 0))
wire.settimeout(5)
wire.send(bytes.fromhex(sys.argv[1]))
print(int.from_bytes(wire.recv(999)[16:20], "little", signed=True))
"""
    from vstools.firewall.nflog import bind_message

    def bind() -> str:
        argv = ["nsenter", f"--target={init}", "--user", "--net", "/usr/bin/python3", "-c", script]
        return subprocess.run([*argv, bind_message(LOG_GROUP).hex()], capture_output=True, text=True, check=True).stdout

    assert bind().strip() == "-1"
    assert not listens(net)
    with watching(net, "--json") as watch:
        assert bind().strip() == "-1"
        second = net.machine.vs("vs-net", "--name", "web", "--drops", "--follow")
        assert (second.code, second.out) == (2, "")
        assert second.err.startswith("vs-net: somebody else listens")
        assert not tcp(net.world, net.guest, 80)
        assert watch.row("IN", "tcp:80", WORLD)


def test_sigterm_ends_it_as_well_and_so_does_the_guests_end(net: Net) -> None:
    assert Watch(net).end(signal.SIGTERM) == (0, "")
    watch = Watch(net)
    net.machine.ok("vs-control", "--name", "web", "--stop")
    try:
        assert watch.process.wait(30) == 0
        assert watch.end() == (0, "vs-net: guest web has stopped\n")
        done = net.machine.vs("vs-net", "--name", "web", "--drops", "--follow")
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "guest web does not run" in done.err
        asked = ("--explain", "from", HOST, "tcp:80")
        assert "the host is isolated" in net.machine.ok("vs-net", "--name", "web", *asked)
    finally:
        net.machine.ok("vs-control", "--name", "web", "--start")
        wait(lambda: "tentative" not in addresses(net))


def test_it_ends_with_who_reads_it(net: Net) -> None:
    process = net.machine.start("vs-net", "--name", "web", "--drops", "--follow")
    assert process.stdout
    wait(lambda: listens(net))
    process.stdout.close()
    assert not tcp(net.world, net.guest, 80)
    assert process.wait(30) != 0
    assert process.stderr
    with process.stderr as errors:
        assert errors.read() == ""


def test_what_the_file_allows_by_now_is_said(net: Net) -> None:
    (net.machine.guests / "web/firewall.conf").write_text("enable\nallow from any to tcp:80\n")
    with watching(net, "--json") as watch:
        assert not tcp(net.world, net.guest, 80)
        assert watch.row("IN", "tcp:80", WORLD)["note"] == "the file allows it by now: vs-net --fw up loads it"


def verdicts(net: Net) -> set[str]:
    """All the ways that --explain says are open, named as ``open_ways`` names them."""
    found = set()
    for name, other in (("world", net.world), ("host", net.host)):
        for way in ("from", "to"):
            for address, six in ((other.v4, ""), (other.v6, "6")):
                for kind, service in (("tcp", "tcp:80"), ("udp", "udp:80"), ("icmp", f"icmp{six}")):
                    asked = explain.question(way, address, service)
                    (answer,) = explain.answers(Paths(net.machine.root), "web", asked)
                    if answer.allowed:
                        found.add(f"{way} {name} {kind}{six}")
    return found


@pytest.mark.parametrize("seed", range(3))
def test_what_is_explained_is_what_happens(net: Net, seed: int) -> None:
    chance = random.Random(100 + seed)  # noqa: S311 - the same policies each time
    words = VOCABULARY
    lines = [
        f"{chance.choice(('allow', 'allow', 'deny'))} {chance.choice(('from', 'to'))} "
        f"{','.join(chance.sample(words['addresses'], 3))} to {','.join(chance.sample(words['services'], 3))}"
        for _ in range(chance.randint(3, 9))
    ]
    net.rules(*lines)
    assert verdicts(net) == open_ways(net)


def test_explain_says_when_the_firewall_is_down(net: Net) -> None:
    ask = ("vs-net", "--name", "web", "--explain", "from", WORLD, "tcp:80")
    assert net.machine.ok(*ask).endswith(f"(no rule allows it); to allow: allow from {WORLD} to tcp:80\n")
    net.machine.ok("vs-net", "--name", "web", "--fw", "down")
    assert net.machine.ok(*ask).endswith("; not in force: in the kernel the firewall is down\n")
    assert tcp(net.world, net.guest, 80)

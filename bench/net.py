"""A guest behind 100 rules: its way to the outside beside the host's, and loading the rules beside nft and typer."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import numbers, ours, place, small, software
from bench.inside import BRIDGE, NETWORK, disk
from bench.programs import BenchError, Timed, run
from bench.report import Expectation, Report
from bench.software import say
from bench.stream import PORTS

RULES = 100
OURS, ALONE, OPEN, HOST = "ours", "ours, alone", "ours, --fw down", "host"
BOTH, NFT, TYPER = "nft -f + empty typer", "nft -f", "empty typer command"
_AMOUNT = 512 << 20  # bytes
_CONNECTIONS = 500
_TURNS = 4  # in a round
_OUTSIDE, _ADDRESS = f"{place.NAME}-out", str(NETWORK[200])
_EMPTY = "import typer\n\n\ndef main() -> None:\n    pass\n\n\ntyper.run(main)\n"
_PYTHON = {"PYTHONPATH": str(place.CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"}

Samples = dict[str, dict[str, list[float]]]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--guests", type=numbers.whole(2, 180), default=100, metavar="N", help="how many guests run at most (100)"
    )


def measure(options: argparse.Namespace) -> Report:
    """Everything happens in namespaces of our own; the outside is one of them, on the guest's bridge."""
    software.ensure_packages()
    scripts = ours.command("vs-net").parent
    if not (scripts / "python3").exists():
        raise BenchError(f"{scripts} has no python3 beside vs-net")
    question = {
        "rounds": options.rounds,
        "guests": options.guests,
        "scripts": str(scripts),
        "busybox": str(small.busybox()),
    }
    with place.workplace() as work:
        answer = place.inside(work, "net", question)
    facts = {"rounds": f"{options.rounds} of {_TURNS} turns", "rules": str(RULES), "guests": str(options.guests)}
    expectations = (*_expectations(1), *_expectations(options.guests))
    return Report("net", OURS, facts, answer["samples"], expectations)


def _metrics(guests: int) -> tuple[str, str, str]:
    """The names of what is measured while so many guests run: bytes, connections, loading."""
    among = "" if guests == 1 else f", {guests} guests run"
    return f"send {_AMOUNT >> 20} MiB{among}", f"open {_CONNECTIONS} connections{among}", f"load{among}"


def _expectations(guests: int) -> Iterator[Expectation]:
    """At least 0.95 of the host's throughput is at most 1/0.95 of its time."""
    send, _, load = _metrics(guests)
    yield Expectation(send, OURS, HOST, round(1 / 0.95, 3))
    yield Expectation(load, OURS, BOTH, 1.0, 0.08)
    if guests > 1:
        yield Expectation(send, OURS, ALONE, 1.1)
        yield Expectation(load, OURS, ALONE, 1.1)


def rules() -> str:
    """A firewall.conf of RULES lines, of which the last one is the only one that lets a guest to the other end."""
    others = (f"203.0.113.{last},2001:db8::{last:x} to tcp:{1000 + last},udp:53" for last in range(1, RULES))
    lines = (f"allow to {line}\n" for line in (*others, f"{_ADDRESS} to tcp:{PORTS[0]}-{PORTS[-1]}"))
    return "".join(("enable\n", *lines))


def rounds(work: Path, question: dict[str, Any]) -> dict[str, Any]:
    """Each round is one part with the measured guest alone, and one among many; the first round does not count."""
    parts = (1, question["guests"])
    samples: Samples = {metric: {} for guests in parts for metric in _metrics(guests)}
    host = _Host(work, question)
    say(f"making {question['guests']} guests")
    for guest in range(question["guests"]):
        host.make(guest)
    with _outside():
        for number in range(question["rounds"] + 1):
            for guests in parts:
                host.control("vs-control", "--start", everybody=guests > 1)
                say(f"round {number}, {guests} guests run")
                _turns(host, {metric: samples[metric] if number else {} for metric in _metrics(guests)})
            host.control("vs-control", "--stop", everybody=True)
    for metric, alone in zip(_metrics(parts[1]), _metrics(1), strict=True):
        samples[metric][ALONE] = samples[alone][OURS]
    return {"samples": samples}


def _turns(host: "_Host", samples: Samples) -> None:
    """A turn has all contestants one after the other, and begins with another one each time."""
    for turn in range(_TURNS):
        for found, times in zip(samples.values(), host.turn(turn), strict=True):
            for contestant, seconds in times.items():
                found.setdefault(contestant, []).append(seconds)


@contextmanager
def _outside() -> Iterator[None]:
    """Another machine on the bridge: a namespace in which somebody listens."""
    run(["ip", "netns", "add", _OUTSIDE])
    run(["ip", "link", "add", _OUTSIDE, "type", "veth", "peer", "name", "eth0", "netns", _OUTSIDE])
    run(["ip", "link", "set", _OUTSIDE, "master", BRIDGE, "up"])
    run(["ip", "-n", _OUTSIDE, "address", "add", f"{_ADDRESS}/{NETWORK.prefixlen}", "dev", "eth0"])
    run(["ip", "-n", _OUTSIDE, "link", "set", "eth0", "up"])
    server = Timed([*_within(_OUTSIDE), sys.executable, "-m", "bench.stream", "serve", _ADDRESS], _PYTHON)
    yield
    _stream("", "send", 0)  # nothing at all: the other end goes home
    server.finish()


def _within(netns: str) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{netns}"] if netns else []


def _stream(netns: str, word: str, amount: int) -> float:
    """The seconds that ``bench.stream`` measured, run in a network namespace."""
    argv = [*_within(netns), sys.executable, "-m", "bench.stream", word, _ADDRESS, str(amount)]
    return float(run(argv, env=_PYTHON))


class _Host:
    """An installation whose guest 0 is measured; the others have the same rules and do nothing."""

    def __init__(self, work: Path, question: dict[str, Any]) -> None:
        self._scripts = Path(question["scripts"])
        self._template = small.template(disk(work), Path(question["busybox"]))
        self._ours = ours.Ours(work, self._template, self._scripts)
        self._ours.configure("firewall.conf", rules())
        self._netns = f"vs{ours.FIRST_CONTEXT}"
        self._text = work / "rules.nft"
        self._empty = work / "empty.py"
        self._empty.write_text(_EMPTY)

    def make(self, number: int) -> None:
        self._ours.make(f"{place.NAME}-{number}", "--template", str(self._template))

    def control(self, script: str, *options: str, everybody: bool = False) -> str:
        """A command for the measured guest, or for all of them."""
        words = ["--all"] if everybody else ["--name", f"{place.NAME}-0"]
        return run([self._scripts / script, *words, *options], env=self._ours.environment)

    def turn(self, turn: int) -> tuple[dict[str, float], ...]:
        """One turn: what each contestant took to send, to connect, and to load the rules."""
        sent: dict[str, float] = {}
        connected: dict[str, float] = {}
        for contestant in _rotated([OURS, HOST, OPEN], turn):
            netns = "" if contestant == HOST else self._netns
            if contestant == OPEN:
                self.control("vs-net", "--fw", "down")
            sent[contestant] = _stream(netns, "send", _AMOUNT)
            connected[contestant] = _stream(netns, "connect", _CONNECTIONS)
            if contestant == OPEN:
                self.control("vs-net", "--fw", "up")
        return sent, connected, self._load(turn)

    def _load(self, turn: int) -> dict[str, float]:
        """nft is given what vs-net would give it; an empty command is what Python and typer take by themselves."""
        self._text.write_text(self.control("vs-net", "--fw", "up", "--dry-run"))
        environment = self._ours.environment
        argvs = {
            OURS: [str(self._scripts / "vs-net"), "--name", f"{place.NAME}-0", "--fw", "up"],
            NFT: [*_within(self._netns), "nft", "-f", str(self._text)],
            TYPER: [str(self._scripts / "python3"), str(self._empty)],
        }
        times = {name: Timed(argvs[name], environment).finish() for name in _rotated(list(argvs), turn)}
        return {OURS: times[OURS], BOTH: times[NFT] + times[TYPER], NFT: times[NFT], TYPER: times[TYPER]}


def _rotated(names: list[str], turn: int) -> list[str]:
    shift = turn % len(names)
    return names[shift:] + names[:shift]

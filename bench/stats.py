"""The state of 200 guests told at once, beside the list command of Debian's lxd or incus; and that of one guest."""

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import numbers, ours, peer, place, small, software
from bench.inside import disk
from bench.programs import BenchError, Timed, run
from bench.report import Expectation, Report
from bench.software import Unpacked, say
from bench.standins import StandIns

OURS, CONTROL, BARE = "vs-stats", "vs-control", "python3 -c pass"
ONE = "one guest"
_TURNS = 5  # in a round


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--guests", type=numbers.whole(1, 1000), default=200, metavar="N", help="how many guests there are (200)"
    )
    parser.add_argument("--without-peer", action="store_true", help="measure ours alone")


def measure(options: argparse.Namespace) -> Report:
    """Get the peer's software, then measure in namespaces of our own."""
    software.ensure_packages()
    scripts = ours.command("vs-stats").parent
    if not (scripts / "python3").exists():
        raise BenchError(f"{scripts} has no python3 beside vs-stats")
    question: dict[str, Any] = {"rounds": options.rounds, "guests": options.guests, "scripts": str(scripts)}
    if not options.without_peer:
        name, unpacked = peer.fetch()
        question |= {"peer": [name, unpacked.version, str(unpacked.folder)], "busybox": str(small.busybox())}
    with place.workplace() as work:
        answer = place.inside(work, "stats", question)
    every = _every(options.guests)
    rival = next((name for name in answer["samples"][every] if name.endswith(" list")), "")
    expected = (Expectation(every, OURS, rival, 0.5), Expectation(ONE, OURS, CONTROL, 1.3))
    facts = {"rounds": f"{options.rounds} of {_TURNS} turns", "guests": str(options.guests), **answer["facts"]}
    return Report("stats", OURS, facts, answer["samples"], expected)


def _every(guests: int) -> str:
    return f"all of {guests} guests"


def rounds(work: Path, question: dict[str, Any]) -> dict[str, Any]:
    """Turns in which all contestants come one after the other; the first round does not count."""
    scripts, guests = Path(question["scripts"]), question["guests"]
    with ExitStack() as ends:
        installation = ours.Ours(work, None, scripts)
        standins = ends.enter_context(StandIns(installation.root, guests))
        one, environment = standins.names[0], installation.environment
        programs = {
            ONE: {
                OURS: ([str(scripts / "vs-stats"), "--name", one], environment),
                CONTROL: ([str(scripts / "vs-control"), "--name", one], environment),
                BARE: ([str(scripts / "python3"), "-c", "pass"], environment),
            },
            _every(guests): {
                OURS: ([str(scripts / "vs-stats"), "--all"], environment),
                CONTROL: ([str(scripts / "vs-control"), "--all"], environment),
            },
        }
        said = run(programs[_every(guests)][OURS][0], env=environment)
        if said.count(":running:") != guests or said.count(":-:-:-:-:"):
            raise BenchError(f"vs-stats does not see the stand-ins: {said[:400]}")
        facts = {OURS: "cgroups with a process, mounts and records, no guests"}
        if "peer" in question:
            rival, facts[question["peer"][0]] = _peer(ends, work, question)
            programs[_every(guests)][f"{question['peer'][0]} list"] = rival
        samples: dict[str, dict[str, list[float]]] = {
            metric: {name: [] for name in by_name} for metric, by_name in programs.items()
        }
        for number in range((question["rounds"] + 1) * _TURNS):
            for metric, by_name in programs.items():
                for name, (argv, env) in by_name.items():
                    took = Timed(argv, env).finish()
                    if number >= _TURNS:
                        samples[metric][name].append(took)
    return {"samples": samples, "facts": facts}


def _peer(ends: ExitStack, work: Path, question: dict[str, Any]) -> tuple[tuple[list[str], dict[str, str]], str]:
    """The peer's list command, with as many stopped containers: it does less for those than for running ones."""
    name, version, folder = question["peer"]
    template = small.template(disk(work), Path(question["busybox"]))
    rival = peer.Peer(disk(work), template, name, Unpacked(version, Path(folder)), privileged=True)
    ends.callback(rival.close)
    say(f"making {question['guests']} containers of {name}")
    for number in range(question["guests"]):
        rival.make(f"{place.NAME}-{number}")
    return rival.listing(), f"{version}, containers of busybox, all stopped"

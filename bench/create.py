"""Create and start a guest until its init runs, and stop it: ours, Debian's lxd or incus, and a lower bound."""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import ours, peer, place, software, watch
from bench.bound import Bound
from bench.contestant import Contestant
from bench.inside import STORAGES, disk
from bench.programs import run
from bench.report import Expectation, Report
from bench.software import Unpacked, say

CONTESTANTS = ("ours", "peer", "bound")
START, RETURNED, STOP = "create+start", "command returned", "stop"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--suite", help="Debian release of the tree (the host's own)")
    parser.add_argument(
        "--only",
        type=_contestants,
        default=CONTESTANTS,
        metavar="A,B",
        help=f"contestants, of {','.join(CONTESTANTS)} (all)",
    )
    parser.add_argument("--storage", choices=STORAGES, default="ext4", help="what the trees lie on (ext4)")
    parser.add_argument(
        "--privileged-peer",
        action="store_true",
        help="let the peer run its guests as the host's root: what it takes without shifting ids",
    )


def _contestants(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not set(names) <= set(CONTESTANTS):
        raise argparse.ArgumentTypeError(f"{text} is no list of {', '.join(CONTESTANTS)}")
    return names


def measure(options: argparse.Namespace) -> Report:
    """Get ready what takes time or network, then measure in namespaces of our own."""
    software.ensure_packages()
    suite = options.suite or software.host_suite()
    tree = software.tree(suite)
    question: dict[str, Any] = {"rounds": options.rounds, "tree": str(tree), "only": options.only}
    question["storage"] = options.storage
    if "ours" in options.only:
        question["scripts"] = str(ours.command("vs-create").parent)
    if "peer" in options.only:
        name, unpacked = peer.fetch()
        question["peer"] = [name, unpacked.version, str(unpacked.folder)]
        question["privileged"] = options.privileged_peer
    with place.workplace() as work:
        answer = place.inside(work, "create", question)
    facts = {
        "rounds": str(options.rounds),
        "storage": options.storage,
        "tree": f"{suite} of {tree.stat().st_size >> 20} MiB",
    }
    return Report(
        "create",
        "ours",
        {**facts, **answer["facts"]},
        answer["samples"],
        _expectations(
            options.storage, next((name for name in answer["samples"][START] if name not in CONTESTANTS), "")
        ),
    )


def _expectations(storage: str, rival: str) -> tuple[Expectation, ...]:
    """Against the peer and the bound; on btrfs, where nobody unpacks, what is left is the start: no bound for that."""
    if storage == "btrfs":
        return (Expectation(START, "ours", rival, 0.6), Expectation(STOP, "ours", rival, 0.8))
    return tuple(
        expectation
        for metric in (START, STOP)
        for expectation in (
            Expectation(metric, "ours", rival, 0.8),
            Expectation(metric, "ours", "bound", 1.3, 0.25),
        )
    )


def rounds(work: Path, question: dict[str, Any]) -> dict[str, Any]:
    """One round that does not count (it fills the page cache), then the others.

    The contestants take turns within a round, and each round begins with another of them.
    """
    with ExitStack() as ends:
        contestants = []
        for name in question["only"]:
            contestants.append(_enter(name, work, question))
            ends.callback(contestants[-1].close)
        samples: dict[str, dict[str, list[float]]] = {
            metric: {contestant.name: [] for contestant in contestants} for metric in (START, RETURNED, STOP)
        }
        for number in range(question["rounds"] + 1):
            shift = number % len(contestants)
            for contestant in contestants[shift:] + contestants[:shift]:
                guest = f"{place.NAME}-{contestant.name}-{number}"
                times = _once(work, contestant, guest)
                say(f"round {number}: {guest} " + ", ".join(f"{k} {v:.3f} s" for k, v in times.items()))
                for metric, seconds in times.items():
                    if number:
                        samples[metric][contestant.name].append(seconds)
        facts = _facts(contestants)
    return {"samples": samples, "facts": facts}


def _enter(name: str, work: Path, question: dict[str, Any]) -> Contestant:
    template = Path(question["tree"])
    if name == "ours":
        return ours.Ours(work, template, Path(question["scripts"]))
    if name == "bound":
        return Bound(disk(work), template, question["storage"])
    rival, version, folder = question["peer"]
    unpacked = Unpacked(version, Path(folder))
    driver = {"ext4": "dir"}.get(question["storage"], question["storage"])
    return peer.Peer(disk(work), template, rival, unpacked, privileged=question["privileged"], driver=driver)


def _once(work: Path, contestant: Contestant, guest: str) -> dict[str, float]:
    """One guest's life. What was written before is on the disk when the clock begins: nobody syncs for another."""
    run(["sync", "-f", disk(work)])
    started = contestant.start(guest)
    watch.wait_until_up(started.pid)
    stop = contestant.stop(guest, started.pid)
    contestant.remove(guest)
    return {START: started.runs, RETURNED: started.returned, STOP: stop}


def _facts(contestants: Sequence[Contestant]) -> dict[str, str]:
    return {key: value for contestant in contestants for key, value in contestant.facts().items()}

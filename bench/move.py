"""How long a guest with many files and a writer is away when it moves, beside stopping, copying and starting it."""

import argparse
import random
import re
import shlex
from pathlib import Path
from typing import Any

from bench import numbers, ours, place, small, software
from bench.inside import disk
from bench.nodes import Node, Pool
from bench.place import note_cgroup
from bench.programs import BenchError, Timed, run
from bench.report import Expectation, Report
from bench.software import say
from vstools.paths import Paths

OURS, COPIED, BOUND = "vs-move", "stop, rsync, start", "stop, rsync of nothing, start"
AWAY = "away"
_GUEST = place.NAME
_CONTEXT = 45200
_IN_A_FOLDER = 500
_SEED = 2008
_RSYNC = ("rsync", "-aHAX", "--numeric-ids", "--delete", "--one-file-system")
_WRITER = "::respawn:/bin/sh -c 'while :; do echo record >> /srv/records; /bin/busybox sleep 0.05; done'\n"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--files", type=numbers.whole(1000, 200_000), default=200_000, metavar="N", help="how many it has (200000)"
    )


def measure(options: argparse.Namespace) -> Report:
    """Everything happens in namespaces of our own, on one file system."""
    software.ensure_packages()
    question = {
        "rounds": options.rounds, "files": options.files, "scripts": str(ours.command("vs-move").parent),
        "busybox": str(small.busybox()),
    }  # fmt: skip
    with place.workplace() as work:
        answer = place.inside(work, "move", question)
    facts = {"rounds": str(options.rounds), "files": str(options.files)}
    return Report("move", OURS, facts, answer["samples"], [Expectation(AWAY, OURS, BOUND, 1.0, 1.0)])


def rounds(work: Path, question: dict[str, Any]) -> dict[str, Any]:
    """In each round the guest is stopped, copied and started by hand where it is, and moves to the other host then."""
    scripts = Path(question["scripts"])
    pool = Pool(work, 2, scripts)
    for number, host in enumerate(pool.hosts):
        note_cgroup(work, Paths(host.root).cgroup)
        (host.root / "etc/vservers/.defaults/context.next").write_text(f"{_CONTEXT + number}\n")
        (host.root / "var/lib/vservers").chmod(0o700)
        host.root.chmod(0o711)
    here, there = pool.hosts
    template = small.template(disk(work), Path(question["busybox"]))
    words = ("--name", _GUEST, "--interface", "198.18.77.5", "--template", str(template))
    run(here.command("vs-create", *words), env=here.environment)
    say(f"making {question['files']} files")
    _fill(here.root / "var/lib/vservers" / _GUEST, question["files"])
    _control(here, "--start").finish()
    samples: dict[str, list[float]] = {OURS: [], COPIED: [], BOUND: []}
    for number in range(1, question["rounds"] + 1):
        say(f"round {number}")
        took = _by_hand(pool, here, there)
        took[OURS] = _moved(pool, there)
        for contestant, seconds in took.items():
            samples[contestant].append(seconds)
        here, there = there, here
    _control(here, "--stop").finish()
    return {"samples": {AWAY: samples}}


def _fill(tree: Path, count: int) -> None:
    """Small files, and somebody who writes as long as the guest runs."""
    chance = random.Random(_SEED)  # noqa: S311
    for number in range(count):
        folder = tree / f"srv/{number // _IN_A_FOLDER}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).write_bytes(chance.randbytes(chance.randint(50, 2000)))
    with (tree / "etc/inittab").open("a") as handle:
        handle.write(_WRITER)


def _control(host: Node, verb: str) -> Timed:
    return Timed(host.command("vs-control", "--name", _GUEST, verb), host.environment)


def _by_hand(pool: Pool, here: Node, there: Node) -> dict[str, float]:
    """Seconds away when everything is copied while it is stopped, and when nothing is left to be copied."""
    into = there.root / "var/lib/vs-tools/other"
    into.mkdir(parents=True, exist_ok=True)
    copy = [*_RSYNC, f"--rsh={shlex.join(pool.ssh(there))}", f"{here.root}/var/lib/vservers/{_GUEST}/"]
    around = _control(here, "--stop").finish()
    whole = Timed(here.words(*copy, f"{there.address}:{into}/")).finish()
    nothing = Timed(here.words(*copy, f"{there.address}:{into}/")).finish()
    around += _control(here, "--start").finish()
    run(["rm", "-rf", into])
    return {COPIED: around + whole, BOUND: around + nothing}


def _moved(pool: Pool, there: Node) -> float:
    """What vs-move measured from its stop on until the guest ran again."""
    command = pool.master.command("vs-move", "--name", _GUEST, "--dst-host", there.name)
    said = run(["sh", "-c", 'exec "$@" 2>&1', "sh", *command], env=pool.master.environment)
    found = re.search(r"was away for ([0-9.]+) s", said)
    if not found:
        raise BenchError(f"vs-move does not say how long the guest was away: {said.strip()}")
    return float(found[1])

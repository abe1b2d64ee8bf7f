"""A snapshot of a guest's tree for as long as ``true`` runs in it, beside the raw commands that make and remove one."""

import argparse
from pathlib import Path
from typing import Any

from bench import ours, place, software
from bench.inside import disk
from bench.programs import Timed, run
from bench.report import Expectation, Report

SNAPSHOT = "snapshot, made and removed"
OURS, RAW = "vs-fonctions guest_snapshot", "btrfs subvolume snapshot, delete"
_PAIRS = 5  # in a round
_SCRIPT = 'btrfs -q subvolume snapshot -r "$1" "$2" && true && btrfs -q subvolume delete "$2"'


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--suite", help="Debian release of the tree (the host's own)")


def measure(options: argparse.Namespace) -> Report:
    """Get the tree ready, then measure in namespaces of our own."""
    software.ensure_packages()
    tree = software.tree(options.suite or software.host_suite())
    scripts = ours.command("vs-fonctions").parent
    question = {"rounds": options.rounds, "storage": "btrfs", "tree": str(tree), "scripts": str(scripts)}
    with place.workplace() as work:
        answer = place.inside(work, "snapshot", question)
    facts = {"rounds": f"{options.rounds} of {_PAIRS} pairs", "storage": "btrfs"}
    return Report("snapshot", OURS, facts, answer["samples"], (Expectation(SNAPSHOT, OURS, RAW, 1.0, 0.3),))


def rounds(work: Path, question: dict[str, Any]) -> dict[str, Any]:
    """Pairs, one contestant right after the other, each after something was written; the first round does not count."""
    scripts = Path(question["scripts"])
    installation = ours.Ours(work, Path(question["tree"]), scripts)
    guest = f"{place.NAME}-snapshot"
    installation.make(guest, "--template", question["tree"])
    tree = installation.root / "var/lib/vservers" / guest
    commands = {
        OURS: ([str(scripts / "vs-fonctions"), "guest_snapshot", guest, "true"], installation.environment),
        RAW: (["sh", "-c", _SCRIPT, "sh", str(tree), str(disk(work) / "raw")], {}),
    }
    samples: dict[str, list[float]] = {name: [] for name in commands}
    for number in range((question["rounds"] + 1) * _PAIRS):
        for name, (argv, env) in commands.items():
            (tree / "root/written").write_bytes(bytes(1 << 20))
            run(["sync", "-f", disk(work)])
            took = Timed(argv, env).finish()
            if number >= _PAIRS:
                samples[name].append(took)
    installation.remove(guest)
    return {"samples": {SNAPSHOT: samples}}

"""Ask for a guest's state with vs-control, beside a bare start of the same Python interpreter."""

import argparse
from pathlib import Path
from typing import Any

from bench import ours, place
from bench.programs import BenchError, Timed
from bench.report import Expectation, Report

QUERY = "one guest's state"
OURS, BARE = "vs-control", "python3 -c pass"
_PAIRS = 10  # in a round


def add_options(_parser: argparse.ArgumentParser) -> None:
    """It has no options of its own."""


def measure(options: argparse.Namespace) -> Report:
    scripts = ours.command("vs-control").parent
    python = scripts / "python3"
    if not python.exists():
        raise BenchError(f"{scripts} has no python3 beside vs-control")
    question = {"rounds": options.rounds, "scripts": str(scripts)}
    with place.workplace() as work:
        answer = place.inside(work, "cli", question)
    return Report(
        "cli",
        OURS,
        {"rounds": f"{options.rounds} of {_PAIRS} pairs"},
        answer["samples"],
        (Expectation(QUERY, OURS, BARE, 9.0),),
    )


def rounds(work: Path, question: dict[str, Any]) -> dict[str, Any]:
    """Pairs, one contestant right after the other; the first round does not count."""
    scripts = Path(question["scripts"])
    installation = ours.Ours(work, None, scripts)
    guest = f"{place.NAME}-cli"
    installation.make(guest, "--skeleton")
    commands = {OURS: installation.argv("vs-control", guest), BARE: [str(scripts / "python3"), "-c", "pass"]}
    samples: dict[str, list[float]] = {name: [] for name in commands}
    for number in range((question["rounds"] + 1) * _PAIRS):
        for name, argv in commands.items():
            took = Timed(argv, installation.environment).finish()
            if number >= _PAIRS:
                samples[name].append(took)
    installation.remove(guest)
    return {"samples": {QUERY: samples}}

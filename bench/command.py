"""The command line of ``bench/run``."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from bench import backup, cli, create, move, net, numbers, scan, snapshot, stats
from bench.programs import BenchError
from bench.report import Report, as_json, as_table


def main(argv: Sequence[str]) -> int:
    """Run one bench and print its report; 0 whatever was measured, 1 when something did not run, 2 for usage."""
    options = _parser().parse_args(argv)
    if os.geteuid():
        print("bench/run needs root: it mounts, makes namespaces and starts guests", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _interrupted)
    measure: Callable[[argparse.Namespace], Report] = options.measure
    try:
        report = measure(options)
    except BenchError as error:
        print(f"bench/run {options.bench}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"bench/run {options.bench}: interrupted", file=sys.stderr)
        return 1
    print(as_json(report) if options.json else as_table(report))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench/run", description="Measure vs-tools beside a peer and a lower bound.")
    benches = parser.add_subparsers(dest="bench", required=True, metavar="BENCH")
    for name, module, sentence in (
        ("create", create, "create and start a guest until its init runs, and stop it"),
        ("cli", cli, "ask for a guest's state"),
        ("net", net, "send through a guest's firewall, and load it"),
        ("stats", stats, "tell what 200 guests use"),
        ("snapshot", snapshot, "read a guest's tree as it is at one moment"),
        ("backup", backup, "copy a guest again of which little has changed"),
        ("move", move, "move a guest with many files"),
        ("scan", scan, "ask the 50 hosts of a pool for their guests"),
    ):
        bench = benches.add_parser(name, help=sentence, description=module.__doc__)
        bench.add_argument("--rounds", type=numbers.whole(1, 100), default=5, metavar="N", help="rounds that count (5)")
        bench.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
        module.add_options(bench)
        bench.set_defaults(measure=module.measure)
    return parser


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt

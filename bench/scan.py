"""Ask 50 hosts for their guests with vs-scan, beside plain ssh that runs the same agent on them."""

import argparse
import os
import resource
import shlex
import time
from pathlib import Path
from typing import Any

from bench import numbers, ours, place, software
from bench.inside import disk
from bench.nodes import MOST, Node, Pool, cpu_seconds
from bench.programs import BenchError, Timed
from bench.report import Expectation, Report
from bench.software import say

OURS = "vs-scan"
SLOWEST, ALL, BOUND = "ssh, the slowest of ten alone", "ssh to all at once", "CPU seconds of vs-scan / cores"
_GUESTS = 4
"""Guests of a host, which do not run."""
_ALONE = 10
"""Hosts that are asked one after the other for the slowest of them; others in each round."""
_REQUEST = '{"verb": "states", "with": {}}\n'


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hosts", type=numbers.whole(1, MOST), default=50, metavar="N", help="how many hosts the pool has (50)"
    )


def measure(options: argparse.Namespace) -> Report:
    """Everything happens in namespaces of our own."""
    software.ensure_packages()
    question = {"rounds": options.rounds, "hosts": options.hosts, "scripts": str(ours.command("vs-scan").parent)}
    with place.workplace() as work:
        answer = place.inside(work, "scan", question)
    metric, cores = _metric(options.hosts), len(os.sched_getaffinity(0))
    facts = {"rounds": str(options.rounds), "hosts": str(options.hosts), "cores": str(cores)}
    expected = [Expectation(metric, OURS, SLOWEST, 1.5)] if cores >= options.hosts else []
    expected.append(Expectation(metric, OURS, ALL, 1.5))
    return Report("scan", OURS, facts, answer["samples"], expected)


def _metric(hosts: int) -> str:
    return f"{hosts} hosts of {_GUESTS} guests"


def rounds(work: Path, question: dict[str, Any]) -> dict[str, Any]:
    """In a round each contestant has its turn; the first round does not count."""
    say(f"starting {question['hosts']} hosts")
    pool = Pool(work, question["hosts"], Path(question["scripts"]))
    for host in pool.hosts:
        for guest in range(_GUESTS):
            _register(host, guest)
    quiet = _processes()
    request = disk(work) / "request"
    request.write_text(_REQUEST)
    samples: dict[str, list[float]] = {OURS: [], SLOWEST: [], ALL: [], BOUND: []}
    cores = len(os.sched_getaffinity(0))
    for number in range(question["rounds"] + 1):
        took, cpu = _scanned(pool, quiet)
        single = [shlex.join([*pool.ssh(host), host.address, "vs-slave"]) for host in pool.hosts]
        some = (single[(number * _ALONE + each) % len(single)] for each in range(_ALONE))
        alone = max(_asked(pool, quiet, f"{line} < {request}") for line in some)
        together = _asked(pool, quiet, " ".join(f"{line} < {request} &" for line in single) + " wait")
        if number:
            for name, value in ((OURS, took), (SLOWEST, alone), (ALL, together), (BOUND, cpu / cores)):
                samples[name].append(value)
    return {"samples": {_metric(question["hosts"]): samples}}


def _register(host: Node, number: int) -> None:
    """The files of a guest that ``vs-create --skeleton`` would make, without the time that it takes."""
    name, last = f"{host.name}-{number}", int(host.address.rpartition(".")[2])
    config = host.root / "etc/vservers" / name
    (config / "interfaces/0").mkdir(parents=True)
    (config / "uts").mkdir()
    words = {"name": name, "uts/nodename": name, "context": str(ours.FIRST_CONTEXT + number)}
    words |= {
        "interfaces/0/ip": f"203.0.{last}.{number + 1}",
        "interfaces/0/mac": f"02:00:00:00:{last:02x}:{number:02x}",
    }
    for path, word in words.items():
        (config / path).write_text(f"{word}\n")


def _scanned(pool: Pool, quiet: frozenset[str]) -> tuple[float, float]:
    """The seconds of vs-scan, and those of CPU that it and the hosts used for it."""
    before = _cpu(pool.hosts)
    took = Timed(pool.master.command("vs-scan"), pool.master.environment).finish()
    _settle(quiet)
    return took, _cpu(pool.hosts) - before


def _asked(pool: Pool, quiet: frozenset[str], script: str) -> float:
    """The seconds of a script of the master's."""
    took = Timed(pool.master.words("sh", "-c", script)).finish()
    _settle(quiet)
    return took


def _processes() -> frozenset[str]:
    """All processes of the bench's namespace."""
    return frozenset(name for name in os.listdir("/proc") if name.isdigit())


def _settle(quiet: frozenset[str]) -> None:
    """Wait until all sessions have ended, and their agents."""
    deadline = time.monotonic() + 60
    while _processes() - quiet:
        if time.monotonic() > deadline:
            raise BenchError("sessions of ssh do not end")
        time.sleep(0.02)


def _cpu(hosts: tuple[Node, ...]) -> float:
    """The CPU seconds of all that has ended; agents whose session ended before are PID 1's."""
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + sum(host.cpu_seconds() for host in hosts) + cpu_seconds(1)

"""check_vs_guest: a guest's state for Nagios and Icinga.

The rules of plugins: https://nagios-plugins.org/doc/guidelines.html - one line, performance data after ``|``, and the
exit status 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN. So whatever prevents an answer, wrong usage too, is 3 here.
"""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Annotated, NoReturn

import typer

from vstools import paths as installation
from vstools.cli import app
from vstools.stats.sample import Sample

WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
_HELP = "warn and alarm from so many percent"


@dataclass(frozen=True)
class Thresholds:
    """Percentages from which something is worth a warning, and critical."""

    warning: float
    critical: float

    def status(self, value: float) -> int:
        """0, 1 or 2."""
        return 2 if value >= self.critical else 1 if value >= self.warning else 0


def parse(text: str) -> Thresholds:
    """``W,C``, percentages in this order."""
    match = re.fullmatch(r"([0-9]{1,4}(?:\.[0-9]+)?),([0-9]{1,4}(?:\.[0-9]+)?)", text)
    if not match or float(match[1]) > float(match[2]):
        raise typer.BadParameter(f"{text} is not two percentages like 90,95")
    return Thresholds(float(match[1]), float(match[2]))


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: its state, a phrase, and its performance data."""

    status: int
    phrase: str
    data: str


def bounded(sample: Sample, what: str, keys: tuple[str, str], unit: str, limits: Thresholds) -> Finding | None:
    """Something that has a limit. Without one it is fine; None where nothing is known of it."""
    value, most = (sample.get(key) for key in keys)
    if value is None:
        return None
    if most is None or most == inf or most <= 0:
        return Finding(0, f"{what} without a limit", f"{what}={value:.0f}{unit};;;0")
    percent = 100 * value / most
    steps = ";".join(f"{most * step / 100:.0f}" for step in (limits.warning, limits.critical))
    return Finding(limits.status(percent), f"{what} {percent:.0f}%", f"{what}={value:.0f}{unit};{steps};0;{most:.0f}")


def pressure(sample: Sample, resource: str, limits: Thresholds) -> Finding | None:
    """Percent of the last ten seconds in which some task waited; None where the kernel does not count it."""
    value = sample.get(f"{resource}_some_percent")
    if value is None:
        return None
    data = f"{resource}_pressure={value:.2f}%;{limits.warning:g};{limits.critical:g};0;100"
    return Finding(limits.status(value), f"{resource} pressure {value:.0f}%", data)


def verdict(
    sample: Sample, memory: Thresholds, processes: Thresholds, tmp: Thresholds, disk: Thresholds, psi: Thresholds
) -> tuple[int, str]:
    """The exit status and the line."""
    if not sample.running:
        return 2, f"VS CRITICAL - {sample.guest} is stopped"
    looked = [
        bounded(sample, "memory", ("memory_unreclaimable_bytes", "memory_limit_bytes"), "B", memory),
        bounded(sample, "processes", ("processes", "processes_limit"), "", processes),
        bounded(sample, "tmp", ("tmpfs_bytes", "tmpfs_limit_bytes"), "B", tmp),
        bounded(sample, "disk", ("disk_bytes", "disk_limit_bytes"), "B", disk),
        *(pressure(sample, resource, psi) for resource in ("cpu", "memory", "io")),
    ]
    found = [each for each in looked if each is not None]
    if not found:
        return 3, f"VS UNKNOWN - {sample.guest} runs, and the kernel tells nothing about it"
    status = max(each.status for each in found)
    said = [each.phrase for each in sorted(found, key=lambda each: -each.status) if each.status == status]
    counters = [f"{word}={sample.get(key)}c" for word, key in (("kills", "oom_kills"),) if sample.get(key) is not None]
    data = " ".join([*(each.data for each in found), *counters])
    return status, f"VS {WORDS[status]} - {sample.guest} runs, {', '.join(said)} | {data}"


def check(
    name: app.Name,
    memory: Annotated[str, typer.Option("--memory", help=f"of the limit, {_HELP}", metavar="W,C")] = "90,95",
    processes: Annotated[str, typer.Option("--processes", help=f"of the limit, {_HELP}", metavar="W,C")] = "90,95",
    tmp: Annotated[str, typer.Option("--tmp", help=f"of the size of /tmp, {_HELP}", metavar="W,C")] = "90,95",
    disk: Annotated[str, typer.Option("--disk", help=f"of the disk limit, {_HELP}", metavar="W,C")] = "90,95",
    psi: Annotated[str, typer.Option("--pressure", help=f"of the time waited, {_HELP}", metavar="W,C")] = "80,95",
) -> int:
    """Check that a guest runs and is far from its limits, for Nagios and Icinga. Exit status: 0, 1, 2, 3."""
    from vstools.config import registry
    from vstools.lifecycle import stats

    limits = [parse(text) for text in (memory, processes, tmp, disk, psi)]
    paths, guest = installation.from_environment(), app.single(name)
    registry.require(paths, guest)
    status, line = verdict(stats.single(paths, (guest,))[0], *limits)
    print(line)
    return status


def answer(name: str, function: Callable[..., int]) -> NoReturn:
    """Run a check: what is an error elsewhere is UNKNOWN here, and said on stdout."""
    from contextlib import redirect_stderr
    from io import StringIO

    answered: list[int] = []

    def act() -> None:
        found = app.command_of(function).main(prog_name=name, standalone_mode=False)
        answered.append(found if isinstance(found, int) else 0)

    with redirect_stderr(StringIO()) as said:
        status = app.status_of(name, act)
    if not answered and status:
        print("VS UNKNOWN -", " ".join(said.getvalue().split()))
        sys.exit(3)
    sys.exit(answered[0] if answered else status)


def main() -> None:
    """The check."""
    answer("check_vs_guest", check)

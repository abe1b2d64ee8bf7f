"""check_vs_backup: how old the copies of a master are, for Nagios and Icinga (see check.py for the rules)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from vstools import paths as installation
from vstools.cli import pooled
from vstools.cli.check import WORDS, answer
from vstools.errors import Refused


@dataclass(frozen=True)
class Newest:
    """The newest copy of a guest: its age in seconds (None: there is none), and whether it is known to be no good."""

    guest: str
    age: float | None
    damaged: bool = False
    failed: bool = False

    def status(self, warning: float, critical: float) -> int:
        """0, 1 or 2; thresholds in hours."""
        if self.age is None or self.damaged or self.failed:
            return 2
        return 2 if self.age > critical * 3600 else 1 if self.age > warning * 3600 else 0

    @property
    def phrase(self) -> str:
        """What there is to say of it."""
        if self.age is None:
            return f"{self.guest} has no copy"
        words = "is damaged" if self.damaged else "failed its drill" if self.failed else ""
        return f"the copy of {self.guest} {words}" if words else f"{self.guest} is {self.age / 3600:.0f} h old"


def verdict(found: Sequence[Newest], warning: float, critical: float) -> tuple[int, str]:
    """The exit status and the line: the worst ones by name."""
    if not found:
        return 3, "VS UNKNOWN - backup.conf lists no guest"
    states = [(each.status(warning, critical), each) for each in found]
    status = max(state for state, _ in states)
    steps = f"{warning * 3600:.0f};{critical * 3600:.0f};0"
    data = " ".join(f"{each.guest}={each.age:.0f}s;{steps}" for each in found if each.age is not None)
    if status:
        said = ", ".join(each.phrase for state, each in states if state == status)
    else:
        said = f"{len(found)} guests, the oldest copy is {max(each.age or 0 for each in found) / 3600:.0f} h old"
    return status, f"VS {WORDS[status]} - {said}" + (f" | {data}" if data else "")


def check(
    name: pooled.Guests = None,
    warning: Annotated[
        float, typer.Option("--warning", "-w", help="warn of copies that are older", metavar="HOURS", min=0)
    ] = 30,
    critical: Annotated[
        float, typer.Option("--critical", "-c", help="alarm of copies that are older", metavar="HOURS", min=0)
    ] = 54,
) -> int:
    """Check that each guest of backup.conf has a copy that is young enough, for Nagios and Icinga.

    A copy that vs-backup --verify or --drill found to be no good is critical. Exit status: 0, 1, 2, 3.
    """
    import time

    from vstools.pool import backup, store

    paths = installation.from_environment()
    if warning > critical:
        raise Refused("-w is at most -c")
    kept, now, found = store.of(paths), time.time(), []
    for entry in backup.entries(paths, name):
        last = kept.newest(entry.guest)
        if last is None:
            found.append(Newest(entry.guest, None))
            continue
        verified, drilled = store.noted(last, "verified"), store.noted(last, "drilled")
        age = max(0.0, now - last.time.timestamp())
        damaged, failed = (note is not None and not note.good for note in (verified, drilled))
        found.append(Newest(entry.guest, age, damaged=damaged, failed=failed))
    status, line = verdict(found, warning, critical)
    print(line)
    return status


def main() -> None:
    """The check."""
    answer("check_vs_backup", check)

"""The packages of several guests at a time: what becomes of the others when one is killed, or all are interrupted."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vstools import signals
from vstools.lifecycle import leftovers, packages, rounds
from vstools.lifecycle.packages import Report
from vstools.packages.managers import Wishes
from vstools.paths import Paths

WISHES = Wishes(upgrade_all=True)


@pytest.fixture
def act(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[Report]]:
    """Do something to guests in place of what is done to their packages; what is told."""
    monkeypatch.setattr(leftovers, "sweep", lambda paths: None)
    monkeypatch.setattr(leftovers, "names", lambda paths: [])
    told: list[Report] = []
    paths = Paths(tmp_path)

    def done(names: str, work: Callable[[str], Report], *, interrupted: bool = False) -> list[Report]:
        monkeypatch.setattr(packages, "work", lambda paths, name, *_: work(name))
        if interrupted:
            with pytest.raises(KeyboardInterrupt):
                rounds.work(paths, tuple(names.split()), WISHES, 60, told.append)
        else:
            rounds.work(paths, tuple(names.split()), WISHES, 60, told.append)
        return sorted(told, key=lambda report: report.guest)

    return done


def test_no_guests_are_no_work(act: Callable[..., list[Report]]) -> None:
    assert act("", Report) == []


def test_a_guest_whose_work_is_killed_stops_no_other(act: Callable[..., list[Report]]) -> None:
    def work(name: str) -> Report:
        if name == "b":
            os.kill(os.getpid(), signal.SIGKILL)
        return Report(name)

    told = act("a b c d e f", work)
    assert [report.guest for report in told if not report.failed] == ["a", "c", "d", "e", "f"]
    assert told[1].failed == "guest b: what worked at it was killed (status -9)"


def test_an_interrupt_ends_what_is_under_way_and_begins_nothing_more(
    act: Callable[..., list[Report]], tmp_path: Path
) -> None:
    def work(name: str) -> Report:
        (tmp_path / name).touch()
        try:
            if name == "a":
                while len(list(tmp_path.iterdir())) < 4:
                    time.sleep(0.01)
                os.kill(os.getppid(), signal.SIGINT)
            time.sleep(600)
        finally:
            for number in signals.ENDING:  # a second one does not disturb what puts everything back
                os.kill(os.getpid(), number)
            (tmp_path / name).write_text("put back")
        return Report(name)

    told = act("a b c d e f", work, interrupted=True)
    assert [(report.guest, report.failed) for report in told] == [
        (name, f"guest {name}: interrupted") for name in "abcd"
    ]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys("abcd", "put back")

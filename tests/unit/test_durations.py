"""How long a guest's start and stop took: kept, read whatever the file holds, and what a move makes of it."""

import time
from pathlib import Path
from typing import Any

import pytest

from vstools.errors import VsError
from vstools.lifecycle import durations
from vstools.lifecycle.durations import Durations
from vstools.paths import Paths
from vstools.pool import move, parcel
from vstools.pool.rsync import Passed

TOLD = {
    "owner": None, "size": 1000, "inodes": 20, "arch": "x86_64", "version": "0.1.0", "enabled": True, "running": True,
}  # fmt: skip


@pytest.fixture
def kept(tmp_path: Path) -> Paths:
    """An installation where a guest ``web`` has logs."""
    paths = Paths(tmp_path)
    paths.log_of("web").mkdir(parents=True)
    return paths


def test_the_last_of_each_is_kept(kept: Paths) -> None:
    assert durations.of(kept, "web") == Durations()
    durations.note(kept, "web", "stop", 70.214)
    durations.note(kept, "web", "start", 24.6)
    durations.note(kept, "web", "stop", 2)
    assert (kept.log_of("web") / "durations").read_text() == "start 24.60\nstop 2.00\n"
    assert durations.of(kept, "web") == Durations(24.6, 2.0)
    assert [path.name for path in kept.log_of("web").iterdir()] == ["durations"]


def test_what_failed_is_not_kept(kept: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", iter((100.0, 130.5, 200.0)).__next__)
    with durations.measured(kept, "web", "start"):
        pass
    with pytest.raises(VsError), durations.measured(kept, "web", "start"):
        raise VsError("no")
    assert durations.of(kept, "web") == Durations(start=30.5)


def test_what_took_days_is_nothing_that_a_master_could_not_believe(kept: Paths) -> None:
    durations.note(kept, "web", "start", 3)
    durations.note(kept, "web", "stop", 90000)
    known = durations.of(kept, "web")
    assert known == Durations(start=3)
    assert parcel.told("vsh-66", {**TOLD, "start": known.start, "stop": known.stop}).stop is None


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, 1e300])
def test_what_is_no_duration_is_not_known(kept: Paths, seconds: float) -> None:
    durations.note(kept, "web", "stop", seconds)
    assert durations.of(kept, "web") == Durations()


def test_a_disk_that_takes_none_is_left_as_it_was(kept: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path, target: Path) -> Path:
        raise OSError(28, "no room")

    durations.note(kept, "web", "stop", 1)
    monkeypatch.setattr(Path, "replace", fail)
    for number in range(3):
        monkeypatch.setattr("os.getpid", lambda number=number: 1000 + number)
        durations.note(kept, "web", "stop", 2)
    assert durations.of(kept, "web") == Durations(stop=1)
    assert len(list(kept.log_of("web").iterdir())) <= 2


def test_nothing_is_kept_of_a_guest_without_logs(kept: Paths) -> None:
    durations.note(kept, "gone", "start", 1)
    assert not kept.log_of("gone").exists()


@pytest.mark.parametrize("text", ["", "start\n", "start -1.00\n", "start nan\n", "stop 1e9\n", "\0" * 50, "x" * 5000])
def test_nothing_is_known_of_a_file_without_such_lines(kept: Paths, text: str) -> None:
    (kept.log_of("web") / "durations").write_text(text)
    assert durations.of(kept, "web") == Durations()


@pytest.mark.parametrize("lie", [True, "1", [], {}, -1, -0.5, 86401, 10**400])
@pytest.mark.parametrize("key", ["start", "stop"])
def test_a_host_says_seconds_or_nothing(key: str, lie: Any) -> None:
    assert (parcel.told("vsh-66", TOLD).start, parcel.told("vsh-66", {**TOLD, "stop": 3}).stop) == (None, 3.0)
    with pytest.raises(VsError, match="vsh-66"):
        parcel.told("vsh-66", {**TOLD, key: lie})


@pytest.mark.parametrize(
    ("start", "stop", "seconds", "predicted"),
    [
        (25.0, 70.0, [200, 29], 70 + 29 + 4 + 25),
        (0.5, 0.5, [3, 1], 6),
        (None, 70.0, [1], 70 + 1 + 4 + 10),
        (25.0, None, [1], 20 + 1 + 4 + 25),
        (None, None, [], 34),
    ],
)
def test_how_long_a_guest_will_be_away(
    start: float | None, stop: float | None, seconds: list[float], predicted: float
) -> None:
    order = move.Order("web", "a", "b", "move-a-b-1", 1, running=True, enabled=True, start=start, stop=stop)
    assert order.predicted([Passed(1, 1, 1, 1, 1, each) for each in seconds]) == predicted

"""Which hook scripts a phase has, and whose they may be."""

import os
from pathlib import Path

import pytest

from vstools import hooks, run
from vstools.errors import Refused, VsError
from vstools.paths import Paths

from .made import guest, saved


def script(path: Path, mode: int = 0o755) -> Path:
    """A script in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


@pytest.fixture
def own(paths: Paths) -> Path:
    """The guest's scripts."""
    saved(paths, guest())
    return paths.config_of("web") / "scripts"


@pytest.fixture
def default(paths: Paths) -> Path:
    """The scripts of all guests."""
    return paths.defaults / "scripts"


@pytest.fixture
def roots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is root's."""
    real = Path.stat

    def stat(path: Path, **options: bool) -> os.stat_result:
        fields = list(real(path, **options))
        fields[4] = 0
        return os.stat_result(fields)

    monkeypatch.setattr(Path, "stat", stat)


def names(paths: Paths, phase: str) -> list[str]:
    """The scripts of a phase, from /etc/vservers."""
    return [str(path.relative_to(paths.guests)) for path in hooks.scripts(paths, "web", phase)]


def test_a_phase_without_scripts_has_none(paths: Paths, own: Path) -> None:
    assert names(paths, "pre-start") == []


def test_the_guests_script_comes_first_and_then_those_of_its_directory_by_name(paths: Paths, own: Path) -> None:
    for name in ("pre-start.d/20-b", "pre-start.d/10-a", "pre-start", "post-start", "pre-start.d/9"):
        script(own / name)
    expected = ["pre-start", "pre-start.d/10-a", "pre-start.d/20-b", "pre-start.d/9"]
    assert names(paths, "pre-start") == [f"web/scripts/{name}" for name in expected]


def test_a_guests_own_scripts_take_the_place_of_the_default_ones(paths: Paths, own: Path, default: Path) -> None:
    script(default / "pre-start")
    script(default / "pre-start.d/10-a")
    assert names(paths, "pre-start") == [".defaults/scripts/pre-start", ".defaults/scripts/pre-start.d/10-a"]
    script(own / "pre-start.d/50-own")
    assert names(paths, "pre-start") == ["web/scripts/pre-start.d/50-own"]


def test_what_cannot_be_executed_is_no_script(paths: Paths, own: Path, default: Path) -> None:
    script(own / "pre-start", 0o644)
    script(own / "pre-start.d/README", 0o644)
    (own / "pre-start.d/folder").mkdir()
    (own / "pre-start.d/gone").symlink_to("/no/where")
    assert names(paths, "pre-start") == []
    script(default / "pre-start")
    assert names(paths, "pre-start") == [".defaults/scripts/pre-start"]


@pytest.mark.usefixtures("roots")
def test_a_script_that_root_alone_can_write_is_accepted(paths: Paths, own: Path, default: Path) -> None:
    script(own / "pre-start")
    script(default / "post-stop", 0o700)
    hooks.check(paths, "web")


@pytest.mark.usefixtures("roots")
@pytest.mark.parametrize("phase", hooks.PHASES)
@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_a_script_that_others_can_write_is_refused_whatever_its_phase(
    paths: Paths, own: Path, phase: str, mode: int
) -> None:
    found = script(own / f"{phase}.d/10-x", mode)
    with pytest.raises(Refused, match="can be written by others than root") as caught:
        hooks.check(paths, "web")
    assert str(found) in caught.value.message
    assert f"chmod go-w {found}" in caught.value.hint


def test_a_script_of_another_user_is_refused(paths: Paths, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(own / "pre-start")
    real = Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **_: os.stat_result([*real(path)[:4], 1000, *real(path)[5:10]]))
    with pytest.raises(Refused, match="can be written by others than root"):
        hooks.check(paths, "web")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines that would have been run; a script called ``*bad`` fails."""
    lines: list[list[str]] = []

    def fake(argv: list[str], **_: object) -> run.Result:
        lines.append(list(argv))
        bad = argv[0].endswith("bad")
        return run.Result(tuple(argv), 3 if bad else 0, "said\n", "complained\n" if bad else "")

    monkeypatch.setattr(run, "run", fake)
    return lines


def test_scripts_are_told_the_phase_and_the_guest_and_run_in_order(
    paths: Paths, own: Path, ran: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = script(own / "pre-start"), script(own / "pre-start.d/10-a")
    hooks.run_all(paths, "web", "pre-start", must=True)
    assert ran == [[str(first), "pre-start", "web"], [str(second), "pre-start", "web"]]
    assert capsys.readouterr().err == "vs-test: pre-start: said\n" * 2


def test_the_first_script_that_fails_ends_a_phase_that_must_not(paths: Paths, own: Path, ran: list[list[str]]) -> None:
    bad = script(own / "pre-start.d/10-bad")
    script(own / "pre-start.d/20")
    with pytest.raises(VsError, match="failed with status 3: complained") as caught:
        hooks.run_all(paths, "web", "pre-start", must=True)
    assert str(bad) in str(caught.value)
    assert len(ran) == 1


def test_a_script_that_fails_in_a_phase_that_may_is_a_warning_and_the_next_one_runs(
    paths: Paths, own: Path, ran: list[list[str]], capsys: pytest.CaptureFixture[str], logged: list[str]
) -> None:
    bad = script(own / "post-stop.d/10-bad")
    script(own / "post-stop.d/20")
    hooks.run_all(paths, "web", "post-stop", must=False)
    assert len(ran) == 2
    assert f"vs-test: warning: the hook {bad} failed with status 3\n" in capsys.readouterr().err
    assert logged == [f"warning: the hook {bad} failed with status 3"]

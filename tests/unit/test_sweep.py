"""What dead commands left is found and removed, and nothing whose owner lives."""

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from vstools import run
from vstools.config import guests
from vstools.lifecycle.host import guest_lock
from vstools.lifecycle.leftovers import MADE
from vstools.lifecycle.sweep import forget, sweep
from vstools.paths import DOOMED, STAGED, Paths
from vstools.storage import choose, plain

from .made import below, guest, saved


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was removed by ``rm``, which is played here."""
    names: list[str] = []

    def play(argv: list[str], **_: object) -> run.Result:
        assert argv[:4] == ["rm", "-rf", "--one-file-system", "--"]
        names.append(Path(argv[4]).name)
        shutil.rmtree(argv[4])
        return run.Result(tuple(argv), 0, "", "")

    monkeypatch.setattr(run, "run", play)
    return names


def staged(paths: Paths, name: str) -> None:
    """What a killed vs-create leaves: a directory that reserves the name, and half a tree."""
    guests.save(paths.guests / f"{STAGED}{name}", guest(name))
    (paths.trees / f"{STAGED}{name}/etc").mkdir(parents=True)


def test_a_host_without_leftovers_is_left_as_it_is(paths: Paths, removed: list[str]) -> None:
    sweep(paths)
    assert below(paths.root) == {}
    saved(paths, guest())
    paths.tree_of("web").mkdir(parents=True)
    sweep(paths)  # the first one after a boot looks for snapshots, too, and notes that it did
    before = below(paths.root)
    sweep(paths)
    assert (below(paths.root), removed) == (before, [])


def test_a_guest_that_was_being_made_goes_with_its_half_a_tree(paths: Paths, removed: list[str]) -> None:
    staged(paths, "web")
    sweep(paths)
    assert removed == [f"{STAGED}web"]
    assert (os.listdir(paths.guests), os.listdir(paths.trees)) == ([], [])


def test_nothing_is_swept_whose_owner_lives(paths: Paths, removed: list[str]) -> None:
    staged(paths, "web")
    staged(paths, "db")
    with guest_lock(paths, "web"):
        sweep(paths)
        assert removed == [f"{STAGED}db"]
        assert (paths.guests / f"{STAGED}web").is_dir()
    sweep(paths)
    assert removed == [f"{STAGED}db", f"{STAGED}web"]


def test_a_tree_that_has_its_name_already_goes_with_the_guest_that_has_not(paths: Paths, removed: list[str]) -> None:
    staged(paths, "web")
    (paths.trees / f"{STAGED}web").rename(paths.tree_of("web"))
    (paths.guests / f"{STAGED}web" / MADE).write_text(choose.of(paths).identity(paths.tree_of("web")) + "\n")
    sweep(paths)
    assert removed == [f"{DOOMED}web"]
    assert (os.listdir(paths.guests), os.listdir(paths.trees)) == ([], [])


def test_a_tree_of_that_name_which_the_dead_command_did_not_make_stays(paths: Paths, removed: list[str]) -> None:
    staged(paths, "web")
    paths.tree_of("web").mkdir()
    (paths.guests / f"{STAGED}web" / MADE).write_text(choose.of(paths).identity(paths.trees / f"{STAGED}web") + "\n")
    sweep(paths)
    assert removed == [f"{STAGED}web"]
    assert os.listdir(paths.trees) == ["web"]


def test_a_guest_that_was_just_made_loses_the_mark_and_nothing_else(paths: Paths, removed: list[str]) -> None:
    saved(paths, guest())
    paths.tree_of("web").mkdir(parents=True)
    before = below(paths.root)
    (paths.config_of("web") / MADE).write_text("1:2\n")
    sweep(paths)
    found = {name: kind for name, kind in below(paths.root).items() if not name.startswith("run")}
    assert (found, removed) == (before, [])


STEPS = ("the directory is doomed", "the tree is doomed", "the tree is gone", "the logs are gone")


@pytest.mark.parametrize("killed_after", STEPS)
def test_a_removal_that_was_killed_is_finished(paths: Paths, removed: list[str], killed_after: str) -> None:
    saved(paths, guest())
    for folder in (paths.tree_of("web") / "etc", paths.log_of("web")):
        folder.mkdir(parents=True)
    paths.config_of("web").rename(paths.guests / f"{DOOMED}web")
    done = STEPS.index(killed_after)
    if done >= 1:
        paths.tree_of("web").rename(paths.trees / f"{DOOMED}web")
    if done >= 2:
        shutil.rmtree(paths.trees / f"{DOOMED}web")
    if done >= 3:
        paths.log_of("web").rmdir()
    sweep(paths)
    assert [os.listdir(folder) for folder in (paths.guests, paths.trees, paths.logs)] == [[], [], []]


def test_a_removed_guest_is_gone_with_its_tree_and_its_logs(paths: Paths, removed: list[str]) -> None:
    for name in ("web", "db"):
        saved(paths, guest(name))
        for folder in (paths.tree_of(name) / "etc", paths.log_of(name)):
            folder.mkdir(parents=True)
    forget(paths, "web")
    assert [os.listdir(folder) for folder in (paths.guests, paths.trees, paths.logs)] == [["db"], ["db"], ["db"]]


def test_what_a_start_left_that_was_killed_before_its_record_goes(paths: Paths, removed: list[str]) -> None:
    folder = paths.runtime_of("web")
    folder.mkdir(parents=True)
    (folder / ".record.1~").write_text("{")
    sweep(paths)
    assert not folder.exists()


def test_what_a_running_guest_has_stays(paths: Paths, removed: list[str]) -> None:
    folder = paths.runtime_of("web")
    folder.mkdir(parents=True)
    with (folder / "runner").open("w") as runner:
        fcntl.flock(runner, fcntl.LOCK_EX)
        sweep(paths)
        assert (folder / "runner").exists()


@pytest.mark.parametrize("mode", [0o755, 0o711, 0o1777])
def test_the_barrier_before_the_trees_is_put_right_and_said(
    paths: Paths, capsys: pytest.CaptureFixture[str], mode: int
) -> None:
    paths.trees.mkdir(parents=True)
    paths.trees.chmod(mode)
    plain.barrier(paths)
    assert paths.trees.stat().st_mode & 0o7777 == paths.templates.stat().st_mode & 0o7777 == 0o700
    assert f"was open to others (mode {mode:04o}): set to 0700" in capsys.readouterr().err
    plain.barrier(paths)
    assert capsys.readouterr().err == ""

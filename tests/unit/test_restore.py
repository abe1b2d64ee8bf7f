"""What vs-restore decides: names, epochs, whose a guest is; and the paths of single files."""

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vstools.config.owner import EPOCH_MAX
from vstools.config.slaves import Slave
from vstools.errors import Refused
from vstools.guest import check_name
from vstools.pool import get, restore, scan
from vstools.pool.laying import check_path
from vstools.pool.scan import Pool, Seen
from vstools.pool.store import Generation, Store

TIME = datetime(2026, 11, 22, 3, 15, tzinfo=UTC)


@pytest.mark.parametrize("name", ["w", "web", "x" * 63])
def test_the_name_of_a_suspect_can_name_a_guest(name: str) -> None:
    found = restore.suspect(name, TIME)
    assert found.endswith(".suspect-20261122T031500Z")
    assert check_name(found, imported=True) == found


@pytest.fixture
def copy(monkeypatch: pytest.MonkeyPatch) -> Generation:
    """A copy that was made in epoch 3."""
    told = get.About("one", "one", 3, "hot", "x86_64", "0.1.0", 1, 1, False, 1, 1, "")
    monkeypatch.setattr(get, "about", lambda _: told)
    return Generation("web", TIME, Path("/store/web/20261122T031500Z"))


def test_a_restore_is_of_a_later_epoch_than_any_copy(copy: Generation) -> None:
    here = Seen("one", "web", enabled=True, running=False, epoch=4)
    other = Seen("two", "web", enabled=False, running=False, owner="one", epoch=7)
    found = restore.order(copy, Pool((here, other)), Slave("one"), start=False)
    assert (found.epoch, found.enabled, found.running) == (8, True, False)
    assert restore.order(copy, Pool((here,)), Slave("one"), start=True).running


def test_a_guest_of_another_host_is_restored_there(copy: Generation) -> None:
    here = Seen("one", "web", enabled=False, running=False, owner="two", epoch=4)
    with pytest.raises(Refused, match="belongs to host two"):
        restore.order(copy, Pool((here,)), Slave("one"), start=False)
    both = (Seen("one", "web", enabled=False, running=False), Seen("two", "web", enabled=False, running=True))
    with pytest.raises(Refused, match="belongs to host two"):
        restore.order(copy, Pool(both), Slave("one"), start=False)


def test_what_was_set_aside_last_comes_back_in_a_later_epoch() -> None:
    def aside(name: str, owner: str = "-") -> Seen:
        return Seen("one", name, enabled=False, running=False, owner=owner, epoch=9)

    last, first = (aside(restore.suspect("web", time)) for time in (TIME, TIME - timedelta(days=1)))
    others = (aside("web.suspect-x"), aside("webx.suspect-20261123T031500Z"), aside(f"{last.guest}9", "one"))
    here = Seen("one", "web", enabled=True, running=True, epoch=4)
    pool = Pool((last, first, *others, here))
    assert restore.suspects("web", pool) == [first, last]
    assert restore.suspects("web", pool, "20261121") == [first]
    found = restore.undoing("web", last, pool, Slave("one"), start=False)
    assert (found.back, found.epoch, found.running, found.enabled) == (last.guest, 10, True, True)
    gone = restore.undoing("web", last, Pool((last,)), Slave("one"), start=True)
    assert (gone.other, gone.running, gone.enabled) == ("", True, False)
    elsewhere = Seen("two", "web", enabled=False, running=True)
    with pytest.raises(Refused, match="belongs to host two"):
        restore.undoing("web", last, Pool((last, elsewhere)), Slave("one"), start=False)
    assert restore.undoing("web", last, pool, Slave("one"), start=False, known=12).epoch == 13
    with pytest.raises(Refused, match="no epoch can follow"):
        restore.undoing("web", last, pool, Slave("one"), start=False, known=EPOCH_MAX)


def test_a_host_that_does_not_answer_may_have_the_guest_that_comes_back_elsewhere() -> None:
    aside = Seen("one", restore.suspect("web", TIME), enabled=False, running=False, owner="-", epoch=9)
    here = Seen("one", "web", enabled=True, running=True, owner="one", epoch=10)
    silent = (("two", "host two does not answer"),)
    with pytest.raises(Refused, match="two"):
        restore.undoing("web", aside, Pool((aside,), silent), Slave("one"), start=False)
    dead = restore.undoing("web", aside, Pool((aside,), silent), Slave("one"), start=False, owner_is_dead=True)
    assert (dead.other, dead.epoch) == ("", 10)
    assert restore.undoing("web", aside, Pool((aside, here), silent), Slave("one"), start=False).epoch == 11


def test_the_store_knows_of_an_epoch_that_no_host_has_any_more(tmp_path: Path) -> None:
    for number, epoch in enumerate((4, 7, 5)):
        folder = tmp_path / f"web/2026112{number}T031500Z"
        folder.mkdir(parents=True)
        told = get.About("one", "one", epoch, "hot", "x86_64", "0.1.0", 1, 1, False, 1, 1, "")
        (folder / get.ABOUT).write_text(json.dumps(asdict(told)))
    assert restore.latest(Store(tmp_path), "web") == 7
    (tmp_path / "web/20261121T031500Z" / get.ABOUT).write_text("{")
    assert (restore.latest(Store(tmp_path), "web"), restore.latest(Store(tmp_path), "mail")) == (5, 0)


def test_a_guest_whose_files_are_broken_is_restored_all_the_same(copy: Generation) -> None:
    here = Seen("one", "web", enabled=True, running=True, owner="one", epoch=4, broken=True)
    assert restore.order(copy, Pool((here,)), Slave("one"), start=False).epoch == 5
    with pytest.raises(Refused, match="belongs to host two, not to one"):
        restore.order(copy, Pool((replace(here, owner="two"),)), Slave("one"), start=False)


def test_a_guest_that_was_set_aside_is_no_problem_of_the_pool() -> None:
    aside = Seen("one", "web.suspect-20261122T031500Z", enabled=False, running=False, owner="-", epoch=2)
    assert scan.problems((aside,)) == ()
    assert not aside.owned
    row = {
        "guest": "w", "enabled": False, "running": False, "broken": False, "addresses": [], "owner": "-", "epoch": 2,
    }  # fmt: skip
    assert scan.checked("one", [row])[0].owner == "-"


@pytest.mark.parametrize(
    ("text", "path"), [("/etc/exim4", "/etc/exim4"), ("/etc//exim4/", "/etc/exim4"), ("/a/./b", "/a/b"), ("//a", "/a")]
)
def test_a_path_of_a_guest_is_read(text: str, path: str) -> None:
    assert check_path(text) == path


@pytest.mark.parametrize("text", ["", "/", ".", "etc/exim4", "/etc/../x", "/..", "/a\0b"])
def test_what_is_no_path_of_a_guest_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="is not the path"):
        check_path(text)

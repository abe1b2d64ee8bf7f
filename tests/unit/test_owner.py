"""The owner of a guest: the file, the start that is refused, the adoption, and what vs-monitor tells of it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstools.config import owner
from vstools.config.owner import EPOCH_MAX, Owner
from vstools.config.text import Faults
from vstools.errors import BadFiles, VsError
from vstools.lifecycle import ownership, phases, presence
from vstools.lifecycle.monitor import Monitor
from vstools.lifecycle.ownership import Elsewhere, Taken
from vstools.paths import Paths, host_name

from .made import below, guest, saved
from .test_commands import said

HOSTS = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}[A-Za-z0-9_])?", fullmatch=True)


def read(config: Path) -> Owner | None:
    """The owner; raises BadFiles."""
    faults = Faults()
    found = owner.read(config, faults)
    faults.check()
    return found


@given(HOSTS, st.integers(1, EPOCH_MAX))
def test_what_is_written_is_read(tmp_path: Path, host: str, epoch: int) -> None:
    owner.write(tmp_path, Owner(host, epoch))
    assert (tmp_path / "owner").read_text() == f"{host} {epoch}\n"
    assert read(tmp_path) == Owner(host, epoch)


def test_it_is_written_durably(tmp_path: Path, synced: list[str]) -> None:
    owner.write(tmp_path, Owner("vsh-00", 3))
    assert len(synced) == 2
    assert synced[1] == tmp_path.name


@pytest.mark.parametrize("wrong", [Owner("", 1), Owner("a b", 1), Owner("a.b", 1), Owner("a", 0), Owner("a\n", 1)])
def test_nothing_is_written_that_could_not_be_read(tmp_path: Path, wrong: Owner) -> None:
    with pytest.raises(ValueError, match="is not"):
        owner.write(tmp_path, wrong)
    assert below(tmp_path) == {}


def test_where_there_is_no_file_there_is_no_owner(tmp_path: Path) -> None:
    assert read(tmp_path) is None


BROKEN = {
    "": "1:1: the epoch is missing: the line is HOST EPOCH",
    "vsh-00\n": "1:7: the epoch is missing: the line is HOST EPOCH",
    "vsh-00 \n": "1:8: '' is not a whole number from 1 to 9007199254740991",
    "vsh-00 0\n": "1:8: 0 is not a whole number from 1 to 9007199254740991",
    "vsh-00 -1\n": "1:8: '-1' is not a whole number from 1 to 9007199254740991",
    "vsh-00 1 2\n": "1:8: '1 2' is not a whole number from 1 to 9007199254740991",
    "vsh-00  1\n": "1:8: ' 1' is not a whole number from 1 to 9007199254740991",
    "vsh-00 9007199254740992\n": "1:8: 9007199254740992 is not a whole number from 1 to 9007199254740991",
    "vsh.lan 1\n": "1:1: 'vsh.lan' is not the name of a host up to its first dot",
    "../x 1\n": "1:1: '../x' is not the name of a host up to its first dot",
    "vsh-00 1\nvsh-01 2\n": "2:1: the file has one line: HOST EPOCH",
    "\0" * 300: "1:1: {path} has more than 256 bytes",
}


@pytest.mark.parametrize("text", BROKEN, ids=repr)
def test_a_broken_file_is_a_fault_with_its_place_and_owns_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "owner"
    path.write_text(text)
    faults = Faults()
    assert owner.read(tmp_path, faults) is None
    with pytest.raises(BadFiles) as error:
        faults.check()
    assert error.value.faults == (f"{path}:{BROKEN[text].format(path=path)}",)


def test_a_directory_in_its_place_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "owner").mkdir()
    with pytest.raises(BadFiles, match="owner:1:1: the file cannot be read"):
        read(tmp_path)


@pytest.fixture
def web(as_root: Paths) -> Path:
    """The directory of the guest web, whose tree is there."""
    saved(as_root, guest("web", 10000))
    as_root.tree_of("web").mkdir(parents=True)
    return as_root.config_of("web")


def test_a_guest_starts_where_its_owner_is_and_nowhere_else(as_root: Paths, web: Path) -> None:
    phases.decide(as_root, "web")
    owner.write(web, Owner(host_name(), 4))
    phases.decide(as_root, "web")
    owner.write(web, Owner("elsewhere", 5))
    with pytest.raises(Elsewhere) as error:
        phases.decide(as_root, "web")
    assert str(error.value) == (
        "guest web belongs to host elsewhere (epoch 5): start it there; if that copy never runs again, "
        "vs-adopt --name web makes this host its owner"
    )
    (web / "owner").write_text("nonsense\n")
    with pytest.raises(BadFiles, match="owner:1:9"):
        phases.decide(as_root, "web")


def test_a_start_without_an_owner_costs_one_open(as_root: Paths, web: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(Path, "open", lambda path, *_: opened.append(path.name) or _missing(path))
    ownership.check(as_root, "web")
    assert opened == ["owner"]


def _missing(path: Path) -> None:
    raise FileNotFoundError(2, "No such file or directory", path)


def test_adoption_begins_the_next_epoch(
    as_root: Paths, web: Path, capsys: pytest.CaptureFixture[str], logged: list[str]
) -> None:
    assert said(capsys, "vs-adopt", "--name", "web", "--yes") == (0, [], [])
    assert read(web) == Owner(host_name(), 1)
    owner.write(web, Owner("elsewhere", 7))
    assert said(capsys, "vs-adopt", "--name", "web", "--yes") == (0, [], [])
    assert read(web) == Owner(host_name(), 8)
    assert any('what="adopt from elsewhere, epoch 8" guest=web result=ok' in line for line in logged)


def test_adoption_of_a_broken_file_is_refused(as_root: Paths, web: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (web / "owner").write_text("nonsense\n")
    status, out, err = said(capsys, "vs-adopt", "--name", "web", "--yes")
    assert (status, out, len(err)) == (2, [], 1)
    assert "owner:1:9: the epoch is missing" in err[0]
    assert (web / "owner").read_text() == "nonsense\n"


def test_adoption_asks_and_says_what_it_means(as_root: Paths, web: Path, capsys: pytest.CaptureFixture[str]) -> None:
    owner.write(web, Owner("elsewhere", 7))
    status, _, (sentence,) = said(capsys, "vs-adopt", "--name", "web")
    assert status == 2
    for words in ("belongs to host elsewhere (epoch 7)", "found by its addresses only", "--yes"):
        assert words in sentence
    assert read(web) == Owner("elsewhere", 7)


def refused(paths: Paths, error: VsError) -> VsError:
    """The error of a start, after it was left for vs-monitor."""
    with pytest.raises(VsError) as found, ownership.told(paths, "web"):
        raise error
    return found.value


def test_of_a_guest_of_a_pool_it_is_said_that_who_answers_may_be_a_copy(as_root: Paths, web: Path) -> None:
    plain = str(refused(as_root, _taken()))
    assert plain == str(_taken())
    owner.write(web, Owner(host_name(), 3))
    told = str(refused(as_root, _taken()))
    assert told.startswith("10.0.1.5 is in use on the network by 02:00:00:00:00:01: ")
    assert f"({web}/owner, epoch 3)" in told
    assert "a copy of it on another host" in told
    assert "vs-adopt --name web there" in told


def _taken() -> Taken:
    from ipaddress import ip_address

    return presence.taken(ip_address("10.0.1.5"), "02:00:00:00:00:01")


def rounds(paths: Paths) -> Callable[[], list[tuple[bool, str]]]:
    """Rounds of vs-monitor: what began and ended."""
    found = Monitor(paths)
    return lambda: [(each.event.began, each.event.text) for each in found.round(everyone=True)]


def test_a_refused_start_is_mailed_once_and_ends_with_the_adoption(as_root: Paths, web: Path) -> None:
    owner.write(web, Owner("elsewhere", 5))
    look = rounds(as_root)
    assert look() == []
    sentence = str(refused(as_root, Elsewhere("guest web belongs to host elsewhere", "start it there")))
    assert look() == [(True, f"start refused: {sentence}")]
    assert look() == []
    (mail,) = (as_root.monitor / "spool").iterdir()
    assert "belongs to host elsewhere" in mail.read_text()
    ownership.adopt(as_root, "web")
    assert look() == [(False, "start refused: no longer so")]


def test_other_failures_of_a_start_are_not_mailed(as_root: Paths, web: Path) -> None:
    refused(as_root, VsError("guest web has no tree"))
    assert not as_root.refused.exists()


def test_a_refusal_is_an_old_story_after_a_later_life(as_root: Paths, web: Path) -> None:
    refused(as_root, _taken())
    assert ownership.refusal(as_root, "web")
    as_root.ended.mkdir(parents=True)
    ended = as_root.ended / "web"
    ended.write_text("before asked\n")
    os.utime(ended, ns=(0, 0))
    assert ownership.refusal(as_root, "web"), "that life was before"
    ended.write_text("before asked\nlater asked\n")
    os.utime(ended, ns=(1 << 62, 1 << 62))
    assert ownership.refusal(as_root, "web") is None
    (as_root.refused / "web").write_text("later it was refused\n")
    assert ownership.refusal(as_root, "web") == "it was refused", "the life that was refused has ended itself"

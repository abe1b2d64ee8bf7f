"""What is asked of an old host, and what is believed of its answers."""

import pytest

from vstools import run
from vstools.config.slaves import Slave
from vstools.errors import VsError
from vstools.pool.oldhost import Place

PLACE = Place("host old", "/etc/vservers/vs", "/vservers/vs", Slave("old"), ("ssh",))
NO_WORD = {
    "no connection": (255, ""), "no vserver": (127, "sh: vserver: not found"), "killed": (-9, ""),
    "no sudo": (1, "sudo: a password is required"),
}  # fmt: skip


def answer(monkeypatch: pytest.MonkeyPatch, code: int, err: str = "") -> None:
    """Let every program there end so."""
    monkeypatch.setattr(run, "bounded", lambda argv, **_: run.Result(tuple(argv), code, "", err))


@pytest.mark.parametrize(("code", "expected"), [(0, True), (1, False), (3, False), (5, False)])
def test_vserver_says_whether_a_guest_runs(monkeypatch: pytest.MonkeyPatch, code: int, expected: bool) -> None:
    answer(monkeypatch, code, "Vserver 'vs' is not running\n" if code else "")
    assert PLACE.runs("vs") is expected


@pytest.mark.parametrize("what", NO_WORD)
def test_no_word_of_vserver_is_no_guest_that_is_stopped(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    answer(monkeypatch, *NO_WORD[what])
    with pytest.raises(VsError, match="does not say whether guest vs runs there"):
        PLACE.runs("vs")
    with pytest.raises(VsError, match="does not say"):
        PLACE.stop("vs")


def test_a_mark_that_cannot_be_moved_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, 1)
    assert PLACE.unmark() == (
        "on host old it must not start again, and its mark could not be moved: rm /etc/vservers/vs/apps/init/mark there"
    )

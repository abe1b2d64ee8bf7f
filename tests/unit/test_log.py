"""Every change is one audit line; errors are sentences; programs get a clean environment."""

import os
import signal

import pytest

from vstools import faults, log, render, run
from vstools.errors import BadFiles, Busy, Refused, VsError


def test_a_change_is_one_audit_line_with_who_what_which_guest_and_the_result(logged: list[str]) -> None:
    with log.change("start", "web"):
        pass
    assert len(logged) == 1
    assert logged[0].endswith("what=start guest=web result=ok")
    assert logged[0].startswith("who=")


def test_a_change_that_failed_is_logged_with_the_reason_and_raised(logged: list[str]) -> None:
    with pytest.raises(VsError), log.change("create from a template", "web"):
        raise VsError("the disk is full", "free some space")
    assert logged[0].endswith(
        'what="create from a template" guest=web result="failed: the disk is full: free some space"'
    )


def test_a_change_that_was_interrupted_is_logged_too(logged: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt), log.change("start", "web"):
        raise KeyboardInterrupt
    assert logged[0].endswith('result="failed: KeyboardInterrupt"')


def test_an_audit_line_stays_one_line_whatever_its_fields_hold(logged: list[str]) -> None:
    log.audit('x\n who=eve "what"', "web\nguest=db", "ok")
    assert "\n" not in logged[0]
    assert logged[0].endswith("what=\"x\\n who=eve 'what'\" guest=web\\nguest=db result=ok")


def test_who_used_sudo_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "laurent")
    assert log.who() == "laurent(sudo)"


def test_a_warning_goes_to_stderr_and_to_syslog(capsys: pytest.CaptureFixture[str], logged: list[str]) -> None:
    log.warn("the disk is slow")
    assert capsys.readouterr() == ("", "vs-test: warning: the disk is slow\n")
    assert logged == ["warning: the disk is slow"]


def test_debug_is_silent_unless_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log.debug("quiet")
    monkeypatch.setattr(log, "_verbose", True)
    log.debug("loud")
    assert capsys.readouterr().err == "debug: loud\n"


def test_an_error_is_a_sentence_and_what_to_try() -> None:
    assert str(VsError("it failed")) == "it failed"
    assert str(VsError("it failed", "try again")) == "it failed: try again"


@pytest.mark.parametrize(
    ("error", "status"),
    [(VsError("x"), 1), (Refused("x"), 2), (Busy("x"), 2), (BadFiles(("x",)), 2)],
)
def test_what_was_refused_ends_with_2_and_what_failed_with_1(error: VsError, status: int) -> None:
    assert error.exit_code == status


def test_programs_get_a_clean_environment_in_the_c_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LD_PRELOAD": "x", "LANG": "fr_FR", "PATH": "/evil", "VS_TOOLS_ROOT": "/r"}.items():
        monkeypatch.setenv(name, value)
    assert run.environment({"TERM": "xterm"}) == {
        "VS_TOOLS_ROOT": "/r",
        "PATH": run.PATH,
        "LC_ALL": "C.UTF-8",
        "HOME": "/root",
        "TERM": "xterm",
    }


def test_a_program_that_failed_is_told_by_its_own_last_words() -> None:
    result = run.Result(("ip", "link", "add", "a b"), 2, "", "\nCannot open\n  RTNETLINK answers: File exists  \n\n")
    assert str(run.failure(result)) == "ip link add 'a b' failed: RTNETLINK answers: File exists"
    assert str(run.failure(run.Result(("ip",), 2, "out", ""))) == "ip failed: exit status 2"


def test_a_checkpoint_kills_only_where_a_test_asks_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append((pid, number)))
    faults.checkpoint("create:tree")
    monkeypatch.setenv("VS_TOOLS_FAULT", "create:tree")
    monkeypatch.setenv("VS_TOOLS_FAULT_TRACE", str(tmp_path / "trace"))
    faults.checkpoint("create:other")
    assert not killed
    faults.checkpoint("create:tree")
    assert killed == [(os.getpid(), signal.SIGKILL)]
    assert (tmp_path / "trace").read_text() == "create:other\ncreate:tree\n"


def test_a_name_that_a_template_uses_and_nobody_gave_is_an_error() -> None:
    import jinja2

    with pytest.raises(jinja2.UndefinedError, match="nameservers"):
        render.render("resolv.conf", domain=None)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_warning_is_in_the_journal_once(
    logged: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, elsewhere: bool
) -> None:
    state = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{state.st_dev}:{state.st_ino + elsewhere}")
    log.warn("the disk is full")
    assert ("the disk is full" in capsys.readouterr().err) is elsewhere
    assert logged == ["warning: the disk is full"]

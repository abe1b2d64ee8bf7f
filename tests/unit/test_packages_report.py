"""What is told of work at a guest's packages that failed, was interrupted, or cannot be looked at afterwards."""

from collections.abc import Callable

import pytest

from vstools import lxc
from vstools.config import guests
from vstools.lifecycle import inner, packages, window
from vstools.lifecycle.packages import Plan, Report
from vstools.packages import managers
from vstools.packages.managers import MANAGERS, Wishes
from vstools.paths import Paths

WISHES = Wishes(upgrade_all=True)


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch, paths: Paths) -> Callable[..., Report]:
    """Upgrade a running guest of dnf's: each call of a program in it answers as said, or raises."""

    def done(*answers: tuple[int, str] | BaseException) -> Report:
        waiting = list(answers)

        def call(*_: object) -> tuple[int, str]:
            answer = waiting.pop(0)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        monkeypatch.setattr(inner, "call", call)
        monkeypatch.setattr(window, "is_idle", lambda paths, name: False)
        monkeypatch.setattr(packages, "_half_done", lambda paths, name, manager: ())
        monkeypatch.setattr(packages, "_stale", lambda paths, name: ())
        plan = Plan(MANAGERS["dnf"], managers.steps(MANAGERS["dnf"], WISHES))
        return packages._worked(paths, "web", plan, WISHES, 60, lambda words: None)

    return done


def test_a_database_that_does_not_answer_afterwards_is_no_removal_of_everything(worked: Callable[..., Report]) -> None:
    report = worked((0, "curl 8.0-1\nzlib 1.3-1\n"), (0, ""), (1, "error: rpmdb open failed\n"))
    assert report.changes == ()
    assert report.status == 1
    assert "what was changed is not known" in report.failed
    assert report.failed.endswith("rpmdb open failed")


def test_what_was_changed_before_an_interrupt_is_told(worked: Callable[..., Report]) -> None:
    report = worked((0, "curl 8.0-1\n"), KeyboardInterrupt(), (0, "curl 8.1-1\n"))
    assert (report.changes, report.status) == ((("curl", "8.0-1", "8.1-1"),), 130)
    assert report.failed == "guest web: interrupted"
    report = worked((0, "curl 8.0-1\n"), SystemExit(143), (0, "curl 8.0-1\n"))
    assert (report.changes, report.status) == ((), 143)


def test_a_line_without_end_is_no_sentence(worked: Callable[..., Report]) -> None:
    report = worked((0, "curl 8.0-1\n"), (1, "x" * (1 << 20)), (0, "curl 8.0-1\n"))
    assert len(report.failed) < 1000


def test_a_failure_is_one_in_the_log(monkeypatch: pytest.MonkeyPatch, paths: Paths, logged: list[str]) -> None:
    report = Report("web", failed="guest web: apt-get failed", status=1)
    monkeypatch.setattr(guests, "require", lambda paths, name: None)
    monkeypatch.setattr(lxc, "is_running", lambda paths, name: True)
    monkeypatch.setattr(packages, "decide", lambda paths, name, wishes: Plan(MANAGERS["apt"], ()))
    monkeypatch.setattr(packages, "_worked", lambda *_: report)
    assert packages.work(paths, "web", WISHES, 60, lambda words: None) == report
    assert ["apt-get failed" in line for line in logged] == [True]

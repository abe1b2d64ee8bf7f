"""Asking an lxcfs whether it answers: one question at a time, and none that is waited for beyond its time."""

import subprocess

import pytest

from vstools.storage import lxcfs


class Reader:
    """A program that reads: its exit status, or None as long as it is stuck."""

    def __init__(self, status: int | None) -> None:
        self.status = status
        self.killed = False

    def wait(self, timeout: float) -> int:
        if self.status is None:
            raise subprocess.TimeoutExpired("head", timeout)
        return self.status

    def poll(self) -> int | None:
        return self.status

    def kill(self) -> None:
        self.killed = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time is what stands there."""
    now = [1000.0]
    monkeypatch.setattr(lxcfs.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> list[Reader]:
    """Those still to come; each question takes one."""
    coming: list[Reader] = []
    monkeypatch.setattr(lxcfs.run, "start", lambda *_, **__: coming.pop(0))
    return coming


def test_an_answer_counts_for_some_seconds(clock: list[float], readers: list[Reader]) -> None:
    readers += [Reader(0), Reader(1)]
    inquiry = lxcfs.Inquiry()
    assert inquiry.answers("/var/lib/lxcfs")
    clock[0] += 9
    assert inquiry.answers("/var/lib/lxcfs")
    assert len(readers) == 1, "many guests cost one question"
    clock[0] += 2
    assert not inquiry.answers("/var/lib/lxcfs")


def test_readers_that_are_stuck_do_not_pile_up(clock: list[float], readers: list[Reader]) -> None:
    stuck = Reader(None)
    readers += [stuck, Reader(0)]
    inquiry = lxcfs.Inquiry()
    for _ in range(3):
        assert not inquiry.answers("/var/lib/lxcfs")
        clock[0] += 60
    assert stuck.killed
    assert len(readers) == 1
    stuck.status = -9
    assert inquiry.answers("/var/lib/lxcfs")

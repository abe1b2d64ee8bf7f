"""Mounts that one thread sees, and programs that nobody cuts short: on this kernel, with real signals."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

MOUNTS = """
import os, subprocess, sys, threading
from pathlib import Path
from vstools import libc
place, other = Path(sys.argv[1], "place"), Path(sys.argv[1], "other")
seen = lambda: (place / "inside").exists()
go, done, outside = threading.Event(), threading.Event(), []
def look():
    go.wait()
    outside.append(seen())
    subprocess.run(["umount", other], check=True)
    done.set()
threading.Thread(target=look).start()
try:
    with libc.private_mounts():
        libc.mount("tmpfs", place)
        (place / "inside").touch()
        go.set()
        done.wait()
        by_program = subprocess.run(["test", "-e", place / "inside"]).returncode == 0
        print(seen(), by_program, outside, os.path.ismount(other), os.getcwd() == sys.argv[1])
        if "fail" in sys.argv:
            raise ValueError
        libc.unmount(place)
        libc.mount("tmpfs", place)
except ValueError:
    print("failed")
print(seen(), os.path.ismount(place), os.getcwd() == sys.argv[1])
"""


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A mount that tells others of what is mounted and unmounted below it, as systemd has them all."""
    subprocess.run(["mount", "-t", "tmpfs", "shared", tmp_path], check=True)
    subprocess.run(["mount", "--make-shared", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", "--recursive", tmp_path], check=True)


@pytest.mark.parametrize("words", [[], ["fail"]])
def test_a_private_mount_is_seen_by_its_thread_and_programs_only(shared: Path, words: list[str]) -> None:
    (shared / "place").mkdir()
    (shared / "other").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "other", shared / "other"], check=True)
    done = subprocess.run(
        [sys.executable, "-c", MOUNTS, shared, *words], cwd=shared, capture_output=True, text=True, timeout=60
    )
    inside, *failed, after = done.stdout.splitlines()
    assert inside == "True True [False] False True", done
    assert failed == ["failed"] * len(words)
    assert after == "False False True"


UNBROKEN = """
import sys
from vstools import run, signals
try:
    with signals.ending():
        done = run.unbroken(["sh", "-c", f"trap '' INT TERM; touch {sys.argv[1]}; sleep 2; echo whole"])
        print(done.out, "not reached")
except (KeyboardInterrupt, SystemExit) as error:
    print(type(error).__name__, error, run.unbroken(["echo", "again"]).out.strip())
"""


@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGINT, "KeyboardInterrupt  again\n"), (signal.SIGTERM, "SystemExit 143 again\n")]
)
def test_a_signal_waits_for_a_program_that_must_not_be_cut_short(
    tmp_path: Path, number: signal.Signals, said: str
) -> None:
    ready = tmp_path / "ready"
    process = subprocess.Popen([sys.executable, "-c", UNBROKEN, ready], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not ready.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    begun = time.monotonic()
    process.send_signal(number)
    assert process.communicate(timeout=60)[0] == said
    assert time.monotonic() - begun > 1


def test_a_program_that_does_not_end_is_asked_to_and_not_killed() -> None:
    script = """
from vstools import run
from vstools.errors import VsError
try:
    run.unbroken(["sh", "-c", "trap 'echo asked >&2; kill $!; exit' TERM; sleep 100 & wait"], timeout=1)
except VsError as error:
    print(error)
try:
    run.unbroken(["sh", "-c", "echo first >&2; echo last >&2; exit 3"])
except VsError as error:
    print(error.hint, run.unbroken(["sh", "-c", "exit 3"], check=False).code)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    first, second = done.stdout.splitlines()
    assert first.endswith("did not end within 1 seconds"), done
    assert second == "last 3"

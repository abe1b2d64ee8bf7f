"""Where a bench runs: a directory and namespaces of its own, so that nothing of it outlives the run.

Processes, mounts and links belong to namespaces that die with the bench, however it ends; the directory and
the cgroups are removed here afterwards. ``inside.py`` is the other side.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.programs import BenchError, environment

CHECKOUT = Path(__file__).resolve().parent.parent
QUESTION, ANSWER, CGROUPS = "question.json", "answer.json", "cgroups"
_LOCK = Path("/run/vs-bench.lock")
_PARENT, _PREFIX = Path("/var/tmp"), "vs-bench-"  # noqa: S108 - not /tmp: it has to be a disk
NAME = "vsbench"
"""Guests, links and cgroups of a bench have this in their names."""


@contextmanager
def workplace() -> Iterator[Path]:
    """A new directory that a guest's root may pass through; removed with the cgroups that the bench made.

    What a killed bench left is removed as well: only one runs at a time, they would disturb each other.
    """
    with _LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchError("another bench is running") from None
        for left in _PARENT.glob(f"{_PREFIX}*"):
            _remove(left, pivots=())
        pivots = tuple(pivot for root in cgroup_roots() if not (pivot := root / "lxc.pivot").exists())
        work = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_PARENT))
        try:
            work.chmod(0o711)
            yield work
        finally:
            _remove(work, pivots)


def inside(work: Path, bench: str, question: dict[str, Any]) -> dict[str, Any]:
    """Let ``bench`` answer a question in namespaces of its own; raises BenchError with its sentence.

    The shell is the PID 1 that reaps what daemons leave. LXC places guests below PID 1's cgroup, so this one
    goes to the root of every hierarchy, where a host's PID 1 is.
    """
    (work / QUESTION).write_text(json.dumps(question))
    argv = [
        "setpriv",
        "--pdeathsig",
        "KILL",
        "unshare",
        "--mount",
        "--net",
        "--pid",
        "--propagation",
        "private",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-c",
        '"$@"; exit $?',
        "sh",
        sys.executable,
        "-m",
        "bench.inside",
        bench,
        str(work),
    ]
    environ = environment({"PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"})
    try:
        subprocess.run(argv, env=environ, stdin=subprocess.DEVNULL, check=False, preexec_fn=_go_to_root_cgroups)
    except subprocess.SubprocessError as error:
        raise BenchError("this host's cgroups cannot be entered; the bench needs root outside a container") from error
    try:
        answer: dict[str, Any] = json.loads((work / ANSWER).read_text())
    except FileNotFoundError:
        raise BenchError("the bench ended without an answer") from None
    if "error" in answer:
        raise BenchError(answer["error"])
    return answer


def cgroup_roots() -> tuple[Path, ...]:
    """Where the cgroup hierarchies of this host are mounted, v1 and v2."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return tuple(Path(line.split()[4]) for line in lines if re.search(r" - cgroup2? ", line))


def note_cgroup(work: Path, name: str) -> None:
    """Remember an uppermost cgroup that a contestant makes under a name of its own, for its removal."""
    with (work / CGROUPS).open("a") as notes:
        notes.write(f"{name}\n")


def _go_to_root_cgroups() -> None:
    for root in cgroup_roots():
        (root / "cgroup.procs").write_text("0")


def _remove(work: Path, pivots: tuple[Path, ...]) -> None:
    """Remove a bench's directory and cgroups: noted ones, those of its name, and the ``lxc.pivot`` that LXC left."""
    notes = work / CGROUPS
    noted = set(notes.read_text().split()) if notes.exists() else set()
    for root in cgroup_roots():
        for entry in tuple(root.iterdir()):
            if entry.name in noted or NAME in entry.name or entry in pivots:
                _remove_cgroup(entry)
    shutil.rmtree(work)


def _remove_cgroup(top: Path) -> None:
    for folder, _, _ in os.walk(top, topdown=False):
        for _ in range(50):
            try:
                Path(folder).rmdir()
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.02)
            else:
                break

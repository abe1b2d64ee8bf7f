"""A guest's load average over 15 minutes, which the kernel keeps for the whole host only: the same decay, on samples.

The kernel adds tasks that run or could run (R) and those that wait uninterruptibly (D), every 5 seconds:
``load = load * e + tasks * (1 - e)`` with ``e = exp(-seconds / 900)`` (kernel/sched/loadavg.c). Here the tasks of one
guest are counted each time that it is looked at.
"""

import os
from collections.abc import Iterable
from math import exp

SPAN = 900.0
LOOK = 4096
"""Tasks of one guest that are looked at; of more the same share is taken to be active."""


def decay(load: float, tasks: float, seconds: float) -> float:
    """The load average after ``seconds`` in which that many tasks were active."""
    kept = exp(-max(0.0, seconds) / SPAN)
    return load * kept + tasks * (1 - kept)


def active(pids: Iterable[int], proc: str = "/proc") -> float:
    """The tasks in states R and D among the threads of these processes."""
    looked = found = skipped = 0
    for pid in pids:
        if looked >= LOOK:
            skipped += 1
            continue
        state, threads = _state(f"{proc}/{pid}/stat")
        if threads <= 1:
            looked += 1
            found += state in ("R", "D")
            continue
        for tid in _threads(f"{proc}/{pid}/task")[: LOOK - looked]:
            looked += 1
            found += _state(f"{proc}/{pid}/task/{tid}/stat")[0] in ("R", "D")
    return found * (1 + skipped / looked) if looked else 0.0


def _threads(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _state(path: str) -> tuple[str, int]:
    """State and number of threads (``man 5 proc``, stat); a task that ended meanwhile has none.

    The second field is the task's own name and may hold spaces and parentheses: the last one counts.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return "", 0
    try:
        fields = os.read(descriptor, 1024).rpartition(b")")[2].split()
    except OSError:
        return "", 0
    finally:
        os.close(descriptor)
    if len(fields) < 18 or not fields[17].isdigit():
        return "", 0
    return fields[0].decode("ascii", "replace"), int(fields[17])

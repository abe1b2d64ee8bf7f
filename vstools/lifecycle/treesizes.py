"""The space that guests' trees take: asked of their quotas, where there are any.

Elsewhere du adds up beside the monitor's rounds, one tree at a time, in turn, each at most hourly: that takes as long
as a tree has files.
"""

import os
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import IO, cast

from vstools import run
from vstools.config import guests
from vstools.config.text import Faults
from vstools.monitor.state import Disk
from vstools.paths import Paths
from vstools.stats.parse import number
from vstools.storage import counted

EVERY = 3600.0
"""Seconds between two looks at one tree."""
LONGEST = 1800.0
"""Seconds after which it is given up."""
_MIB = 1 << 20


@dataclass
class _Running:
    name: str
    process: "subprocess.Popen[bytes]"
    begun: float


class TreeSizes:
    """Which tree is being added up now, and what became of the last ones."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._running: _Running | None = None
        self._done: dict[str, tuple[int | None, bool]] = {}
        self._queue: dict[str, None] = {}
        self.wait = False
        """Wait for each (vs-monitor --once): there is no later round."""

    def latest(self, name: str, known: Disk, now: float, *, watched: bool) -> Disk:
        """What is known of a guest's tree, asking anew where that is old. ``now`` is of the clock since the boot."""
        self.collect()
        guest = guests.read(self._paths.config_of(name), name, Faults()) if watched else None
        if guest is None or guest.limits.disk is None:
            self.forget(name)
            return Disk()
        limit = guest.limits.disk * _MIB
        if (held := counted.use(self._paths.tree_of(name), guest.context)) is not None:
            self.forget(name)
            return Disk(held.used, limit, now)
        is_old = known.at is None or now - known.at >= EVERY
        if is_old and name not in self._done and (self._running is None or self._running.name != name):
            self._queue.setdefault(name)
        if self._running is None and self._queue:
            self._begin(next(iter(self._queue)))
        if name in self._done:
            used, late = self._done.pop(name)
            return Disk(known.used if used is None else used, limit, now, late)
        return replace(known, limit=limit)

    def forget(self, name: str) -> None:
        """The guest does not run any more, or is not watched: it is nobody's turn."""
        self._queue.pop(name, None)
        self._done.pop(name, None)

    def _begin(self, name: str) -> None:
        del self._queue[name]
        argv = ["nice", "-n", "19", "du", "-s", "-x", "-B1", "--", str(self._paths.tree_of(name))]
        process = run.start([*run.TIED, *argv], stdout=run.PIPE, stderr=run.DEVNULL)
        self._running = _Running(name, process, time.monotonic())
        if self.wait:
            with suppress(subprocess.TimeoutExpired):
                process.wait(LONGEST)
            self.collect()

    def collect(self) -> None:
        """Take the result of what has ended; end what takes too long."""
        now = self._running
        if now is None:
            return
        late = now.process.poll() is None
        if late:
            if time.monotonic() - now.begun < LONGEST:
                return
            now.process.kill()
            now.process.wait()
        output = cast("IO[bytes]", now.process.stdout)
        with output:
            text = os.read(output.fileno(), 256).decode("ascii", "replace")  # a line: it is all in the pipe
        self._done[now.name] = number(text.partition("\t")[0]), late
        self._running = None

    def close(self) -> None:
        """End what runs."""
        if self._running is not None:
            self._running.process.kill()
            self._running.process.wait()
            cast("IO[bytes]", self._running.process.stdout).close()
            self._running = None

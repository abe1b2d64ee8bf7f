"""When a guest's init runs, seen from the host and alike for every contestant.

A guest's init is a process that is number 1 of a PID namespace below the bench's. It runs from the moment its
executable is the tree's systemd: before that it is the contestant's own program, preparing the namespaces.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.programs import BenchError, Timed, has_ended, run

INIT = "/usr/lib/systemd/systemd"
_PATIENCE = 120.0  # seconds for a start, and for a guest to be up or gone
_PAUSE = 0.002


@dataclass(frozen=True)
class Started:
    """A guest that runs: its init's pid, and the seconds until init ran and until the command had ended."""

    pid: int
    runs: float
    returned: float


def time_start(argv: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Started:
    """Run the command that starts a guest; raises BenchError when it fails or no init appears."""
    inits = _Inits()
    command = Timed(argv, env)
    while (pid := inits.find()) is None:
        if command.has_failed() or command.elapsed() > _PATIENCE:
            command.finish(patience=0.0)
            raise BenchError(f"no guest's init appeared: {' '.join(command.argv)}")
        time.sleep(_PAUSE)
    runs = command.elapsed()
    returned = command.finish()
    return Started(pid, runs, returned)


def time_stop(argv: Sequence[str | Path], pid: int, env: Mapping[str, str] | None = None) -> float:
    """Run the command that stops a guest; the seconds until it has ended and the guest's init is gone."""
    command = Timed(argv, env)
    took = command.finish()
    if has_ended(pid, 0.0):
        return took
    if not has_ended(pid, _PATIENCE):
        raise BenchError(f"the guest still runs after: {' '.join(command.argv)}")
    return command.elapsed()


def wait_until_up(pid: int) -> None:
    """Wait until the guest's systemd has finished booting, so that every stop begins from the same state."""
    enter = ["nsenter", "--target", str(pid), "--all", "--"]
    deadline = time.monotonic() + _PATIENCE
    said = ""
    while time.monotonic() < deadline:
        try:
            said = run([*enter, "sh", "-c", "systemctl is-system-running 2>&1 || :"])
        except BenchError as error:
            said = str(error)
        if said.strip() in ("running", "degraded"):
            return
        time.sleep(0.1)
    raise BenchError(f"the guest did not finish booting: {said.strip()}")


class _Inits:
    """Finds the one new init; a process keeps its PID namespaces, so each is looked at once."""

    def __init__(self) -> None:
        self._ignored = set(_pids())
        self._candidates: set[str] = set()

    def find(self) -> int | None:
        for pid in _pids():
            if pid in self._ignored or pid in self._candidates:
                continue
            if _is_first_of_a_namespace(pid):
                self._candidates.add(pid)
            else:
                self._ignored.add(pid)
        for pid in self._candidates:
            try:
                executable = os.readlink(f"/proc/{pid}/exe")
            except OSError:
                continue
            if executable == INIT:
                return int(pid)
        return None


def _pids() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()]


def _is_first_of_a_namespace(pid: str) -> bool:
    try:
        status = Path("/proc", pid, "status").read_text()
    except OSError:
        return False
    numbers = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
    return len(numbers) > 1 and numbers[-1] == "1"

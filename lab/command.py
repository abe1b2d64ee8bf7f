"""The only place of the lab that starts a program, so that each call is bounded in time and reports alike."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence


class LabError(Exception):
    """What is wrong, and what to try; the command line prints both and ends."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


def run(
    argv: Sequence[str],
    *,
    timeout: float = 60,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run argv to its end and give its standard output; a non-zero exit is a LabError with its last words."""
    try:
        done = subprocess.run(
            list(argv), input=stdin, env=env, timeout=timeout, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]} is not installed", "run lab/up as root, it installs what it needs") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"no end after {timeout:.0f} s: {shlex.join(argv)}") from error
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()[-15:]
        raise LabError(f"exit {done.returncode}: {shlex.join(argv)}", "\n".join(words))
    return done.stdout


def succeeds(argv: Sequence[str], *, timeout: float = 60) -> bool:
    """Whether argv ends with zero in time: for probes, where failing is an answer and not an error."""
    try:
        done = subprocess.run(list(argv), timeout=timeout, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def wait_until(condition: Callable[[], bool], *, timeout: float, every: float = 0.2) -> bool:
    """Ask condition until it holds (True) or timeout seconds have passed (False)."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True

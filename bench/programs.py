"""The only place of the benches that starts a program: argument lists and a deadline for everything."""

import os
import select
import shlex
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEADLINE = 300.0


class BenchError(Exception):
    """Something could not be run: what, and what it said."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of every program: the caller's proxies pass, its Python settings do not."""
    kept = {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy")}
    return {**kept, "PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": "/root", **(extra or {})}


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float = DEADLINE,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    folder: Path | None = None,
) -> str:
    """Run a program to its end and return its output; raises BenchError unless it ends with 0 in time."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=environment(env),
            cwd=folder,
            check=False,
        )
    except FileNotFoundError as error:
        raise BenchError(f"{words[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"no end after {timeout:g} s: {shlex.join(words)}") from error
    if done.returncode:
        raise BenchError(_sentence(words, done.returncode, done.stderr or done.stdout))
    return done.stdout


def succeeds(argv: Sequence[str | Path], *, timeout: float = 60) -> bool:
    """Whether a program ends with 0: for probes, where failing is an answer and not an error."""
    try:
        run(argv, timeout=timeout)
    except BenchError:
        return False
    return True


class Timed:
    """A running program and the clock that began with it; its output is kept for the error it may become."""

    def __init__(self, argv: Sequence[str | Path], env: Mapping[str, str] | None = None) -> None:
        self.argv = [str(word) for word in argv]
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by finish()
        self._begun = time.perf_counter()
        try:
            self._process = subprocess.Popen(
                self.argv,
                env=environment(env),
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
            )
        except FileNotFoundError as error:
            raise BenchError(f"{self.argv[0]} is not installed") from error

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def elapsed(self) -> float:
        """Seconds since the program began."""
        return time.perf_counter() - self._begun

    def has_failed(self) -> bool:
        """Whether it has ended, and not with 0."""
        return bool(self._process.poll())

    def finish(self, patience: float = DEADLINE) -> float:
        """Wait for its end and return the seconds it took; raises BenchError when it failed or was killed here."""
        if self._process.returncode is None and not has_ended(self._process.pid, patience):
            self._process.kill()
        took = self.elapsed()
        code = self._process.wait()
        self._output.seek(0)
        said = self._output.read().decode("utf-8", "replace")
        self._output.close()
        if code:
            raise BenchError(_sentence(self.argv, code, said))
        return took


def has_ended(pid: int, patience: float) -> bool:
    """Wait until the process has ended, without polling; False when it has not after ``patience`` seconds."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], patience)[0])
    finally:
        os.close(handle)


def _sentence(words: Sequence[str], code: int, said: str) -> str:
    last = "\n  ".join(said.strip().splitlines()[-8:])
    return f"exit {code}: {shlex.join(words)}" + (f"\n  {last}" if last else "")

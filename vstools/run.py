"""The only place that starts a program: argument lists, C locale, no shell, a deadline for everything."""

import os
import select
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from vstools import log
from vstools.errors import VsError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEADLINE = 120.0
PIPE = subprocess.PIPE
DEVNULL = subprocess.DEVNULL
TOGETHER = subprocess.STDOUT
"""As stderr: where stdout goes."""
TimeoutExpired = subprocess.TimeoutExpired
PIPE_SIZE = 1 << 20
TIED = ("setpriv", "--pdeathsig", "KILL", "--")
"""Before a program's words: it is killed when the process that started it dies."""
ALONE = (*TIED, "unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "--")
"""The same for a program and everything it starts, by a PID namespace."""


@dataclass(frozen=True)
class Result:
    """What a program left: its exit status (negative: killed by that signal) and its output."""

    argv: tuple[str, ...]
    code: int
    out: str
    err: str


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of every program we start: no surprise of the caller's comes through."""
    kept = {key: value for key, value in os.environ.items() if key.startswith("VS_TOOLS_")}
    return {**kept, "PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": "/root", **(extra or {})}


def run(
    argv: Sequence[str],
    *,
    stdin: str = "",
    timeout: float = DEADLINE,
    check: bool = True,
    env: dict[str, str] | None = None,
) -> Result:
    """Run a program to its end and return what it said.

    Raises VsError when it cannot be started, passes its deadline, or (with ``check``) ends with another status
    than 0; the sentence holds the last line of its stderr.
    """
    line = shlex.join(argv)
    log.debug(f"run: {line}")
    try:
        done = subprocess.run(
            list(argv),
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=environment(env),
            check=False,
        )
    except FileNotFoundError as error:
        raise VsError(f"{argv[0]} is not installed", "run install.sh again") from error
    except subprocess.TimeoutExpired as error:
        raise VsError(f"{line} did not end within {timeout:g} seconds") from error
    result = Result(tuple(argv), done.returncode, done.stdout, done.stderr)
    if check and result.code:
        raise failure(result)
    return result


def unbroken(argv: Sequence[str], *, timeout: float = DEADLINE, check: bool = True) -> Result:
    """Run a program that nobody may kill in the middle of its work; for the rest like ``run``.

    LVM's programs hold file systems frozen for an instant and write what describes all volumes. They go on when this
    process is killed. Signals that end this process wait for them; at the deadline they are asked to end (SIGTERM: LVM
    does where it waits for a lock, and nowhere else), and left alone if they do not. Their words go through pipes: a
    file could lie on what they froze.
    """
    from vstools import signals

    line = shlex.join(argv)
    with signals.deferred():
        process = start(argv, stdout=PIPE, stderr=PIPE)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            process.terminate()
            raise VsError(f"{line} did not end within {timeout:g} seconds") from error
    result = Result(tuple(argv), process.returncode, *(words.decode("utf-8", "replace") for words in (out, err)))
    if check and result.code:
        raise failure(result)
    return result


def bounded(argv: Sequence[str], *, most: int, timeout: float) -> Result:
    """Run a program that somebody else may let speak without an end, and return what it said.

    Raises VsError when it cannot be started, passes its deadline, or says more than ``most`` bytes.
    """
    line, deadline, said = shlex.join(argv), time.monotonic() + timeout, b""
    with piped(argv, stdout=PIPE) as process:
        code, is_open = None, True
        while code is None or is_open:
            if len(said) > most or os.fstat(process.words.fileno()).st_size > most:
                raise VsError(f"{line} speaks without an end")
            if time.monotonic() > deadline:
                raise VsError(f"{line} did not end within {timeout:g} seconds")
            if not is_open:
                time.sleep(0.01)
            elif select.select([process.stdout], [], [], 0.2)[0]:
                piece = os.read(process.stdout.fileno(), 1 << 16)
                said, is_open = said + piece, bool(piece)
            code = process.process.poll()
        process.words.seek(0)
        words = process.words.read(most)
    return Result(tuple(argv), code, said.decode("utf-8", "replace"), words.decode("utf-8", "replace"))


def failure(result: Result) -> VsError:
    """The error for a program that failed: its own last words."""
    words = [line.strip() for line in result.err.splitlines() if line.strip()]
    named = [line for line in words if "Error:" in line]  # nft shows the place below it
    said = (named or words)[-1] if words else f"exit status {result.code}"
    return VsError(f"{shlex.join(result.argv)} failed", said)


def start(
    argv: Sequence[str],
    *,
    stdin: int | IO[bytes] | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    detached: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a program and return it running; ``detached`` gives it a session of its own."""
    log.debug(f"start: {shlex.join(argv)}")
    try:
        return subprocess.Popen(
            list(argv),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=environment(),
            start_new_session=detached,
            pipesize=PIPE_SIZE,
        )
    except FileNotFoundError as error:
        raise VsError(f"{argv[0]} is not installed", "run install.sh again") from error


def forked(work: Callable[[], None], *, timeout: float) -> bool:
    """Let a child of this process, which has one thread, do what changes a process; whether it was done in time.

    For calls that no program offers. A child that passes its deadline is killed, and not waited for.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status == 0
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return False


def interactive(argv: Sequence[str], *, folder: Path = Path("/"), more: dict[str, str] | None = None) -> int:
    """Give a program this terminal, in a folder, and return its exit status as a shell would give it (128 + signal)."""
    log.debug(f"interactive: {shlex.join(argv)}")
    extra = {"TERM": os.environ.get("TERM", "dumb"), **(more or {})}
    try:
        code = subprocess.run(list(argv), env=environment(extra), cwd=folder, check=False).returncode
    except FileNotFoundError as error:
        raise VsError(f"{argv[0]} is not installed", "run install.sh again") from error
    return 128 - code if code < 0 else code


@contextmanager
def piped(
    argv: Sequence[str], *, stdin: int | IO[bytes] | None = None, stdout: int | IO[bytes] | None = None
) -> Iterator["Piped"]:
    """A running program at the end of a pipe; gone at the end of the block, and when this process is killed."""
    with tempfile.TemporaryFile() as words:  # a pipe could fill up while nobody reads it
        process = start([*TIED, *argv], stdin=stdin or subprocess.DEVNULL, stdout=stdout, stderr=words)
        try:
            yield Piped(process, words)
        finally:
            if process.poll() is None:
                process.kill()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()
            process.wait()


@dataclass(frozen=True)
class Piped:
    """A program started by ``piped``."""

    process: subprocess.Popen[bytes]
    words: IO[bytes]

    @property
    def stdin(self) -> IO[bytes]:
        """The end to write to (asked for as PIPE)."""
        return cast("IO[bytes]", self.process.stdin)

    @property
    def stdout(self) -> IO[bytes]:
        """The end to read from (asked for as PIPE)."""
        return cast("IO[bytes]", self.process.stdout)

    def finish(self, timeout: float = DEADLINE) -> str | None:
        """Wait for the end: None when all went well, else the first thing the program complained of."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return f"it did not end within {timeout:g} seconds"
        if not code:
            return None
        self.words.seek(0)
        lines = [line.strip() for line in self.words.read(1 << 16).decode("utf-8", "replace").splitlines()]
        return next((line for line in lines if line), f"exit status {code}")

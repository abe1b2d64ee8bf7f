"""A program run inside a guest whose words are read here: with addresses of ours in its /etc/hosts, and an end."""

import os
import select
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from vstools import lxc, run
from vstools.errors import VsError
from vstools.paths import Paths

_TEXT_MAX = 1 << 23
_QUIET, _AFTER_END = 0.3, 5.0
"""Seconds without a word, and at all, after a program's end: what it left running may hold its output open for ever."""
_FAREWELL = 20.0
_HOSTS = """set -e
[ -e /etc/hosts ] || : > /etc/hosts
file=$(mktemp /dev/.vs-hosts.XXXXXX)
{ printf '%s' "$1"; cat /etc/hosts; } > "$file"
chmod 644 "$file"
mount -o bind "$file" /etc/hosts
rm -f "$file"
shift
exec "$@"
"""
"""Run in a mount namespace of its own: only the program that follows sees these names."""


def call(
    paths: Paths, name: str, words: Sequence[str], environment: dict[str, str], hosts: str, deadline: float
) -> tuple[int, str]:
    """(exit status, output) of a program in a guest that runs; of long outputs the end is kept.

    ``hosts`` are lines that go before its /etc/hosts, ``deadline`` is a time of the monotonic clock. Raises VsError
    where it did not end until then.
    """
    inside = ["env", *(f"{key}={value}" for key, value in environment.items()), *words]
    if hosts:
        inside = ["unshare", "-m", "sh", "-c", _HOSTS, "sh", hosts, *inside]
    process = run.start(
        lxc.attach(paths, name, inside), stdout=run.PIPE, stderr=run.TOGETHER, detached=True
    )  # a Ctrl-C is for us: what changes packages is asked to end
    assert process.stdout is not None  # noqa: S101 - asked for as PIPE
    try:
        with process.stdout:
            text = _read(process.stdout.fileno(), process, deadline)
            return process.wait(max(deadline - time.monotonic(), _QUIET)), text
    except run.TimeoutExpired:
        _end(process)
        raise _too_long() from None
    except BaseException:
        _end(process)
        raise


def _too_long() -> VsError:
    return VsError("what runs inside the guest did not end in time", "vs-ps shows it")


def _read(pipe: int, process: lxc.Runner, deadline: float) -> str:
    """What comes from a pipe until its end, or until the program has ended."""
    kept = bytearray()
    ended: float | None = None
    while ended is None or time.monotonic() < ended + _AFTER_END:
        ready, _, _ = select.select([pipe], [], [], _QUIET)
        if ready:
            piece = os.read(pipe, 1 << 16)
            if not piece:
                break
            kept += piece
            if len(kept) > 2 * _TEXT_MAX:
                del kept[:-_TEXT_MAX]
        if ended is None and process.poll() is not None:
            ended = time.monotonic()
        if ended is not None and not ready:
            break
        if time.monotonic() > deadline:
            raise _too_long()
    return kept[-_TEXT_MAX:].decode("utf-8", "replace")


def _end(process: lxc.Runner) -> None:
    """Ask what runs inside to end, then make it end."""
    inner = []
    with suppress(OSError):
        inner = [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in inner:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        with suppress(run.TimeoutExpired):
            process.wait(_FAREWELL)
            return
    process.kill()
    process.wait()

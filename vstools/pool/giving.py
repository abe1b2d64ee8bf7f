"""vs-slave send and receive: a host's end of rsync, for one guest and nothing else."""

import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vstools import files, lxc, run
from vstools.errors import Refused
from vstools.faults import checkpoint
from vstools.guest import check_name
from vstools.paths import STAGED, Paths, command, host_name
from vstools.pool import rsync

MODES = ("hot", "cool")
_LOOK = 2.0
"""Seconds between two looks whether the session lives."""


def send(paths: Paths, name: str, mode: str, words: Sequence[str]) -> int:
    """Give a guest's tree to the master's rsync.

    ``hot``: from a snapshot, running or not. ``cool``: from a snapshot of the stopped guest, which runs again as soon
    as that is there.
    """
    check_name(name, imported=True)
    with _tree(paths, name, mode) as tree:
        if not any(tree.iterdir()):
            raise Refused(f"the tree of guest {name} is empty", "is what belongs there mounted?")
        with _while_claimed(paths, name):
            return rsync.serve(words, sender=True, folder=tree)


@contextmanager
def _while_claimed(paths: Paths, name: str) -> Iterator[None]:
    """End this process, the orderly way, when the session that it belongs to has ended.

    rsync's sender does not notice that nobody takes its bytes any more, and a guest may be stopped for that long. The
    session's claim is a lock that dies with it; who has none (called by hand) is not watched.
    """
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_LOOK):
            if not files.is_locked(claim(paths, name)):
                os.kill(os.getpid(), signal.SIGTERM)
                return

    if files.is_locked(claim(paths, name)):
        threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def claim(paths: Paths, name: str) -> Path:
    """The lock by which a session has a guest for itself."""
    return paths.locks / f"{name}.pool"


@contextmanager
def _tree(paths: Paths, name: str, mode: str) -> Iterator[Path]:
    from vstools.lifecycle import snapshot

    if mode not in MODES:
        raise Refused(f"{mode!r} is no way to give a guest", ", ".join(MODES))
    with _cool(paths, name) if mode == "cool" else snapshot.of_guest(paths, name) as tree:
        yield tree


@contextmanager
def _cool(paths: Paths, name: str) -> Iterator[Path]:
    """A snapshot of the guest stopped; it is started as soon as there is one, or the copy where there can be none."""
    from vstools.lifecycle import control, snapshot
    from vstools.storage import choose

    if not lxc.is_running(paths, name):
        with snapshot.of_guest(paths, name) as tree:
            yield tree
        return
    with ExitStack() as stack:
        stack.enter_context(asleep(paths, name))
        checkpoint("cool:marked")
        control.stop(paths, name)
        checkpoint("cool:stopped")
        tree = stack.enter_context(snapshot.of_guest(paths, name))
        checkpoint("cool:snapshot")
        if choose.of_guest(paths, name).snapshots:
            wake(paths, name)
        yield tree


def _mark(paths: Paths, name: str) -> Path:
    files.directory(paths.run, 0o711)
    return files.directory(paths.run / "asleep", 0o700) / name


def _token(mark: Path) -> str | None:
    try:
        return mark.read_text()
    except FileNotFoundError:
        return None


@contextmanager
def asleep(paths: Paths, name: str) -> Iterator[None]:
    """A guest that was running is stopped for a while: it is started at the end of the block, unless it was released.

    Where this process is killed, a guard does that, which waits for nothing else; where both are, whoever comes next.
    """
    import secrets

    mark, token = _mark(paths, name), secrets.token_hex(8)
    files.write(mark, token, 0o600)
    checkpoint("asleep:marked")
    guard = run.start(
        [command("vs-slave"), "guard", name, token],
        stdin=run.PIPE,
        stdout=run.DEVNULL,
        stderr=run.DEVNULL,
        detached=True,
    )
    try:
        yield
    finally:
        try:
            wake(paths, name)
        finally:
            if guard.stdin is not None:
                guard.stdin.close()
            guard.wait()


def guard(paths: Paths, name: str, token: str) -> None:
    """Wait for the end of whoever let a guest sleep, by its end of a pipe, and wake the guest if nobody has."""
    while sys.stdin.buffer.read(1):
        pass
    if _token(_mark(paths, name)) == token:
        wake(paths, name)


def wake(paths: Paths, name: str) -> None:
    """Start a guest that was stopped for a while, if it is still this host's; nothing is done for another."""
    from vstools.config import registry
    from vstools.lifecycle import control, ownership

    mark = _mark(paths, name)
    if (token := _token(mark)) is None:
        return
    owner = ownership.of(paths, name) if registry.exists(paths, name) else None
    if registry.exists(paths, name) and (owner is None or owner.host == host_name()):
        control.start(paths, name)
    if _token(mark) == token:
        mark.unlink(missing_ok=True)


def settled(paths: Paths, name: str) -> None:
    """Note that a guest's being stopped is no more for a while."""
    _mark(paths, name).unlink(missing_ok=True)


def receive(paths: Paths, name: str, words: Sequence[str]) -> int:
    """Take rsync's files into what was staged for a guest, and nowhere else.

    ``--asked`` and a word: what another host asked for, where its key allows this command alone (SSH_ORIGINAL_COMMAND).
    """
    check_name(name, imported=True)
    tree = paths.trees / f"{STAGED}{name}"
    if not tree.is_dir() or tree.is_symlink():
        raise Refused(f"nothing is staged for guest {name}")
    if words[:1] == ["--asked"]:
        try:
            words = shlex.split(" ".join(words[1:]))[1:]
        except ValueError as error:
            raise Refused(f"what is asked for cannot be read: {error}") from None
    return rsync.serve(words, sender=False, folder=tree)

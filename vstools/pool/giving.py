"""vs-slave send and receive: a host's end of rsync, for one guest and nothing else."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vstools import files, lxc
from vstools.errors import Refused
from vstools.faults import checkpoint
from vstools.guest import check_name
from vstools.paths import STAGED, Paths, host_name
from vstools.pool import rsync

MODES = ("hot", "cool")


def send(paths: Paths, name: str, mode: str, words: Sequence[str]) -> int:
    """Give a guest's tree to the master's rsync.

    ``hot``: from a snapshot, running or not. ``cool``: from a snapshot of the stopped guest, which runs again as soon
    as that is there.
    """
    check_name(name, imported=True)
    with _tree(paths, name, mode) as tree:
        if not any(tree.iterdir()):
            raise Refused(f"the tree of guest {name} is empty", "is what belongs there mounted?")
        return rsync.serve(words, sender=True, folder=tree)


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
        stack.callback(wake, paths, name)
        files.directory(paths.run, 0o711)
        files.write(_asleep(paths, name), "", 0o600)
        checkpoint("cool:marked")
        control.stop(paths, name)
        checkpoint("cool:stopped")
        tree = stack.enter_context(snapshot.of_guest(paths, name))
        checkpoint("cool:snapshot")
        if choose.of_guest(paths, name).snapshots:
            wake(paths, name)
        yield tree


def _asleep(paths: Paths, name: str) -> Path:
    return files.directory(paths.run / "asleep", 0o700) / name


def wake(paths: Paths, name: str) -> None:
    """Start a guest that was stopped for a while, if it is still this host's; nothing is done for another."""
    from vstools.config import registry
    from vstools.lifecycle import control, ownership

    mark = _asleep(paths, name)
    if not mark.exists():
        return
    owner = ownership.of(paths, name) if registry.exists(paths, name) else None
    if registry.exists(paths, name) and (owner is None or owner.host == host_name()):
        control.start(paths, name)
    mark.unlink(missing_ok=True)


def sleep(paths: Paths, name: str) -> None:
    """Note that a guest was running and is stopped for a while: whoever comes next starts it again."""
    files.write(_asleep(paths, name), "", 0o600)


def settled(paths: Paths, name: str) -> None:
    """Note that a guest's being stopped is no more for a while."""
    _asleep(paths, name).unlink(missing_ok=True)


def receive(paths: Paths, name: str, words: Sequence[str]) -> int:
    """Take rsync's files into what was staged for a guest, and nowhere else.

    ``--asked`` and a word: what another host asked for, where its key allows this command alone (SSH_ORIGINAL_COMMAND).
    """
    check_name(name, imported=True)
    tree = paths.trees / f"{STAGED}{name}"
    if not tree.is_dir() or tree.is_symlink():
        raise Refused(f"nothing is staged for guest {name}")
    if words[:1] == ["--asked"]:
        words = shlex.split(" ".join(words[1:]))[1:]
    return rsync.serve(words, sender=False, folder=tree)

"""vs-slave send and receive: a host's end of rsync, for one guest and nothing else."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vstools import files, lxc
from vstools.errors import Refused
from vstools.faults import checkpoint
from vstools.guest import check_name
from vstools.paths import STAGED, Paths
from vstools.pool import rsync

MODES = ("live", "hot", "cool", "held")


def send(paths: Paths, name: str, mode: str, words: Sequence[str]) -> int:
    """Give a guest's tree to the master's rsync.

    ``live``: as it is, while it changes; a pass before another one. ``hot``: from a snapshot, running or not. ``cool``: from
    a snapshot of the stopped guest, which runs again as soon as that is there. ``held``: stopped, and held by the session.
    """
    check_name(name, imported=True)
    with _tree(paths, name, mode) as tree:
        return rsync.serve(words, sender=True, folder=tree)


@contextmanager
def _tree(paths: Paths, name: str, mode: str) -> Iterator[Path]:
    from vstools.lifecycle import snapshot, trees

    with ExitStack() as stack:
        if mode == "cool":
            yield stack.enter_context(_cool(paths, name))
        elif mode == "hot":
            yield stack.enter_context(snapshot.of_guest(paths, name))
        elif mode in ("live", "held"):
            if mode == "held" and lxc.is_running(paths, name):
                raise Refused(f"guest {name} is running")
            yield trees.opened(paths, name)
        else:
            raise Refused(f"{mode!r} is no way to give a guest", ", ".join(MODES))


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
        else:
            yield tree


def _asleep(paths: Paths, name: str) -> Path:
    return files.directory(paths.run / "asleep", 0o700) / name


def wake(paths: Paths, name: str) -> None:
    """Start a guest that was stopped for a copy; nothing is done for another."""
    from vstools.lifecycle import control

    mark = _asleep(paths, name)
    if mark.exists():
        control.start(paths, name)
        mark.unlink(missing_ok=True)


def sleep(paths: Paths, name: str) -> None:
    """Note that a guest was running and is stopped for a while: whoever comes next starts it again."""
    files.write(_asleep(paths, name), "", 0o600)


def settled(paths: Paths, name: str) -> None:
    """Note that a guest's being stopped is no more for a while."""
    _asleep(paths, name).unlink(missing_ok=True)


def receive(paths: Paths, name: str, words: Sequence[str], forced: str | None) -> int:
    """Take rsync's files into what was staged for a guest, and nowhere else.

    ``forced``: what another host asked for, where its key allows this command alone (SSH_ORIGINAL_COMMAND).
    """
    check_name(name, imported=True)
    tree = paths.trees / f"{STAGED}{name}"
    if not tree.is_dir() or tree.is_symlink():
        raise Refused(f"nothing is staged for guest {name}")
    if forced is not None:
        words = shlex.split(forced)[1:]
    return rsync.serve(words, sender=False, folder=tree)

"""Files of the host: written whole or not at all, and locks that die with their process."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vstools.errors import Busy, Refused

LOCK_PATIENCE, _REMOVE_DEADLINE = 120.0, 3600.0
_held: set[tuple[int, Path]] = set()
"""The locks that a process holds, by its pid: one that is forked from it holds none of them."""


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace ``path`` by ``text`` durably: a reader, or a power cut, finds the old text or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}~")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as handle:  # noqa: PTH123 - a descriptor
            os.fchmod(descriptor, mode)
            handle.write(text)
            handle.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def directory(path: Path, mode: int = 0o755) -> Path:
    """Make sure that ``path`` is a directory of root's with exactly this mode; returns it."""
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
    state = path.stat()
    if state.st_mode & 0o7777 != mode:
        path.chmod(mode)
    if (state.st_uid, state.st_gid) != (0, 0):
        os.chown(path, 0, 0)
    return path


@contextmanager
def lock(path: Path, *, what: str, patience: float = LOCK_PATIENCE, reentrant: bool = False) -> Iterator[None]:
    """Hold the lock ``path``, waiting up to ``patience`` seconds for another holder (0: not at all).

    ``what`` names the thing in the error. Raises Busy when the lock stays taken. A process that holds a ``reentrant``
    lock already may take it again.
    """
    mine = (os.getpid(), path)
    if reentrant and mine in _held:
        yield
        return
    directory(path.parent, 0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _take(descriptor, what, time.monotonic() + patience)
        _held.add(mine)
        yield
    finally:
        _held.discard(mine)
        os.close(descriptor)


def _take(descriptor: int, what: str, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise Busy(f"{what} is in use by another command", "wait for it to end, then try again") from None
            time.sleep(0.05)
        else:
            return


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock ``path``."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def wait_until(condition: Callable[[], bool], *, patience: float, pause: float = 0.01) -> bool:
    """Wait until ``condition()`` is true; false when ``patience`` seconds went by without it."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
    return True


@contextmanager
def scratch(parent: Path, prefix: str) -> Iterator[Path]:
    """A directory of root's for the time of a block; what killed processes left of such is removed before."""
    import tempfile

    with _swept(directory(parent, 0o711), prefix):
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        remove_tree(folder)
        os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Remove a directory with all below it, also where that is deeper than Python can go: others may have made it."""
    import shutil

    try:
        shutil.rmtree(path)
    except (OSError, RecursionError):
        from vstools import run

        run.run(["rm", "-rf", "--one-file-system", "--", str(path)], timeout=_REMOVE_DEADLINE)


def sweep_scratch(parent: Path, prefix: str) -> None:
    """Remove the directories of ``scratch`` whose process is dead: nobody holds their lock."""
    if any(parent.glob(f"{prefix}*")):
        with _swept(parent, prefix):
            pass


@contextmanager
def _swept(parent: Path, prefix: str) -> Iterator[None]:
    """Nobody else makes or removes scratch directories for the time of a block, and those of the dead are gone."""
    with _locked(parent, fcntl.LOCK_EX):
        for folder in parent.glob(f"{prefix}*"):
            with suppress(BlockingIOError), _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
                remove_tree(folder)
        yield


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def read_bounded(path: Path, limit: int) -> str:
    """Read a small text file; raises Refused when it has more than ``limit`` bytes."""
    with path.open("rb") as handle:
        content = handle.read(limit + 1)
    if len(content) > limit:
        raise Refused(f"{path} has more than {limit} bytes", "it is not the file that belongs there")
    return content.decode("utf-8", "replace")

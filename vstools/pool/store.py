"""The store: the copies of guests that a master keeps, ``STORE`` of create.conf, root's and closed to all others.

    NAME/20261122T031500Z/{config/,tree/,manifest,about.json}   a generation, named by its time; ``held``: it stays,
                                                                ``verified``, ``drilled``: what was found out, and when
    NAME/.partial/                                              the next one, while it comes
    NAME/.rest-N/                                               what came of it before a kill, or before an error
    NAME/.old-...                                               what is being removed
    NAME/.lock                                                  held by whoever adds or removes

Times are UTC. A generation has its name when all of it is on the disk, and loses it before the first file of it goes.
So a generation is whole, whatever is killed, and wherever; the next command goes on or removes what is hidden.

It goes on beside, in an empty ``.partial``, with hard links to what came before. Not in it: its files are hard links to
those of the generation before, and where a file has another mode or owner since, rsync would change both.
"""

import errno
import functools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from vstools import files, run
from vstools.config import create
from vstools.config.backup import Keep
from vstools.config.text import Faults
from vstools.errors import Refused, VsError
from vstools.faults import checkpoint
from vstools.guest import check_name
from vstools.libc import sync_filesystem
from vstools.paths import DOOMED, Paths
from vstools.pool import manifest, retention

_FORMAT = "%Y%m%dT%H%M%SZ"
_PARTIAL = ".partial"
_REST = ".rest-"
_RESTS = 8  # rsync takes 20 directories to link to
_LOCK = ".lock"
_HELD = "held"
_GOOD = ("whole", "up")
"""What a verification and a drill find where all is well."""
_NOTE = 4096
NOTHING = create.Reserve(0)
_DELETE_DEADLINE = 6 * 3600.0


class Full(VsError):
    """The store has no room left but its reserve."""


@dataclass(frozen=True)
class Generation:
    """One copy of a guest."""

    guest: str
    time: datetime
    path: Path

    @property
    def name(self) -> str:
        """The time as it is written, ``YYYYMMDDTHHMMSSZ``."""
        return self.path.name

    @property
    def config(self) -> Path:
        return self.path / "config"

    @property
    def tree(self) -> Path:
        return self.path / "tree"

    @property
    def is_held(self) -> bool:
        """Whether retention leaves it alone."""
        return (self.path / _HELD).exists()


@dataclass(frozen=True)
class Note:
    """What was found out about a generation, in a file of its own: ``TIME RESULT``. Of the results one is good."""

    time: str
    result: str

    @property
    def good(self) -> bool:
        return self.result in _GOOD

    @property
    def word(self) -> str:
        """The time, or what is wrong."""
        return self.time if self.good else self.result


def noted(generation: Generation, what: str) -> Note | None:
    """What ``verified`` or ``drilled`` says of a generation; None where nobody has looked."""
    try:
        time, _, result = files.read_bounded(generation.path / what, _NOTE).strip().partition(" ")
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Note(time, result)


def note(generation: Generation, what: str, result: str) -> None:
    """Write durably beside a generation what was found out about it now; nothing is done where it is gone by then."""
    with suppress(FileNotFoundError):
        files.write(generation.path / what, f"{datetime.now(UTC):{_FORMAT}} {result}\n", 0o600)


@dataclass(frozen=True)
class Partial:
    """The next generation of a guest, while it comes: ``path``, empty, is filled, then it is given its time."""

    path: Path
    newest: Generation | None
    """The generation before: a file that both have is not read again for the manifest."""
    links: tuple[Path, ...]
    """Trees whose files may be hard-linked (rsync's --link-dest): that of ``newest``, and what came before a kill."""
    _settle: Callable[[datetime], Generation]
    check: Callable[[], None] = lambda: None
    """Is called while it is filled: raises Full where the store's reserve is reached."""

    def commit(self, time: datetime) -> Generation:
        """Bring all of it to the disk and make it the newest generation; ``time`` is when the tree was as it is.

        Its manifest is there already. Raises VsError where a generation is not older than that.
        """
        return self._settle(time)


def of(paths: Paths) -> "Store":
    """The store of this host, where create.conf says it is; raises BadFiles."""
    faults = Faults()
    conf = create.load(paths.conf / "create.conf", faults)
    faults.check()
    return Store(Path(conf.store) if conf.store else paths.store, conf.store_reserve)


class Store:
    """The copies below one directory. ``reserve``: what stays free of its file system, of space and of inodes."""

    def __init__(self, root: Path, reserve: create.Reserve = NOTHING) -> None:
        self.root, self.reserve = root, reserve

    def names(self) -> tuple[str, ...]:
        """The guests that have a generation."""
        return tuple(name for name in _listed(self.root) if _is_name(name) and self.generations(name))

    def generations(self, name: str) -> tuple[Generation, ...]:
        """All that a guest has, oldest first."""
        folder = self._folder(name)
        found = ((entry, _time(entry)) for entry in _listed(folder))
        return tuple(Generation(name, time, folder / entry) for entry, time in found if time is not None)

    def newest(self, name: str) -> Generation | None:
        """The last one."""
        found = self.generations(name)
        return found[-1] if found else None

    def generation(self, name: str, text: str | None) -> Generation:
        """The one of that time (the beginning of it, where no other begins so), or the newest. Raises Refused."""
        every = self.generations(name)
        if not every:
            raise Refused(f"there is no copy of {name} in {self.root}", "vs-get makes one")
        if text is None:
            return every[-1]
        found = [each for each in every if text and each.name.startswith(text)]
        if len(found) == 1:
            return found[0]
        candidates = ", ".join(each.name for each in (found or every)[-8:])
        what = "is the beginning of several copies" if found else "is no copy"
        raise Refused(f"{text!r} {what} of {name}", f"there are {candidates}")

    @contextmanager
    def partial(self, name: str) -> Iterator[Partial]:
        """The directory in which the next generation is made; what is in it stays on an error or a kill for the next.

        Only one command at a time has it: others wait, and raise Busy. Where the reserve is reached (Full), what
        came is removed: a guest without an end must not keep others from being copied.
        """
        with self._alone(name) as folder:
            try:
                self._check(name)  # before anything is made: on a disk that is full to its end nothing can be
                with self._said(name):
                    yield from self._partial(name, folder)
            except Full:
                self._forget(folder)
                raise

    def _partial(self, name: str, folder: Path) -> Iterator[Partial]:
        came = [rest / "tree" for rest in self._set_aside(folder) if (rest / "tree").is_dir()]
        path = files.directory(folder / _PARTIAL, 0o700)
        checkpoint("store:partial")
        newest = self.newest(name)
        links = (newest.tree, *came) if newest else tuple(came)
        with _opened(path) as descriptor:  # a sync tells what failed since it was opened
            settle = functools.partial(self._settle, name, path, descriptor)
            try:
                yield Partial(path, newest, links, settle, functools.partial(self._check, name))
            except Refused:
                with suppress(OSError):  # where nothing came yet, nothing is left
                    path.rmdir()
                raise

    @contextmanager
    def _said(self, name: str) -> Iterator[None]:
        """Whatever fails because the disk is full, in one sentence; Full where that is the reserve."""
        try:
            yield
        except (VsError, OSError) as error:
            if not isinstance(error, Full):
                self._check(name)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                free = shutil.disk_usage(self.root).free >> 20
                raise VsError(
                    f"{self.root} is full ({free} MiB free): the copy of {name} is not whole",
                    "make room and try again: it goes on where it is",
                ) from error
            raise

    def _check(self, name: str) -> None:
        """Raise Full where less than the reserve is left."""
        state = os.statvfs(self.root)
        size, free = state.f_blocks * state.f_frsize, state.f_bavail * state.f_frsize
        kept = self.reserve.of(size)
        if free < kept or state.f_favail * size < state.f_files * kept:
            raise Full(
                f"{self.root} is full but for its reserve ({free >> 20} of {size >> 20} MiB free, {state.f_favail} "
                f"inodes): the copy of {name} ended, and what came of it was removed",
                "keep fewer copies (backup.conf), make room, or change STORE_RESERVE in create.conf",
            )

    def _set_aside(self, folder: Path) -> list[Path]:
        """Give what came before another name; returns all that came before, the latest first."""
        rests = [entry for entry in _listed(folder) if entry.startswith(_REST)]
        if (folder / _PARTIAL).exists():
            last = int(rests[-1].removeprefix(_REST)) if rests else 0
            rests.append(f"{_REST}{last + 1:09}")
            (folder / _PARTIAL).rename(folder / rests[-1])
            checkpoint("store:aside")
        for entry in rests[:-_RESTS]:
            self._doom(folder, entry)
        return [folder / entry for entry in reversed(rests[-_RESTS:])]

    def _settle(self, name: str, path: Path, descriptor: int, time: datetime) -> Generation:
        moment = time.astimezone(UTC).replace(microsecond=0)
        newest = self.newest(name)
        if newest is not None and moment <= newest.time:
            raise VsError(
                f"the copy {newest.name} of {name} is not older than this one of {moment:{_FORMAT}}",
                "look at the master's clock; remove that copy if it was wrong then",
            )
        if not (path / manifest.FILE).is_file():
            raise VsError(f"the copy of {name} in {path} has no manifest")
        target = self._folder(name) / f"{moment:{_FORMAT}}"
        checkpoint("store:filled")
        sync_filesystem(descriptor)
        checkpoint("store:synced")
        path.rename(target)
        checkpoint("store:renamed")
        files.sync_directory(target.parent)
        files.sync_directory(self.root)
        self._forget(target.parent)
        return Generation(name, moment, target)

    def forget(self, name: str) -> bool:
        """Remove what came of a generation that is not wanted any more; whether there was anything."""
        if not any(entry == _PARTIAL or entry.startswith(_REST) for entry in _listed(self._folder(name))):
            return False
        with self._alone(name) as folder:
            self._forget(folder)
        return True

    def _forget(self, folder: Path) -> None:
        for entry in _listed(folder):
            if entry == _PARTIAL or entry.startswith(_REST):
                self._doom(folder, entry)

    def remove(self, name: str, generation: Generation) -> None:
        """Remove a generation, held or not."""
        with self._alone(name) as folder:
            self._doom(folder, generation.name)

    def prune(self, name: str, keep: Keep) -> tuple[Generation, ...]:
        """Remove what retention says; returns what went."""
        with self._alone(name) as folder:
            every = self.generations(name)
            doomed = retention.going(
                (each.time for each in every), keep, tuple(each.time for each in every if each.is_held)
            )
            gone = []
            for each in every:
                if each.time in doomed and not each.is_held:  # it may be held since
                    self._doom(folder, each.name)
                    gone.append(each)
            return tuple(gone)

    def hold(self, generation: Generation) -> None:
        """Keep retention from a generation, durably; raises Refused where it goes or is gone.

        No lock is waited for, which a copy that comes holds for hours: what is being removed has lost its name before.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with _opened(generation.path) as folder:
                os.close(os.open(_HELD, flags, 0o600, dir_fd=folder))
                os.fsync(folder)
                checkpoint("store:held")
                is_there = os.path.samestat(os.fstat(folder), generation.path.stat())
        except FileNotFoundError:
            is_there = False
        if not is_there:
            raise Refused(f"the copy {generation.name} of {generation.guest} is gone")

    def unhold(self, generation: Generation) -> None:
        """Leave a generation to retention again."""
        (generation.path / _HELD).unlink(missing_ok=True)
        files.sync_directory(generation.path)

    def sweep(self) -> None:
        """Remove what killed commands were removing. Copies that come stay; a guest that is worked on is left alone."""
        for name in _listed(self.root):
            if _is_name(name) and any(entry.startswith(DOOMED) for entry in _listed(self._folder(name))):
                try:
                    with self._alone(name, patience=0):
                        pass
                except Refused:
                    continue

    def _folder(self, name: str) -> Path:
        return self.root / check_name(name, imported=True)

    @contextmanager
    def _alone(self, name: str, patience: float = files.LOCK_PATIENCE) -> Iterator[Path]:
        """A guest's directory, locked, and cleared of what killed commands were removing."""
        files.directory(self.root, 0o700)
        folder = self._folder(name)
        lock = files.lock(folder / _LOCK, what=f"the store of {name}", patience=patience, reentrant=True)
        with lock:  # it makes the directory
            for entry in _listed(folder):
                if entry.startswith(DOOMED):
                    _delete(folder / entry)
            yield folder

    def _doom(self, folder: Path, entry: str) -> None:
        """Take an entry's name away, then delete it, where it is there."""
        doomed = folder / f"{DOOMED}{entry}"
        checkpoint("store:remove")
        try:
            (folder / entry).rename(doomed)
        except FileNotFoundError:
            return
        checkpoint("store:doomed")
        files.sync_directory(folder)
        _delete(doomed)
        checkpoint("store:removed")


def _delete(path: Path) -> None:
    run.run(["rm", "-rf", "--one-file-system", "--", str(path)], timeout=_DELETE_DEADLINE)


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_name(entry: str) -> bool:
    try:
        check_name(entry, imported=True)
    except Refused:
        return False
    return True


def _time(entry: str) -> datetime | None:
    """The time of a generation by its name; None for anything else."""
    try:
        time = datetime.strptime(entry, _FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None
    return time if f"{time:{_FORMAT}}" == entry else None


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)

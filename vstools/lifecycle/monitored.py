"""monitor.conf of each guest, read again when it was changed; one with faults leaves the last good one in force."""

import os
from dataclasses import dataclass
from pathlib import Path

from vstools import files, log
from vstools.config import monitor
from vstools.config.monitor import MonitorConf
from vstools.config.text import LIMIT, Faults
from vstools.errors import BadFiles, VsError
from vstools.files import read_bounded
from vstools.paths import Paths

_Signature = tuple[int, int, int, int] | None


@dataclass(frozen=True)
class Watching:
    """How a guest is watched: the file, what is in force, and the faults of the file as it is now."""

    path: Path
    conf: MonitorConf
    faults: tuple[str, ...] = ()


class Configurations:
    """The files of all guests. One that is as it was (inode, size, times) is not read again."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._good = paths.monitor / "good"  # the last good files: they outlive this process
        self._read: dict[str, tuple[Path, _Signature, Watching]] = {}
        self._unkept: set[str] = set()  # guests whose last good file could not be kept: a full disk

    def of(self, name: str) -> Watching:
        """How a guest is watched now: by its own file, else by the host's."""
        path = self._paths.config_of(name) / monitor.FILE
        signature = _signature(path)
        if signature is None:
            path = self._paths.conf / monitor.FILE
            signature = _signature(path)
        before = self._read.get(name)
        if before is not None and before[:2] == (path, signature) and name not in self._unkept:
            return before[2]
        found = self._load(name, path)
        self._read[name] = (path, signature, found)
        return found

    def last(self, name: str) -> Watching:
        """How a guest was watched last, also one that is gone: its last mail goes to whom the others went."""
        before = self._read.get(name)
        path = self._paths.config_of(name) / monitor.FILE
        return Watching(path, _last(self._good / name)) if before is None else before[2]

    def forget(self, name: str) -> None:
        """The guest is gone."""
        self._read.pop(name, None)
        self._unkept.discard(name)
        (self._good / name).unlink(missing_ok=True)

    def _load(self, name: str, path: Path) -> Watching:
        kept = self._good / name
        faults = Faults()
        try:
            conf = monitor.load(path, faults)
            faults.check()
            text = read_bounded(path, LIMIT) if path.exists() else ""
        except (VsError, OSError) as error:
            told = error.faults if isinstance(error, BadFiles) else (f"{path}:1:1: {error}",)
            return Watching(path, _last(kept), told)
        self._keep(name, text)
        return Watching(path, conf)

    def _keep(self, name: str, text: str) -> None:
        """Keep a good file. Where that fails the guest is watched all the same, and it is tried again each time."""
        kept = self._good / name
        try:
            if not kept.exists() or read_bounded(kept, LIMIT) != text:
                files.write(files.directory(self._good, 0o700) / name, text, 0o600)
        except (VsError, OSError) as error:
            if name not in self._unkept:
                log.warn(f"the last good monitor.conf of {name} could not be kept in {kept}: {error}")
            self._unkept.add(name)
        else:
            self._unkept.discard(name)


def _signature(path: Path) -> _Signature:
    try:
        state = os.stat(path)  # noqa: PTH116 - asked for every guest
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _last(kept: Path) -> MonitorConf:
    """The last good file; the values of 2008 where there never was one."""
    try:
        return monitor.load(kept, Faults())
    except (VsError, OSError):
        return MonitorConf()

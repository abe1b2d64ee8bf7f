"""Templates that were unpacked once and are kept as trees, where the storage can clone: a guest is a clone of one.

A kept tree is named by its archive's content (SHA-256). Which content an archive has is remembered with its inode, size
and times, so that it is read once. A kept tree is used only as long as the storage says that nothing was changed
in it since it was made. All of it can be deleted at any moment: then archives are unpacked again.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from vstools import files, log
from vstools.errors import VsError
from vstools.faults import checkpoint
from vstools.paths import STAGED, Paths
from vstools.storage.protocol import Storage

_FOLDER = ".templates"
_ARCHIVES = "archives.json"
_RECORD = ".json"
_MOST = 8
_UNUSED = 60 * 86400.0
"""Seconds after which a kept tree goes that no guest was made from."""
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Kept:
    """The record of a kept tree: what its storage said when it was made, and what was left out of the archive."""

    seal: str
    devices: int


class Cache:
    """The kept trees of one installation."""

    def __init__(self, paths: Paths, storage: Storage) -> None:
        self._folder = paths.trees / _FOLDER
        self._locks = paths.locks
        self._storage = storage

    @contextmanager
    def _locked(self) -> Iterator[None]:
        files.directory(self._folder, 0o700)
        with files.lock(self._locks / "_templates", what="the kept templates"):
            yield

    def content(self, archive: Path) -> str:
        """The SHA-256 of an archive, from memory where the file is the same as then."""
        before = _state(archive)
        known = self._archives()
        if known.get(str(archive), [])[:-1] == before:
            return str(known[str(archive)][-1])
        digest = hashlib.sha256()
        with archive.open("rb") as handle:
            while block := handle.read(_CHUNK):
                digest.update(block)
        if _state(archive) != before:
            raise VsError(f"{archive} was changed while it was read", "try again")
        with self._locked():
            kept = {path: value for path, value in self._archives().items() if os.path.lexists(path)}
            text = json.dumps({**kept, str(archive): [*before, digest.hexdigest()]}, indent=1)
            files.write(self._folder / _ARCHIVES, text + "\n", 0o600)
        return digest.hexdigest()

    def _archives(self) -> dict[str, list[object]]:
        found = _read(self._folder / _ARCHIVES)
        return {path: value for path, value in found.items() if isinstance(value, list) and value}

    def clone(self, content: str, tree: Path) -> Kept | None:
        """Make ``tree`` a clone of the tree kept for a content; None where there is none that can be trusted."""
        with self._locked():
            kept, source = self._kept(content), self._folder / content
            if kept is None:
                return None
            if kept.seal != self._storage.seal(source):
                log.warn(f"{source} was changed since it was made from its template: it is made anew")
                self._drop(content)
                return None
            os.utime(source.with_name(content + _RECORD))
            self._storage.clone(source, tree)
            return kept

    def _kept(self, content: str) -> Kept | None:
        found = _read(self._folder / (content + _RECORD))
        seal, devices = found.get("seal"), found.get("devices")
        return Kept(seal, devices) if isinstance(seal, str) and seal and isinstance(devices, int) else None

    def keep(self, content: str, tree: Path, devices: int) -> None:
        """Keep a copy of a tree as it came out of an archive. What goes wrong is said, and harms nobody."""
        try:
            with self._locked():
                self._prune()
                if self._kept(content) is not None:
                    return
                staged = self._folder / f"{STAGED}{content}"
                self._storage.clone(tree, staged, sealed=True)
                checkpoint("create:cloned")
                staged.rename(self._folder / content)
                kept = Kept(self._storage.seal(self._folder / content), devices)
                files.write(self._folder / (content + _RECORD), json.dumps(asdict(kept)) + "\n", 0o600)
                checkpoint("create:kept")
        except (VsError, OSError) as error:
            log.warn(f"the unpacked template is not kept for the next guest: {error}")

    def _prune(self) -> None:
        """Drop what nobody used for long, what is more than enough, and what a killed command left."""
        names = set(os.listdir(self._folder)) - {_ARCHIVES}
        trees = {name.removesuffix(_RECORD) for name in names}
        times = {name: self._used(name) for name in trees}
        newest = sorted(times, key=lambda name: times[name], reverse=True)
        for position, name in enumerate(newest):
            if position >= _MOST - 1 or times[name] < time.time() - _UNUSED or not (self._folder / name).is_dir():
                self._drop(name)

    def _used(self, name: str) -> float:
        """When a kept tree was last used; never, for one that is not whole."""
        with suppress(FileNotFoundError):
            if self._kept(name) is not None:
                return (self._folder / (name + _RECORD)).stat().st_mtime
        return 0.0

    def _drop(self, name: str) -> None:
        (self._folder / (name + _RECORD)).unlink(missing_ok=True)
        self._storage.clear(f"{_FOLDER}/{name}")


def _state(archive: Path) -> list[object]:
    """What changes when a file changes; nobody but the kernel sets the last one."""
    state = archive.stat()
    return [state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns]


def _read(path: Path) -> dict[str, list[object]] | dict[str, object]:
    """A JSON object of ours; empty where there is none, or a broken one."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

"""What a move or a restore has done so far, on the master: a file a guest, on the disk before the next step.

A line is a JSON object: the first says what is to be done, each further one which step is behind. Only one command at
a time has it.
"""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vstools import files, log
from vstools.errors import VsError
from vstools.faults import checkpoint
from vstools.paths import Paths

_LIMIT = 1 << 20
Kind = Literal["move", "restore"]


@dataclass
class Journal:
    """One undertaking's file. ``facts`` is its first line; ``steps`` are the names of those behind, in their order."""

    path: Path
    facts: dict[str, Any]
    steps: list[str] = field(default_factory=list)

    @property
    def _kind(self) -> str:
        """``move`` or ``restore``."""
        return self.path.parent.name.removesuffix("s")

    def begin(self) -> None:
        """Write down what is to be done."""
        files.write(self.path, json.dumps(self.facts) + "\n", 0o600)
        checkpoint(f"{self._kind}:begun")

    def step(self, name: str) -> None:
        """Write down that a step is behind. What is true is asked of the hosts: a full disk stops nothing half way."""
        if name in self.steps:
            return
        try:
            self._append(json.dumps({"step": name}).encode() + b"\n")
        except OSError as error:
            log.warn(f"{self.path} does not say that this is behind: {name} ({error.strerror})")
        self.steps.append(name)
        checkpoint(f"{self._kind}:{name}")

    def _append(self, line: bytes) -> None:
        """Add a line durably, in the place of one that a power cut tore off; none or all of it. Raises OSError."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            whole = os.pread(descriptor, _LIMIT, 0).rfind(b"\n") + 1
            os.ftruncate(descriptor, whole)
            if os.write(descriptor, line) < len(line):
                os.ftruncate(descriptor, whole)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def end(self) -> None:
        """Nothing is left to be done."""
        self.path.unlink(missing_ok=True)
        files.sync_directory(self.path.parent)
        checkpoint(f"{self._kind}:ended")


def names(paths: Paths) -> tuple[str, ...]:
    """The guests with a move that was begun and not ended."""
    try:
        found = os.listdir(paths.moves)
    except FileNotFoundError:
        return ()
    return tuple(sorted(name.removesuffix(".json") for name in found if name.endswith(".json")))


@contextmanager
def opened(paths: Paths, name: str, kind: Kind = "move") -> Iterator[Journal | None]:
    """The journal of a guest's move, or None where none is begun; raises Busy while another command has it."""
    folder = files.directory(_folder(paths, kind), 0o700)
    with files.lock(folder / f".{name}.lock", what=f"the {kind} of {name}", patience=0):
        yield read(paths, name, kind)


def _folder(paths: Paths, kind: Kind) -> Path:
    return paths.moves if kind == "move" else paths.restores


def path_of(paths: Paths, name: str, kind: Kind = "move") -> Path:
    """Where a guest's journal is."""
    return _folder(paths, kind) / f"{name}.json"


def read(paths: Paths, name: str, kind: Kind = "move") -> Journal | None:
    """What was written so far. A last line that a power cut tore off is none: its step was not behind."""
    path = path_of(paths, name, kind)
    try:
        lines = files.read_bounded(path, _LIMIT).split("\n")[:-1]
    except FileNotFoundError:
        return None
    try:
        facts, *steps = [json.loads(line) for line in lines]
        return Journal(path, {**facts}, [str(step["step"]) for step in steps])
    except (ValueError, TypeError, KeyError) as error:
        raise VsError(f"{path} cannot be read", str(error)) from error

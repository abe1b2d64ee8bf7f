"""What a move has done so far, on the master: a file a guest, a JSON object a line, on the disk before the next step.

The first line says what is to be done, each further one which step is behind. Only one command at a time has it.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vstools import files
from vstools.errors import VsError
from vstools.faults import checkpoint
from vstools.paths import Paths

_LIMIT = 1 << 20


@dataclass
class Journal:
    """One move's file. ``facts`` is its first line; ``steps`` are the names of those behind, in their order."""

    path: Path
    facts: dict[str, Any]
    steps: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """Write down what is to be done."""
        files.write(self.path, json.dumps(self.facts) + "\n", 0o600)
        checkpoint("move:begun")

    def step(self, name: str) -> None:
        """Write down that a step is behind."""
        if name in self.steps:
            return
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.write(descriptor, json.dumps({"step": name}).encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.steps.append(name)
        checkpoint(f"move:{name}")

    def end(self) -> None:
        """Nothing is left to be done."""
        self.path.unlink(missing_ok=True)
        files.sync_directory(self.path.parent)
        checkpoint("move:ended")


def names(paths: Paths) -> tuple[str, ...]:
    """The guests with a move that was begun and not ended."""
    try:
        found = os.listdir(paths.moves)
    except FileNotFoundError:
        return ()
    return tuple(sorted(name.removesuffix(".json") for name in found if name.endswith(".json")))


@contextmanager
def opened(paths: Paths, name: str) -> Iterator[Journal | None]:
    """The journal of a guest's move, or None where none is begun; raises Busy while another command has it."""
    files.directory(paths.moves, 0o700)
    with files.lock(paths.moves / f".{name}.lock", what=f"the move of {name}", patience=0):
        yield read(paths, name)


def path_of(paths: Paths, name: str) -> Path:
    """Where a guest's journal is."""
    return paths.moves / f"{name}.json"


def read(paths: Paths, name: str) -> Journal | None:
    """What was written so far. A last line that a power cut tore off is none: its step was not behind."""
    path = path_of(paths, name)
    try:
        lines = files.read_bounded(path, _LIMIT).split("\n")[:-1]
    except FileNotFoundError:
        return None
    try:
        facts, *steps = [json.loads(line) for line in lines]
        return Journal(path, {**facts}, [str(step["step"]) for step in steps])
    except (ValueError, TypeError, KeyError) as error:
        raise VsError(f"{path} cannot be read", str(error)) from error

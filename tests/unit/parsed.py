"""What a parser of ours makes of a text: its value, or its faults."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from vstools.config.text import Faults
from vstools.errors import BadFiles

T = TypeVar("T")
Load = Callable[[Path, Faults], T]


def reader(load: Load[T]) -> Callable[[Path, str], T]:
    """Write a text to a file and read it with ``load``; raises BadFiles."""

    def read(path: Path, text: str) -> T:
        path.write_bytes(text.encode("utf-8", "replace"))
        faults = Faults()
        found = load(path, faults)
        faults.check()
        return found

    return read


def fault_lines(load: Load[T]) -> Callable[[Path, str], list[str]]:
    """The faults of a file of that text, without the path, which each of them begins with."""
    read = reader(load)

    def lines(path: Path, text: str) -> list[str]:
        with pytest.raises(BadFiles) as caught:
            read(path, text)
        assert all(line.startswith(f"{path}:") for line in caught.value.faults)
        return [line.removeprefix(f"{path}:") for line in caught.value.faults]

    return lines

"""Directories of one-value files, as util-vserver has them: reading a value, and writing only what changed."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from vstools.config.text import LIMIT, Faults
from vstools.errors import VsError
from vstools.files import directory, read_bounded, write

T = TypeVar("T")


def update(folder: Path, relative: str, old: object, new: object, text: str | None) -> None:
    """Write ``text`` (None: remove the file) when the value changed; the same value may be written in many ways."""
    path = folder / relative
    if old == new:
        return
    if text is None:
        path.unlink(missing_ok=True)
    else:
        directory(path.parent, 0o755)
        write(path, f"{text}\n" if text else "")


class Reader:
    """Reads one-value files of one directory."""

    def __init__(self, folder: Path, faults: Faults) -> None:
        self.folder, self.faults = folder, faults

    def get(self, relative: str, parse: Callable[[str], T]) -> T | None:
        """The parsed value, or None where there is no file (or it is wrong: then a fault was added)."""
        path = self.folder / relative
        try:
            text = read_bounded(path, LIMIT).strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self.faults.add(path, 1, 1, f"the file cannot be read: {error.strerror}")
            return None
        except VsError as error:
            self.faults.add(path, 1, 1, error.message)
            return None
        return self.faults.attempt(path, 1, 1, parse, text)

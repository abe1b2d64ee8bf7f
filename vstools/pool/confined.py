"""Become a program that can write into one directory alone: what receives files from a host that may lie.

``python -m vstools.pool.confined FOLDER HERE PROGRAM ARGS...``: HERE is FOLDER or below it, where the program begins.
rsync checks what a sender tells it, and has been wrong before (CVE-2024-12087, 12088): here a file outside the
directory is on a read-only mount, whatever rsync believes.
"""

import os
import sys
from pathlib import Path

from vstools import libc, run


def words(folder: Path, here: Path, *argv: str) -> list[str]:
    """The words that run a program so."""
    return [sys.executable, "-I", "-m", "vstools.pool.confined", str(folder), str(here), *argv]


def main() -> None:
    """Confine this process and become the program."""
    libc.confine(Path(sys.argv[1]))
    os.chdir(sys.argv[2])
    os.execvpe(sys.argv[3], sys.argv[3:], run.environment())  # noqa: S606 - in place of this process


if __name__ == "__main__":
    main()

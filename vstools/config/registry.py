"""Which guests this host has, and which start with it. Kept small: state queries need no more than this."""

import os
from pathlib import Path

from vstools.errors import Refused
from vstools.paths import Paths

MARK = "apps/init/mark"
STORAGE = "storage"
WAITING = ".confirm"
"""In a guest's directory: what its network goes back to unless a change is confirmed."""


def names(paths: Paths) -> tuple[str, ...]:
    """The guests of this host, sorted; hidden names and files do not count."""
    try:
        with os.scandir(paths.guests) as entries:
            return tuple(sorted(entry.name for entry in entries if entry.name[0] != "." and entry.is_dir()))
    except FileNotFoundError:
        return ()


def exists(paths: Paths, name: str) -> bool:
    """Whether this host has a guest of that name."""
    return name[:1] not in ("", ".") and "/" not in name and os.path.isdir(paths.config_of(name))  # noqa: PTH112 - never raises


def require(paths: Paths, name: str) -> None:
    """Raise Refused when this host has no guest of that name."""
    if not exists(paths, name):
        raise Refused(f"there is no guest {name!r} on this host", "vs-control --all lists the guests")


def context(paths: Paths, name: str) -> int | None:
    """The guest's context, of a directory with a hidden name as well; None where its file says none."""
    try:
        with open(paths.config_of(name) / "context", "rb") as handle:  # noqa: PTH123 - asked for every guest
            return int(handle.read(16))
    except (OSError, ValueError):
        return None


def storage(paths: Paths, name: str) -> str:
    """What a guest's tree has for itself, of a hidden directory as well; empty: it lies among the others."""
    try:
        with open(paths.config_of(name) / STORAGE, "rb") as handle:  # noqa: PTH123 - asked for every guest
            return handle.read(512).strip().decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""


def is_enabled(config: Path) -> bool:
    """Whether the guest starts with its host: ``apps/init/mark`` is ``default``."""
    try:
        return (config / MARK).read_bytes().strip() == b"default"
    except OSError:
        return False

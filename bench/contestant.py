"""What the create bench asks of a contestant."""

from pathlib import Path
from typing import Protocol

from bench.watch import Started


class Contestant(Protocol):
    """Somebody who makes guests of one tree. Only ``start`` and ``stop`` are timed."""

    name: str

    def start(self, guest: str) -> Started:
        """Make the guest from the tree and start it."""

    def stop(self, guest: str, pid: int) -> float:
        """Stop the guest whose init is ``pid`` in a clean way; the seconds it took."""

    def remove(self, guest: str) -> None:
        """Remove the stopped guest."""

    def facts(self) -> dict[str, str]:
        """What to say about it in the report, when all is measured."""

    def close(self) -> None:
        """Stop what it runs beside guests."""


def folder(parent: Path, name: str) -> Path:
    """A new directory that a guest's root may pass through."""
    path = parent / name
    path.mkdir()
    path.chmod(0o711)
    return path

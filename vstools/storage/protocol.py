"""What every kind of storage can be asked for: trees that are made beside and renamed, snapshots, clones, space.

A kind is chosen by what the directory of trees lies on (choose.py). Entries of that directory are named by their
hidden or final names; a tree is always a directory there, whatever is beneath it.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vstools.storage.mounts import Mount


@dataclass(frozen=True)
class Space:
    """Bytes of the file system, and of the volume group where there is one: snapshots take theirs from it."""

    size: int
    used: int
    free: int
    """For others than root."""
    group: str = ""
    group_size: int | None = None
    group_free: int | None = None


class Storage(Protocol):
    """Where the trees of one installation lie."""

    @property
    def mount(self) -> Mount:
        """What the directory of trees lies on."""

    @property
    def kind(self) -> str:
        """plain, btrfs or lvm."""

    @property
    def snapshots(self) -> bool:
        """Whether a running guest's tree can be read as it is at one moment."""

    @property
    def clones(self) -> bool:
        """Whether a tree can be copied without its files being read."""

    def stage(self, name: str) -> Path:
        """An empty directory, under a hidden name, in which the tree of ``name`` is made."""

    def settle(self, name: str) -> None:
        """Give the staged tree its name; raises VsError when something bears it."""

    def finish(self, name: str) -> None:
        """The guest of the settled tree exists."""

    def attach(self, name: str) -> None:
        """Let a guest's tree be where it belongs; raises VsError when it cannot be. Under the guest's runtime lock."""

    def identity(self, tree: Path) -> str:
        """What tells this tree from another of the same name."""

    def doom(self, name: str) -> None:
        """Take a tree's name away, so that it is gone at once; ``clear`` frees the space."""

    def clear(self, entry: str) -> None:
        """Delete a hidden directory of trees, if it is there. Nothing that is mounted in it is deleted."""

    def clone(self, source: Path, target: Path, *, sealed: bool = False) -> None:
        """Make a tree that is a copy of another; ``sealed``: nothing can be changed in it."""

    def seal(self, tree: Path) -> str:
        """What changes when a sealed tree was changed; empty when it is not sealed."""

    def snapshot(self, tree: Path) -> AbstractContextManager[Path]:
        """A tree as it is now, read-only, for the time of a block.

        Raises Refused where that is not possible, VsError when the snapshot did not last: nothing that was read counts.
        """

    def sweep(self) -> None:
        """Remove the snapshots whose owners are dead."""

    def space(self) -> Space:
        """What there is and what is left."""

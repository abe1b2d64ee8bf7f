"""A guest's tree as it is at one moment, for whoever reads it: a copy, a backup, the admin's own program."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vstools import hooks, lxc, run
from vstools.config import guests
from vstools.errors import Refused, VsError
from vstools.faults import checkpoint
from vstools.lifecycle import trees
from vstools.lifecycle.host import guest_lock, runtime_lock
from vstools.paths import Paths
from vstools.storage import choose, mounts


@contextmanager
def of_guest(paths: Paths, name: str) -> Iterator[Path]:
    """The tree of a guest, read-only and unchanging for the time of a block.

    Where the storage cannot snapshot, a stopped guest's own tree is given, and the guest cannot start meanwhile.
    Raises Refused for a running one. Whoever makes a copy counts it after the block only: a snapshot that
    overflowed raises VsError at its end.
    """
    with ExitStack() as stack:
        with guest_lock(paths, name):
            _check(paths, name)
            storage = choose.of_guest(paths, name)
            if storage.snapshots:
                with _prepared(paths, name):
                    tree = stack.enter_context(storage.snapshot(paths.tree_of(name)))
            else:
                tree = stack.enter_context(_stopped(paths, name, storage.kind))
        yield tree


@contextmanager
def seen(paths: Paths, name: str) -> Iterator[tuple[Path, bool]]:
    """A guest's tree for who only looks at it, and whether it stays as it is for the time of a block.

    It does in a snapshot. Where the storage has none, it is the tree itself: the guest runs, starts and stops as it
    likes. No hook is run. Raises as ``of_guest`` does at the end.
    """
    with ExitStack() as stack:
        with guest_lock(paths, name):
            _check(paths, name)
            storage, tree = choose.of_guest(paths, name), paths.tree_of(name)
            if storage.snapshots:
                tree = stack.enter_context(storage.snapshot(tree))
        yield tree, storage.snapshots


@contextmanager
def _prepared(paths: Paths, name: str) -> Iterator[None]:
    """Hooks around the moment of a snapshot: a database is told to hold still, and to go on whatever came of it."""
    try:
        hooks.run_all(paths, name, "pre-snapshot", must=True)
        yield
    finally:
        hooks.run_all(paths, name, "post-snapshot", must=False)


def _check(paths: Paths, name: str) -> None:
    guests.require(paths, name)
    tree = trees.opened(paths, name)
    if tree.is_symlink() or not tree.is_dir():
        raise Refused(f"guest {name} has no tree", f"{tree} is missing")
    for where in mounts.below(tree):
        raise Refused(
            f"{where} is mounted in the tree of guest {name}, a snapshot would leave it out", f"umount {where}"
        )


@contextmanager
def _stopped(paths: Paths, name: str, kind: str) -> Iterator[Path]:
    """A stopped guest's tree, held still: whoever wants to start it waits."""
    with runtime_lock(paths, name):
        if lxc.is_running(paths, name):
            raise Refused(
                f"guest {name} is running, and {paths.trees} ({kind}) cannot snapshot",
                f"vs-control --name {name} --stop; or put the trees on LVM or btrfs",
            )
        checkpoint("snapshot:held")
        yield paths.tree_of(name)


def call(paths: Paths, name: str, *argv: str) -> None:
    """Run a program in a snapshot of a guest's tree: its directory, and VS_SNAPSHOT; fails where the snapshot does."""
    with of_guest(paths, name) as tree:
        code = run.interactive([*run.TIED, *argv], folder=tree, more={"VS_SNAPSHOT": str(tree)})
    if code:
        raise VsError(f"{argv[0]} ended with status {code}")

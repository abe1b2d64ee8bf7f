"""What guests may take on the disk: a project quota or a quota group where the file system of their trees has them.

A tree that is being made is counted from its beginning, one that was put there by hand from the guest's next start.
The kernel keeps the limit over the guest's stops and the host's boots; a start puts right what differs all the same.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from vstools import log
from vstools.config import guests, registry
from vstools.errors import Refused, VsError
from vstools.faults import checkpoint
from vstools.guest import Guest, Limits
from vstools.paths import STAGED, Paths
from vstools.storage import counted, quota, use
from vstools.storage.quota import Use

if TYPE_CHECKING:
    from vstools.storage.own import Own

_MIB = 1 << 20
_FREE_SHARE, _FREE_MOST = 20, 1 << 30
"""What a copy leaves free where the trees are: a twentieth, and no more than a GiB."""


def fault(paths: Paths, name: str, limits: Limits) -> str | None:
    """Why the disk limit, if there is one, is not enforced on this host."""
    if limits.disk is None or registry.storage(paths, name):
        return None
    return counted.fault(paths.trees, paths.tree_of(name))


def mib(size: int) -> int:
    """Bytes in whole MiB, rounded up."""
    return -(-size // _MIB)


def room(paths: Paths) -> Callable[[], None]:
    """What is called while somebody else fills a tree, perhaps without an end: raises VsError before the disk is full.

    The disk is the other guests', too.
    """

    def check() -> None:
        state = os.statvfs(paths.trees)
        free, size = state.f_bavail * state.f_frsize, state.f_blocks * state.f_frsize
        if free < min(size // _FREE_SHARE, _FREE_MOST):
            raise VsError(
                f"{paths.trees} has only {free // _MIB} MiB free: the copy ended", "make room, then try again"
            )

    return check


def begin(guest: Guest, tree: Path) -> None:
    """Count what will be made in an empty tree; no old limit of this context is in its way."""
    try:
        if quota.is_on(tree):
            counted.limit(tree, guest.context, None)
            quota.begin(tree, guest.context)
    except OSError as error:
        log.warn(f"guest {guest.name}: its tree cannot be counted: {error}")
    checkpoint("create:counted")


def fit(guest: Guest, tree: Path) -> None:
    """Set the limit of a tree that has been made; raises VsError where it takes more."""
    held, size = counted.use(tree, guest.context), guest.limits.disk
    if held is None or size is None:
        return
    if held.used > size * _MIB:
        raise VsError(
            f"guest {guest.name}: its tree takes {mib(held.used)} MiB, and --disk allows {size}", "give a larger --disk"
        )
    counted.limit(tree, guest.context, size)
    checkpoint("create:limited")


def arrived(guest: Guest, tree: Path) -> None:
    """Set the limit of a tree that came from another host; one that takes more comes all the same, and that is said."""
    with _said(guest):
        if counted.is_on(tree):
            _bound(guest, tree)


@contextmanager
def starting(paths: Paths, guest: Guest) -> Iterator[None]:
    """Let a guest that does not run be counted, and limited as its files say when the host has written into its tree.

    Every file of its tree is marked where that is not done: the tree was put there by hand, or a kill came in between.
    XFS and btrfs bind the host as well, and a guest that is full has to start: so its limit is lifted meanwhile.
    """
    tree = paths.tree_of(guest.name)
    with _said(guest):
        if quota.is_on(tree):
            _count(paths, guest, tree)
        held = counted.use(tree, guest.context)
        if held is not None and held.is_full:
            counted.limit(tree, guest.context, None)
    try:
        checkpoint("start:counted")
        yield
    finally:
        with _said(guest):
            if counted.is_on(tree):
                _bound(guest, tree)


@contextmanager
def _said(guest: Guest) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        log.warn(f"guest {guest.name}: its tree cannot be counted, and its disk limit is not enforced: {error}")


def _count(paths: Paths, guest: Guest, tree: Path) -> None:
    size, before = guest.limits.disk, quota.project(tree)
    if (size is not None or before != 0) and not quota.is_marked(tree, guest.context):
        with log.change("mark each file of the tree for the disk limit", guest.name):
            left = quota.mark(tree, guest.context)
        if left:
            log.warn(f"guest {guest.name}: {left} files are not counted (immutable, or used as swap)")
        if before not in (0, guest.context):
            _drop(paths, tree, before)


def _bound(guest: Guest, tree: Path) -> None:
    size = guest.limits.disk
    counted.limit(tree, guest.context, size)
    held = counted.use(tree, guest.context)
    if held is not None and held.limit is not None and held.used > held.limit:
        words = f"its tree takes {mib(held.used)} MiB, more than disk {size}"
        log.warn(f"guest {guest.name}: {words}: it can write nothing until files go")


def _drop(paths: Paths, folder: Path, context: int, but: str = "") -> None:
    """Forget the limit of a context that no guest has."""
    if context not in guests.contexts_in_use(paths, but=but):
        counted.limit(folder, context, None)


def forget(paths: Paths, entry: str) -> None:
    """Forget the limit of a guest whose tree is gone, by its hidden directory (``entry``), which goes next."""
    context = registry.context(paths, entry)
    try:
        if context and quota.is_on(paths.trees):
            _drop(paths, paths.trees, context, but=entry.removeprefix(STAGED))
    except OSError as error:
        log.warn(f"the disk limit of {entry} could not be taken back: {error}")


def held(paths: Paths, guest: Guest) -> Use | None:
    """What a guest takes on the disk and may take, by the kernel; None where that is not counted."""
    return use.of(paths, guest.name, guest.context)


def check(guest: Guest, now: Use | None, size: int | None) -> None:
    """Raise Refused when a new limit is lower, and below what is in use."""
    if now is None or size is None:
        return
    if now.used > size * _MIB < (inf if now.limit is None else now.limit):
        words = f"disk {size}: {mib(now.used)} MiB are in use, it could write nothing until files go"
        raise Refused(f"guest {guest.name}: {words}", "--force sets it all the same")


def put(paths: Paths, guest: Guest, size: int | None) -> None:
    """Set a guest's limit in MiB (None: no limit) in the kernel; raises VsError when it is refused."""
    try:
        counted.limit(paths.tree_of(guest.name), guest.context, size)
    except OSError as error:
        raise VsError(f"the kernel refuses disk {'inf' if size is None else size}: {error.strerror}") from error


def check_volume(paths: Paths, guest: Guest, size: int | None, *, running: bool) -> None:
    """Raise Refused where a guest's own volume, which is mounted, cannot get a size in MiB."""
    if size is None:
        raise Refused(
            f"guest {guest.name} has a volume of its own, whose size is its disk limit", "give a number of MiB"
        )
    from vstools.storage import lvresize

    lvresize.check(_own(paths, guest), size, running=running)


def resize(paths: Paths, guest: Guest) -> None:
    """Give a guest's own volume the size of its limit. Under the guest's runtime lock; raises VsError."""
    from vstools.storage import lvresize

    lvresize.resize(_own(paths, guest), guest.name, guest.limits.disk or 0)


def differs(paths: Paths, guest: Guest) -> int | None:
    """The MiB of a guest's own volume, where that is not the size of its limit. Raises VsError."""
    from vstools.storage import lvplace, volumes

    own = _own(paths, guest)
    size, extent = own.required().size, volumes.group(own.volume.group).extent
    return None if size == lvplace.rounded(guest.limits.disk or 0, extent) else size // _MIB


def _own(paths: Paths, guest: Guest) -> "Own":
    from vstools.storage import choose

    own = choose.own(paths, guest.name)
    assert own is not None  # noqa: S101 - asked of those that have one
    return own

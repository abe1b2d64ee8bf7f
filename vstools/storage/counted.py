"""What a tree takes and may take, whoever counts it: project quotas (ext4, XFS), or quota groups (btrfs)."""

from pathlib import Path

from vstools.storage import quota
from vstools.storage.quota import Use

_SUBVOLUME = 256
"""The inode of each subvolume's root: nothing else is asked for its quota group."""


def is_on(folder: Path) -> bool:
    """Whether limits are enforced on the file system of a directory."""
    if quota.is_on(folder):
        return True
    from vstools.storage import qgroup

    return qgroup.is_on(folder)


def fault(trees: Path, tree: Path) -> str | None:
    """Why no limit of a tree is enforced, which need not be there yet."""
    place = tree if tree.is_dir() else trees
    if not is_on(place):
        kinds = "ext4 or XFS mounted with prjquota, btrfs after btrfs quota enable"
        return f"{trees} lies on no file system with quotas in force ({kinds})"
    if place is tree and not quota.is_on(tree) and use(tree, 0) is None:
        return f"{tree} is a directory, and btrfs limits subvolumes"
    return None


def use(tree: Path, context: int) -> Use | None:
    """What a tree takes and may take, asked of the kernel; None where nobody counts it."""
    found = quota.use(tree, context)
    try:
        if found is not None or tree.stat(follow_symlinks=False).st_ino != _SUBVOLUME:
            return found
    except OSError:
        return None
    from vstools.storage import qgroup

    return qgroup.use(tree)


def limit(tree: Path, context: int, size: int | None) -> None:
    """Set the limit of a tree in MiB (None: no limit), where it is another one. Raises OSError."""
    from vstools.storage import qgroup

    wanted = None if size is None else size << 20
    if qgroup.is_on(tree):
        held = qgroup.use(tree)
        if held is not None and held.limit != wanted:
            qgroup.put(tree, size)
    elif quota.read(tree, context).limit != wanted:
        quota.put(tree, context, size)

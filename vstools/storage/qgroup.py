"""A limit of what a subvolume of btrfs takes: its quota group, where quotas are enabled (``man 8 btrfs-qgroup``).

Blocks that it shares with others count in full, as they would in a directory. Guest root cannot change the limit, and
its ``df`` does not show it. btrfs enforces it loosely: a full guest may exceed it a little, or be refused a deletion.
Format: linux/btrfs.h (struct btrfs_ioctl_fs_info_args); /sys/fs/btrfs/UUID/qgroups.
"""

import errno
import os
from fcntl import ioctl
from pathlib import Path

from vstools import run
from vstools.storage.btrfs import subvolume
from vstools.storage.quota import Use

_SYS = "/sys/fs/btrfs"
_GET_FS = 0x8400941F  # BTRFS_IOC_FS_INFO
_FS_SIZE, _FS_UUID = 1024, slice(16, 32)
_REFERENCED = 1  # BTRFS_QGROUP_LIMIT_MAX_RFER
_NO_BTRFS = (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def _groups(folder: Path) -> Path | None:
    """Where the kernel shows the quota groups of the file system of a directory; None where it has none."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = ioctl(descriptor, _GET_FS, bytes(_FS_SIZE))
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _NO_BTRFS:
            return None
        raise
    digits = found[_FS_UUID].hex()
    name = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    groups = Path(_SYS, name, "qgroups")
    return groups if groups.is_dir() else None


def _group(tree: Path) -> Path | None:
    groups = _groups(tree)
    found = None if groups is None else subvolume(tree)
    return None if groups is None or found is None else groups / f"0_{found.number}"


def is_on(folder: Path) -> bool:
    """Whether btrfs counts subvolumes there."""
    return _groups(folder) is not None


def use(tree: Path) -> Use | None:
    """What a subvolume takes and may take; None where it is none, or nobody counts."""
    group = _group(tree)
    if group is None:
        return None
    try:
        used, most, flags = (
            int((group / name).read_text()) for name in ("referenced", "max_referenced", "limit_flags")
        )
    except FileNotFoundError:
        return None
    return Use(used, most if flags & _REFERENCED else None)


def put(tree: Path, size: int | None) -> None:
    """Set a subvolume's limit in MiB (None: no limit). Raises OSError."""
    found = subvolume(tree)
    if found is None:
        return
    words = ["none" if size is None else f"{size}M", f"0/{found.number}"]
    done = run.run(["btrfs", "qgroup", "limit", *words, str(tree.parent)], check=False)  # a full one refuses itself
    if done.code:
        raise OSError(errno.EIO, done.err.strip() or f"btrfs qgroup ended with {done.code}")

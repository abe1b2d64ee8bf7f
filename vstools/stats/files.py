"""Reading many small files of the kernel quickly. What cannot be read is empty: its guest may have ended meanwhile."""

import os
from itertools import islice
from stat import S_ISDIR

_BLOCK = 1 << 16
_MOST = 1 << 22  # bytes: no file that is read here comes near


def read(path: str) -> str:
    """The text of a file of /proc, /sys or a cgroup; empty when it cannot be read, cut off after 4 MiB."""
    parts = []
    length = 0
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return ""
    try:
        while length < _MOST and (part := os.read(descriptor, _BLOCK)):
            parts.append(part)
            length += len(part)
    except OSError:  # ENODEV: the cgroup was removed; EOPNOTSUPP: the kernel counts no pressure
        return ""
    finally:
        os.close(descriptor)
    return b"".join(parts).decode("utf-8", "surrogateescape")


def below(top: str, most: int) -> list[str]:
    """A directory of cgroups and those in it, at most ``most``: a guest may make as many as it likes."""
    found: list[str] = []
    ahead = [top]
    while ahead and len(found) < most:
        current = ahead.pop(0)
        found.append(current)
        try:
            if os.stat(current, follow_symlinks=False).st_nlink == 2:  # noqa: PTH116 - asked for every guest
                continue  # nothing is in it: a cgroup's links are counted as a directory's
            with os.scandir(current) as entries:
                room = most - len(found) - len(ahead)  # what is one level further down may be more than memory holds
                folders = (entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
                ahead += islice(folders, max(0, room))
        except OSError:
            continue
    return found


def is_directory(path: str) -> bool:
    """Whether that is a directory, and no link to one."""
    try:
        return S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False

"""The mounts that the host makes for a started guest: its own sysfs view, and a /tmp of a limited size.

And those that somebody else made in a guest's tree: what is done to the tree would be done to them.
"""

import os
import re
from pathlib import Path

from vstools import libc, run
from vstools.files import directory


def mount_sysfs(where: Path, netns: str) -> None:
    """A fresh sysfs that shows the guest's network devices: mounted from inside its network namespace."""
    directory(where, 0o755)
    if not os.path.ismount(where):
        with libc.network_namespace(Path("/run/netns", netns)):
            libc.mount("sysfs", where)


def mount_tmp(where: Path, size: int, id_base: int) -> None:
    """A tmpfs of ``size`` MiB that belongs to the guest's root, who cannot resize it. An old one is replaced."""
    unmount(where)
    where.mkdir(exist_ok=True)
    run.run(["mount", "-t", "tmpfs", "-o", _tmp_options(size, id_base), "tmpfs", str(where)])


def _tmp_options(size: int | None, id_base: int) -> str:
    """``man 5 tmpfs``: a size of 0 is none, and then only the guest's memory is the limit."""
    return f"size={size or 0}m,uid={id_base},gid={id_base},mode=1777,nosuid,nodev"


def resize_tmp(where: Path, size: int | None, id_base: int) -> None:
    """Give a mounted tmpfs another size in MiB (None: no limit). Raises VsError when it holds more than that."""
    run.run(["mount", "-o", f"remount,{_tmp_options(size, id_base)}", str(where)])


def tmp_size(where: Path) -> int | None:
    """The size in bytes of the tmpfs at ``where``: 0 is no limit; None where nothing is mounted."""
    if not os.path.ismount(where):
        return None
    state = os.statvfs(where)
    return state.f_blocks * state.f_frsize


def tmp_used(where: Path) -> int:
    """Bytes that the tmpfs at ``where`` holds, 0 where nothing is mounted."""
    if not os.path.ismount(where):
        return 0
    state = os.statvfs(where)
    return (state.f_blocks - state.f_bfree) * state.f_frsize if state.f_blocks else 0


def unmount(where: Path) -> None:
    """Unmount whatever is mounted at ``where``; lazily, so that nothing of a dying guest can hold it."""
    while os.path.ismount(where):
        libc.unmount_lazily(where)


def below(folder: Path) -> tuple[Path, ...]:
    """Where something is mounted in a directory (``man 5 proc``, mountinfo: spaces and the like are octal there)."""
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    points = [re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), line.split(b" ")[4]) for line in lines]
    return tuple(path for point in points if folder in (path := Path(os.fsdecode(point))).parents)

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
    options = f"size={size}m,uid={id_base},gid={id_base},mode=1777,nosuid,nodev"
    run.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)])


def unmount(where: Path) -> None:
    """Unmount whatever is mounted at ``where``; lazily, so that nothing of a dying guest can hold it."""
    while os.path.ismount(where):
        libc.unmount_lazily(where)


def below(folder: Path) -> tuple[Path, ...]:
    """Where something is mounted in a directory (``man 5 proc``, mountinfo: spaces and the like are octal there)."""
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    points = [re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), line.split(b" ")[4]) for line in lines]
    return tuple(path for point in points if folder in (path := Path(os.fsdecode(point))).parents)

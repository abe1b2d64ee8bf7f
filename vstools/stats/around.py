"""What a guest uses beside its cgroup: its links' traffic, its /tmp, the time since its start.

All of it is the host's: the sysfs that the host mounted for the guest's network namespace (whose links the guest's root
cannot change), the host's mount of /tmp, and LXC's monitor, a process of the host's.
"""

import os
import time
from collections.abc import Iterable
from stat import S_ISDIR

from vstools.stats.cgroups import Values
from vstools.stats.files import read
from vstools.stats.parse import number, started, total

_TICKS = os.sysconf("SC_CLK_TCK")


def traffic(sysfs: str, links: Iterable[str]) -> Values:
    """Bytes that went into and out of the guest by its links, since those were made."""
    folders = [f"{sysfs}/class/net/{link}/statistics" for link in links]

    def counted(file: str) -> int | None:
        return total(number(read(f"{folder}/{file}")) for folder in folders)

    return {"received_bytes": counted("rx_bytes"), "sent_bytes": counted("tx_bytes")}


def tmpfs(where: str) -> Values:
    """Use and size of the tmpfs that is mounted at ``where``; None of both where nothing is mounted."""
    unknown: Values = {"tmpfs_bytes": None, "tmpfs_limit_bytes": None}
    try:
        state = os.lstat(where)
        if not S_ISDIR(state.st_mode) or state.st_dev == os.lstat(os.path.dirname(where)).st_dev:  # noqa: PTH120 - cheap
            return unknown
        found = os.statvfs(where)
    except OSError:
        return unknown
    used = (found.f_blocks - found.f_bfree) * found.f_frsize
    return {"tmpfs_bytes": used, "tmpfs_limit_bytes": found.f_blocks * found.f_frsize}


def age(pid: int) -> float | None:
    """Seconds since a process was started; time that the host slept counts."""
    ticks = started(read(f"/proc/{pid}/stat"))
    return None if ticks is None else max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / _TICKS)

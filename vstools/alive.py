"""Whether a guest runs, asked of the kernel: no program is run and next to nothing imported, for it is asked often."""

import socket
import struct

from vstools.files import is_locked
from vstools.paths import Paths


def is_running(paths: Paths, name: str) -> bool:
    """Whether the guest runs, or is just restarting itself: its LXC monitor or its runner lives.

    The kernel's word, without running a program. After False nothing of LXC is left.
    """
    return has_monitor(paths, name) or _has_runner(paths, name)


def has_monitor(paths: Paths, name: str) -> bool:
    """Whether LXC's monitor of the guest accepts connections on its command socket."""
    return monitor_pid(paths, name) is not None


def monitor_pid(paths: Paths, name: str) -> int | None:
    """The pid of the guest's LXC monitor, None where none accepts connections."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(f"\0{paths.runtime_of(name)}/command")
        except OSError:  # nobody, or a monitor that is busy: its runner lives then
            return None
        pid, uid, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid) if uid == 0 else None  # anybody could listen under that name


def _has_runner(paths: Paths, name: str) -> bool:
    """Whether the guest's vs-guest-run holds its lock."""
    return is_locked(paths.runtime_of(name) / "runner")

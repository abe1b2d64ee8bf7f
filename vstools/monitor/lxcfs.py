"""Whether the lxcfs that a guest's /proc shows is still there: a guest keeps the mount of one that has ended.

Nothing is read through the guest's mount: its root could mount a file system of its own under that name, and let the
reader wait.
"""

_KIND = "fuse.lxcfs"


def mounts(mountinfo: str) -> dict[str, str]:
    """Device ``MAJOR:MINOR`` -> where it is mounted, of each lxcfs (``man 5 proc``, mountinfo)."""
    found: dict[str, str] = {}
    if _KIND not in mountinfo:
        return found
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        words = before.split(" ")
        if after.split(" ", 1)[0] == _KIND and len(words) > 4:
            found.setdefault(words[2], words[4])
    return found


def is_gone(guest: str, host: str) -> tuple[bool, str]:
    """From mountinfo of the guest's init and of the host: whether what the guest uses is no longer the host's.

    Where it is, the second value is where the host has it, to be asked whether it answers; empty: it is not used.
    """
    used, there = mounts(guest), mounts(host)
    if not used:
        return False, ""
    common = used.keys() & there.keys()
    return not common, there[min(common)] if common else ""

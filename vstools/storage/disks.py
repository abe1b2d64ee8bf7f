"""Which disk a guest's tree lies on, as the kernel's controller of disks numbers it."""

import os
import re
from pathlib import Path

_BLOCK = Path("/sys/dev/block")


def number(tree: Path) -> str | None:
    """``MAJOR:MINOR`` of the disk below a tree; None where there is none, or several.

    A partition is told as its disk: the controller takes no partitions. File systems without a device number of
    their own (btrfs) are looked up by their mount. A btrfs on several disks, overlays, the network: None.
    """
    try:
        handle = os.open(tree, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        device = os.fstat(handle).st_dev
        if os.major(device) == 0:
            mounted = _mounted(handle)
            if mounted is None or _of_several(mounted):
                return None
            device = mounted
    finally:
        os.close(handle)
    return whole(device)


def _mounted(handle: int) -> int | None:
    """The number of the device that an open file's mount was made from."""
    source = _mount(handle)[2]
    try:
        return Path(source).stat().st_rdev or None if source.startswith("/") else None
    except OSError:
        return None


def _mount(handle: int) -> tuple[str, str, str]:
    """Number, type and source of an open file's file system (``man 5 proc``: fdinfo, mountinfo); empty: not known."""
    info = Path(f"/proc/self/fdinfo/{handle}").read_text()
    found = re.search(r"^mnt_id:\s*(\d+)$", info, re.MULTILINE)
    for line in os.fsdecode(Path("/proc/self/mountinfo").read_bytes()).splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if found and fields[0] == found[1]:
            kind, source = after.split(" ")[:2]
            return fields[2], kind, re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), source)
    return "", "", ""


def filesystem(handle: int) -> tuple[str, str]:
    """Which file system an open file is on: ``MAJOR:MINOR``, the same for all subvolumes of a btrfs, and its type."""
    return _mount(handle)[:2]


def _of_several(device: int) -> bool:
    """Whether a device is one of several of a btrfs (/sys/fs/btrfs/UUID/devices)."""
    name = (_BLOCK / _text(device)).resolve().name
    return any(len(os.listdir(path.parent)) > 1 for path in Path("/sys/fs/btrfs").glob(f"*/devices/{name}"))


def whole(device: int) -> str | None:
    """The disk of a block device, which may be a partition of it; None where the number is no block device's."""
    place = _BLOCK / _text(device)
    if not place.exists():
        return None
    if (place / "partition").exists():
        return (place.resolve().parent / "dev").read_text().strip()
    return _text(device)


def _text(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"

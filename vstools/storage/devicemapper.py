"""What the kernel's device mapper says of a device: asked so often that no program is started for it.

Formats: linux/dm-ioctl.h (struct dm_ioctl, struct dm_target_spec); the kernel's
Documentation/admin-guide/device-mapper, snapshot.rst and thin-provisioning.rst.
"""

import os
import struct
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path

_CONTROL = "/dev/mapper/control"
_TABLE_STATUS = 0xC138FD0C  # DM_TABLE_STATUS
_HEADER = struct.Struct("=3I3IiIIIQ128s129s7x")
"""struct dm_ioctl: version, size, start of data, targets, opened, flags, event, padding, device, name, uuid."""
_TARGET = struct.Struct("=QQiI16s")
"""struct dm_target_spec: first sector, sectors, status, next, kind; then words to the next NUL."""
_TABLE, _WITHOUT_FLUSH = 1 << 4, 1 << 11  # DM_STATUS_TABLE_FLAG, DM_NOFLUSH_FLAG
_ROOM = 4096
SECTOR = 512
_METADATA_BLOCK = 4096
_BY_LVM = "LVM-"
_LENGTH_OF_UUID = len(_BY_LVM) + 2 * 32  # the group's and the volume's


@dataclass(frozen=True)
class Target:
    """The first target of a device: its kind (``snapshot``, ``thin-pool`` ...) and its words."""

    kind: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Space:
    """What is used of a space, in bytes; ``name`` says of which: ``snapshot``, ``data``, ``metadata``."""

    name: str
    used: int
    size: int

    @property
    def left(self) -> int:
        """Bytes that can still be written."""
        return self.size - self.used


def number(device: str) -> int:
    """The number of a block device (``/dev/mapper/vs-trees``, ``/dev/dm-3``), 0 where there is none."""
    try:
        return Path(device).stat().st_rdev
    except OSError:
        return 0


def is_volume(device: str) -> bool:
    """Whether a block device is a logical volume, and not what LVM makes one of: that has a word behind its UUID."""
    return len(uuid(number(device))) == _LENGTH_OF_UUID


def uuid(device: int) -> str:
    """The UUID that LVM gave to the device with this number; empty where it is none of LVM's."""
    try:
        found = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/dm/uuid").read_text().strip()
    except OSError:
        return ""
    return found if found.startswith(_BY_LVM) else ""


def name(device: int) -> str:
    """The name below /dev/mapper of the device with this number."""
    return Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/dm/name").read_text().strip()


def status(*, uuid: str = "", device: int = 0) -> Target:
    """How the device with this UUID or number is. Raises OSError, ENXIO where there is none."""
    return _ask(uuid, device, _WITHOUT_FLUSH)


def table(*, uuid: str = "", device: int = 0) -> Target:
    """What the device with this UUID or number is made of. Raises OSError."""
    return _ask(uuid, device, _TABLE | _WITHOUT_FLUSH)


def _ask(uuid: str, device: int, flags: int) -> Target:
    request = _HEADER.pack(4, 0, 0, _ROOM, _HEADER.size, 0, 0, flags, 0, 0, device, b"", uuid.encode())
    buffer = bytearray(request.ljust(_ROOM, b"\0"))
    control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        ioctl(control, _TABLE_STATUS, buffer)
    finally:
        os.close(control)
    return decoded(bytes(buffer))


def decoded(answer: bytes) -> Target:
    """The first target of what the kernel answered. Pure; a device without a table has no kind."""
    _, _, _, _, start, targets, *_ = _HEADER.unpack_from(answer)
    if not targets:
        return Target("", ())
    *_, kind = _TARGET.unpack_from(answer, start)
    words, _, _ = answer[start + _TARGET.size :].partition(b"\0")
    return Target(kind.rstrip(b"\0").decode(), tuple(words.decode("utf-8", "replace").split()))


def snapshot_space(found: Target) -> Space | None:
    """How full a snapshot is; None when it holds no longer what it should (``Invalid``, ``Overflow``). Pure."""
    first = found.words[0] if found.words else ""
    if found.kind != "snapshot" or "/" not in first:
        return None
    used, size = first.split("/")
    return Space("snapshot", int(used) * SECTOR, int(size) * SECTOR)


def pool_spaces(found: Target, table: Target) -> tuple[Space, Space] | None:
    """How full data and metadata of a thin pool are; None when it takes no more (full, read-only, failed). Pure."""
    if found.kind != "thin-pool" or len(found.words) < 5:
        return None
    _, metadata, data, _, mode, *rest = found.words
    if mode != "rw" or "needs_check" in rest:
        return None
    block = int(table.words[2]) * SECTOR
    spaces = ((metadata, "metadata", _METADATA_BLOCK), (data, "data", block))
    return tuple(  # type: ignore[return-value]
        Space(called, *(int(number) * unit for number in pair.split("/"))) for pair, called, unit in spaces
    )


def pool_of(thin: Target) -> int:
    """The number of the pool's device, from the table of a thin volume (``MAJOR:MINOR ID``). Pure."""
    major, minor = thin.words[0].split(":")
    return os.makedev(int(major), int(minor))

"""The mounts that the host makes for a started guest: its own sysfs view, and a /tmp of a limited size.

And those that somebody else made in a guest's tree: what is done to the tree would be done to them.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vstools import libc, run
from vstools.errors import VsError
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


def share(where: Path, descriptor: int, options: Iterable[str]) -> None:
    """Mount an open directory or file (O_PATH) of the host's at ``where``, without what is or will be mounted below it.

    ``options``: of ro, nosuid, nodev, noexec; whoever gets it in a namespace with fewer rights cannot take them away.
    """
    where.mkdir() if stat.S_ISDIR(os.fstat(descriptor).st_mode) else where.touch()
    handle = libc.copy_mount(Path(f"/proc/self/fd/{descriptor}"))
    try:
        libc.restrict_mount(handle, options)
        libc.attach_mount(handle, where)
    finally:
        os.close(handle)


def give_devices(folder: Path, devices: Sequence[str], id_base: int) -> None:
    """Nodes of these devices by number, of the host's modes, which belong to the guest's root."""
    folder.mkdir(exist_ok=True)
    options = f"size=1m,nr_inodes=1k,mode=0710,gid={id_base},nosuid,noexec"
    run.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)])
    for number, device in enumerate(devices):
        there = os.stat(device)  # noqa: PTH116 - links of udev's lead there
        os.mknod(folder / str(number), there.st_mode, there.st_rdev)
        os.chmod(folder / str(number), stat.S_IMODE(there.st_mode))  # noqa: PTH101
        os.chown(folder / str(number), id_base, id_base)


def unshare(folder: Path) -> None:
    """Take away all that ``share`` mounted in a directory, and the directory."""
    if not folder.is_dir():
        return
    for where in folder.iterdir():
        with suppress(OSError):  # it is none any more; within one file system the directories do not tell
            while True:
                libc.unmount_lazily(where)
        where.rmdir() if where.is_dir() else where.unlink()
    folder.rmdir()


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


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo: where it is, what of the file system is there, of which kind, from which device."""

    point: Path
    root: Path
    kind: str
    source: str
    device: tuple[int, int]
    """Major and minor number; of btrfs and the like made up by the kernel."""


def _all() -> Iterator[Mount]:
    """This process's mounts (``man 5 proc``, mountinfo), the upper ones last."""
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        words = line.split(b" ")
        kind, source = words[words.index(b"-", 6) + 1 :][:2]
        major, _, minor = words[2].partition(b":")
        device = (int(major), int(minor))
        yield Mount(Path(_plain(words[4])), Path(_plain(words[3])), kind.decode(), _plain(source), device)


def _plain(word: bytes) -> str:
    """A word of mountinfo, where spaces and the like are octal."""
    if b"\\" in word:
        word = re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), word)
    return os.fsdecode(word)


def of(folder: Path) -> Mount:
    """The mount that a directory lies on; one that is not there yet, where it would lie."""
    place = folder.resolve()
    around = [mount for mount in _all() if mount.point in (place, *place.parents)]
    if not around:
        raise VsError(f"nothing is mounted below {folder}", "is /proc mounted?")
    return max(enumerate(around), key=lambda found: (len(found[1].point.parts), found[0]))[1]


def below(folder: Path) -> tuple[Path, ...]:
    """Where something is mounted in a directory."""
    return tuple(mount.point for mount in _all() if folder in mount.point.parents)


def of_device(number: int) -> tuple[Path, ...]:
    """Where the block device with this number is mounted."""
    device = (os.major(number), os.minor(number))
    return tuple(mount.point for mount in _all() if mount.device == device)

"""System calls that Python 3.11 does not offer: namespaces, mounts, syncfs, quotas, handles.

Every failure is an OSError.
"""

import ctypes
import os
import signal
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1
_CLONE_NEWNS = 0x00020000
_RECURSIVELY_SLAVE = 0x4000 | 0x80000  # MS_REC, MS_SLAVE
_OPEN_TREE_CLONE = 1
_MOVE_EMPTY_PATH = 4  # MOVE_MOUNT_F_EMPTY_PATH
_HERE = -100  # AT_FDCWD
_RENAME_EXCHANGE = 2
_SYS_MOUNT_SETATTR = 442  # the same number on every architecture
_MOUNT_ATTRIBUTES = struct.Struct("=QQQQ")
"""``struct mount_attr``: attributes to set and to clear, propagation, user namespace."""
_OPTIONS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8}  # MOUNT_ATTR_*
_PRIVATE = 1 << 18  # MS_PRIVATE
_RECURSIVE = 0x8000  # AT_RECURSIVE
_SYS_QUOTACTL_FD = 443  # the same number on every architecture
_SYS_PROCESS_MRELEASE = 448  # this one, too
_PROJECTS = 2  # PRJQUOTA
_ITSELF = 0x1000  # AT_EMPTY_PATH
_HANDLE = struct.Struct("=Ii")
"""``struct file_handle``: how many bytes follow, and of which type they are."""
_LONGEST_HANDLE = 128  # MAX_HANDLE_SZ
_OWN_NETWORK = "/proc/thread-self/ns/net"
_OWN_MOUNTS = "/proc/thread-self/ns/mnt"


def _check(result: int, what: str | Path) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(what))


@contextmanager
def network_namespace(path: Path) -> Iterator[None]:
    """Let this thread be in the network namespace ``path`` (``man 2 setns``) and come back at the end."""
    own = os.open(_OWN_NETWORK, os.O_RDONLY | os.O_CLOEXEC)
    try:
        other = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_LIBC.setns(other, _CLONE_NEWNET), path)
        finally:
            os.close(other)
        try:
            yield
        finally:
            _check(_LIBC.setns(own, _CLONE_NEWNET), _OWN_NETWORK)
    finally:
        os.close(own)


@contextmanager
def scratch_network() -> Iterator[Path]:
    """An empty network namespace, gone at the end; gives its path. This thread stays in its own."""
    own = os.open(_OWN_NETWORK, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_LIBC.unshare(_CLONE_NEWNET), _OWN_NETWORK)
        fresh = os.open(_OWN_NETWORK, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_LIBC.setns(own, _CLONE_NEWNET), _OWN_NETWORK)
            yield Path(f"/proc/self/fd/{fresh}")
        finally:
            os.close(fresh)
    finally:
        os.close(own)


class _Addresses(ctypes.Structure):
    """``struct ifaddrs`` (``man 3 getifaddrs``), as far as it is read."""


_Addresses._fields_ = [
    ("next", ctypes.POINTER(_Addresses)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
    ("netmask", ctypes.c_void_p),
]
_PLACES: dict[int, tuple[int, int]] = {socket.AF_INET: (4, 4), socket.AF_INET6: (8, 16)}
"""Family -> where its address lies in a sockaddr, and how long it is."""


def interface_addresses() -> tuple[tuple[str, bytes, int], ...]:
    """(link, address, prefix length) of every IPv4 and IPv6 address of this thread's network namespace."""
    first = ctypes.POINTER(_Addresses)()
    _check(_LIBC.getifaddrs(ctypes.byref(first)), "the addresses")
    found, entry = [], first
    try:
        while entry:
            content = entry.contents
            family = ctypes.c_ushort.from_address(content.address).value if content.address else 0
            if family in _PLACES and content.netmask:
                start, length = _PLACES[family]
                address, mask = (ctypes.string_at(at + start, length) for at in (content.address, content.netmask))
                found.append((os.fsdecode(content.name), address, int.from_bytes(mask, "big").bit_count()))
            entry = content.next
    finally:
        _LIBC.freeifaddrs(first)
    return tuple(found)


def end_with_parent() -> None:
    """From now on this process gets a SIGTERM when the thread that started it ends (``man 2 prctl``)."""
    _check(_LIBC.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM), 0, 0, 0), "the parent")


def exchange(one: Path, other: Path) -> None:
    """Let two files or directories have each other's name, in one act (``man 2 renameat2``)."""
    _check(_LIBC.renameat2(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _RENAME_EXCHANGE), one)


def sync_filesystem(descriptor: int) -> None:
    """Bring the file system of an open file to the disk (``man 2 syncfs``).

    A write that failed since the descriptor was opened, or since its last sync, is raised here.
    """
    _check(_LIBC.syncfs(descriptor), "the disk")


def mount(kind: str, where: Path) -> None:
    """Mount a file system without a device, as root's own defaults have it (``man 2 mount``)."""
    _check(_LIBC.mount(kind.encode(), os.fsencode(where), kind.encode(), 0, None), where)


def copy_mount(path: Path) -> int:
    """A handle of a new mount of what is at ``path``, attached nowhere (``man 2 open_tree``; glibc 2.36 has it)."""
    handle: int = _LIBC.open_tree(_HERE, os.fsencode(path), _OPEN_TREE_CLONE | os.O_CLOEXEC)
    _check(handle, path)
    return handle


def attach_mount(handle: int, where: Path) -> None:
    """Attach a mount of ``copy_mount`` at a path of this process's mount namespace (``man 2 move_mount``)."""
    _check(_LIBC.move_mount(handle, b"", _HERE, os.fsencode(where), _MOVE_EMPTY_PATH), where)


def restrict_mount(handle: int, options: Iterable[str]) -> None:
    """Give a mount of ``copy_mount`` these options, and let it hear of no other mount (``man 2 mount_setattr``)."""
    attributes = sum(_OPTIONS[option] for option in options)
    wanted = _MOUNT_ATTRIBUTES.pack(attributes, 0, _PRIVATE, 0)
    _check(_LIBC.syscall(_SYS_MOUNT_SETATTR, handle, b"", _ITSELF, wanted, len(wanted)), "a mount")


def enter_mounts(namespace: int) -> None:
    """Be in another mount namespace from now on; the process has one thread (``man 2 setns``)."""
    _check(_LIBC.setns(namespace, _CLONE_NEWNS), "the mount namespace")


@contextmanager
def private_mounts() -> Iterator[None]:
    """Let this thread have mounts of its own (``man 7 mount_namespaces``); back among the host's at the end.

    What is mounted meanwhile is seen by this thread and by the programs that it starts; when they are gone, so is the
    mount. What the host unmounts is unmounted here, too, where mounts are shared (systemd shares them). A thread that
    was begun meanwhile has to end before: with it, this one shares its directory, and could not go back. From then on
    its directory is its own.
    """
    own = os.open(_OWN_MOUNTS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _check(_LIBC.unshare(_CLONE_NEWNS), _OWN_MOUNTS)
            try:
                _check(_LIBC.mount(None, b"/", None, _RECURSIVELY_SLAVE, None), "/")
                yield
            finally:
                _check(_LIBC.setns(own, _CLONE_NEWNS), _OWN_MOUNTS)
                os.fchdir(here)
        finally:
            os.close(here)
    finally:
        os.close(own)


def confine(folder: Path) -> None:
    """From now on this process, and what it becomes, can write below ``folder`` and in no other file system's tree.

    It has mounts of its own, all of them read-only but this one (``man 2 mount_setattr``). The current directory has to
    be entered anew.
    """
    handle = copy_mount(folder)
    _check(_LIBC.unshare(_CLONE_NEWNS), _OWN_MOUNTS)
    _check(_LIBC.mount(None, b"/", None, _RECURSIVELY_SLAVE, None), "/")
    attach_mount(handle, folder)
    os.close(handle)
    for where, flags, attributes in ((Path("/"), _RECURSIVE, (1, 0, 0, 0)), (folder, 0, (0, 1, 0, 0))):
        buffer = ctypes.create_string_buffer(_MOUNT_ATTRIBUTES.pack(*attributes), _MOUNT_ATTRIBUTES.size)
        _check(
            _LIBC.syscall(_SYS_MOUNT_SETATTR, _HERE, os.fsencode(where), flags, buffer, _MOUNT_ATTRIBUTES.size), where
        )


def unmount(where: Path) -> None:
    """Unmount what nobody uses any more (``man 2 umount2``); EBUSY where somebody does."""
    _check(_LIBC.umount2(os.fsencode(where), 0), where)


def unmount_lazily(where: Path) -> None:
    """Take a mount out of the tree at once, whoever still uses it (``man 2 umount2``, MNT_DETACH)."""
    _check(_LIBC.umount2(os.fsencode(where), _MNT_DETACH), where)


def project_quota(descriptor: int, command: int, project: int, content: bytearray) -> None:
    """Ask or tell the file system of an open file about a project (quotactl_fd, Linux 5.14; ``man 2 quotactl``).

    ``content`` has the size that the command wants, and holds the answer afterwards.
    """
    buffer = (ctypes.c_char * len(content)).from_buffer(content)
    word = ctypes.c_uint(command << 8 | _PROJECTS)
    _check(_LIBC.syscall(_SYS_QUOTACTL_FD, descriptor, word, ctypes.c_uint(project), buffer), "project quotas")


def free_memory_of(process: int) -> None:
    """Free what a killed process (its pidfd) holds, now and on our time (``man 2 process_mrelease``, Linux 5.15)."""
    _check(_LIBC.syscall(_SYS_PROCESS_MRELEASE, process, ctypes.c_uint(0)), "a killed process's memory")


def file_handle(descriptor: int) -> bytes:
    """What finds the file of an open descriptor again, whatever its name is by then (``man 2 name_to_handle_at``)."""
    empty = _HANDLE.pack(_LONGEST_HANDLE, 0)
    buffer, mount = ctypes.create_string_buffer(empty, _HANDLE.size + _LONGEST_HANDLE), ctypes.c_int()
    _check(_LIBC.name_to_handle_at(descriptor, b"", buffer, ctypes.byref(mount), _ITSELF), "a file's handle")
    length, _ = _HANDLE.unpack_from(buffer.raw)
    return buffer.raw[: _HANDLE.size + length]


def open_handle(within: int, handle: bytes, flags: int) -> int:
    """The file of a handle, open; ``within`` is any open file of its file system. ESTALE: it is there no more."""
    buffer = ctypes.create_string_buffer(handle, len(handle))
    descriptor: int = _LIBC.open_by_handle_at(within, buffer, flags | os.O_CLOEXEC)
    _check(descriptor, "a file's handle")
    return descriptor

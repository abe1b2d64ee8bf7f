"""A limit of what a tree takes on its disk: a project quota of ext4 or XFS, whose project is the guest's context.

A project's files are counted together. Each of them bears its number, and a directory hands it on to what is made in
it, so that a tree is marked once. Guest root cannot change a number: the kernel lets nobody outside the host's first
user namespace (fs/file_attr.c). Its own ``df`` shows the limit, because the root of its tree hands the number on.

Formats: linux/fs.h (struct fsxattr), linux/quota.h (struct if_dqblk), linux/dqblk_xfs.h (struct fs_quota_statv),
``man 2 quotactl``. Both file systems take both kinds of commands.
"""

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path

_GET_ATTRIBUTES, _SET_ATTRIBUTES = 0x801C581F, 0x401C5820  # FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR
_ATTRIBUTES = struct.Struct("=5I8x")
"""xflags, extsize, nextents, projid, cowextsize."""
_INHERIT = 0x200  # FS_XFLAG_PROJINHERIT
_GET_QUOTA, _SET_QUOTA, _GET_STATE = 0x800007, 0x800008, 0x5808  # Q_GETQUOTA, Q_SETQUOTA, Q_XGETQSTATV
_QUOTA = struct.Struct("=8QI4x")
"""Hard and soft limit in KiB, space in bytes, then the same three of inodes, two times, and what is meant."""
_LIMITS = 1 | 4  # QIF_BLIMITS, QIF_ILIMITS
_STATE_SIZE = 256
_IN_FORCE = 1 << 4 | 1 << 5  # FS_QUOTA_PDQ_ACCT, FS_QUOTA_PDQ_ENFD
_KIB, _KIB_PER_MIB = 1024, 1024
_FILE = 4
"""KiB of the limit for which there may be one file: empty files take no space, and all guests have the same inodes."""
_SOME_SPACE, _SOME_FILES = 1 << 20, 64
_UNFINISHED = "trusted.vs-tools.marking"
"""On the root of a tree that is being marked. Only the host's root can set or remove it."""
_NO_QUOTA = (errno.ENOSYS, errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ESRCH)
_NO_DIRECTORY = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_UNMARKABLE = (errno.EPERM, errno.ETXTBSY)  # immutable, in use as swap


@dataclass(frozen=True)
class Use:
    """What a tree takes on the disk and what it may take, in bytes and in files; None: no limit."""

    used: int
    limit: int | None
    files: int = 0
    most_files: int | None = None

    @property
    def is_full(self) -> bool:
        """Whether some small files more may not fit in."""
        no_space = self.limit is not None and self.used > self.limit - _SOME_SPACE
        return no_space or (self.most_files is not None and self.files > self.most_files - _SOME_FILES)


@contextmanager
def _opened(tree: Path) -> Iterator[int]:
    descriptor = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_on(folder: Path) -> bool:
    """Whether the file system of a directory counts projects and enforces their limits."""
    from vstools import libc

    state = bytearray(_STATE_SIZE)
    state[0] = 1  # FS_QSTATV_VERSION1
    try:
        with _opened(folder) as descriptor:
            libc.project_quota(descriptor, _GET_STATE, 0, state)
    except OSError as error:
        if error.errno in (*_NO_QUOTA, *_NO_DIRECTORY):
            return False
        raise
    (flags,) = struct.unpack_from("=H", state, 2)
    return int(flags) & _IN_FORCE == _IN_FORCE


def with_mark(attributes: bytes, project: int, *, directory: bool) -> bytes:
    """A file's attributes (``struct fsxattr``) with a project's number. Pure."""
    flags, extent, extents, _, copied = _ATTRIBUTES.unpack(attributes)
    return _ATTRIBUTES.pack(flags | _INHERIT if directory else flags, extent, extents, project, copied)


def _project(descriptor: int) -> int:
    """The project that a directory hands on, 0 for none and where the file system knows none."""
    try:
        flags, _, _, project, _ = _ATTRIBUTES.unpack(ioctl(descriptor, _GET_ATTRIBUTES, bytes(_ATTRIBUTES.size)))
    except OSError as error:
        if error.errno in _NO_QUOTA:
            return 0
        raise
    return int(project) if flags & _INHERIT else 0


def project(tree: Path) -> int:
    """The project that the root of a tree hands on, 0 for none."""
    with _opened(tree) as descriptor:
        return _project(descriptor)


def _mark(descriptor: int, project: int, *, directory: bool) -> None:
    now = ioctl(descriptor, _GET_ATTRIBUTES, bytes(_ATTRIBUTES.size))
    wanted = with_mark(now, project, directory=directory)
    if wanted != now:
        ioctl(descriptor, _SET_ATTRIBUTES, wanted)


def _is_marked(descriptor: int, project: int) -> bool:
    if _project(descriptor) != project:
        return False
    try:
        os.getxattr(descriptor, _UNFINISHED)
    except OSError as error:
        if error.errno == errno.ENODATA:
            return True
        raise
    return False


def is_marked(tree: Path, project: int) -> bool:
    """Whether a tree is counted: its root says so, which is marked to the end or from the beginning."""
    with _opened(tree) as descriptor:
        return _is_marked(descriptor, project)


def begin(tree: Path, project: int) -> None:
    """Let all that will be made in an empty directory be counted. Raises OSError."""
    with _opened(tree) as descriptor:
        _mark(descriptor, project, directory=True)


def mark(tree: Path, project: int) -> int:
    """Let a tree that lies there be counted; returns how many files could not be. Raises OSError, VsError.

    Nothing that runs may change the tree meanwhile. Symbolic links, sockets and the like have no number that could be
    set (before Linux 6.17); they take next to no space. Killed, it is not ``is_marked``.
    """
    from vstools.storage import walk

    left = 0

    def each(descriptor: int, *, directory: bool) -> None:
        nonlocal left
        try:
            _mark(descriptor, project, directory=directory)
        except OSError as error:
            if error.errno not in _UNMARKABLE:
                raise
            left += 1

    with _opened(tree) as descriptor:
        os.setxattr(descriptor, _UNFINISHED, b"1")
        walk.walk(descriptor, each)
        os.removexattr(descriptor, _UNFINISHED)
    return left


def _read(descriptor: int, project: int) -> Use:
    from vstools import libc

    found = bytearray(_QUOTA.size)
    try:
        libc.project_quota(descriptor, _GET_QUOTA, project, found)
    except OSError as error:
        if error.errno != errno.ENOENT:  # XFS has no entry for a project that has no file and no limit
            raise
    return decoded(found)


def decoded(found: bytes | bytearray) -> Use:
    """What ``struct if_dqblk`` says. Pure."""
    hard, _, used, most, _, files, *_ = _QUOTA.unpack(found)
    return Use(used, hard * _KIB or None, files, most or None)


def encoded(size: int | None) -> bytes:
    """``struct if_dqblk`` with a limit in MiB and that of files which goes with it (None: no limit). Pure."""
    kib = (size or 0) * _KIB_PER_MIB
    files = kib // _FILE
    return _QUOTA.pack(kib, kib, 0, files, files, 0, 0, 0, _LIMITS)


def read(folder: Path, project: int) -> Use:
    """What a project takes and may take on the file system of a directory. Raises OSError."""
    with _opened(folder) as descriptor:
        return _read(descriptor, project)


def put(folder: Path, project: int, size: int | None) -> None:
    """Set a project's limit in MiB (None: no limit) on the file system of a directory. Raises OSError."""
    from vstools import libc

    with _opened(folder) as descriptor:
        libc.project_quota(descriptor, _SET_QUOTA, project, bytearray(encoded(size)))


def use(tree: Path, project: int) -> Use | None:
    """What a tree takes and may take, asked of the kernel; None where it is not counted."""
    try:
        with _opened(tree) as descriptor:
            return _read(descriptor, project) if _is_marked(descriptor, project) else None
    except OSError:  # no tree, no quotas
        return None

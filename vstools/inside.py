"""Reading and writing inside a guest's tree without ever following one of its links out of it.

The tree of a guest belongs to whoever is root in the guest: every name in it may be a link to a file of the
host. Each path is resolved by the kernel as if the tree were the root directory (openat2 with RESOLVE_IN_ROOT,
Linux 5.6, ``man 2 openat2``); the last component is never followed when it is replaced or removed.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path, PurePosixPath

_SYS_OPENAT2 = 437  # the same number on every architecture
_RESOLVE_NO_XDEV = 0x01
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_IN_ROOT = 0x10
_TRIES = 100
_HERE = -100  # AT_FDCWD
_LIBC = ctypes.CDLL(None, use_errno=True)
_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.EACCES, errno.ENAMETOOLONG)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _openat2(folder: int, name: str, flags: int, resolve: int) -> int:
    """The system call; returns a descriptor, raises OSError."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    path = os.fsencode(name)
    code = errno.EAGAIN
    for _ in range(_TRIES):
        descriptor = _LIBC.syscall(_SYS_OPENAT2, folder, path, ctypes.byref(how), ctypes.sizeof(how))
        if descriptor >= 0:
            return int(descriptor)
        code = ctypes.get_errno()
        if code != errno.EAGAIN:  # a mount or rename anywhere, while ".." was resolved
            break
    raise OSError(code, os.strerror(code), name)


def open_entry(folder: int, name: str, flags: int) -> int | None:
    """An entry of an open directory, itself open; None where it is gone, is a link or another file system's mount."""
    try:
        return _openat2(folder, name, flags | os.O_NOFOLLOW, _RESOLVE_NO_XDEV | _RESOLVE_NO_SYMLINKS)
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            return None
        raise


def open_plain(path: str, flags: int) -> int:
    """A file of the host's, open; raises OSError, ELOOP where a link is on its way."""
    return _openat2(_HERE, path, flags, _RESOLVE_NO_SYMLINKS)


class Inside:
    """One guest's tree; every name given to it is taken from the tree's own root. Ids are the guest's (0 = root).

    No mount is entered, but with ``mounts``: then what is mounted below belongs to it.
    """

    def __init__(self, tree: Path, *, mounts: bool = False) -> None:
        self._resolve = _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS | (0 if mounts else _RESOLVE_NO_XDEV)
        self._root = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def __enter__(self) -> "Inside":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._root)

    def _open(self, name: str, flags: int) -> int:
        """openat2 below the tree; returns a descriptor, raises OSError."""
        return _openat2(self._root, name, flags, self._resolve)

    def _open_regular(self, name: str) -> int | None:
        """A regular file, open for reading, or None where there is none. Nothing else is opened: it may be a device."""
        try:
            found = self._open(name, os.O_PATH)
        except OSError as error:
            if error.errno in _NOTHING_THERE:
                return None
            raise
        try:
            if not stat.S_ISREG(os.fstat(found).st_mode):
                return None
            return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(found)

    @contextmanager
    def _parent(self, name: str, *, make: bool) -> Iterator[tuple[int, str]]:
        """The directory that holds ``name`` (made on the way with ``make``), and its last component."""
        path = PurePosixPath("/") / name
        parent = str(path.parent)
        if make:
            self.directory(parent)
        descriptor = self._open(parent, os.O_PATH | os.O_DIRECTORY)
        try:
            yield descriptor, path.name
        finally:
            os.close(descriptor)

    def directory(self, name: str, mode: int = 0o755) -> None:
        """Make the directory ``name`` and those above it, where they are missing."""
        path = PurePosixPath("/") / name
        try:
            os.close(self._open(str(path), os.O_PATH | os.O_DIRECTORY))
        except FileNotFoundError:
            with self._parent(str(path), make=True) as (parent, last):
                os.mkdir(last, mode, dir_fd=parent)  # raises FileExistsError for a link that leads nowhere
                made = os.open(last, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
                try:
                    os.fchmod(made, mode)
                finally:
                    os.close(made)

    def write(self, name: str, text: str, mode: int = 0o644, group: int = 0) -> None:
        """Replace whatever ``name`` is (a link too) by a regular file of root's, and of ``group``."""
        with self._replacing(name) as (parent, temporary):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, mode, dir_fd=parent)
            with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as handle:  # noqa: PTH123 - a descriptor
                os.fchown(descriptor, 0, group)
                os.fchmod(descriptor, mode)
                handle.write(text)

    def link(self, name: str, target: str) -> None:
        """Replace ``name`` by a symbolic link to ``target``, a path of the guest's."""
        with self._replacing(name) as (parent, temporary):
            os.symlink(target, temporary, dir_fd=parent)

    @contextmanager
    def _replacing(self, name: str) -> Iterator[tuple[int, str]]:
        """The directory of ``name``, and a new name in it that takes its place at the end, or is removed."""
        with self._parent(name, make=True) as (parent, last):
            temporary = f".{last}.{os.getpid()}~"
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent)
            try:
                yield parent, temporary
                os.rename(temporary, last, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=parent)
                raise

    def move(self, name: str, target: str) -> None:
        """Give a file or a directory (no link's end) another name; raises FileExistsError where that is taken."""
        with self._parent(name, make=False) as (there, old), self._parent(target, make=True) as (here, new):
            with suppress(FileNotFoundError):
                os.stat(new, dir_fd=here, follow_symlinks=False)
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
            os.rename(old, new, src_dir_fd=there, dst_dir_fd=here)

    def where(self, name: str) -> Path | None:
        """The host's path of ``name`` itself, for a tree that nobody changes; None where it is not there."""
        if not self.exists(name):
            return None
        with self._parent(name, make=False) as (parent, last):
            return Path(os.readlink(f"/proc/self/fd/{parent}")) / last

    def remove(self, name: str) -> None:
        """Remove the file or link ``name`` where it is there; directories stay."""
        gone = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
        with suppress(*gone), self._parent(name, make=False) as (parent, last):
            os.unlink(last, dir_fd=parent)

    def read(self, name: str, limit: int = 1 << 20) -> str | None:
        """The text of a regular file (links are followed within the tree), or None where there is none.

        Never reads more than ``limit`` bytes. Bytes that are no UTF-8 come through ``write`` as they were.
        """
        descriptor = self._open_regular(name)
        if descriptor is None:
            return None
        with open(descriptor, "rb") as handle:  # noqa: PTH123 - a descriptor
            return handle.read(limit).decode("utf-8", "surrogateescape")

    def exists(self, name: str) -> bool:
        """Whether ``name`` itself is there, whatever it is; a link is not followed."""
        try:
            with self._parent(name, make=False) as (parent, last):
                os.stat(last, dir_fd=parent, follow_symlinks=False)
        except OSError:
            return False
        return True

    def is_directory(self, name: str) -> bool:
        """Whether ``name`` itself is a directory; a link to one is none."""
        return stat.S_ISDIR(self._mode(name))

    def is_file(self, name: str) -> bool:
        """Whether ``name`` itself is a regular file; a link to one is none."""
        return stat.S_ISREG(self._mode(name))

    def _mode(self, name: str) -> int:
        try:
            with self._parent(name, make=False) as (parent, last):
                return os.stat(last, dir_fd=parent, follow_symlinks=False).st_mode
        except OSError:
            return 0

    def mode(self, name: str) -> int | None:
        """The permissions of ``name`` (the lowest nine bits; links are followed within the tree); None: not there."""
        try:
            descriptor = self._open(name, os.O_PATH)
        except OSError:
            return None
        try:
            return os.fstat(descriptor).st_mode & 0o777
        finally:
            os.close(descriptor)

    def leads_to_directory(self, name: str) -> bool:
        """Whether ``name`` is a directory, or a link to one within the tree."""
        try:
            os.close(self._open(name, os.O_PATH | os.O_DIRECTORY))
        except OSError:
            return False
        return True

    def names(self, name: str, most: int = 1 << 16) -> tuple[str, ...]:
        """The names in a directory, sorted, and of more than ``most`` any; none where there is no such directory."""
        try:
            descriptor = self._open(name, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return ()
        try:
            with os.scandir(descriptor) as entries:
                return tuple(sorted(entry.name for entry in islice(entries, most)))
        finally:
            os.close(descriptor)

    def copy_out(self, name: str, target: Path, limit: int) -> bool:
        """Copy a regular file of the tree, at most ``limit`` bytes, to a new file of the host; False if it is none."""
        descriptor = self._open_regular(name)
        if descriptor is None:
            return False
        with open(descriptor, "rb") as source:  # noqa: PTH123 - a descriptor
            if os.fstat(descriptor).st_size > limit:
                return False
            with target.open("xb") as copy:
                while block := source.read(min(limit - copy.tell(), 1 << 20)):
                    copy.write(block)
        return True

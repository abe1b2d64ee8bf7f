"""What is in a guest's tree now, for a master that compares it with a copy (vs-diff): a host's end.

The master says ``#most BYTES``, how much may be read, and what its copy has, a line a regular file: ``SIZE
SECONDS.NANOSECONDS NAME``. The answer:

    #list snapshot                    or ``live``: read while it may change
    #file passwd BASE64               the lists of users, where they are files
    ./tree/etc/hosts type=file ...    a manifest's line a name (manifest.py), the checksum of what can be the same only
    #                                 now and then, while a large file is read
    #end UNREAD                       how many names could not be read

A file whose size is another than the copy's is another file: it is not read. A file with several names is read once;
what is past ``#most``, where a guest made many files of one, counts as what could not be read, holes included. No link
is followed, no mount entered; nothing but directories and regular files is opened.
"""

import base64
import errno
import hashlib
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vstools.errors import VsError
from vstools.guest import check_name
from vstools.inside import Inside, open_entry
from vstools.lifecycle import snapshot
from vstools.paths import Paths
from vstools.pool.manifest import quoted, tags_of

LISTS = ("passwd", "shadow", "group")
MOST_NAMES = 1 << 22
_LONGEST = 4000
"""Bytes of a path: a copy cannot hold longer ones either (PATH_MAX)."""
_BLOCK = 1 << 20
_BEAT = 16 << 20
"""Bytes that are read between two signs of life."""
_KINDS = {
    stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block", stat.S_IFCHR: "char",
}  # fmt: skip

Known = dict[bytes, tuple[bytes, bytes]]
"""Name as it is written -> size and time of it in the copy."""
_MOST = re.compile(rb"#most ([0-9]{1,19})\n")


def give(paths: Paths, name: str, *, quick: bool) -> None:
    """Answer on stdout what stdin asks of a guest. ``quick``: a file of the copy's size and time is not read."""
    check_name(name, imported=True)
    most, known = _asked(sys.stdin.buffer)
    with snapshot.seen(paths, name) as (tree, still):
        out = sys.stdout.buffer
        out.write(b"#list %s\n" % (b"snapshot" if still else b"live"))
        _give_lists(tree, out)
        unread = Listing(tree, known, most, quick=quick, out=out).write()
    out.write(b"#end %d\n" % unread)  # the snapshot has lasted
    out.flush()


def _asked(lines: Iterator[bytes]) -> tuple[int, Known]:
    """How many bytes may be read, and what the copy has. Raises VsError for another question."""
    match = _MOST.fullmatch(next(lines, b""))
    if match is None:
        raise VsError("this is no question that is answered here", "the master has another version of vs-tools")
    fields = (line.rstrip(b"\n").split(b" ", 2) for line in lines)
    return int(match[1]), {name: (size, time) for size, time, name in fields}


def _give_lists(tree: Path, out: BinaryIO) -> None:
    with Inside(tree) as inside:
        for name in LISTS:
            text = inside.read(f"etc/{name}")
            if text is not None:
                content = base64.b64encode(text.encode("utf-8", "surrogateescape"))
                out.write(b"#file %s %s\n" % (name.encode(), content))


class Listing:
    """The lines of a tree, which may change meanwhile, and whose owner may be an attacker."""

    def __init__(self, tree: Path, known: Known, most: int, *, quick: bool, out: BinaryIO) -> None:
        self._tree, self._known, self._quick, self._out = tree, known, quick, out
        self._left = most
        self._root = -1
        self._checksums: dict[int, bytes] = {}
        self._buffer = memoryview(bytearray(_BLOCK))
        self._names = self._unread = 0

    def write(self) -> int:
        """Write them all; returns how many names could not be read. Raises VsError where the tree is replaced."""
        self._root = os.open(self._tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            waiting = [(b".", self._folder(b"."))]
            while waiting:
                path, names = waiting[-1]
                if names:
                    inner = path + b"/" + names.pop()
                    waiting.append((inner, self._folder(inner)))
                else:
                    waiting.pop()
            if not os.path.samestat(os.fstat(self._root), self._tree.lstat()):
                raise VsError(f"{self._tree} was replaced while it was read", "try again")
        finally:
            os.close(self._root)
        return self._unread

    def _folder(self, path: bytes) -> list[bytes]:
        """Write what is in a directory (and the tree's own); the names of the directories in it.

        Their paths are not kept: a million of them far below would be gigabytes.
        """
        folder = open_entry(self._root, os.fsdecode(path), os.O_RDONLY | os.O_DIRECTORY)
        if folder is None:
            self._unread += 1  # it is gone again, something is mounted there, or it lies too deep
            return []
        try:
            if path == b".":
                self._write(path, folder)
            with os.scandir(folder) as entries:
                names = ((entry.name, os.fsencode(entry.name)) for entry in entries)
                return [name for text, name in names if self._entry(folder, text, path + b"/" + name)]
        finally:
            os.close(folder)

    def _entry(self, folder: int, name: str, path: bytes) -> bool:
        """Write one name; whether it is a directory."""
        self._names += 1
        if self._names > MOST_NAMES:
            raise VsError(f"the tree has more than {MOST_NAMES} names")
        found = None if len(path) > _LONGEST else open_entry(folder, name, os.O_PATH)
        if found is None:
            self._unread += 1
            return False
        try:
            return self._write(path, found)
        finally:
            os.close(found)

    def _write(self, path: bytes, found: int) -> bool:
        state = os.fstat(found)
        kind = _KINDS[stat.S_IFMT(state.st_mode)]
        name = quoted(b"./tree" + path[1:])
        mode, (seconds, rest) = stat.S_IMODE(state.st_mode), divmod(state.st_mtime_ns, 10**9)
        words = [f"type={kind} mode={f'0{mode:o}' if mode else '0'} uid={state.st_uid} gid={state.st_gid}"]
        words += [f"size={state.st_size}"] if kind == "file" else []
        words += [f"time={seconds}.{rest:09} inode={state.st_ino}"]
        if kind == "link":
            words += ["link=" + quoted(os.fsencode(os.readlink("", dir_fd=found))).decode("ascii")]
        elif kind in ("block", "char"):
            words += [f"device=native,{os.major(state.st_rdev)},{os.minor(state.st_rdev)}"]
        line = name + b" " + " ".join(words).encode()
        try:
            if kind == "file" and self._is_wanted(name, state):
                line += b" sha256digest=" + self._checksum(found, state)
            line += tags_of(f"/proc/self/fd/{found}", follow=True)
        except OSError:  # a lease, a bad disk, an attribute that comes and goes, more than may be read
            self._unread += 1
        self._out.write(line + b"\n")
        return kind == "dir"

    def _is_wanted(self, name: bytes, state: os.stat_result) -> bool:
        seconds, rest = divmod(state.st_mtime_ns, 10**9)
        size, time = self._known.get(name, (b"", b""))
        return size == b"%d" % state.st_size and not (self._quick and time == b"%d.%09d" % (seconds, rest))

    def _checksum(self, found: int, state: os.stat_result) -> bytes:
        """Of as many bytes as the file had, which may become more without an end. Raises OSError."""
        if (known := self._checksums.get(state.st_ino)) is not None:
            return known
        if state.st_size > self._left:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        self._left -= state.st_size
        descriptor = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            checksum, left, silent = hashlib.sha256(), state.st_size, 0
            while left > 0 and (size := os.readv(descriptor, [self._buffer[: min(left, _BLOCK)]])):
                checksum.update(self._buffer[:size])
                left, silent = left - size, silent + size
                if silent >= _BEAT:
                    silent = 0
                    self._out.write(b"#\n")
                    self._out.flush()
        finally:
            os.close(descriptor)
        made = checksum.hexdigest().encode()
        if state.st_nlink > 1:
            self._checksums[state.st_ino] = made
        return made

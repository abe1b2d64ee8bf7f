"""What a generation holds: a line a file, with checksums, in the format of mtree(5) as ``bsdtar`` reads it.

    ./tree/etc/hosts type=file mode=0644 uid=0 gid=0 size=186 time=1760000000.123456789 inode=411 sha256digest=...

Paths begin with ``./config`` or ``./tree``. In a name everything but plain ASCII is octal: ``\\040`` is a blank. The
number of hard links is left out, as the next generation adds one; files with the same inode are the same file. A file
with extended attributes (ACLs are some) ends in ``tags=xattrs:SHA256``, of all of them; a program with capabilities in
``tags=xattrs:SHA256,capability:HEX`` as well: those programs skip tags, which mtree(5) leaves to others.

``find`` looks at the files, and says all but the checksum and the tags in our own words. A line that it says as it
said it for the generation before is of a file that both have (rsync --link-dest): it keeps the rest of its line, and is
not read. So its cost is that of find and one look-up a file. No link is followed.
"""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vstools import run
from vstools.errors import VsError
from vstools.faults import checkpoint
from vstools.inside import open_entry

FILE = "manifest"
SECTIONS = ("config", "tree")
CAPABILITY = "security.capability"
_HEADER = b"#mtree\n"
_BLOCK = 1 << 20
_BLANK = 0x20
_SHOWN = 200
_OTHERS = rb"[^!$-)+->@-Z^-~]|="
_ODD = re.compile(_OTHERS)
"""What is octal in names: all but printable ASCII, and of that what means something in a line: ``"#*=?[\\]``."""
_UNSHOWN = re.compile(rb"[^ -\[\]-~]")
_OCTAL = re.compile(rb"\\([0-7]{3})")
_TIME = re.compile(rb" time=(-?[0-9]+)\.([0-9]{9})[0-9]* ")
_INODE = re.compile(rb" inode=[0-9]+")
_COMMON = "mode=%#m uid=%U gid=%G"
_USUAL = ("-newermt", "@1000000000", "!", "-newermt", "@9999999999")
"""Times from 2001 to 2286 have ten digits, so that 20 characters of %T@ are seconds and nanoseconds; find says ten."""


def _words() -> list[str]:
    """What find is told: a type, then its words for a file of it, NUL, the path, NUL."""
    words: list[str] = []
    for letter, kind, size, end in (
        ("f", "file", " size=%s", ""),
        ("d", "dir", "", ""),
        ("l", "link", "", " link=%l"),
        ("p", "fifo", "", ""),
        ("s", "socket", "", ""),
        ("b", "block", "", ""),
        ("c", "char", "", ""),
    ):
        text = f"type={kind} {_COMMON}{size} time=%{{}}T@ inode=%i{end}\\0%p\\0"
        words += ["-o"] if words else []
        words += ["-type", letter, "(", *_USUAL, "-printf", text.format(".20"), "-o", "-printf", text.format(""), ")"]
    return words


@dataclass(frozen=True)
class Written:
    """A manifest that was written: how many names it has, how many files were read for it and how many bytes."""

    names: int
    read: int
    bytes: int
    sha256: str


def write(generation: Path, former: Path | None = None, check: Callable[[], None] = lambda: None) -> Written:
    """Write ``generation``/manifest, taking over from ``former``, an earlier generation, what both have.

    Nobody writes to the generation meanwhile, and ``former`` is not removed. ``check`` is called now and then, and may
    raise. Raises VsError when a file cannot be read.
    """
    known = _known(generation, former)
    path = generation / FILE
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    checksum = hashlib.sha256(_HEADER)
    names = 0
    with _Tree(generation) as tree, open(os.open(path, flags, 0o600), "wb", buffering=_BLOCK) as out:  # noqa: PTH123 - a descriptor
        out.write(_HEADER)
        checkpoint("manifest:begun")
        for lines in tree.lines(known):
            block = b"".join(lines)
            names += len(lines)
            check()
            checksum.update(block)
            out.write(block)
        return Written(names, tree.read, tree.bytes, checksum.hexdigest())


def _known(generation: Path, former: Path | None) -> dict[bytes, bytes]:
    """The lines of a former manifest by find's words in them: whose words are the same, is the same file."""
    if former is None or not (former / FILE).is_file() or generation.stat().st_dev != former.stat().st_dev:
        return {}  # an inode's number means something in its own file system only
    found = {}
    for line in _lines(former / FILE):
        start = line.find(b" ") + 1
        if not line.startswith(b"type=dir ", start):  # each generation has its own
            found[line[start : _end_of(line, start)]] = line
    return found


def _end_of(line: bytes, start: int) -> int:
    """Where the part of a line begins that find does not say."""
    end = line.find(b" sha256digest=", start)
    if end < 0:
        end = line.find(b" tags=", start)
    return len(line) - 1 if end < 0 else end


class _Tree:
    """The files of a generation, as find says them."""

    def __init__(self, generation: Path) -> None:
        self._path = generation
        self._root = -1
        self._buffer = memoryview(bytearray(_BLOCK))
        self.read = 0
        self.bytes = 0

    def __enter__(self) -> "_Tree":
        self._root = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._root)

    def lines(self, known: dict[bytes, bytes]) -> Iterator[list[bytes]]:
        """The manifest's lines, some at a time; what is not ``known`` is read. It learns files with several names."""
        for pairs in self._found():
            lines = []
            for words, path in pairs:
                line = known.get(words)
                if line is None or not line.startswith(path) or line[len(path)] != _BLANK:
                    line = self._line(words, path, known)
                lines.append(line)
            yield lines

    def _found(self) -> Iterator[Iterator[tuple[bytes, bytes]]]:
        """(find's words, path) of every name, some at a time."""
        sections = [f"./{name}" for name in SECTIONS if os.path.lexists(self._path / name)]
        if not sections:
            raise VsError(f"{self._path} holds no copy of a guest")
        argv = ["env", "-C", str(self._path), "find", "-P", *sections, *_words()]
        with run.piped(argv, stdout=run.PIPE) as find:
            rest: list[bytes] = []
            tail = b""
            while block := find.stdout.read(_BLOCK):
                fields = (tail + block).split(b"\0")
                tail = fields.pop()
                rest += fields
                whole = len(rest) & ~1
                each = iter(rest[:whole])
                yield zip(each, each, strict=True)
                rest = rest[whole:]
            if (complaint := find.finish()) is not None or rest or tail:
                raise VsError(f"{self._path} cannot be read", complaint or "find stopped in the middle")

    def _line(self, words: bytes, path: bytes, known: dict[bytes, bytes]) -> bytes:
        """The line of a file that is not known by these words and this very path."""
        words = _TIME.sub(rb" time=\1.\2 ", words, count=1)
        kind = words[5 : words.index(b" ")]
        if kind == b"link":
            start = words.index(b" link=") + 6
            words = words[:start] + quoted(words[start:])
        elif kind in (b"block", b"char"):
            device = os.stat(path, dir_fd=self._root, follow_symlinks=False).st_rdev
            words += b" device=native,%d,%d" % (os.major(device), os.minor(device))
        line = known.get(words)
        links = 1
        if line is not None:  # by another name, or one with odd characters
            end = line[_end_of(line, line.index(b" ")) : -1]
        elif kind == b"file":
            end, links = self._file(words, path)
        else:
            end = self._tags(path)
        made = b"%s %s%s\n" % (quoted(path), words, end)
        if links > 1:
            known[words] = made
        return made

    def _tags(self, path: bytes) -> bytes:
        """The tags of what is not opened: a directory, a link, a device."""
        try:
            return tags_of(f"/proc/self/fd/{self._root}/{os.fsdecode(path)}", follow=False)
        except OSError as error:  # its own words would hold the whole name
            raise VsError(f"{_shown(path)} cannot be read", str(error.strerror)) from error

    def _file(self, words: bytes, path: bytes) -> tuple[bytes, int]:
        """Checksum and tags of a regular file, and how many names it has."""
        name = os.fsdecode(path)
        descriptor = open_entry(self._root, name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        if descriptor is None:
            raise VsError(f"{_shown(path)} cannot be opened", "it changed meanwhile, or its name is too long")
        try:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode) or not words.endswith(b" inode=%d" % state.st_ino):
                raise VsError(f"{_shown(path)} became another file", "it changed while the manifest was made")
            checksum = hashlib.sha256()
            while size := os.readv(descriptor, [self._buffer]):
                checksum.update(self._buffer[:size])
                self.bytes += size
            self.read += 1
            return b" sha256digest=%s%s" % (
                checksum.hexdigest().encode(),
                tags_of(descriptor, follow=True),
            ), state.st_nlink
        finally:
            os.close(descriptor)


def tags_of(place: int | str, *, follow: bool) -> bytes:
    """The word about the extended attributes of an open file or of a name; none, no word. Raises OSError."""
    try:
        names = sorted(os.listxattr(place, follow_symlinks=follow))
    except OSError as error:
        if error.errno != errno.ENOTSUP:  # where the store's file system has none, rsync -X has said so
            raise
        return b""
    if not names:
        return b""
    checksum = hashlib.sha256()
    tags = ""
    for name in names:
        value = os.getxattr(place, name, follow_symlinks=follow)
        for part in (os.fsencode(name), value):
            checksum.update(b"%d:%s" % (len(part), part))
        if name == CAPABILITY:
            tags = f",capability:{value.hex()}"
    return f" tags=xattrs:{checksum.hexdigest()}{tags}".encode()


def quoted(name: bytes, *, blanks: bool = True) -> bytes:
    """A name as it is written in a line; without ``blanks``, text with blanks that is safe to show."""
    pattern = _ODD if blanks else _UNSHOWN
    return pattern.sub(lambda match: b"\\%03o" % match[0][0], name) if pattern.search(name) else name


def unquoted(name: bytes) -> bytes:
    """A name of a line as it is on the disk."""
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), name) if b"\\" in name else name


def _shown(path: bytes) -> str:
    text = quoted(path).decode("ascii")
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a manifest, each with its end. Raises VsError where it is no manifest, or part of one."""
    with path.open("rb", buffering=_BLOCK) as handle:
        if handle.readline(len(_HEADER)) != _HEADER:
            raise VsError(f"{path} is not a manifest")
        line = b"\n"
        for line in handle:
            yield line
        if line[-1:] != b"\n":
            raise VsError(f"{path} is cut off")


def lines_of(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """(name as it is written, the other words) of every line of a manifest. Raises VsError where it is no manifest."""
    for line in _lines(path):
        name, _, words = line.rstrip(b"\n").partition(b" ")
        yield name, words


def fields_of(words: bytes) -> dict[str, str]:
    """Keyword -> value of a line's words."""
    return dict(word.partition("=")[::2] for word in words.decode("ascii").split(" "))


@dataclass(frozen=True)
class Difference:
    """A file that is not as the manifest says: its name, and ``missing``, ``extra``, or the keywords that differ."""

    name: bytes
    what: str


def verify(generation: Path) -> list[Difference]:
    """Read a whole generation, and say what is not as its manifest says, in the order of names.

    Numbers of inodes do not count: a store may be copied to another disk.
    """
    said = dict(lines_of(generation / FILE))
    found = []
    with _Tree(generation) as tree:
        for lines in tree.lines({}):
            for line in lines:
                name, _, words = line[:-1].partition(b" ")
                expected = said.pop(name, None)
                if expected is None:
                    found.append(Difference(unquoted(name), "extra"))
                elif (words := _INODE.sub(b"", words)) != (expected := _INODE.sub(b"", expected)):
                    found.append(Difference(unquoted(name), " ".join(changed(fields_of(expected), fields_of(words)))))
    found += [Difference(unquoted(name), "missing") for name in said]
    return sorted(found, key=lambda each: each.name)


def changed(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """The keywords that have not the same value in both."""
    return [key for key in dict.fromkeys((*one, *other)) if one.get(key) != other.get(key)]

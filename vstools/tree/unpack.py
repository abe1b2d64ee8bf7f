"""An archive becomes a tree, and a hostile archive becomes a sentence.

The archive is read here member by member; each one that is harmless is written again, as a new tar stream, to GNU
tar, which makes the files. So tar sees no header that was not checked: a difference between two readings of the
same bytes, the usual way around such a check, is not possible. tar runs as root with the guest's own ids.
"""

import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from vstools import run
from vstools.errors import Refused, VsError
from vstools.guest import IDS

_SUFFIXES = {
    (".tar",): (),
    (".tar.gz", ".tgz"): ("gzip", "-dc"),
    (".tar.xz", ".txz"): ("xz", "-dc", "-T0"),
    (".tar.zst", ".tzst"): ("zstd", "-dc", "-q"),
}
_MAGIC = {
    b"\x1f\x8b": ("gzip", "-dc"),
    b"\xfd7zXZ\x00": ("xz", "-dc", "-T0"),
    b"\x28\xb5\x2f\xfd": ("zstd", "-dc", "-q"),
}
_TAR = (
    "tar",
    "-x",
    "-f",
    "-",
    "--numeric-owner",
    "--same-owner",
    "-p",
    "--xattrs",
    "--xattrs-include=*",
    "--delay-directory-restore",
    "--warning=no-timestamp",
)
_CHUNK = 1 << 20
_DISK = ("No space left", "Wrote only", "quota", "Input/output")  # what tar says of them
_DEVICES = (tarfile.CHRTYPE, tarfile.BLKTYPE)

Progress = Callable[[int], None]
"""Called with the number of bytes of the archive read so far."""


@dataclass
class Checker:
    """Decides for each member, in order, whether it may be written. Names are kept as parts without ``.``."""

    links: set[tuple[str, ...]] = field(default_factory=set)
    devices: int = 0
    members: int = 0

    def accept(self, member: tarfile.TarInfo) -> bool:
        """Whether to write this member; False for device nodes. Raises Refused for what no honest archive holds."""
        self.members += 1
        parts = self._parts(member.name, "a member")
        self._through_link(parts, member.name)
        if member.type in _DEVICES:
            self.devices += 1
            return False
        if member.islnk():
            target = self._parts(member.linkname, "a hard link")
            self._through_link(target, member.linkname)
            if target in self.links:
                self.links.add(parts)
                return True
        elif not (member.isreg() or member.isdir() or member.issym() or member.isfifo()):
            raise Refused(f"the template holds {member.name!r} of the unknown type {member.type!r}", "pack it anew")
        if not parts and not member.isdir():
            raise Refused("the template's root is no directory", "it is hostile")
        if parts in self.links and not member.issym():
            raise Refused(f"the template would write {member.name!r} through a link of its own", "it is hostile")
        if not (0 <= member.uid < IDS and 0 <= member.gid < IDS):
            raise Refused(
                f"the template's {member.name!r} belongs to {member.uid}:{member.gid}",
                f"ids in a guest are 0 to {IDS - 1}: was it packed with shifted ids?",
            )
        if member.issym():
            self.links.add(parts)
        return True

    def _parts(self, name: str, what: str) -> tuple[str, ...]:
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if "\0" in name:  # tar would read another name than this one
            raise Refused(f"the template holds {what} with the impossible name {name!r}", "it is hostile")
        if name.startswith("/"):
            raise Refused(f"the template holds {what} with the absolute name {name!r}", "it is hostile or badly packed")
        if ".." in parts:
            raise Refused(f"the template holds {what} that leads outside: {name!r}", "it is hostile or badly packed")
        return parts

    def _through_link(self, parts: tuple[str, ...], name: str) -> None:
        if any(parts[:length] in self.links for length in range(1, len(parts))):
            raise Refused(f"the template would write {name!r} through a link of its own", "it is hostile")


def check_archive(path: Path) -> None:
    """Raise Refused when ``path`` cannot be a template: missing, no regular file, empty, or of an unknown kind."""
    if not path.exists():
        raise Refused(f"the template {path} does not exist", "vs-template makes one from a guest")
    if not path.is_file() or not path.stat().st_size:
        raise Refused(f"the template {path} is empty or no file", "a template is a tar archive")
    _decompressor(path)


def _decompressor(path: Path) -> tuple[str, ...]:
    """The program that unpacks the archive's compression, by its first bytes; () for a bare tar."""
    with path.open("rb") as handle:
        head = handle.read(512)
    for magic, program in _MAGIC.items():
        if head.startswith(magic):
            return program
    if head[257:262] == b"ustar" or head[257:262] == b"\0" * 5:
        return ()
    raise Refused(f"{path} is no tar archive", "a template is a tar, plain or compressed by gzip, xz or zstd")


def compressor(path: Path) -> tuple[str, ...]:
    """The program that compresses for a file of this name; raises Refused for an unknown suffix."""
    for suffixes, program in _SUFFIXES.items():
        if path.name.endswith(suffixes):
            return tuple(word.replace("-dc", "-c") for word in program)
    raise Refused(f"{path.name} names no kind of archive", "end it in .tar, .tar.gz, .tar.xz or .tar.zst")


def unpack(archive: Path, tree: Path, progress: Progress = lambda _: None) -> int:
    """Write the archive's files into the empty directory ``tree``; returns how many device nodes were left out.

    Raises Refused when the archive is hostile, damaged or empty, VsError when the disk is full.
    """
    checker = Checker()
    with _stream(archive, progress) as source, _extractor(tree) as sink:
        try:
            _copy_members(source, sink, checker)
        except (tarfile.TarError, EOFError, UnicodeError, ValueError, OverflowError, RecursionError) as error:
            raise Refused(f"{archive} is damaged or no tar archive", str(error)) from error
        if not checker.members:
            raise Refused(f"{archive} is empty", "a template holds a whole system")
        sink.write(b"\0" * 1024)
    return checker.devices


def _copy_members(source: "_Stream", sink: IO[bytes], checker: Checker) -> None:
    """Check each member and write it again: a fresh header, then its data."""
    members = tarfile.open(fileobj=cast("IO[bytes]", source), mode="r:", errorlevel=2)  # noqa: SIM115 - reads only
    while (member := members.next()) is not None:
        if checker.accept(member):
            _copy(member, source, sink, members.offset)
        if checker.members % 1024 == 0:
            cast("Any", members).members.clear()  # tarfile would remember them all
    if source.last.strip(b"\0"):
        raise tarfile.ReadError("a header is damaged")


def _copy(member: tarfile.TarInfo, source: "_Stream", sink: IO[bytes], end: int) -> None:
    """One accepted member; ``end`` is where its stored data ends in ``source``. Sparse files are written whole."""
    segments, stored = cast("Any", member).sparse, end - member.offset_data
    extended = {key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr.")}
    member.pax_headers, member.uname, member.gname, member.mtime = extended, "", "", int(member.mtime)
    size = member.size if member.isreg() else 0
    if member.isreg():
        member.type = tarfile.REGTYPE
    else:
        member.size = 0
    sink.write(member.tobuf(tarfile.PAX_FORMAT if extended else tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
    if not size:
        return
    source.seek(member.offset_data)
    if segments is None:
        source.copy(size, sink)
    else:
        _copy_sparse(segments, size, stored, source, sink)
    sink.write(b"\0" * (-size % tarfile.BLOCKSIZE))


def _copy_sparse(segments: list[tuple[int, int]], size: int, stored: int, source: "_Stream", sink: IO[bytes]) -> None:
    """The file's segments at their places (offset, length), zeros between them."""
    position = 0
    for offset, length in [*segments, (size, 0)]:
        if not position <= offset <= size or length < 0 or length > stored:
            raise tarfile.ReadError("a sparse file does not fit together")
        for _ in range((offset - position) // _CHUNK):
            sink.write(bytes(_CHUNK))
        sink.write(bytes((offset - position) % _CHUNK))
        source.copy(length, sink)
        position, stored = offset + length, stored - length


class _Stream:
    """What tarfile needs of a file, over a pipe: read on, and skip forward. Keeps the last block read by it."""

    def __init__(self, source: IO[bytes], archive: IO[bytes], progress: Progress) -> None:
        self._source, self._archive, self._progress = source.fileno(), archive.fileno(), progress
        self._buffer, self._at, self._base = b"", 0, 0
        self.last = b""

    def _fill(self) -> bool:
        """Read the next piece; the decompressor shares the archive's file position, which tells the progress."""
        if self._at < len(self._buffer):
            return True
        self._base += len(self._buffer)
        self._buffer, self._at = os.read(self._source, _CHUNK), 0
        self._progress(os.lseek(self._archive, 0, os.SEEK_CUR))
        return bool(self._buffer)

    def tell(self) -> int:
        """Bytes of the tar stream passed so far."""
        return self._base + self._at

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes of headers, fewer at the end."""
        if size > _CHUNK:
            raise tarfile.ReadError("a header has more than a MiB")
        found = self._buffer[self._at : self._at + size]
        self._at += len(found)
        while len(found) < size and self._fill():
            piece = self._buffer[self._at : self._at + size - len(found)]
            self._at += len(piece)
            found += piece
        self.last = found
        return found

    def seek(self, position: int) -> None:
        """Skip forward; raises ReadError when the stream ends before."""
        self.copy(position - self.tell(), None)

    def copy(self, size: int, sink: IO[bytes] | None) -> None:
        """Pass ``size`` bytes to ``sink`` (None: skip them); raises ReadError when the stream ends before."""
        if size < 0:
            raise tarfile.ReadError("members overlap")
        while size:
            if not self._fill():
                raise tarfile.ReadError("the archive ends too early")
            piece = self._buffer[self._at : self._at + size]
            self._at += len(piece)
            size -= len(piece)
            if sink is not None:
                sink.write(piece)


@contextmanager
def _stream(archive: Path, progress: Progress) -> Iterator[_Stream]:
    """The archive's tar stream; raises Refused when the compressed data is damaged."""
    program = _decompressor(archive)
    with archive.open("rb", buffering=0) as raw:
        if not program:
            yield _Stream(raw, raw, progress)
            return
        with run.piped(program, stdin=raw, stdout=run.PIPE) as process:
            yield _Stream(process.stdout, raw, progress)
            while process.stdout.read(_CHUNK):
                pass
            if (words := process.finish()) is not None:
                raise Refused(f"{archive} is damaged", words)


@contextmanager
def _extractor(tree: Path) -> Iterator[IO[bytes]]:
    """GNU tar's standard input; raises with tar's words when it fails: a full disk, or an impossible archive."""
    with run.piped([*_TAR, "-C", str(tree)], stdin=run.PIPE, stdout=run.DEVNULL) as process:
        with suppress(BrokenPipeError):
            yield process.stdin
            process.stdin.close()
        if (words := process.finish(600)) is not None:
            if any(reason in words for reason in _DISK):
                raise VsError(f"the tree could not be written to {tree.parent}: no space left, or a bad disk", words)
            raise Refused("the template cannot be unpacked", words)

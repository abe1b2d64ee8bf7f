"""An archive becomes a tree, and a hostile archive becomes a sentence.

The archive is checked here member by member, and what is harmless goes on to GNU tar, which makes the files. tar sees
no header that was not checked: a header that two programs could read in two ways, the usual way around such a check,
is not passed on but written anew. tar runs as root with the guest's own ids.
"""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from vstools import run
from vstools.errors import Refused, VsError
from vstools.tree import oci
from vstools.tree.checker import Checker, Member
from vstools.tree.stream import CHUNK, Progress, Stream
from vstools.tree.ustar import BLOCK, read_plain

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
    "--blocking-factor=2048",  # a MiB at a time from the pipe
    "--numeric-owner",
    "--same-owner",
    "-p",
    "--xattrs",
    "--xattrs-include=*",
    "--delay-directory-restore",
    "--warning=no-timestamp",
)
_DISK = ("No space left", "Wrote only", "quota", "Input/output")  # what tar says of them


def check_archive(path: Path) -> None:
    """Raise Refused when ``path`` cannot be a template: missing, no regular file, empty, or of an unknown kind."""
    if not path.exists():
        raise Refused(f"the template {path} does not exist", "vs-template makes one from a guest")
    if oci.is_image(path):
        oci.image(path)
        return
    if not path.is_file() or not path.stat().st_size:
        raise Refused(f"the template {path} is empty or no file", "a template is a tar archive or an OCI image")
    decompressor(path)


def decompressor(path: Path) -> tuple[str, ...]:
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
    with extractor(tree) as sink, stream_of(archive, sink, progress) as stream:
        try:
            copy_members(stream, checker)
        except (tarfile.TarError, EOFError, UnicodeError, ValueError, OverflowError, RecursionError) as error:
            raise Refused(f"{archive} is damaged or no tar archive", str(error)) from error
        if not checker.members:
            raise Refused(f"{archive} is empty", "a template holds a whole system")
        stream.write(bytes(2 * BLOCK))
    return checker.devices


def copy_members(stream: Stream, checker: Checker) -> None:
    """Pass the plain members on; what has another header is read by tarfile and gets a new one."""
    reader = _Reader(stream)
    while True:
        if reader.is_needed or (plain := read_plain(stream.peek(BLOCK))) is None:
            if (member := reader.next()) is None:
                break
            if checker.accept(Member.of(member)):
                _write_anew(member, stream, reader.end)
            stream.seek(reader.end)
        else:
            size = BLOCK + plain.size + -plain.size % BLOCK
            if checker.accept(plain.member):
                stream.pass_on(size)
            else:
                stream.seek(stream.tell() + size)
    if stream.last.strip(b"\0"):
        raise tarfile.ReadError("a header is damaged")


def members(stream: Stream) -> Iterator[Member]:
    """The members of a stream, read as ``copy_members`` reads them; none is passed on."""
    reader = _Reader(stream)
    while True:
        if reader.is_needed or (plain := read_plain(stream.peek(BLOCK))) is None:
            if (member := reader.next()) is None:
                break
            yield Member.of(member)
            stream.seek(reader.end)
        else:
            yield plain.member
            stream.seek(stream.tell() + BLOCK + plain.size + -plain.size % BLOCK)


class _Reader:
    """tarfile, called for single members of a stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._members: tarfile.TarFile | None = None
        self.end = 0
        """Where the data of the last member ends, padding included."""

    @property
    def is_needed(self) -> bool:
        """Whether a global header was read, which says something of every member after it."""
        return self._members is not None and bool(self._members.pax_headers)

    def next(self) -> tarfile.TarInfo | None:
        """The member that begins here, None where the archive ends or a header is damaged (``Stream.last``)."""
        if self._members is None:  # opening reads the first one
            source = cast("IO[bytes]", self._stream)
            self._members = tarfile.open(fileobj=source, mode="r:", errorlevel=2)  # noqa: SIM115 - reads only
            found = self._members.next() if cast("Any", self._members).members else None
        else:
            self._members.offset = self._stream.tell()
            found = self._members.next()
        cast("Any", self._members).members.clear()  # tarfile would remember them all
        self.end = self._members.offset
        return found


def _write_anew(member: tarfile.TarInfo, stream: Stream, end: int) -> None:
    """One accepted member; ``end`` is where its stored data ends. Sparse files are written whole."""
    segments, stored = cast("Any", member).sparse, end - member.offset_data
    extended = {key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr.")}
    member.pax_headers, member.uname, member.gname, member.mtime = extended, "", "", int(member.mtime)
    size = member.size if member.isreg() else 0
    if member.isreg():
        member.type = tarfile.REGTYPE
    else:
        member.size = 0
    stream.write(member.tobuf(tarfile.PAX_FORMAT if extended else tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
    if not size:
        return
    stream.seek(member.offset_data)
    if segments is None:
        stream.pass_on(size)
    else:
        _write_sparse(segments, size, stored, stream)
    stream.write(bytes(-size % BLOCK))


def _write_sparse(segments: list[tuple[int, int]], size: int, stored: int, stream: Stream) -> None:
    """The file's segments at their places (offset, length), zeros between them."""
    position = 0
    for offset, length in [*segments, (size, 0)]:
        if not position <= offset <= size or length < 0 or length > stored:
            raise tarfile.ReadError("a sparse file does not fit together")
        for _ in range((offset - position) // CHUNK):
            stream.write(bytes(CHUNK))
        stream.write(bytes((offset - position) % CHUNK))
        stream.pass_on(length)
        position, stored = offset + length, stored - length


@contextmanager
def stream_of(archive: Path, sink: IO[bytes], progress: Progress) -> Iterator[Stream]:
    """The archive's tar stream on its way to ``sink``; raises Refused when the compressed data is damaged."""
    program = decompressor(archive)
    with archive.open("rb", buffering=0) as raw:
        if not program:
            yield Stream(raw, raw, sink, progress)
            return
        with run.piped(program, stdin=raw, stdout=run.PIPE) as process:
            yield Stream(process.stdout, raw, sink, progress)
            while process.stdout.read(CHUNK):
                pass
            if (words := process.finish()) is not None:
                raise Refused(f"{archive} is damaged", words)


@contextmanager
def extractor(tree: Path) -> Iterator[IO[bytes]]:
    """GNU tar's standard input; raises with tar's words when it fails: a full disk, or an impossible archive."""
    with run.piped([*_TAR, "-C", str(tree)], stdin=run.PIPE, stdout=run.DEVNULL) as process:
        with suppress(BrokenPipeError):
            yield process.stdin
            process.stdin.close()
        if (words := process.finish(600)) is not None:
            if any(reason in words for reason in _DISK):
                raise VsError(f"the tree could not be written to {tree.parent}: no space left, or a bad disk", words)
            raise Refused("the template cannot be unpacked", words)

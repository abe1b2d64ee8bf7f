"""What a host says is in a guest's tree now (listing.py): read line by line, checked, and bounded in everything."""

import base64
import binascii
import os
import re
import select
import shlex
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from vstools import faults, run
from vstools.config.slaves import Slave
from vstools.errors import VsError
from vstools.paths import Paths
from vstools.pool import remote, ssh, wire
from vstools.pool.listing import LISTS, MOST_NAMES

_SILENT_FOR = faults.patience(300)
_DEADLINE = 24 * 3600.0
_LONGEST = 2 << 20
"""Bytes of a line: a list of users has 1 MiB at most, in base64."""
_MOST_COMPLAINTS = 1 << 20
_MOST_BYTES = 2 << 30
"""Bytes of all lines of names: what is new of them is kept in memory."""
_LONGEST_WORD = 5 * 4096
"""Bytes of a word: a path, or what a link leads to, has PATH_MAX at most, and each byte may be octal."""
_NAME = rb"(?:/(?!\.{1,2}[/ ])(?:[!$-)+-.0-<>@-Z^-~]|\\[0-7]{3})+)*"
"""No class has the slash: a name is read in one way only, and in a time that grows with its length."""
_LINE = re.compile(
    rb"\./tree" + _NAME + rb" type=(?P<type>file|dir|link|fifo|socket|block|char) mode=0[0-7]{0,5} uid=[0-9]{1,10}"
    rb" gid=[0-9]{1,10}(?: size=(?P<size>[0-9]{1,19}))? time=-?[0-9]{1,19}\.[0-9]{9} inode=[0-9]{1,20}"
    rb"(?: link=[!-~]+)?(?: device=native,[0-9]{1,10},[0-9]{1,10})?(?P<sum> sha256digest=[0-9a-f]{64})?"
    rb"(?: tags=xattrs:[0-9a-f]{64}(?:,capability:(?:[0-9a-f]{2}){1,64})?)?"
)
"""A line of a manifest, as those are written here."""
_SIZED = re.compile(rb" size=([0-9]+) time=[0-9.-]+ inode=([0-9]+)")
_SOME = 1 << 30
_TIMED = re.compile(rb" size=([0-9]+) time=([0-9.-]+) ")

Before = Mapping[bytes, bytes]
"""The copy's manifest: name as it is written -> the other words."""


class Cut(VsError):
    """An answer that ended too early."""


@dataclass
class Listed:
    """A host's answer; but for ``lines`` it is whole when these have been read to their end.

    ``lists``: the texts of /etc/passwd, shadow and group. ``live``: the tree may have changed while it was read.
    ``unread``: how many names could not be read.
    """

    host: str
    _answer: Iterator[bytes]
    _before: Before
    _quick: bool
    _progress: Callable[[int], None]
    lists: dict[str, str] = field(default_factory=dict)
    live: bool = False
    unread: int = 0

    def lines(self) -> Iterator[tuple[bytes, bytes]]:
        """(name as it is written, the other words) of everything in the tree. Raises VsError for what cannot be."""
        self._begin()
        names = length = done = 0
        for line in self._answer:
            if line[:1] == b"#":
                if line[1:] and self._note(line):
                    break
                continue
            names, length = names + 1, length + len(line)
            if names > MOST_NAMES or length > _MOST_BYTES:
                raise VsError(f"host {self.host} says of its guest more than can be kept")
            match = self._checked(line)
            if match["sum"]:
                self._progress(done := done + int(match["size"]))
            name, _, words = line.partition(b" ")
            yield name, self._completed(name, words) if match["size"] and not match["sum"] else words
        else:
            raise Cut(f"host {self.host}: what it says of its guest is cut off")

    def _checked(self, line: bytes) -> "re.Match[bytes]":
        """A line of a name; raises VsError for what is none."""
        match = _LINE.fullmatch(line)
        if match is None or any(len(part) > _LONGEST_WORD for part in line.split(b" ")):
            raise self._nonsense(line)
        is_file = match["type"] == b"file"
        if is_file != (match["size"] is not None) or (match["sum"] and not is_file):
            raise self._nonsense(line)
        return match

    def _begin(self) -> None:
        line = next(self._answer, None)
        if line is None:
            raise Cut(f"host {self.host} says nothing of its guest")
        if line not in (b"#list live", b"#list snapshot"):
            raise self._nonsense(line)
        self.live = line == b"#list live"

    def _note(self, line: bytes) -> bool:
        """Take what is no name; whether that is the end."""
        if match := re.fullmatch(rb"#end ([0-9]{1,9})", line):
            self.unread = int(match[1])
            return True
        match = re.fullmatch(rb"#file (\w+) ([A-Za-z0-9+/=]*)", line)
        name = match[1].decode() if match else ""
        if match is None or name not in LISTS or name in self.lists:
            raise self._nonsense(line)
        try:
            self.lists[name] = base64.b64decode(match[2], validate=True).decode("utf-8", "surrogateescape")
        except binascii.Error:
            raise self._nonsense(line) from None
        return False

    def _completed(self, name: bytes, words: bytes) -> bytes:
        """A file that was not read, as size and time are the copy's, is believed to have its content."""
        earlier = self._before.get(name, b"")
        one, other = _TIMED.search(earlier), _TIMED.search(words)
        checksum = re.search(rb" sha256digest=[0-9a-f]{64}", earlier)
        if not self._quick or one is None or other is None or checksum is None or one[0] != other[0]:
            return words
        start, _, tags = words.partition(b" tags=")
        return start + checksum[0] + (b" tags=" + tags if tags else b"")

    def _nonsense(self, line: bytes) -> VsError:
        said = wire.clean(line[:200].decode("ascii", "replace"))
        return VsError(f"host {self.host} says of its guest what cannot be", said)


@contextmanager
def asked(
    paths: Paths, slave: Slave, name: str, before: Before, *, quick: bool, progress: Callable[[int], None]
) -> Iterator[Listed]:
    """A host's answer for the time of a block; counts after it only. Raises VsError where the host takes it back."""
    argv = [*ssh.words(paths, slave), slave.name]
    argv += [shlex.join(ssh.remote(slave, remote.COMMAND, "list", name, *(["quick"] if quick else [])))]
    with tempfile.TemporaryFile() as question:
        question.writelines(_asking(before))
        question.seek(0)
        with run.piped(argv, stdin=question, stdout=run.PIPE) as process:
            answer = _received(process, slave.host)
            try:
                yield Listed(slave.host, answer, before, quick, progress)
            except Cut:
                _end(process, slave.host, name)
                raise
            if next(answer, None) is not None:
                raise VsError(f"host {slave.host} says too much")
            _end(process, slave.host, name)


def _end(process: run.Piped, host: str, name: str) -> None:
    """Wait for the other end; raises VsError where that did not go well."""
    if complaint := process.finish():
        raise VsError(f"host {host} does not say what is in guest {name}", wire.clean(complaint))


def _asking(before: Before) -> Iterable[bytes]:
    """How much may be read, then a line for each regular file of the tree of a copy: size, time, name.

    That is twice what the copy has, and some: an honest guest may have made several files of one with several names.
    """
    sizes = (match.groups() for words in before.values() if (match := _SIZED.search(words)))
    yield b"#most %d\n" % (_SOME + 2 * sum(int(size) for size, _ in set(sizes)))
    for name, words in before.items():
        if words.startswith(b"type=file ") and name.startswith(b"./tree/") and (match := _TIMED.search(words)):
            yield b"%s %s %s\n" % (match[1], match[2], name)


def _received(process: run.Piped, host: str) -> Iterator[bytes]:
    """The lines that come, without their ends. Raises VsError where they are too long or do not come."""
    stream, rest, deadline = process.stdout.fileno(), b"", time.monotonic() + _DEADLINE
    heard = time.monotonic()
    while True:
        now = time.monotonic()
        if os.fstat(process.words.fileno()).st_size > _MOST_COMPLAINTS:
            raise VsError(f"host {host} complains without an end")
        if now > deadline or now > heard + _SILENT_FOR:
            raise ssh.Unreachable(f"host {host} says nothing for too long")
        if not select.select([stream], [], [], 1)[0]:
            continue
        heard = now
        if not (block := os.read(stream, 1 << 18)):
            break
        *found, rest = (rest + block).split(b"\n")
        if len(rest) > _LONGEST:
            raise VsError(f"host {host} says of its guest what cannot be", "a line is too long")
        yield from found
    if rest:
        yield rest

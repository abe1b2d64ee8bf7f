"""A tar stream on its way from the archive to the extractor: read on, pass on, skip; never back."""

import os
import tarfile
from collections.abc import Callable
from typing import IO

CHUNK = 1 << 20

Progress = Callable[[int], None]
"""Called with the number of bytes of the archive read so far."""


class Stream:
    """What tarfile needs of a file, over a pipe, and passing on to ``sink`` without copying.

    Bytes that are passed on wait in the buffer until something else happens: a run of plain members leaves in pieces
    of a MiB. ``last`` is the last block that was read.
    """

    def __init__(self, source: IO[bytes], archive: IO[bytes], sink: IO[bytes], progress: Progress) -> None:
        self._source, self._archive, self._progress = source.fileno(), archive.fileno(), progress
        self._sink = sink
        self._buffer, self._at, self._base = b"", 0, 0
        self._passed = 0  # from here to _at the buffer is on its way to the sink
        self.last = b""

    def tell(self) -> int:
        """Bytes of the tar stream behind us."""
        return self._base + self._at

    def peek(self, size: int) -> bytes:
        """The next ``size`` bytes, which stay the next ones; fewer at the end."""
        while len(self._buffer) - self._at < size and self._more():
            pass
        return self._buffer[self._at : self._at + size]

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes, fewer at the end; raises ReadError for more than a header can have."""
        if size > CHUNK:
            raise tarfile.ReadError("a header has more than a MiB")
        found = self.peek(size)
        self._skip(len(found))
        self.last = found
        return found

    def seek(self, position: int) -> None:
        """Skip forward; raises ReadError when that is backward, or past the end."""
        left = position - self.tell()
        if left < 0:
            raise tarfile.ReadError("members overlap")
        while left:
            left -= self._skip(min(left, self._available()))

    def write(self, data: bytes) -> None:
        """Send something of our own to the sink, after all that was passed on."""
        self._flush()
        self._sink.write(data)

    def pass_on(self, size: int) -> None:
        """Send the next ``size`` bytes to the sink; raises ReadError when the stream ends before."""
        if size < 0:
            raise tarfile.ReadError("members overlap")
        while size:
            step = min(size, self._available())
            self._at += step
            size -= step

    def _flush(self) -> None:
        if self._passed < self._at:
            self._sink.write(memoryview(self._buffer)[self._passed : self._at])
        self._passed = self._at

    def _skip(self, size: int) -> int:
        self._flush()
        self._at += size
        self._passed = self._at
        return size

    def _available(self) -> int:
        """How many bytes are in the buffer, at least one; raises ReadError at the end of the stream."""
        if self._at == len(self._buffer) and not self._more():
            raise tarfile.ReadError("the archive ends too early")
        return len(self._buffer) - self._at

    def _more(self) -> bool:
        """Read the next piece; the decompressor shares the archive's file position, which tells the progress."""
        self._flush()
        rest = self._buffer[self._at :]
        self._base += self._at
        piece = os.read(self._source, CHUNK)
        self._buffer, self._at, self._passed = rest + piece, 0, 0
        self._progress(os.lseek(self._archive, 0, os.SEEK_CUR))
        return bool(piece)

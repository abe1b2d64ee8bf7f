"""What is written to a disk is brought there while it is written."""

import os
import threading
import time
from pathlib import Path

from vstools.libc import sync_filesystem

_PAUSE = 0.2


class Flusher:
    """Brings a tree to the disk while it is being written, so that ``finish`` finds little left to do.

    What one sync takes passes before the next one: a slow disk is not kept busy by it.
    """

    def __init__(self, tree: Path) -> None:
        self._descriptor = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._end = threading.Event()
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._flush, daemon=True)

    def __enter__(self) -> "Flusher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        os.close(self._descriptor)

    def finish(self) -> None:
        """Bring the rest to the disk; raises the OSError of any write of the whole time."""
        self._stop()
        if self._failure is not None:
            raise self._failure
        sync_filesystem(self._descriptor)

    def _stop(self) -> None:
        self._end.set()
        self._thread.join()

    def _flush(self) -> None:
        pause = _PAUSE
        while not self._end.wait(pause):
            begun = time.monotonic()
            try:
                sync_filesystem(self._descriptor)
            except OSError as error:  # it is told once: the next sync would know nothing of it
                self._failure = error
                return
            pause = max(_PAUSE, time.monotonic() - begun)

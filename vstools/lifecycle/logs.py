"""What a guest said: its console, kept by the host, and its journal, read without trusting the tree.

The journal of a running guest is read by the guest's own journalctl. That of a stopped one is copied out of the tree
(plain files only, bounded) and read by the host's journalctl as ``nobody``: the guest's root may have made anything.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

from vstools import lxc, run
from vstools.inside import Inside
from vstools.lifecycle import trees
from vstools.paths import Paths

_NOBODY = "65534"
_JOURNALS, _JOURNAL_SIZE = 4, 64 << 20
_LINE = 1 << 16
_DROP = ("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--no-new-privs", "--")


def console(paths: Paths, name: str, *, boot: bool) -> Iterator[str]:
    """The lines of the guest's console: of its last start (``boot``), or with those before."""
    folder = paths.log_of(name)
    for path in [folder / "console"] if boot else [folder / "console.1", folder / "console"]:
        if path.exists():
            with path.open(encoding="utf-8", errors="replace") as lines:
                yield from (lxc.printable(line.rstrip("\r\n")) for line in lines)


def journal(paths: Paths, name: str, *, boot: bool) -> Iterator[str]:
    """The lines of the guest's journal; none where it has none."""
    options = ["--no-pager", "--quiet", "-o", "short", *(["--boot"] if boot else [])]
    if lxc.has_monitor(paths, name):
        lines = _output(lxc.attach(paths, name, ["journalctl", *options]))
    else:
        lines = _stopped_journal(paths, name, options)
    yield from (lxc.printable(line) for line in lines)


def _output(argv: list[str]) -> Iterator[str]:
    """A journalctl may print anything, without end: it is passed on as it comes, never gathered."""
    with run.piped(argv, stdout=run.PIPE) as process:
        while line := process.stdout.readline(_LINE):
            yield line.decode("utf-8", "replace").rstrip("\r\n")


def _stopped_journal(paths: Paths, name: str, options: list[str]) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="vs-journal-") as folder, Inside(trees.opened(paths, name)) as tree:
        Path(folder).chmod(0o755)
        found = 0
        for machine in tree.names("var/log/journal"):
            for entry in _newest_first(tree.names(f"var/log/journal/{machine}")):
                if entry.startswith("system") and entry.endswith(".journal") and found < _JOURNALS:
                    target = Path(folder, f"{found}.journal")
                    if tree.copy_out(f"var/log/journal/{machine}/{entry}", target, _JOURNAL_SIZE):
                        target.chmod(0o644)
                        found += 1
        if not found:
            return
        yield from _output([*_DROP, "journalctl", f"--directory={folder}", *options])


def _newest_first(entries: tuple[str, ...]) -> list[str]:
    """``system.journal`` is written now; the others are ``system@ID-NUMBER-TIME.journal``, full ones."""
    return sorted(entries, key=lambda entry: (not entry.startswith("system@"), entry), reverse=True)


def follow(paths: Paths, name: str) -> Iterator[str]:
    """New lines of the console and of the journal as they come, until the guest ends."""
    console_path = paths.log_of(name) / "console"
    with ExitStack() as stack:
        sources: list[_Tail | _Pipe] = [_Tail(console_path)]
        argv = lxc.attach(paths, name, ["journalctl", "--follow", "--lines=0", "--no-pager", "--quiet"])
        if lxc.has_monitor(paths, name):
            sources.append(_Pipe(stack.enter_context(run.piped(argv, stdout=run.PIPE)).stdout))
        last = False
        while True:
            for source in sources:
                yield from source.lines()
            if last:
                return
            last = not lxc.is_running(paths, name)
            time.sleep(0.2)


class _Tail:
    """The new whole lines of a file that grows, from now on."""

    def __init__(self, path: Path) -> None:
        self._path, self._position = path, path.stat().st_size if path.exists() else 0

    def lines(self) -> Iterator[str]:
        if not self._path.exists():
            return
        if self._path.stat().st_size < self._position:
            self._position = 0  # it was rotated
        with self._path.open("rb") as handle:
            handle.seek(self._position)
            text = handle.read(run.PIPE_SIZE)
        whole = text[: text.rfind(b"\n") + 1]
        self._position += len(whole)
        yield from _printable_lines(whole)


class _Pipe:
    """The new whole lines of a program's output; what is not taken yet waits in the pipe, and so does the program."""

    def __init__(self, pipe: IO[bytes]) -> None:
        os.set_blocking(pipe.fileno(), False)
        self._pipe, self._rest = pipe.fileno(), b""

    def lines(self) -> Iterator[str]:
        text = self._rest
        with suppress(BlockingIOError):
            while len(text) < run.PIPE_SIZE and (piece := os.read(self._pipe, run.PIPE_SIZE)):
                text += piece
        end = text.rfind(b"\n") + 1
        if not end and len(text) >= run.PIPE_SIZE:
            end = len(text)  # no line is that long
        self._rest = text[end:]
        yield from _printable_lines(text[:end])


def _printable_lines(text: bytes) -> Iterator[str]:
    for line in text.decode("utf-8", "replace").splitlines():
        yield lxc.printable(line)

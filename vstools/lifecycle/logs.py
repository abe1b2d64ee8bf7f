"""What a guest said: its console, kept by the host, and its journal, read without trusting the tree.

The journal of a running guest is read by the guest's own journalctl. That of a stopped one is copied out of the tree
(plain files only, bounded) and read by the host's journalctl as ``nobody``: the guest's root may have made anything.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from vstools import lxc, run
from vstools.inside import Inside
from vstools.paths import Paths

_NOBODY = "65534"
_JOURNALS, _JOURNAL_SIZE = 4, 64 << 20
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
        result = run.run(lxc.attach(paths, name, ["journalctl", *options]), check=False)
        lines = result.out.splitlines() if not result.code else []
    else:
        lines = _stopped_journal(paths, name, options)
    yield from (lxc.printable(line) for line in lines)


def _stopped_journal(paths: Paths, name: str, options: list[str]) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="vs-journal-") as folder, Inside(paths.tree_of(name)) as tree:
        Path(folder).chmod(0o755)
        found = 0
        for machine in tree.names("var/log/journal"):
            for entry in tree.names(f"var/log/journal/{machine}"):
                if entry.startswith("system") and entry.endswith(".journal") and found < _JOURNALS:
                    target = Path(folder, f"{found}.journal")
                    if tree.copy_out(f"var/log/journal/{machine}/{entry}", target, _JOURNAL_SIZE):
                        target.chmod(0o644)
                        found += 1
        if not found:
            return []
        return run.run([*_DROP, "journalctl", f"--directory={folder}", *options], check=False).out.splitlines()


def follow(paths: Paths, name: str) -> Iterator[str]:
    """New lines of the console and of the journal as they come, until the guest ends."""
    console_path = paths.log_of(name) / "console"
    with ExitStack() as stack:
        sources: list[_Tail] = [_Tail(console_path, console_path.stat().st_size if console_path.exists() else 0)]
        words = stack.enter_context(tempfile.NamedTemporaryFile(prefix="vs-journal-"))
        argv = lxc.attach(paths, name, ["journalctl", "--follow", "--lines=0", "--no-pager", "--quiet"])
        if lxc.has_monitor(paths, name):
            stack.enter_context(run.piped(argv, stdout=words.file))
            sources.append(_Tail(Path(words.name), 0))
        last = False
        while True:
            for source in sources:
                yield from source.lines()
            if last:
                return
            last = not lxc.is_running(paths, name)
            time.sleep(0.2)


class _Tail:
    """The new whole lines of a file that grows."""

    def __init__(self, path: Path, position: int) -> None:
        self.path, self.position = path, position

    def lines(self) -> Iterator[str]:
        if not self.path.exists():
            return
        if self.path.stat().st_size < self.position:
            self.position = 0  # it was rotated
        with self.path.open("rb") as handle:
            handle.seek(self.position)
            text = handle.read()
        whole = text[: text.rfind(b"\n") + 1]
        self.position += len(whole)
        for line in whole.decode("utf-8", "replace").splitlines():
            yield lxc.printable(line)

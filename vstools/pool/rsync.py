"""rsync: its words, what its exit statuses mean, how far it is, and the confinement of what receives."""

import os
import re
import select
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vstools import faults, run
from vstools.config.slaves import Slave
from vstools.errors import VsError
from vstools.paths import Paths
from vstools.pool import confined, remote, ssh, wire

COPY = ("-aHAX", "--numeric-ids", "--sparse", "--delete", "--one-file-system")
"""The guest's own ids, hard links, ACLs and extended attributes; what the source no longer has goes."""
_STATUS = ("--info=progress2", "--no-human-readable", "--stats", "--no-inc-recursive")
_VANISHED = 24
_SILENT_FOR = int(faults.patience(300))
"""Seconds without a byte after which rsync gives up by itself (--timeout)."""
_MOST_COMPLAINTS = 16 << 20
_LOOK, _LAST_WORDS = 0.2, 30.0
"""Seconds between two looks at what rsync does, and for its end when it was killed."""
_NUMBERS = {
    "files": "Number of files", "size": "Total file size", "transferred": "Number of regular files transferred",
    "sent": "Total bytes sent", "received": "Total bytes received",
}  # fmt: skip
_MEANING = {
    10: "the connection failed", 11: "a file could not be read or written", 12: "the connection was cut",
    20: "it was ended", 23: "files could not be copied", 30: "nothing came for too long", 255: "ssh could not connect",
}  # fmt: skip

_REFUSED = f"{remote.COMMAND}: "
"""How the other end begins the sentence with which it ends without having begun."""


@dataclass(frozen=True)
class Passed:
    """One pass of rsync over a tree: what it holds (files, bytes), what was sent of it and received, and seconds."""

    files: int
    size: int
    transferred: int
    sent: int
    received: int
    seconds: float

    @property
    def bytes(self) -> int:
        """Bytes on the wire, both ways."""
        return self.sent + self.received


def pull(
    paths: Paths, slave: Slave, name: str, mode: str, within: Path, into: Path, *, before: Sequence[Path] = (),
    progress: Callable[[int], None] = lambda _: None, check: Callable[[], None] = lambda: None,
) -> Passed:  # fmt: skip
    """Copy a guest's tree from a host into a directory; nothing outside ``within`` can be written to by that.

    ``mode`` is what the host gives (``vs-slave send``). ``check`` is called several times a second: where it raises, or
    this process dies, everything that writes there ends. Files that are as they were in one of the trees ``before``
    become hard links to those. Raises VsError when anything of the tree is missing.
    """
    there = shlex.join(ssh.remote(slave, remote.COMMAND, "send", name, mode))
    more = (f"--link-dest={tree}" for tree in before)
    argv = [*_words(paths, slave, there), *more, f"{slave.name}:./", "./"]
    argv = [*run.ALONE, *confined.words(within, into, *argv)]
    return _pass(argv, f"{name} from {slave.host}", live=False, progress=progress, check=check)


def draw(
    source: str, shell: Sequence[str], within: Path, into: Path, *, words: Sequence[str] = (), live: bool = False,
    progress: Callable[[int], None] = lambda _: None, check: Callable[[], None] = lambda: None,
) -> Passed:  # fmt: skip
    """Copy a tree that no agent gives: a directory of this node, or ``HOST:PATH`` by this ssh.

    ``words`` are more of rsync's. Nothing outside ``within`` can be written to. ``live``: files may vanish. ``check``
    is as for ``pull``, and so is the end of everything that writes.
    """
    argv = ["rsync", *COPY, *_STATUS, f"--timeout={_SILENT_FOR}", *words]
    if shell:
        argv.append(f"--rsh={shlex.join(shell)}")
    argv = [*run.ALONE, *confined.words(within, into, *argv, "--", f"{source}/", "./")]
    return _pass(argv, source, live=live, progress=progress, check=check)


def push(paths: Paths, slave: Slave, name: str, tree: Path, progress: Callable[[int], None] = lambda _: None) -> Passed:
    """Copy a tree to a host, into what was staged for the guest there."""
    there = shlex.join(ssh.remote(slave, remote.COMMAND, "receive", name))
    argv = [*_words(paths, slave, there), f"{tree}/", f"{slave.name}:./"]
    return _pass(argv, f"{name} to {slave.host}", live=False, progress=progress)


def lay(paths: Paths, slave: Slave, name: str, source: Path) -> Passed:
    """Copy a file or a directory into the room that was made for it in a guest's tree."""
    there = shlex.join(ssh.remote(slave, remote.COMMAND, "lay", name))
    argv = [*_words(paths, slave, there), "--", str(source), f"{slave.name}:./"]
    return _pass(argv, f"{source.name} to {slave.host}", live=False, progress=lambda _: None)


def hand_over(
    slave: Slave, shell: Sequence[str], tree: Path, *, live: bool, deadline: float,
    progress: Callable[[int], None] = lambda _: None,
) -> Passed:  # fmt: skip
    """Copy a tree to another host that lets nothing else in by this ssh; it takes ``deadline`` seconds at most."""
    argv = ["timeout", "--signal=KILL", str(max(1, int(deadline))), *_with(slave, shell, "rsync")]
    return _pass([*argv, f"{tree}/", f"{slave.name}:./"], f"to {slave.host}", live=live, progress=progress)


def _words(paths: Paths, slave: Slave, there: str) -> list[str]:
    return _with(slave, ssh.words(paths, slave), there)


def _with(slave: Slave, shell: Sequence[str], there: str) -> list[str]:
    words = ["rsync", *COPY, *_STATUS, f"--timeout={_SILENT_FOR}", f"--rsh={shlex.join(shell)}"]
    words += [f"--rsync-path={there}"]
    if slave.bwlimit is not None:
        words.append(f"--bwlimit={slave.bwlimit}")
    if slave.compress:
        words.append("--compress")
    return words


def _pass(
    argv: Sequence[str], what: str, *, live: bool, progress: Callable[[int], None],
    check: Callable[[], None] = lambda: None,
) -> Passed:  # fmt: skip
    begun = time.monotonic()
    with run.piped(argv, stdout=run.PIPE) as process:
        try:
            said = _follow(process, what, progress, check)
        except VsError:
            _kill(process)
            raise
        complaint = wire.clean(process.finish() or "")
        code = process.process.returncode
    if code and not (live and code == _VANISHED):
        if complaint.startswith(_REFUSED):
            raise VsError(f"{what}: {complaint.removeprefix(_REFUSED)}")
        meaning = _MEANING.get(code, f"rsync ended with status {code}")
        raise VsError(f"{what}: {meaning}", complaint)
    return passed(said, time.monotonic() - begun)


def _kill(process: run.Piped) -> None:
    """End rsync with what it started, which has its output open as long as it lives."""
    process.process.kill()
    stream = process.stdout.fileno()
    while select.select([stream], [], [], _LAST_WORDS)[0] and os.read(stream, 1 << 16):
        pass


def _follow(process: run.Piped, what: str, progress: Callable[[int], None], check: Callable[[], None]) -> str:
    """Read what rsync says to its end; bytes done are told as they come. Its last 64 KiB are kept.

    Raises what ``check`` raises, and VsError where the other end complains without an end: that is kept in a file.
    """
    kept, stream = b"", process.stdout.fileno()
    while True:
        if os.fstat(process.words.fileno()).st_size > _MOST_COMPLAINTS:
            raise VsError(f"{what}: the other end complains without an end")
        check()
        if not select.select([stream], [], [], _LOOK)[0]:
            continue
        if not (text := os.read(stream, 1 << 16)):
            break
        kept = (kept + text)[-(1 << 16) :]
        if found := re.findall(rb"([0-9]{1,18}) +[0-9]{1,3}% ", text):
            progress(int(found[-1]))
    return kept.decode("utf-8", "replace")


def passed(said: str, seconds: float) -> Passed:
    """The numbers of ``--stats`` (``man 1 rsync``); raises VsError where they are missing."""
    found: dict[str, int] = {}
    for key, words in _NUMBERS.items():
        match = re.search(rf"^{re.escape(words)}: ([0-9,]{{1,30}})", said, re.MULTILINE)
        if match is None:
            raise VsError("rsync says nothing of what it did", words)
        found[key] = int(match[1].replace(",", ""))
    return Passed(**found, seconds=seconds)


_ASKED = re.compile(
    r"-[A-Za-z.]+|--(server|sender|delete(-(before|during|after|delay))?|numeric-ids|sparse|stats|new-compress)"
    r"|--(timeout|bwlimit|compress-level)=[0-9]+|--compress-choice=[a-z0-9]+"
)
"""What the first end asks the other one for. None of it names a file."""


def serve(words: Sequence[str], *, sender: bool, folder: Path, within: Path | None = None) -> int:
    """Be rsync's other end for a directory, with the words that the first end asked for; returns the exit status.

    Who receives can write ``within`` alone (the directory, where nothing else is said). Raises VsError for words that
    are for another direction or another place than ``./``.
    """
    asked = list(words)
    known = all(_ASKED.fullmatch(word) for word in asked[:-2])
    if asked[:1] != ["--server"] or ("--sender" in asked) != sender or asked[-2:] != [".", "./"] or not known:
        raise VsError(f"this is no request of rsync's that is served here: {shlex.join(asked)}")
    argv = ["rsync", *asked]
    if sender:
        return run.interactive([*run.TIED, *argv], folder=folder)
    return run.interactive([*run.TIED, *confined.words(within or folder, folder, *argv)])

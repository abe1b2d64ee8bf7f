"""The source's end of a copy to another host: a key, a known_hosts and an ssh of its own, gone with it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vstools import files
from vstools.config import slaves
from vstools.config.slaves import Slave
from vstools.errors import Refused
from vstools.paths import Paths
from vstools.pool import parcel, rsync, ssh

SCRATCH = "transfer-"
"""Below /run/vs-tools: the key of one transfer."""


@contextmanager
def target(paths: Paths, words: dict[str, Any]) -> Iterator[tuple[Slave, list[str]]]:
    """The other host and the words of an ssh that reaches it, for the time of a block; raises Refused for nonsense."""
    try:
        slave = Slave(
            slaves.parse_host(words["host"]), address=slaves.parse_place(words["place"]),
            port=parcel.whole(words["port"]), user=slaves.parse_user(words["user"]), compress=bool(words["compress"]),
            bwlimit=None if words["bwlimit"] is None else parcel.whole(words["bwlimit"]),
        )  # fmt: skip
        key, known = str(words["key"]), str(words["known"])
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(f"this is no host to copy to: {error}") from None
    if len(known.splitlines()) != 1 or len(key) > 4096:
        raise Refused("this is no key of a transfer")
    with files.scratch(paths.run, SCRATCH) as folder:
        for name, content in (("key", key), ("known_hosts", f"{known}\n")):
            files.write(folder / name, content, 0o600)
        yield slave, ssh.words_with(slave, folder / "known_hosts", folder / "key")


def sweep(paths: Paths) -> None:
    """Remove the keys that killed transfers left on this node."""
    files.sweep_scratch(paths.run, SCRATCH)


def copy(
    slave: Slave, shell: list[str], tree: Path, *, live: bool, deadline: float, progress: Callable[[int], None]
) -> rsync.Passed:
    """One pass of rsync; raises Refused for a tree that is empty, which --delete would make of the other one, too."""
    if not any(tree.iterdir()):
        raise Refused(f"{tree} is empty", "is what belongs there mounted?")
    return rsync.hand_over(slave, shell, tree, live=live, deadline=deadline, progress=progress)

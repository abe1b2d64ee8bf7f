"""Data goes straight from one host to another, or through this node, by a key made for this one transfer.

The source runs rsync, the target lets it in by that key alone, for one command (``vs-slave receive NAME``), for a day
at most. Both forget it at the end of their sessions; what a killed session left is useless without a staged guest,
expires, and is removed by the next session for that guest.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vstools import files, run
from vstools.config.slaves import Slave
from vstools.errors import VsError
from vstools.paths import Paths
from vstools.pool import handing, parcel, ssh
from vstools.pool.remote import Agent
from vstools.pool.rsync import Passed

_PASS = 24 * 3600.0
_TUNNEL_PATIENCE = 30.0
_REACH = 5.0


@dataclass(frozen=True)
class Way:
    """How the source reaches the target."""

    source: Agent
    name: str
    words: dict[str, Any]
    through_master: bool

    def copy(self, *, live: bool, timeout: float = _PASS, progress: Callable[[int], None] = lambda _: None) -> Passed:
        """One pass of rsync. ``live``: while the guest runs; files may vanish."""
        told = self.source.call(
            "push", self.words, name=self.name, live=live, timeout=timeout, deadline=timeout, progress=progress
        )
        return parcel.passed(self.source.slave.host, told)


@contextmanager
def way(paths: Paths, source: Agent, target: Agent, name: str) -> Iterator[Way]:
    """Let the source into the target for one guest. Raises VsError where neither way goes."""
    with files.scratch(paths.run, handing.SCRATCH) as folder, ExitStack() as stack:
        if (known := ssh.known_line(paths, target.slave)) is None:
            raise ssh.unknown(target.slave)
        secret, public = _key(folder, name)
        target.call("admit", name=name, key=public)
        stack.callback(_quietly, lambda: target.call("expel", name=name))
        place, port = target.address
        reached = source.call("reach", place=place, port=port, seconds=_REACH, timeout=_REACH + 60)
        if not reached:
            place, port = "127.0.0.1", stack.enter_context(_tunnel(paths, source.slave, place, port))
        words = {
            "host": target.slave.name, "place": place, "port": port, "user": target.slave.user, "key": secret,
            "known": known, "compress": source.slave.compress or target.slave.compress,
            "bwlimit": min((rate for rate in (source.slave.bwlimit, target.slave.bwlimit) if rate), default=None),
        }  # fmt: skip
        yield Way(source, name, words, through_master=not reached)


def _quietly(act: Callable[[], object]) -> None:
    with suppress(VsError):  # the connection is gone, and the session there with it
        act()


def _key(folder: Path, name: str) -> tuple[str, str]:
    """A new pair of keys: the secret half, the public one."""
    path = folder / "key"
    run.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"vs-tools-transfer-{name}", "-f", str(path)])
    return path.read_text(), path.with_suffix(".pub").read_text().strip()


@contextmanager
def _tunnel(paths: Paths, source: Slave, place: str, port: int) -> Iterator[int]:
    """A port of the source's loopback that leads through this node to the target's sshd (``man 1 ssh``, -R)."""
    bracketed = f"[{place}]" if ":" in place else place
    argv = ["ssh", "-oLogLevel=INFO", *ssh.words(paths, source)[1:], "-oExitOnForwardFailure=yes", "-N"]
    with run.piped([*argv, "-R", f"127.0.0.1:0:{bracketed}:{port}", source.name]) as tunnel:
        deadline = time.monotonic() + _TUNNEL_PATIENCE
        while time.monotonic() < deadline and tunnel.process.poll() is None:
            tunnel.words.seek(0)
            if found := re.search(rb"Allocated port ([0-9]+) for remote forward", tunnel.words.read()):
                yield int(found[1])
                return
            time.sleep(0.05)
        raise VsError(f"host {source.host} reaches the other host neither by itself nor through this node")

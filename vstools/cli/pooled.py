"""What the master's commands share: hosts, guests and generations as options, their completion, a bar of progress."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from vstools import paths as installation
from vstools.cli import app
from vstools.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vstools.config.slaves import Slave
    from vstools.pool.contact import HostKey
    from vstools.pool.scan import Pool


def complete_host(incomplete: str) -> list[str]:
    """The hosts of slaves.conf, for the shell's completion."""
    from vstools.config import slaves
    from vstools.config.text import Faults

    known = slaves.load(installation.from_environment().conf / slaves.FILE, Faults())
    return [slave.host for slave in known if slave.host.startswith(incomplete)]


def complete_guest(incomplete: str) -> list[str]:
    """The guests of the store: no host is asked while somebody types."""
    from vstools.pool import store

    return [name for name in store.of(installation.from_environment()).names() if name.startswith(incomplete)]


Guest = Annotated[list[str], typer.Option("--name", help="guest", metavar="GUEST", autocompletion=complete_guest)]
Guests = Annotated[
    list[str] | None,
    typer.Option("--name", help=app.NAME_HELP, metavar="GUEST", autocompletion=complete_guest),
]
Host = Annotated[
    str | None, typer.Option("--host", help="host of the pool", metavar="HOST", autocompletion=complete_host)
]
Hosts = Annotated[
    list[str] | None,
    typer.Option("--host", help="host of the pool (repeatable)", metavar="HOST", autocompletion=complete_host),
]
Timeout = Annotated[
    float, typer.Option("--timeout", help="seconds that a host has to answer", min=0.1, max=3600, metavar="SECONDS")
]
Generation = Annotated[
    str | None, typer.Option("--generation", help="of that time, or its beginning; the newest", metavar="TIME")
]
AcceptConfig = Annotated[
    bool, typer.Option("--accept-config", help="accept hooks and whatever else can do more than a guest may")
]
OwnerIsDead = Annotated[
    bool, typer.Option("--owner-is-dead", help="the host that owned it does not answer, and never runs it again")
]


def chosen(found: "Pool", slaves: "Sequence[Slave]", guest: str, noselect: frozenset[str]) -> "Slave":
    """The host that is meant; a host that does not answer may have the guest, too, and is named."""
    from vstools import log
    from vstools.pool import scan

    for _, sentence in found.missing:
        log.warn(sentence)
    where = f"on {slaves[0].host}" if len(slaves) == 1 else "in the pool"
    seen = scan.chosen(found.guests, guest, noselect, where)
    return next(slave for slave in slaves if slave.host == seen.host)


def require_host(found: "Pool", slave: "Slave") -> None:
    """Raise Refused where this host did not answer; say which others did not."""
    from vstools import log
    from vstools.errors import Refused

    for host, sentence in found.missing:
        if host == slave.host:
            raise Refused(sentence)
        log.warn(sentence)


def show_line(paths: Paths, slave: "Slave", guest: str) -> int:
    """Print a guest's line of vs-control, as its host says it; the exit status."""
    from vstools.pool import scan

    found = scan.scan(paths, [slave])
    require_host(found, slave)
    rows = [seen for seen in found.guests if seen.guest == guest]
    for seen in rows:
        row = {"host": seen.host, "guest": seen.guest, "enabled": seen.enabled, "running": seen.running}
        print(app.control_line(row))
    return 0 if rows else 1


def accept_key(host: str, key: "HostKey", wanted: str | None) -> None:
    """Ask whether a host's key is the right one, or compare it with ``wanted``. Raises Refused."""
    from vstools.errors import Refused

    if wanted is None:
        app.confirm(f"Host {host} shows the {key.kind} key {key.fingerprint}. Is that its key?", yes=False)
    elif wanted != key.fingerprint:
        raise Refused(f"host {host} shows the key {key.fingerprint}, not {wanted}")


@contextmanager
def bar(what: str) -> Iterator[Callable[[int], None]]:
    """Bytes done and their rate on a terminal, a few times a second; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    begun = last = time.monotonic()

    def show(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < 0.2:
            return
        last = now
        rate = done / (now - begun) / (1 << 20)
        print(f"\r\033[K{what}: {done / (1 << 20):.0f} MiB, {rate:.1f} MiB/s", end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)

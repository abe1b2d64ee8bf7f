"""Which host may start a guest: its ``owner`` file says so, and whoever answers for its addresses objects.

A start that is refused for one of these reasons leaves the sentence in /run/vs-tools/refused/NAME, where vs-monitor
finds it: nobody looks at the screen when a host boots.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from vstools import files, log
from vstools.config import guests, owner
from vstools.config.owner import Owner
from vstools.config.text import Faults
from vstools.errors import Refused, VsError
from vstools.faults import checkpoint
from vstools.lifecycle import records
from vstools.lifecycle.host import guest_lock
from vstools.paths import Paths, host_name

_EARLY = "-"
_LIMIT = 1 << 16


class Elsewhere(Refused):
    """The guest belongs to another host."""


class Taken(VsError):
    """Another machine has an address of the guest."""


def of(paths: Paths, name: str) -> Owner | None:
    """The owner that a guest's file names; None where there is none. Raises BadFiles for a broken one."""
    faults = Faults()
    found = owner.read(paths.config_of(name), faults)
    faults.check()
    return found


def check(paths: Paths, name: str) -> None:
    """Raise Elsewhere for a guest that another host owns, BadFiles where nobody can tell."""
    found = of(paths, name)
    if found is not None and found.host == owner.NOBODY:
        raise Elsewhere(
            f"guest {name} was set aside and belongs to nobody", f"vs-remove --name {name}, when it was looked at"
        )
    if found is not None and found.host != host_name():
        raise Elsewhere(
            f"guest {name} belongs to host {found.host} (epoch {found.epoch})",
            f"start it there; if that copy never runs again, vs-adopt --name {name} makes this host its owner",
        )


@contextmanager
def told(paths: Paths, name: str) -> Iterator[None]:
    """Around what a start does: a refusal for its owner or its addresses is left for vs-monitor."""
    try:
        yield
    except Taken as error:
        _explain(paths, name, error)
        _leave(paths, name, error)
        raise
    except Elsewhere as error:
        _leave(paths, name, error)
        raise


def _explain(paths: Paths, name: str, error: Taken) -> None:
    """Of a guest that is in a pool, the machine may be a copy of it."""
    faults = Faults()
    found = owner.read(paths.config_of(name), faults)
    if found is not None:
        words = f"that may be a copy of it on another host: stop that one, or vs-adopt --name {name} there"
        path = paths.config_of(name) / owner.FILE
        error.hint = f"guest {name} belongs to this host ({path}, epoch {found.epoch}), and {words}"


def _leave(paths: Paths, name: str, error: VsError) -> None:
    """``TOKEN SENTENCE``; the token of a start that was far enough to have one."""
    record = records.read(paths, name)
    try:
        folder = files.directory(paths.refused, 0o700)
        files.write(folder / name, f"{record.token if record else _EARLY} {error}\n", 0o600)
    except OSError as failure:
        log.warn(f"{paths.refused / name} could not be written: {failure}")


def refusal(paths: Paths, name: str) -> str | None:
    """Why the last start of a guest that does not run was refused, if the refusal is the last that is known of it.

    The runner leaves a line with the token of each life that ended: a later life makes the refusal an old story.
    """
    path, ended = paths.refused / name, paths.ended / name
    try:
        at = path.stat().st_mtime_ns
        token, _, sentence = files.read_bounded(path, _LIMIT).strip().partition(" ")
    except FileNotFoundError:
        return None
    try:
        if ended.stat().st_mtime_ns <= at:
            return sentence
        lives = files.read_bounded(ended, _LIMIT).splitlines()
    except FileNotFoundError:
        return sentence
    return sentence if lives and lives[-1].partition(" ")[0] == token else None


def adopt(paths: Paths, name: str) -> Owner:
    """Make this host the owner of a guest, in an epoch after the one that its file names; returns what was written.

    Raises BadFiles for a broken file: which epoch comes after it nobody knows.
    """
    guests.require(paths, name)
    with guest_lock(paths, name):
        before = of(paths, name)
        found = Owner(host_name(), before.epoch + 1 if before else 1)
        with log.change(f"adopt from {before.host if before else 'nobody'}, epoch {found.epoch}", name):
            owner.write(paths.config_of(name), found)
            checkpoint("adopt:written")
            (paths.refused / name).unlink(missing_ok=True)
    return found

"""A window in a guest's firewall, for its packages: open to a few places, until a time that the kernel keeps.

What is open is in ``/run/vs-tools/packages/NAME``, written before it is, with the rules as they were before. Who opens
a window holds the lock ``NAME.packages``: a file whose lock nobody holds was left by a killed command. The kernel lets
nothing pass by its window from its deadline on, and the next command puts the rules back.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vstools import files
from vstools.errors import Busy, Refused
from vstools.faults import checkpoint
from vstools.guest import parse_address
from vstools.lifecycle import records
from vstools.lifecycle.host import runtime_lock
from vstools.paths import Paths

_STEP = 60
"""Seconds that a clock may be put back by without closing a window."""


@dataclass(frozen=True)
class State:
    """What is done about a guest's packages. ``idle``: it was stopped, and was started for this alone.

    ``life`` is the token of the guest's start whose rules are in ``rules``, a text for ``backend``; ``ends`` are pairs
    of an address and a port, ``since`` and ``until`` times in seconds since 1970.
    """

    idle: bool = False
    life: str = ""
    backend: str = ""
    rules: str = ""
    ends: tuple[tuple[str, int], ...] = ()
    since: int = 0
    until: int = 0


def _path(paths: Paths, name: str) -> Path:
    return paths.packages / name


def _lock(paths: Paths, name: str) -> Path:
    return paths.locks / f"{name}.packages"


@contextmanager
def alone(paths: Paths, name: str) -> Iterator[None]:
    """Nobody else changes the guest's packages for the time of a block. Raises Busy."""
    with files.lock(_lock(paths, name), what=f"the packages of {name}", patience=0):
        yield


def read(paths: Paths, name: str) -> State | None:
    """What is done about a guest's packages, by a command that lives or by a dead one."""
    try:
        found = json.loads(_path(paths, name).read_text())
        return State(**{**found, "ends": tuple((str(address), int(port)) for address, port in found["ends"])})
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def write(paths: Paths, name: str, state: State) -> None:
    """Note it; who does so is ``alone``."""
    files.directory(paths.packages, 0o700)
    files.write(_path(paths, name), json.dumps(asdict(state)) + "\n", 0o600)


def forget(paths: Paths, name: str) -> None:
    """Nothing is done about the guest's packages any more."""
    _path(paths, name).unlink(missing_ok=True)


def is_idle(paths: Paths, name: str) -> bool:
    """Whether a guest is started for its packages alone: then its own init does not run."""
    if not _path(paths, name).exists():
        return False
    state = read(paths, name)
    return state is not None and state.idle


def forget_abandoned(paths: Paths, name: str) -> None:
    """A start of a guest knows nothing of what a dead command did about its packages.

    Raises Refused, once, where that command may have asked for this very start: with systemd it goes on without it, and
    would start a guest that was stopped, with all its services.
    """
    if not _path(paths, name).exists() or files.is_locked(_lock(paths, name)):
        return
    idle = is_idle(paths, name)
    forget(paths, name)
    if idle:
        raise Refused(f"guest {name} was to be started for its packages by a command that is dead", "start it again")


def opened(paths: Paths, name: str, ends: tuple[tuple[str, int], ...], seconds: int) -> int:
    """Open a window in a running guest's firewall for some seconds; returns the time in seconds since 1970 of its end.

    Raises Refused where the guest has no rules to open a window in, or none that close what came through it.
    """
    from vstools.firewall import backend
    from vstools.lifecycle import filtering

    with runtime_lock(paths, name):
        record = records.started(paths, name)
        if record is None:
            raise Refused(f"guest {name} does not run")
        tool, rules = filtering.saved(record.netns)
        if not rules:
            raise Refused(f"guest {name} has no firewall in the kernel", f"vs-net --name {name} --fw up")
        if not backend.choose(tool).tells_marks(rules):
            raise Refused(
                f"guest {name} has a firewall that would go on accepting what a window opened",
                f"vs-net --name {name} --fw up loads a newer one, where the kernel has conntrack marks",
            )
        now = int(time.time())
        state = read(paths, name) or State()
        state = replace(state, life=record.token, backend=tool, rules=rules)
        state = replace(state, ends=ends, since=now - _STEP, until=now + seconds)
        write(paths, name, state)
        checkpoint("packages:noted")
        _load(record.netns, state)
    checkpoint("packages:opened")
    return state.until


def _load(netns: str, state: State) -> None:
    """The rules with the window in them, in one act."""
    from vstools.firewall import backend, model

    tool = backend.choose(state.backend)
    ends = tuple((parse_address(address), port) for address, port in state.ends)
    tool.load(netns, tool.opened(state.rules, model.window(ends, state.since, state.until)))


def again(paths: Paths, name: str, netns: str) -> None:
    """Other rules were loaded while a window was open: they are those it goes back to, and it leads where it did.

    The caller holds the runtime lock. The window of another life of the guest, or of a dead command, is gone with the
    rules it was in, and so are those of before.
    """
    if not _path(paths, name).exists():
        return
    state = read(paths, name)
    if state is None or not state.rules:
        return
    if not _lives(paths, name, state) or not files.is_locked(_lock(paths, name)):
        write(paths, name, State(idle=state.idle))
        return
    from vstools.lifecycle import filtering

    backend, rules = filtering.saved(netns)
    state = replace(state, backend=backend, rules=rules)
    write(paths, name, state)
    if state.until > time.time():
        _load(netns, state)


def _lives(paths: Paths, name: str, state: State) -> bool:
    """Whether the guest's rules in the kernel are those of the life in which a window was opened."""
    record = records.started(paths, name)
    return record is not None and record.token == state.life


def rules(paths: Paths, name: str, netns: str) -> tuple[str, str]:
    """The rules in force but for a window: the name of their back end, and a text to load there again."""
    from vstools.lifecycle import filtering

    state = read(paths, name)
    if state is None or not state.rules or not _lives(paths, name, state):
        return filtering.saved(netns)
    return state.backend, state.rules


def closed(paths: Paths, name: str) -> None:
    """Put the rules back as they were without the window; what it opened ends. Nothing is done where none is open."""
    from vstools.firewall import backend

    with runtime_lock(paths, name):
        state = read(paths, name)
        if state is None or not state.rules:
            return
        record = records.started(paths, name)
        if record is not None and record.token == state.life:
            backend.choose(state.backend).load(record.netns, state.rules)
        checkpoint("packages:closed")
        write(paths, name, State(idle=state.idle))


def end(paths: Paths, name: str) -> None:
    """Put everything back that was made for a guest's packages. The caller is ``alone`` and holds the guest's lock."""
    from vstools.lifecycle import control

    state = read(paths, name)
    if state is not None and state.idle:
        control.end_idle(paths, name)
    else:
        closed(paths, name)
    forget(paths, name)


def sweep(paths: Paths, name: str) -> None:
    """The same for what a dead command left. The caller holds the guest's lock."""
    if _path(paths, name).exists():
        with suppress(Busy), alone(paths, name):
            end(paths, name)

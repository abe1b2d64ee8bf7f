"""vs-slave: what the master talks to on a host. One process for one operation, for as long as its ssh session lasts.

What it holds (locks, a guest kept still) ends with it, and it ends when its input does, or when it hears nothing for
``wire.SILENCE`` seconds: so a master that was killed or cut off holds nothing. What it did is in files, and the next
command goes by those.
"""

import os
import queue
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from vstools import __version__, files, log
from vstools.errors import Refused, VsError
from vstools.paths import Paths, host_name
from vstools.pool import wire

Requests = queue.SimpleQueue[dict[str, Any] | None]


@dataclass
class Session:
    """One operation of the master's on this host. ``say`` sends a message; ``held`` is undone at its end."""

    paths: Paths
    held: ExitStack
    say: Callable[[dict[str, Any]], None] = lambda _: None
    guests: dict[str, ExitStack] = field(default_factory=dict)
    """Guests that are kept still, and what lets them go."""
    deaf: bool = False
    """The master is gone."""
    copying: bool = False
    """A copy is under way, which is ended when the master is gone; nothing else is cut short."""

    def states(self, name: str | None = None) -> list[dict[str, object]]:
        """Every guest of this host (or one), as vs-scan sees it."""
        from vstools.alive import is_running
        from vstools.config import guests, owner, registry
        from vstools.config.text import Faults
        from vstools.guest import bracketed

        found: list[dict[str, object]] = []
        for guest in registry.names(self.paths):
            if name not in (None, guest):
                continue
            config = self.paths.config_of(guest)
            faults = Faults()
            nics = guests.read(config, guest, faults).nics
            of = owner.read(config, faults)
            found.append({
                "guest": guest, "enabled": registry.is_enabled(config), "running": is_running(self.paths, guest),
                "addresses": [bracketed(nic.address) for nic in nics], "broken": bool(faults),
                "owner": of and of.host, "epoch": of.epoch if of else 0,
            })  # fmt: skip
        return found

    def claim(self, name: str, patience: float = 0) -> None:
        """Hold a guest's name against other operations of a master, until the end of the session.

        ``patience``: seconds to wait for one that may be dead, and is noticed to be.
        """
        from vstools.guest import check_name
        from vstools.pool import giving, handing

        check_name(name, imported=True)
        lock = files.lock(giving.claim(self.paths, name), what=f"guest {name}", patience=float(patience))
        self.held.enter_context(lock)
        handing.sweep(self.paths)

    def wake(self, name: str) -> None:
        """Start a guest again that a killed copy stopped for a while."""
        from vstools.pool import giving

        giving.wake(self.paths, name)

    def stopped(self, name: str, seconds: float) -> None:
        """Keep what stopping a guest took on the host that it came from."""
        from vstools.config import registry
        from vstools.lifecycle import durations

        registry.require(self.paths, name)
        durations.note(self.paths, name, "stop", float(seconds))

    def describe(self, name: str, measure: bool = True) -> dict[str, object]:
        """What another host, or the store, needs to know of a guest."""
        from vstools.lifecycle import departure

        return departure.describe(self.paths, name, measure=measure)

    def files(self, name: str) -> list[list[object]]:
        """A guest's configuration files that travel."""
        from vstools.lifecycle import departure
        from vstools.pool import parcel

        return parcel.packed(departure.files(self.paths, name))

    def check(self, instead: bool = False, **words: Any) -> dict[str, object]:
        """What speaks against a guest coming here, in the place of one of its name if that is meant."""
        from dataclasses import asdict

        from vstools.lifecycle import arrival
        from vstools.pool import parcel

        return asdict(arrival.check(self.paths, parcel.arrival(words), instead=instead is True))

    def room(self) -> dict[str, object]:
        """What is left for guests, as ``arriving.room`` says it."""
        from vstools.lifecycle import arriving

        return arriving.room(self.paths)

    def stage(self, **words: Any) -> None:
        """Reserve what a guest needs that comes here."""
        from vstools.lifecycle import arrival
        from vstools.pool import parcel

        arrival.stage(self.paths, parcel.arrival(words))

    def register(self, name: str) -> int:
        """Make a guest of what came; how many device nodes were removed."""
        from vstools.lifecycle import arrival

        return arrival.register(self.paths, name)

    def own(self, name: str, host: str, epoch: int) -> None:
        """Write down whose a guest is."""
        from vstools.config.owner import Owner
        from vstools.lifecycle import arrival

        arrival.own(self.paths, name, Owner(host, epoch))

    def set_aside(self, name: str, other: str) -> int:
        """Stop a guest that is suspect and give it another name; the context that it had."""
        from vstools.lifecycle import aside

        return aside.set_aside(self.paths, name, other)

    def may_return(self, name: str, other: str) -> None:
        """Object where a guest that was set aside cannot have its name again."""
        from vstools.lifecycle import back

        back.check(self.paths, name, other)

    def bring_back(self, name: str, other: str, epoch: int) -> None:
        """Give a guest that was set aside its name again; it is this host's then."""
        from vstools.lifecycle import back

        back.bring_back(self.paths, name, other, epoch)

    def lay(self, name: str) -> None:
        """Make room in a guest's tree for a file that comes; it goes with the session."""
        from vstools.pool import laying

        self.held.enter_context(laying.room(self.paths, name))

    def place(self, name: str, path: str, kept: str) -> bool:
        """Let what came take its place; what was there is called ``kept``. Whether there was anything."""
        from vstools.pool import laying

        return laying.place(self.paths, name, path, kept)

    def abandon(self, name: str) -> None:
        """Remove what was staged."""
        from vstools.lifecycle import arrival

        arrival.abandon(self.paths, name)

    def remove(self, name: str) -> None:
        """Remove a guest for good that neither runs nor is enabled."""
        from vstools.lifecycle import removal

        removal.remove(self.paths, name)

    def do(self, name: str, verb: str) -> None:
        """One of vs-control's verbs."""
        from vstools.lifecycle import control

        if verb not in ("start", "stop", "enable", "disable"):
            raise Refused(f"{verb!r} is not asked of a guest by its master")
        control.do(self.paths, name, verb)

    def forget(self, name: str) -> None:
        """Remove a guest that another host owns."""
        from vstools.lifecycle import departure

        departure.forget(self.paths, name)

    def hold(self, name: str, stop: bool = False) -> None:
        """Keep a guest still until it is let go; ``stop``: stop it before, and start it again if it stays here."""
        from vstools.lifecycle import departure
        from vstools.pool import giving

        stack = ExitStack()
        self.held.callback(self.let_go, name)
        self.guests[name] = stack
        if stop:
            stack.enter_context(giving.asleep(self.paths, name))
        stack.enter_context(departure.held(self.paths, name, stop=stop))

    def let_go(self, name: str) -> None:
        """Keep a guest still no longer; one that was stopped for that is started, unless it was released."""
        stack = self.guests.pop(name, None)
        if stack is not None:
            stack.close()

    def release(self, name: str, host: str, epoch: int) -> None:
        """Write down that a guest, which is kept still, is another host's: from here on it runs there or nowhere."""
        from vstools.config.owner import Owner
        from vstools.lifecycle import departure
        from vstools.pool import giving

        if name not in self.guests:
            raise Refused(f"guest {name} is not kept still")
        departure.release(self.paths, name, Owner(host, epoch))
        giving.settled(self.paths, name)

    def admit(self, name: str, key: str) -> None:
        """Let another host in by a key, for what was staged for a guest."""
        from vstools.pool import admission

        admission.admit(self.paths, name, key)
        self.held.callback(admission.expel, self.paths, name)

    def expel(self, name: str) -> None:
        """Let nobody in for a guest any more."""
        from vstools.pool import admission

        admission.expel(self.paths, name)

    def reach(self, place: str, port: int, seconds: float) -> bool:
        """Whether an sshd answers there."""
        import socket

        try:
            with socket.create_connection((place, port), timeout=seconds) as wire:
                wire.settimeout(seconds)
                return wire.recv(4) == b"SSH-"
        except OSError:
            return False

    def push(self, name: str, live: bool, deadline: float, **to: Any) -> dict[str, object]:
        """Copy a guest's tree to another host, by a key that was made for that."""
        from dataclasses import asdict

        from vstools.lifecycle import trees
        from vstools.pool import handing

        tree = trees.opened(self.paths, name)
        self.copying = True
        try:
            with handing.target(self.paths, to) as (slave, shell):
                done = handing.copy(
                    slave, shell, tree, live=live, deadline=deadline, progress=lambda done: self.say({"done": done})
                )
        finally:
            self.copying = False
        return asdict(done)


VERBS = (
    "states", "claim", "wake", "describe", "files", "check", "stage", "register", "own", "abandon", "remove", "do",
    "forget", "hold", "let_go", "release", "admit", "expel", "reach", "push", "set_aside", "lay", "place",
    "room", "stopped", "may_return", "bring_back",
)  # fmt: skip


def serve(session: Session, say: Callable[[dict[str, Any]], None], requests: Requests) -> None:
    """Answer one request after another until there are no more."""
    while (request := requests.get()) is not None:
        say({"id": request.get("id"), **_answer(session, request)})


def _answer(session: Session, request: dict[str, Any]) -> dict[str, object]:
    """What a request comes to, in words of the wire."""
    try:
        return {"value": _act(session, request)}
    except Refused as error:
        return {"refused": [error.message, error.hint]}
    except VsError as error:
        return {"failed": [error.message, error.hint]}
    except (OSError, ValueError, TypeError) as error:
        return {"failed": [f"{type(error).__name__}: {error}", ""]}


def _act(session: Session, request: dict[str, Any]) -> object:
    verb, words = request.get("verb"), request.get("with", {})
    if verb not in VERBS or not isinstance(words, dict):
        raise Refused(f"this host's vs-tools knows no {verb!r}", "install the master's version here: install.sh")
    return getattr(session, verb)(**words)


def _read(session: Session, requests: Requests) -> None:
    """Requests as they come; where the master is gone, nothing more, and a copy that is under way ends."""
    with suppress(ValueError):
        for text in _lines():
            request = wire.message(text)
            if "cancel" in request:
                _interrupt(session)
            else:
                requests.put(request)
    session.deaf = True
    requests.put(None)
    _interrupt(session)


def _interrupt(session: Session) -> None:
    """End the copy that is under way, if one is: its handler looks, in the thread that copies."""
    while session.copying:
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.2)


def _on_interrupt(session: Session) -> None:
    if session.copying:
        session.copying = False
        raise VsError("the copy was interrupted")


def _lines() -> Iterator[bytes]:
    """The lines of stdin up to its end, or up to the silence of a master that used to be heard."""
    rest = bytearray()
    patience: float | None = None
    while len(rest) <= wire.LONGEST and select.select([0], [], [], patience)[0] and (more := os.read(0, 1 << 18)):
        rest += more
        if b"\n" not in more:
            continue
        *found, rest = rest.split(b"\n")
        for text in found:
            if text:
                yield bytes(text) + b"\n"
            else:
                patience = wire.SILENCE


def converse(paths: Paths) -> None:
    """Talk to the master on stdin and stdout until it is gone."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what a program says is not taken for an answer

    def say(message: dict[str, Any]) -> None:
        """A master that is gone is told nothing, and what is under way is not cut short by that."""
        rest = memoryview(wire.line(message))
        with suppress(BrokenPipeError):
            while rest and not session.deaf:
                rest = rest[os.write(answers, rest) :]

    requests: Requests = queue.SimpleQueue()
    with ExitStack() as held:
        session = Session(paths, held, say)
        log.listener = lambda sentence: say({"note": sentence})
        signal.signal(signal.SIGUSR1, lambda *_: _on_interrupt(session))
        say({"agent": wire.PROTOCOL, "version": __version__, "node": host_name()})
        threading.Thread(target=_read, args=(session, requests), daemon=True).start()
        serve(session, say, requests)

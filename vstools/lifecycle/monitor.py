"""vs-monitor: all guests of the host are looked at in rounds; what is new becomes mails, what is remembered a file.

The order of a round makes a kill harmless: mails are written into the spool under the numbers that the remembered state
gives them, then the state is replaced, and only mails that it knows of are sent. A round that was cut short is done
again, and its mails are written anew.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from vstools import files, log
from vstools.config import create, registry
from vstools.config.monitor import MonitorConf
from vstools.config.text import Faults
from vstools.errors import BadFiles, Busy, Refused, VsError
from vstools.lifecycle import ownership, stats
from vstools.lifecycle.monitored import Configurations, Watching
from vstools.lifecycle.observe import Looker, ended
from vstools.monitor import deliver, ends, rate, state, text
from vstools.monitor.alerts import Event, Fact, Seen, Standing, step
from vstools.monitor.spool import Spool
from vstools.monitor.state import Life, State
from vstools.paths import Paths
from vstools.stats.files import read

SETTLE = 120.0
"""Seconds after a guest's start until its sockets are looked at for the first time."""
_DETAILS = 20
_STARTED = Fact("refused", False, "the guest was started")
_COUNTERS = ("memory-hits", "oom-kills", "process-hits")


@dataclass(frozen=True)
class Told:
    """An alert's begin or end, of a guest."""

    guest: str
    event: Event


@contextmanager
def alone(paths: Paths) -> Iterator[None]:
    """Be the only vs-monitor of this host; raises Refused when there is another one."""
    try:
        with files.lock(paths.locks / "_monitor", what="vs-monitor", patience=0):
            yield
    except Busy:
        raise Refused("vs-monitor runs already on this host", "one looks at all guests") from None


def boottime() -> float:
    """Seconds since the boot, those that the host slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Monitor:
    """Everything between two rounds. The caller holds ``alone``."""

    def __init__(self, paths: Paths, settle: float = SETTLE) -> None:
        self._paths = paths
        self._looker = Looker(paths, settle)
        self._configurations = Configurations(paths)
        self._due: dict[str, tuple[float, Watching]] = {}
        self._written = False
        files.directory(paths.monitor, 0o700)
        self.spool = Spool(paths.monitor / "spool")
        self._state = self._load()
        self.spool.forget_from(self._state.number)
        self.spool.committed = self._state.number

    def _load(self) -> State:
        boot = read("/proc/sys/kernel/random/boot_id").strip()
        path = self._paths.monitor / "state.json"
        try:
            return state.loads(path.read_text(), boot)
        except FileNotFoundError:
            pass
        except ValueError as error:
            log.warn(f"{path} cannot be used, and is begun anew: {error}")
        found = state.fresh(boot, self.spool.next_number())
        try:
            files.write(path, state.dumps(found), 0o600)  # a first round that is cut short is known to have been none
        except OSError as error:
            log.warn(f"{path} could not be written, guests are watched all the same: {error}")
        return found

    def round(self, *, everyone: bool = False) -> list[Told]:
        """Look at the guests that are due (or at all), write the mails, remember; returns what began and ended."""
        now, wall = boottime(), time.time()
        names = registry.names(self._paths)
        lives = dict(self._state.guests)
        told: list[Told] = []
        for name in names:
            try:
                watching = self._configurations.of(name)
                due, last = self._due.get(name, (0.0, None))
                if not everyone and due > now and last == watching:
                    continue
                self._due[name] = (now + watching.conf.pooling, watching)
                lives[name], events = self._look(name, watching, lives.get(name), now, wall)
            except (VsError, OSError, ValueError) as error:
                log.warn(f"guest {name} could not be looked at: {error}")
                continue
            told += [Told(name, event) for event in events]
        for name in lives.keys() - set(names):
            lives[name], events = _leave(lives[name], wall)
            told += [Told(name, event) for event in events]
        for each in told:
            log.audit("alert began" if each.event.began else "alert over", each.guest, text.escaped(each.event.text))
        before, self._state = self._state, replace(self._state, guests=lives)
        self._write_mails(now, wall)
        self._forget(set(names))
        if not self._written or (before.guests, before.number) != (self._state.guests, self._state.number):
            self._written = False
            files.write(self._paths.monitor / "state.json", state.dumps(self._state), 0o600)
            self._written, self.spool.committed = True, self._state.number
        return told

    def _look(
        self, name: str, watching: Watching, before: Life | None, now: float, wall: float
    ) -> tuple[Life, list[Event]]:
        life = before or Life(bucket=rate.full(rate.GUEST, now))
        sample, record = self._looker.sample(name), stats.record(self._paths, name)
        token = str(record.get("token", "")) if sample.running else ""
        faults = watching.faults
        first = f"{faults[0] if faults else ''}{f' (and {len(faults) - 1} more)' if len(faults) > 1 else ''}"
        conf = Fact(
            "config",
            bool(faults),
            f"monitor.conf has faults: {first}" if faults else "monitor.conf is in order again",
            faults[:_DETAILS],
        )
        events: list[Event] = []
        if life.token and token != life.token:
            life, events = self._end(name, life, conf, wall)
        if not token:
            down = [Fact("down", None, "")] if "down" in life.standing.open else []
            sentence = ownership.refusal(self._paths, name)
            refused = Fact("refused", sentence is not None, f"start refused: {sentence or 'no longer so'}")
            standing, more = step(life.standing, [conf, *down, refused], wall, lambda _: "the guest does not run")
            return self._collected(replace(life, standing=standing), [*events, *more])
        if token != life.token:
            life = _begun(life, token, known=before is not None)
        life, found = self._looker.look(name, watching.conf, life, sample, record, now)
        seen: list[Seen] = [conf, Fact("down", False, "the guest runs again"), _STARTED, *found]
        standing, more = step(life.standing, seen, wall, lambda key: _why(key, watching.conf))
        return self._collected(replace(life, standing=standing), [*events, *more])

    def _end(self, name: str, life: Life, conf: Fact, wall: float) -> tuple[Life, list[Event]]:
        """A life is over. Only a death is an alert; what else was open ends with it."""
        self._looker.forget(name)
        kind, words = ends.ending(ended(self._paths, name), life.token)
        if kind != ends.DIED:
            log.audit("guest ended", name, words)
        down = Fact("down", kind == ends.DIED, f"died: {words}")
        standing, events = step(life.standing, [down, conf], wall, lambda _: "the guest ended")
        return replace(life, token="", standing=standing), events

    @staticmethod
    def _collected(life: Life, events: list[Event]) -> tuple[Life, list[Event]]:
        return replace(life, waiting=life.waiting.including(events)), events

    def _write_mails(self, now: float, wall: float) -> None:
        """A mail for each guest of which something is to be told and that may have one; the longest waiting first."""
        lives, number = dict(self._state.guests), self._state.number
        host = self._state.bucket.filled(rate.HOST, now)
        waiting = [(life.waiting.events[0].at, name) for name, life in lives.items() if life.waiting]
        if waiting:
            self.spool.forget_from(number)  # of a round that failed, on a full disk for one
        for _, name in sorted(waiting):
            life = lives[name]
            bucket = life.bucket.filled(rate.GUEST, now)
            if bucket.tokens < 1 or host.tokens < 1:
                continue
            self.spool.put(number, self._mail(name, life, wall, number), wall)
            number, host = number + 1, host.taken()
            lives[name] = replace(life, waiting=rate.Waiting(), bucket=bucket.taken())
        self._state = replace(self._state, number=number, bucket=host, guests=lives)

    def _mail(self, name: str, life: Life, wall: float, number: int) -> str:
        watching = self._configurations.last(name)
        node = os.uname().nodename
        about = text.About(node.partition(".")[0], node, name, watching.conf.mailto, str(watching.path))
        still = sorted(life.standing.open.items(), key=lambda each: each[1].since)
        return text.mail(about, life.waiting.events, life.waiting.dropped, still, wall, number)

    def _forget(self, names: set[str]) -> None:
        """Guests that are gone, and of which all was told."""
        kept = {name: life for name, life in self._state.guests.items() if name in names or life.waiting}
        for name in self._state.guests.keys() - kept.keys():
            self._configurations.forget(name)
            self._looker.forget(name)
            (self._paths.ended / name).unlink(missing_ok=True)
        self._due = {name: due for name, due in self._due.items() if name in names}
        self._state = replace(self._state, guests=kept)

    def pause(self, longest: float) -> float:
        """Seconds until the next guest is due."""
        return max(0.0, min([longest, *(due - boottime() for due, _ in self._due.values())]))

    def send(self) -> int:
        """Try the mails that are due; returns how many could not be sent."""
        return send(self._paths, self.spool)

    def close(self) -> None:
        """End what runs beside."""
        self._looker.sizes.close()

    def wait_for_sizes(self) -> None:
        """There is one round only: what is added up beside is waited for."""
        self._looker.sizes.wait = True


def send(paths: Paths, spool: Spool) -> int:
    """Try the mails that are due, the way that create.conf says now; returns how many could not be sent."""
    if not spool.is_due(time.time()):
        return 0
    faults = Faults()
    relay = create.load(paths.conf / "create.conf", faults).monitor_smtp
    try:
        faults.check()
    except BadFiles as error:
        log.warn(f"mails are sent as what is in order in create.conf says: {'; '.join(error.faults)}")
    return spool.send(deliver.way(relay) if relay else deliver.by_sendmail, time.time)


def _begun(life: Life, token: str, *, known: bool) -> Life:
    """A new life. Counters of a guest that we have seen before it began from nothing, at a time when we were there."""
    counts = dict.fromkeys(_COUNTERS, 0) if known else {}
    return Life(
        token=token,
        standing=Standing(life.standing.open, counts),
        disk=life.disk,
        bucket=life.bucket,
        waiting=life.waiting,
    )


def _leave(life: Life, wall: float) -> tuple[Life, list[Event]]:
    """A guest that this host has no longer: what was open ends."""
    standing, events = step(life.standing, [], wall, lambda _: "the guest is no longer on this host")
    return replace(life, token="", standing=standing, waiting=life.waiting.including(events)), events


def _why(key: str, conf: MonitorConf) -> str:
    if not key.startswith("socket") or not conf.sockets:
        return "no longer watched"
    return "closed" if key.startswith("socket ") else "no longer so"

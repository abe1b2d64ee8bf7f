"""Changes of a guest's network that go back by themselves: ``--confirm SECONDS``, unless ``--confirmed`` follows.

What to go back to is in ``.confirm`` in the guest's directory, written before the change. A process of its own waits
for the deadline, so the death of the command and of the admin's connection do not matter; when that process is killed
as well, or the host loses its power, the next command or start finds the file and goes back.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vstools import files, log, run
from vstools.config import guests
from vstools.config.registry import WAITING
from vstools.errors import Busy, Refused, VsError
from vstools.guest import Address, Nic, parse_address
from vstools.lifecycle.host import guest_lock, runtime_lock
from vstools.paths import Paths, command

_STEP = 0.5
_LIMIT = 1 << 28  # the rules of a long firewall.conf are in it


@dataclass(frozen=True)
class Pending:
    """A change that is not confirmed. ``deadline``: seconds of CLOCK_BOOTTIME in the boot ``boot``.

    ``life`` is the token of the guest's start that ``rules``, a text for the back end ``backend``, belong to, and
    ``down``: which of ``vlan`` and ``route`` were. ``before`` and ``after`` are its interfaces, None where the change
    is about its links or rules alone.
    """

    token: str = ""
    boot: str = ""
    deadline: float = 0
    life: str = ""
    backend: str = ""
    rules: str = ""
    before: tuple[Nic, ...] | None = None
    after: tuple[Nic, ...] | None = None
    down: tuple[str, ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether its time is up; after a reboot of the host it is."""
        return self.boot != _boot() or _now() >= self.deadline


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def read(paths: Paths, name: str) -> Pending | None:
    """A guest's change that waits for its confirmation."""
    path = paths.config_of(name) / WAITING
    try:
        found = json.loads(files.read_bounded(path, _LIMIT))
        for key in ("before", "after"):
            if found[key] is not None:
                found[key] = tuple(Nic(**{**nic, "address": parse_address(nic["address"])}) for nic in found[key])
        return Pending(**{**found, "down": tuple(found.get("down", ()))})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        raise Refused(f"{path}:1:1: it is not what vs-net wrote there", "remove it, and see vs-net --check") from None


def _forget(paths: Paths, name: str) -> None:
    (paths.config_of(name) / WAITING).unlink(missing_ok=True)


def reserved(paths: Paths) -> Iterator[tuple[Address, str]]:
    """The addresses that guests may go back to, with the guests' names: nobody else gets them meanwhile."""
    for path in paths.guests.glob(f"*/{WAITING}"):
        pending = read(paths, path.parent.name)
        for nic in (pending.before or ()) if pending else ():
            yield nic.address, path.parent.name


def none_waits(paths: Paths, name: str) -> None:
    """Go back where the deadline is past. Raises Refused while a change waits. The caller holds the guest's lock."""
    settle(paths, name)
    if (waiting := read(paths, name)) is not None:
        left = max(0, round(waiting.deadline - _now()))
        raise Refused(
            f"guest {name} has a change that waits for its confirmation",
            f"--confirmed keeps it, otherwise it goes back in {left} s",
        )


@contextmanager
def around(paths: Paths, name: str, seconds: int | None, pending: Callable[[], Pending]) -> Iterator[None]:
    """A change of a guest whose lock the caller holds: with ``seconds``, ``pending`` says what to go back to.

    Raises Refused while another change waits: what there is to go back to would no longer be clear. A change that
    fails goes back at once, for it may be half done.
    """
    none_waits(paths, name)
    if seconds is None:
        yield
        return
    waiting = replace(pending(), token=os.urandom(8).hex(), boot=_boot(), deadline=_now() + seconds)
    try:
        _begin(paths, name, waiting)
    except BaseException:
        _forget(paths, name)
        raise
    try:
        yield
    except BaseException:
        try:
            _go_back(paths, name, waiting)
        except (VsError, OSError) as error:
            log.warn(f"guest {name}: what was changed could not be taken back, and will be in {seconds} s: {error}")
        raise


def _begin(paths: Paths, name: str, pending: Pending) -> None:
    """Write it down, and let a process wait for the deadline; under systemd one that outlives the admin's session."""
    files.write(paths.config_of(name) / WAITING, json.dumps(asdict(pending), default=str) + "\n", 0o600)
    argv = [command("vs-guest-phase"), "expire", name, pending.token]
    if paths.systemd:
        run.run(["systemd-run", "--quiet", "--collect", f"--unit=vs-confirm-{pending.token}", *argv])
    else:
        run.start(argv, stdout=run.DEVNULL, stderr=run.DEVNULL, detached=True)


def accept(paths: Paths, name: str) -> None:
    """Let a change stay; raises Refused when none is waiting (any more)."""
    with guest_lock(paths, name):
        settle(paths, name)
        if read(paths, name) is None:
            raise Refused(
                f"guest {name} has no change that waits for its confirmation", "it may have gone back already"
            )
        with log.change("confirm", name):
            _forget(paths, name)


def expire(paths: Paths, name: str, token: str) -> None:
    """The process that waits: goes back when the deadline comes, ends when the change is confirmed."""
    while True:
        pending = read(paths, name)
        if pending is None or pending.token != token:
            return
        if pending.is_over:
            with suppress(Busy), guest_lock(paths, name):  # whoever holds it now may need long
                settle(paths, name)
        time.sleep(_STEP)


def settle_expired(paths: Paths, name: str) -> None:
    """Go back where the deadline is past and the process that waited for it is gone."""
    with guest_lock(paths, name):
        settle(paths, name)


def settle(paths: Paths, name: str) -> None:
    """Go back where the deadline is past. The caller holds the guest's lock."""
    pending = read(paths, name)
    if pending is None or not pending.is_over:
        return
    with log.change("go back, for nobody confirmed", name):
        _go_back(paths, name, pending)


def _go_back(paths: Paths, name: str, pending: Pending) -> None:
    if pending.before is not None:
        _restore_addresses(paths, name, pending)
    _restore_kernel(paths, name, pending)
    _forget(paths, name)


def _restore_addresses(paths: Paths, name: str, pending: Pending) -> None:
    from vstools.lifecycle import change

    now = change.unchanged(paths, name)
    if now.before.nics == pending.after and pending.before is not None:
        change.put(paths, replace(now, after=replace(now.before, nics=pending.before)))
    elif now.before.nics != pending.before:
        log.warn(f"guest {name}: its interfaces were edited meanwhile and stay as they are")


def _restore_kernel(paths: Paths, name: str, pending: Pending) -> None:
    from vstools.firewall import backend
    from vstools.lifecycle import records, upkeep, window

    with runtime_lock(paths, name):
        record = records.started(paths, name)
        if record is None:
            return
        same = pending.life == record.token
        if pending.rules and same:
            backend.choose(pending.backend).load(record.netns, pending.rules)
            window.again(paths, name, record.netns)
    down = pending.down if same else ()
    if "vlan" not in down:  # links that were down shall not be up even for a moment
        upkeep.mend_links(paths, name)
    if down:
        upkeep.take_down(paths, name, vlan="vlan" in down, route="route" in down)


def before_start(paths: Paths, name: str) -> None:
    """A start finds the files as they were before a change that nobody confirmed in time; the guest does not run."""
    pending = read(paths, name)
    if pending is None or not pending.is_over:
        return
    guest = guests.load(paths, name)
    if pending.before is not None and guest.nics == pending.after:
        guests.save(paths.config_of(name), replace(guest, nics=pending.before))
        log.audit("go back, for nobody confirmed", name, "ok")
    _forget(paths, name)

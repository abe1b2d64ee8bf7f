"""Start, stop, enable, disable one guest; its state. The same for hosts with and without systemd."""

from dataclasses import dataclass

from vstools import files, log, lxc, units
from vstools.config import guests
from vstools.config.text import Faults
from vstools.errors import Refused, VsError
from vstools.files import wait_until
from vstools.lifecycle import phases
from vstools.lifecycle.host import guest_lock
from vstools.paths import Paths, command

_END_PATIENCE = 120.0


@dataclass(frozen=True)
class State:
    """One guest's line of vs-control."""

    guest: str
    enabled: bool
    running: bool


def state(paths: Paths, name: str) -> State:
    """The guest's state, from its files and the kernel."""
    guests.require(paths, name)
    return State(name, guests.is_enabled(paths.config_of(name)), lxc.is_running(paths, name))


def start(paths: Paths, name: str) -> None:
    """Start the guest; nothing is done when it runs. Raises VsError, and leaves nothing, when it cannot be started."""
    guests.require(paths, name)
    with guest_lock(paths, name):
        if _runs(paths, name):
            return
        with log.change("start", name):
            _start(paths, name)


def _start(paths: Paths, name: str) -> None:
    if paths.systemd:
        _start_unit(paths, name)
    else:
        _start_here(paths, name)


def start_idle(paths: Paths, name: str) -> None:
    """Start a stopped guest in which nothing runs but what enters it (``window.is_idle``). Needs the guest's lock.

    Raises Refused where it runs by now.
    """
    if _runs(paths, name):
        raise Refused(f"guest {name} was just started", "try again")
    with log.change("start for packages", name):
        _start(paths, name)


def end_idle(paths: Paths, name: str) -> None:
    """End a guest of ``start_idle`` at once, and clear what is left of it. Needs the guest's lock."""
    lxc.kill(paths, name)
    if paths.systemd and not units.is_idle(name):
        units.stop(name)
    phases.cleanup(paths, name)


def _runs(paths: Paths, name: str) -> bool:
    """Whether the guest runs; one that is just ending is waited for."""
    if not lxc.is_running(paths, name):
        return False
    up = ("RUNNING", "STARTING", "FROZEN")

    def decided() -> bool:
        return not lxc.is_running(paths, name) or lxc.state(paths, name) in up

    if not wait_until(decided, patience=_END_PATIENCE, pause=0.1):
        raise VsError(f"guest {name} is ending and does not end", "try vs-control --stop")
    return lxc.is_running(paths, name)


def _start_here(paths: Paths, name: str) -> None:
    from vstools.lifecycle.presence import Inquiry

    with Inquiry() as inquiry:
        token = phases.prepare(paths, name, inquiry)
        process = None
        try:
            process = lxc.launch(paths, name, command("vs-guest-phase"), token)
            phases.settle(paths, name, process, inquiry)
        except BaseException:
            lxc.kill(paths, name)
            if process is not None:
                process.wait()
            phases.cleanup(paths, name)
            raise


def _start_unit(paths: Paths, name: str) -> None:
    phases.warn(phases.decide(paths, name))  # what is refused is said here, not only in the journal
    reason = paths.failures / name
    reason.unlink(missing_ok=True)
    if not units.start(name):
        said = reason.read_text().strip() if reason.exists() else ""
        raise VsError(said or f"{units.unit(name)} failed", "" if said else f"journalctl -u {units.unit(name)}")


def stop(paths: Paths, name: str) -> None:
    """Stop the guest and wait until nothing of it is left; also clears what a killed command left of it."""
    guests.require(paths, name)
    with guest_lock(paths, name):
        by_unit = paths.systemd and not units.is_idle(name)
        if not by_unit and not lxc.is_running(paths, name) and not paths.runtime_of(name).exists():
            return
        with log.change("stop", name):
            if by_unit:
                units.stop(name)
            else:
                phases.stop(paths, name)
            phases.cleanup(paths, name)


def restart(paths: Paths, name: str) -> None:
    """Stop, then start."""
    stop(paths, name)
    start(paths, name)


def show_lxcfs(paths: Paths, name: str) -> None:
    """Give a running guest the host's lxcfs of now, after one that ended or where it was started without."""
    from vstools.storage import lxcfs

    with guest_lock(paths, name):
        init = lxc.init_pid(paths, name)
        if init is None:
            raise Refused(f"guest {name} does not run", "it gets lxcfs with its next start")
        lxcfs.exchange(paths.lxcfs, init)


def set_enabled(paths: Paths, name: str, enabled: bool) -> None:
    """Let the guest start with its host, or no longer; the unit's link follows the mark."""
    guests.require(paths, name)
    config = paths.config_of(name)
    with guest_lock(paths, name):
        if guests.is_enabled(config) == enabled and not paths.systemd:
            return
        with log.change("enable" if enabled else "disable", name):
            after = _after(paths, name) if paths.systemd and enabled else ()
            guests.set_enabled(config, enabled)
            if paths.systemd and enabled:
                units.enable(paths, name, after)
            elif paths.systemd:
                units.disable(paths, name)


def _after(paths: Paths, name: str) -> tuple[str, ...]:
    """Whom the guest depends on, but for those that depend on it in turn: systemd would not start one of a circle."""
    return tuple(other for other in guests.load(paths, name).depends if name not in _all_depends(paths, other))


def _all_depends(paths: Paths, name: str) -> set[str]:
    """Everybody that a guest depends on, at any distance."""
    found: set[str] = set()
    ahead = [name]
    while ahead:
        current = ahead.pop()
        new = set(guests.read(paths.config_of(current), current, Faults()).depends) - found
        found |= new
        ahead += new
    return found


def record_failure(paths: Paths, name: str, sentence: str) -> None:
    """Leave the reason of a failed phase for the command that asked systemd for the start."""
    files.write(files.directory(paths.failures, 0o700) / name, sentence + "\n", 0o600)


def do(paths: Paths, name: str, verb: str) -> None:
    """One of vs-control's verbs: enable, disable, start, stop, restart."""
    if verb in ("enable", "disable"):
        set_enabled(paths, name, verb == "enable")
    else:
        {"start": start, "stop": stop, "restart": restart}[verb](paths, name)

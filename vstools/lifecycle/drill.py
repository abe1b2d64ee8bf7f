"""A copy of a guest is tried out: a guest for a moment, of the same tree and limits, linked to nothing.

It has no interfaces: its network namespace holds a loopback and a closed firewall. It has none of the hooks and mounts,
either. A drill holds its lock; what a killed one left is removed by the next.
"""

import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from vstools import files, log, lxc, run
from vstools.config import guests, registry
from vstools.config.text import Faults
from vstools.errors import Busy, VsError
from vstools.faults import checkpoint
from vstools.guest import Place
from vstools.lifecycle import control, removal, staging
from vstools.lifecycle.host import guest_lock, host_lock
from vstools.lifecycle.sweep import sweep_one
from vstools.paths import STAGED, Paths
from vstools.storage import choose, flush, plain

_PREFIX, _MARK = "drill-", ".drill"
_COPY_DEADLINE = 12 * 3600.0
_ALIVE = 5.0
"""Seconds that an init has to live which cannot be asked how it is."""
_SYSTEMD_UP, _SYSTEMD_DOWN = ("running", "degraded"), ("maintenance", "stopping")


def name_of(guest: str) -> str:
    """The name of a guest that is tried out."""
    return f"{_PREFIX}{guest}"[:63]


@contextmanager
def _alone(paths: Paths, name: str) -> Iterator[None]:
    with files.lock(paths.locks / f"{name}.drill", what=f"the drill of {name}", patience=0):
        yield


def sweep(paths: Paths) -> None:
    """Remove what killed drills left, running or not."""
    for name in registry.names(paths):
        if name.startswith(_PREFIX) and (paths.config_of(name) / _MARK).exists():
            try:
                with _alone(paths, name):
                    _remove(paths, name)
            except Busy:
                continue


def _remove(paths: Paths, name: str) -> None:
    control.stop(paths, name)
    removal.remove(paths, name)


def drill(paths: Paths, guest: str, config: Path, tree: Path, size: int, deadline: float) -> str:
    """Try a copy out: ``up``, or why it did not come up within ``deadline`` seconds. Raises VsError where it cannot be.

    Nothing is written into the copy. ``size`` is what its tree takes, in bytes.
    """
    name = name_of(guest)
    with _alone(paths, name), log.change("drill", guest):
        if registry.exists(paths, name):
            if not (paths.config_of(name) / _MARK).exists():
                raise VsError(f"there is a guest {name} that is no drill", "rename it")
            _remove(paths, name)
        free = choose.of(paths).space().free
        if size > free:
            raise VsError(f"{paths.trees} has {free >> 20} MiB free, and the copy takes {size >> 20}")
        try:
            _make(paths, name, config, tree)
            checkpoint("drill:made")
            return _tried(paths, name, deadline)
        finally:
            if registry.exists(paths, name):
                _remove(paths, name)


def _make(paths: Paths, name: str, config: Path, source: Path) -> None:
    """A guest of a copy of the tree, as vs-create makes one; a kill leaves what the next command sweeps."""
    faults = Faults()
    like = guests.read(config, name, faults)
    faults.check()
    plain.barrier(paths)
    with guest_lock(paths, name, patience=0):
        sweep_one(paths, name)
        staged = paths.guests / f"{STAGED}{name}"
        try:
            with host_lock(paths, "allocation"):
                staging.check_free(paths, name, ())
                staged.mkdir(mode=0o755)
                limits = replace(like.limits, disk=None)
                made = replace(
                    like,
                    context=staging.draw_context(paths),
                    nics=(),
                    limits=limits,
                    enabled=False,
                    depends=(),
                    volume=None,
                )
                guests.save(staged, staging.placed(paths, made, Place()))
                files.write(staged / _MARK, "")
            tree = choose.of(paths).stage(name)
            with flush.Flusher(tree) as flusher:
                words = ["cp", "--archive", "--reflink=auto", "--", f"{source}/.", f"{tree}/"]
                run.run([*run.TIED, *words], timeout=_COPY_DEADLINE)
                checkpoint("drill:copied")
                flusher.finish()
            staging.take_name(paths, name)
            staging.finish(paths, name)
        except BaseException:
            sweep_one(paths, name)
            raise


def _tried(paths: Paths, name: str, deadline: float) -> str:
    try:
        control.start(paths, name)
    except VsError as error:
        return f"it does not start: {error}"
    checkpoint("drill:started")
    end, since, said = time.monotonic() + deadline, time.monotonic(), ""
    while time.monotonic() < end:
        init = lxc.init_pid(paths, name)
        if init is None and not lxc.is_running(paths, name):
            return "its init ended"
        if init is not None and _program(init) == "systemd":
            said = _systemd(paths, name)
            if said in _SYSTEMD_UP:
                return "up"
            if said in _SYSTEMD_DOWN:
                break
        elif time.monotonic() - since > _ALIVE:
            return "up"
        time.sleep(0.5)
    return f"systemd says {said or 'nothing'}" if said else f"it was not up within {deadline:g} seconds"


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _systemd(paths: Paths, name: str) -> str:
    """Its word for how it is (``man 1 systemctl``); a guest may say anything, so it is a word of a few letters."""
    argv = lxc.attach(paths, name, ["systemctl", "is-system-running"])
    with run.piped(argv, stdout=run.PIPE) as asked:
        ready, _, _ = select.select([asked.stdout], [], [], 20)
        said = os.read(asked.stdout.fileno(), 64).decode("ascii", "replace").strip() if ready else ""
    return said if said.isalpha() else ""

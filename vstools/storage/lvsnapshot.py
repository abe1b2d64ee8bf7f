"""A snapshot of a logical volume for as long as a block lasts: made, mounted read-only, watched, checked, removed.

LVM stops the file system for the instant in which it makes a snapshot (dm-suspend freezes it), so that what was synced
is in it, and nothing half. Whoever makes one holds a lock as long as it lives. A lock that can be had has a dead owner,
also after the host's reboot, because locks lie in /run: what is tagged with it is removed.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from vstools import files, libc, log, run, signals
from vstools.errors import Busy, VsError
from vstools.faults import checkpoint
from vstools.storage import lvroom, mounts, owners, volumes
from vstools.storage.volumes import Group, Volume

_NAME = "vs-snap-"
_TAG = "vs-tools"
_OWNER = f"{_TAG}.owner="
_LOCK = "_lvm"
_OPTIONS = "ro,nodev,nosuid,noexec"
_OF_FILE_SYSTEM = {"xfs": ",nouuid"}  # the origin is mounted with the same UUID; no "norecovery": the log is replayed
_PATIENCE, _PATIENCE_FOR_OTHERS = 10.0, 3.0
"""Seconds in which who still has a snapshot open (udev, a dying child) lets it go: our own, and a dead one's."""


@contextmanager
def snapshot(volume: Volume, filesystem: str, where: Path, scope: str, folder: Path) -> Iterator[Path]:
    """A snapshot of a mounted volume, read-only at the directory ``where``, which it gives.

    ``filesystem`` is its type (``ext4``, ``xfs``), ``scope`` the mark of this installation, 8 hexadecimal digits;
    ``folder`` has the locks. Only this thread, and the programs that it starts, see the mount; those should be
    ``run.TIED``: one that outlives this process keeps the snapshot. No other thread may be begun in the block that
    outlives it. SIGTERM and SIGHUP end the block, as Ctrl-C does.

    Raises Refused when the group has no room for one, VsError when it cannot be made, and at the end when it did not
    hold: what was read from it does not count. What the block raises is raised; the snapshot is removed all the same.
    """
    _sync(volume)  # it may take long, and the next one is short
    with signals.ending(), ExitStack() as end:
        end.callback(_sweep_after, volume.group, scope, folder)
        with signals.deferred():
            name = _make(volume, scope, folder, end)
            watch = end.enter_context(lvroom.Watch(volume, name))
        checkpoint("snapshot:made")
        try:
            with libc.private_mounts(), _mounted(f"/dev/{volume.group}/{name}", filesystem, where):
                checkpoint("snapshot:mounted")
                yield where
                checkpoint("snapshot:used")
        except BaseException:
            if (failure := watch.verdict()) is not None:  # perhaps the reason of what is raised
                log.warn(str(failure))
            raise
        checkpoint("snapshot:unmounted")
        with signals.deferred():
            failure = watch.verdict()
            end.close()
        if failure is not None:
            raise failure


def sweep(group: str, scope: str, folder: Path) -> None:
    """Remove the snapshots of a group that dead commands of this installation left. What cannot be removed is told.

    Nobody waits here for another command that makes a snapshot: it sweeps itself.
    """
    with suppress(Busy), _alone(folder, patience=0):
        _sweep(group, scope, folder)


def _make(volume: Volume, scope: str, folder: Path, end: ExitStack) -> str:
    """Make the snapshot and return its name; ``end`` removes it."""
    with _alone(folder):
        group = _sweep(volume.group, scope, folder)
        token = end.enter_context(owners.owned(folder))
        name = f"{_NAME}{scope}-{token}"
        checkpoint("snapshot:locked")
        if volume.pool:  # not activated at boot: what a power cut left is in nobody's way
            how = ["--setactivationskip", "y", "--ignoreactivationskip", "--activate", "y"]
        else:  # dmeventd need not watch it, too
            how = ["--ignoremonitoring", "--extents", str(lvroom.first_extents(volume, group))]
        tags = ["--addtag", _TAG, "--addtag", f"{_OWNER}{scope}-{token}"]
        _sync(volume)
        run.unbroken(["lvcreate", "--quiet", "--yes", "--snapshot", "--name", name, *tags, *how, volume.full_name])
        end.push(_removal(volume.group, name))
    return name


@contextmanager
def _alone(folder: Path, patience: float = files.LOCK_PATIENCE) -> Iterator[None]:
    """Nobody else makes a snapshot or sweeps: what is free is decided upon, and nothing is removed twice."""
    with files.lock(folder / _LOCK, what="LVM", patience=patience):
        yield


def _sync(volume: Volume) -> None:
    """Bring the file system on a volume to the disk, so that it does not stand still for long."""
    number = Path(volume.path).stat().st_rdev
    for place in mounts.of_device(number):
        try:
            folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # unmounted meanwhile, or a file that is mounted on a file
        try:
            if os.fstat(folder).st_dev == number:  # and not what is mounted above it
                libc.sync_filesystem(folder)
                return
        finally:
            os.close(folder)


@contextmanager
def _mounted(device: str, filesystem: str, where: Path) -> Iterator[None]:
    options = _OPTIONS + _OF_FILE_SYSTEM.get(filesystem, "")
    run.run(["mount", "-t", filesystem, "-o", options, "--", device, str(where)])
    try:
        yield
    except BaseException:
        libc.unmount_lazily(where)
        raise
    with signals.deferred():
        _unmount(where)


def _unmount(where: Path) -> None:
    def unmounted() -> bool:
        try:
            libc.unmount(where)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
        return True

    if not files.wait_until(unmounted, patience=_PATIENCE, pause=0.05):
        libc.unmount_lazily(where)
        raise VsError(f"the snapshot at {where} is still in use", "a program that was started in it goes on: end it")


def _removal(group: str, name: str) -> Callable[..., None]:
    """What removes a snapshot at the end of a block. The error of the block wins over its own."""

    def act(kind: type[BaseException] | None, *_: object) -> None:
        try:
            with signals.deferred():
                _remove(group, name)
        except VsError as error:
            if kind is None:
                raise
            log.warn(str(error))
        checkpoint("snapshot:removed")

    return act


def _remove(group: str, name: str, patience: float = _PATIENCE) -> None:
    """Remove a snapshot, which somebody may have open for a moment. One that is gone is no error."""
    said = ""

    def removed() -> bool:
        nonlocal said
        done = run.unbroken(["lvremove", "--quiet", "--yes", f"{group}/{name}"], check=False)
        said = done.err.strip()
        return done.code == 0 or all(each.name != name for each in volumes.inventory(group)[1])

    if not files.wait_until(removed, patience=patience, pause=0.25):
        raise VsError(f"snapshot {group}/{name} could not be removed", f"{said}; the next snapshot tries it again")


def _sweep_after(group: str, scope: str, folder: Path) -> None:
    """Sweep, if a command was killed in the meantime: its lock has a file. LVM need not be asked else."""
    if owners.are_any(folder):
        try:
            with _alone(folder):
                _sweep(group, scope, folder)
        except VsError as error:  # of another command's snapshot
            log.warn(str(error))


def _sweep(name: str, scope: str, folder: Path) -> Group:
    """Remove what dead owners left in a group, and return how it is then."""
    group, found = volumes.inventory(name)
    for volume in found:
        token = token_of(volume, scope)
        if token and owners.is_dead(folder, token):
            log.debug(f"sweeping {volume.full_name}")
            try:
                _remove(name, volume.name, _PATIENCE_FOR_OTHERS)
            except VsError as error:
                log.warn(f"a killed command left it: {error}")
            group = volumes.group(name)
    owners.tidy(folder)
    return group


def token_of(volume: Volume, scope: str) -> str:
    """The token of a snapshot that this installation made; empty for every other volume. Pure."""
    token = volume.name.removeprefix(f"{_NAME}{scope}-")
    ours = token != volume.name and {_TAG, f"{_OWNER}{scope}-{token}"} <= set(volume.tags)
    return token if ours else ""

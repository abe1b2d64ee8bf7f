"""A guest of an old Linux-VServer host becomes a guest of this one: looked at, copied while it runs, switched over.

It comes as a guest comes from any host (lifecycle/arrival.py): staged under a hidden name, where the next run goes
on for a day, and registered at the end, disabled and stopped. The old one is stopped and loses its mark, and is left as
it is otherwise.
"""

import os
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from vstools import __version__, files, log
from vstools.config import carried, firewall, guests, monitor, oldguest
from vstools.config.carried import File
from vstools.config.oldguest import Translated
from vstools.config.owner import Owner
from vstools.config.text import LIMIT
from vstools.errors import Refused, VsError
from vstools.faults import checkpoint
from vstools.guest import check_name
from vstools.inside import Inside
from vstools.lifecycle import addresses, arrival, disk, staging
from vstools.lifecycle.arrival import Arrival
from vstools.lifecycle.arriving import Answer
from vstools.lifecycle.host import settings
from vstools.lifecycle.leftovers import LOOKING, awaited
from vstools.paths import Paths, host_name
from vstools.pool import oldhost
from vstools.pool.oldhost import Place
from vstools.tree import oldsystem
from vstools.tree.oldsystem import System

_NEVER = ("--exclude=/proc/*", "--exclude=/sys/*", "--exclude=/dev/*")
_SHOWN = 20
_TRANSFER = "import-"
_TAGGED = "is that disk mounted without the option tagxid?"


@dataclass(frozen=True)
class Plan:
    """What an old guest would be here; ``notes``: what is otherwise than it was there, or has no equivalent."""

    arrival: Arrival
    system: System
    runlevel: str | None
    held: tuple[str, ...]
    notes: tuple[str, ...]
    answer: Answer


@oldhost.untouched()
def plan(paths: Paths, place: Place, name: str, *, device: str | None) -> Plan:
    """Look at an old guest. Raises Refused where its init cannot run here; what else there is against it, is said."""
    if guests.exists(paths, name):
        raise Refused(f"there is a guest {name!r} here already", "vs-remove it, or leave it at that")
    with files.scratch(paths.run, LOOKING) as folder:
        config, programs, empty = (files.directory(folder / part, 0o700) for part in ("config", "programs", "empty"))
        place.config_into(config)
        old = oldguest.read(config)
        system = oldhost.system_of(place, programs, f"guest {name}")
        size = place.size(empty, _NEVER)
    host = settings(paths)
    found = oldguest.translate(name, old, known=lambda one: host.networks.of(one) is not None, device=device)
    complete, more = _completed(paths, found)
    transfer = _transfer(place, name, found)
    _check_same(paths, name, transfer)
    copied, inodes = arrival.copied(paths, name, transfer)
    coming = Arrival(
        transfer=transfer, name=name, files=complete, owner=Owner(host_name(), 1), size=max(0, size.size - copied),
        inodes=max(0, size.files - inodes), arch=os.uname().machine, version=__version__,
    )  # fmt: skip
    answer = arrival.check(paths, coming)
    held = tuple(carried.sensitive(found.files))
    return Plan(coming, system, found.runlevel, held, (*found.notes, *more, *answer.notes), answer)


def _check_same(paths: Paths, name: str, transfer: str) -> None:
    """Raise Refused where what was copied so far would become another guest than this one."""
    before = arrival.transfer_of(paths, name) if awaited(paths, name) else None
    if before is not None and before.startswith(_TRANSFER) and before != transfer:
        raise Refused(
            f"the copy of {name} was begun from another place, or with other files of its directory",
            f"put that back, or vs-import --name {name} --abandon and begin anew",
        )


def _transfer(place: Place, name: str, found: Translated) -> str:
    """The same source and the same files are the same undertaking."""
    sums = (zlib.crc32(repr(what).encode()) for what in ((place.words, name), found.files))
    return _TRANSFER + "-".join(f"{number:08x}" for number in sums)


def _completed(paths: Paths, found: Translated) -> tuple[tuple[File, ...], list[str]]:
    """The files that every guest has here: a context, a MAC for each address, and the host's models."""
    there = {file.path: file for file in found.files}
    notes = []
    if "context" not in there:
        there["context"] = File("context", 0o644, f"{staging.next_context(paths)}\n".encode())
        notes.append("context: it had none of its own (dynamic contexts)")
    for path in [path for path in there if path.startswith("interfaces/") and path.endswith("/ip")]:
        mac = f"{path.removesuffix('/ip')}/mac"
        there[mac] = File(mac, 0o644, f"{addresses.new_mac()}\n".encode())
    for model in (firewall.FILE, monitor.FILE):
        if model not in there and (paths.conf / model).exists():
            there[model] = File(model, 0o644, files.read_bounded(paths.conf / model, LIMIT).encode())
            notes.append(f"{model}: it had none; it gets this host's, as a new guest does")
    if firewall.FILE not in there:
        notes.append(f"{firewall.FILE}: it had none: nobody reaches the guest before it has one")
    return tuple(there[path] for path in sorted(there)), notes


def require(found: Plan, place: Place, *, accept: bool) -> None:
    """Raise Refused where something speaks against the guest, or it has hooks and the like that nobody accepted."""
    name = found.arrival.name
    if found.answer.objections:
        raise Refused("; ".join(found.answer.objections))
    if found.held and not accept:
        more = [f"and {len(found.held) - _SHOWN} more"] if len(found.held) > _SHOWN else []
        raise Refused(
            f"guest {name} has files that can do more to a host than a guest may, and nobody has accepted them: "
            f"{', '.join([*found.held[:_SHOWN], *more])}",
            f"look at them on {place.words} ({place.config}), then give --accept-config",
        )


def bring(
    paths: Paths, place: Place, found: Plan, *, final: bool, progress: Callable[[int], None] = lambda _: None
) -> list[str]:
    """Copy the guest's tree, what changed of it since the last time; with ``final`` it is a guest of this host then.

    An old guest that runs is stopped for the last pass, and started again if that fails. Returns what was changed in
    its tree. Killed, the same call goes on.
    """
    name = found.arrival.name
    with _locked(paths, name):
        tree = arrival.stage(paths, found.arrival)
        checkpoint("import:staged")
        with oldhost.begun():
            if not final or place.runs(name):
                place.tree_into(tree, _NEVER, live=True, progress=progress, check=disk.room(paths))
                checkpoint("import:copied")
                _check_tree(tree, name)  # known before it is stopped there
            if not final:
                return []
            with _Stopped(place, name) as stopped:
                place.tree_into(tree, _NEVER, live=False, progress=progress, check=disk.room(paths))
                checkpoint("import:last")
                changed = _settle(tree, found)
                stopped.check()
                arrival.register(paths, name)
        checkpoint("import:registered")
        return changed if place.slave is None else [*changed, place.unmark()]


def _locked(paths: Paths, name: str) -> AbstractContextManager[None]:
    return files.lock(paths.locks / f"{name}.import", what=f"the import of {name}", patience=0)


def _check_tree(tree: Path, name: str) -> System:
    """What a copied tree runs; raises Refused where it cannot be a guest's."""
    oldhost.check_ids(tree, _TAGGED)
    with Inside(tree) as inside:
        system = oldsystem.examine(inside)
    oldsystem.check(system, f"guest {name}")
    return system


def _settle(tree: Path, found: Plan) -> list[str]:
    system = _check_tree(tree, found.arrival.name)
    with Inside(tree) as inside:
        return oldsystem.put_right(inside, system, found.runlevel)


class _Stopped:
    """The old guest does not run for the time of a block, and not afterwards; it runs again where the block fails."""

    def __init__(self, place: Place, name: str) -> None:
        self._place, self._name = place, name
        self._again = False

    def __enter__(self) -> "_Stopped":
        self._again = self._place.runs(self._name)
        if self._again:
            try:
                self._place.stop(self._name)
            except BaseException:
                self._start_again()
                raise
            checkpoint("import:stopped")
        return self

    def check(self) -> None:
        """Raise VsError where somebody started it meanwhile: what it wrote since then would be lost."""
        if self._place.runs(self._name):
            raise VsError(
                f"guest {self._name} was started again on {self._place.words} while it was copied",
                "find out by whom, then give the same command again",
            )

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None and self._again:
            self._start_again()

    def _start_again(self) -> None:
        with suppress(VsError):
            if self._place.runs(self._name):
                return
        try:
            self._place.start(self._name)
        except VsError as error:
            log.warn(f"guest {self._name} was stopped on {self._place.words} and does not start there: {error}")


def report(paths: Paths, name: str, lines: tuple[str, ...]) -> Path:
    """Write what is otherwise than it was into a file beside the guest's logs; returns it."""
    path = files.directory(paths.log_of(name), 0o700) / "import"
    files.write(path, "".join(f"{line}\n" for line in lines))
    return path


def abandon(paths: Paths, name: str) -> bool:
    """Give up what was copied of a guest and is no guest yet; returns whether there was anything.

    Raises Refused where it comes in another way.
    """
    check_name(name, imported=True)
    with _locked(paths, name):
        transfer = arrival.transfer_of(paths, name)
        if transfer is not None and not transfer.startswith(_TRANSFER):
            raise Refused(f"guest {name} comes from another host of the pool", "vs-move or vs-put ends that")
        arrival.abandon(paths, name)
    return transfer is not None

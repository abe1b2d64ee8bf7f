"""The trees of cgroups that this kernel has, what it can limit there, and the guests' processes in them."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vstools.errors import VsError
from vstools.files import wait_until

_KNOWN = frozenset({"memory", "pids", "cpu", "io", "blkio"})


@dataclass(frozen=True)
class Controllers:
    """What this kernel can limit: controllers of the v2 tree, and those that are mounted as v1 hierarchies."""

    v2: frozenset[str]
    v1: frozenset[str]
    v1_swap: bool = False


def controllers(proc: Path = Path("/proc")) -> Controllers:
    """Read from the kernel what can be limited here."""
    v1: set[str] = set()
    v2: set[str] = set()
    swap = False
    for line in (proc / "self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup":
            names = set(options.split(","))
            if not Path(before.split(" ")[4], "blkio.throttle.read_bps_device").exists():
                names.discard("blkio")
            v1 |= names
            swap = swap or Path(before.split(" ")[4], "memory.memsw.limit_in_bytes").exists()
        elif kind == "cgroup2":
            available = Path(before.split(" ")[4], "cgroup.controllers")
            v2 |= set(available.read_text().split()) if available.exists() else set()
    return Controllers(frozenset(v2 & _KNOWN), frozenset(v1 & _KNOWN), swap)


def homes(proc: Path = Path("/proc")) -> dict[tuple[int, str], Path]:
    """Where each controller's files are: (1 or 2, controller) -> the root of its tree."""
    found: dict[tuple[int, str], Path] = {}
    for line in (proc / "self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root = Path(before.split(" ")[4])
        if kind in ("cgroup", "cgroup2"):
            version, names = (1, options.split(",")) if kind == "cgroup" else (2, list(_KNOWN))
            for name in _KNOWN.intersection(names):
                found.setdefault((version, name), root)
    return found


def members(group: str, proc: Path = Path("/proc")) -> set[int]:
    """Every process in a cgroup and below it, in every tree; nothing is thawed or ended."""
    return {pid for root in _hierarchies(proc) for folder in _each(root / group) for pid in _listed(folder)}


_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _each(top: Path, *, remove: bool = False) -> Iterator[int]:
    """A descriptor of each cgroup at and below ``top``, good until the next one; with ``remove``, those below go.

    A guest nests cgroups as deep as the kernel lets it, beyond what a path can name: one step at a time, nothing grows.
    """
    try:
        here = os.open(top, _FOLDER)
    except OSError:
        return
    names: list[str] = []
    ahead = [_folders(here)]
    try:
        yield here
        while True:
            if ahead[-1]:
                try:
                    below = os.open(name := ahead[-1].pop(), _FOLDER, dir_fd=here)
                except OSError:
                    continue
                os.close(here)
                here = below
                names.append(name)
                ahead.append(_folders(here))
                yield here
            elif names:
                above = os.open("..", _FOLDER, dir_fd=here)
                os.close(here)
                here = above
                ahead.pop()
                name = names.pop()
                if remove:
                    with suppress(OSError):
                        os.rmdir(name, dir_fd=here)
            else:
                return
    finally:
        os.close(here)


def _folders(folder: int) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _listed(folder: int) -> set[int]:
    with suppress(OSError), open("cgroup.procs", opener=partial(os.open, dir_fd=folder)) as handle:
        return {int(word) for word in handle.read().split()}
    return set()


def end_processes(group: str, proc: Path = Path("/proc"), patience: float = 30) -> None:
    """Kill whatever still lives in a guest's cgroups after its init was ended, in every hierarchy.

    A guest that could mount the v1 freezer may have frozen processes: they take their SIGKILL when they are thawed.
    Raises VsError when some do not end.
    """
    roots = [root / group for root in _hierarchies(proc)]

    def ended() -> bool:
        pids = {pid for root in roots for folder in _each(root) for pid in _thawed(folder)}
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    if not wait_until(ended, patience=patience):
        raise VsError(f"processes in the cgroup {group} do not end", "dmesg may tell why")


def _thawed(folder: int) -> set[int]:
    """The processes of a cgroup, which do not stay frozen."""
    for name, text in (("freezer.state", b"THAWED"), ("cgroup.freeze", b"0")):
        with suppress(OSError):
            handle = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
            try:
                os.write(handle, text)
            finally:
                os.close(handle)
    return _listed(folder)


def _hierarchies(proc: Path) -> list[Path]:
    """Where cgroup file systems are mounted."""
    mounts = [line.partition(" - ") for line in (proc / "self/mountinfo").read_text().splitlines()]
    return [
        Path(before.split(" ")[4]) for before, _, after in mounts if after.split(" ", 1)[0] in ("cgroup", "cgroup2")
    ]


def remove_cgroups(group: str, proc: Path = Path("/proc")) -> None:
    """Remove the empty cgroups that a stopped guest left, in every hierarchy; those with processes stay."""
    for root in _hierarchies(proc):
        for _ in _each(root / group, remove=True):
            pass
        with suppress(OSError):
            (root / group).rmdir()

"""A guest's next generation in the master's store: its files, its tree from a snapshot, and a manifest of both."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from vstools import files, log
from vstools.config import carried
from vstools.config.slaves import Slave
from vstools.errors import Refused, VsError
from vstools.faults import checkpoint
from vstools.paths import Paths
from vstools.pool import accepted, manifest, parcel, remote, rsync
from vstools.pool.remote import Agent
from vstools.pool.store import Generation, Partial, Store
from vstools.storage import strange

LONG = 4 * 3600.0
"""Seconds that a host may take to add up a tree, or to move one to its place."""
ABOUT = "about.json"


@dataclass(frozen=True)
class About:
    """What a generation does not say by itself: about.json in it. Epoch 0: no host's file named an owner.

    ``manifest`` is the SHA-256 of that file: it may have been cut at the end of a line.
    """

    host: str
    owner: str
    epoch: int
    mode: str
    arch: str
    version: str
    size: int
    inodes: int
    enabled: bool
    seconds: float
    sent: int
    manifest: str


def about(generation: Generation) -> About:
    """What is known of a generation; raises VsError where its file is broken."""
    path = generation.path / ABOUT
    try:
        return About(**json.loads(files.read_bounded(path, 1 << 16)))
    except (OSError, ValueError, TypeError) as error:
        raise VsError(f"{path} cannot be read", str(error)) from error


def differences(generation: Generation) -> list[str]:
    """Read all of a generation again: what is not as its manifest says, a sentence each."""
    import hashlib

    with (generation.path / manifest.FILE).open("rb") as handle:
        if hashlib.file_digest(handle, "sha256").hexdigest() != about(generation).manifest:
            return [f"{manifest.FILE} is not the one that was written"]
    found = manifest.verify(generation.path)
    return [f"{each.name.decode('utf-8', 'backslashreplace')}: {each.what}" for each in found]


def get(
    paths: Paths, store: Store, slave: Slave, name: str, *, mode: str = "hot", accept: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Generation:  # fmt: skip
    """Copy a guest from a host; killed, the next one of the same guest goes on with what came.

    ``mode`` is ``hot`` or ``cool`` (giving.py). Raises Refused where something of it has to be accepted, and for a
    running guest that can be copied only when it is stopped.
    """
    with (
        store.partial(name) as partial,
        remote.agent(paths, slave) as there,
        log.change(f"get from {slave.host}", name),
    ):
        there.call("claim", name=name)
        there.call("wake", name=name, timeout=LONG)
        told = parcel.told(slave.host, there.call("describe", name=name, measure=False))
        if mode == "hot" and told.running and told.snapshots is False:
            raise Refused(
                f"{slave.host}: guest {name} is running, and its storage cannot snapshot",
                "stop it, or let the copy do that: --cool (cool in backup.conf)",
            )
        found = parcel.files_of(slave.host, there.call("files", name=name))
        accepted.require(store, name, slave.host, found, accept=accept)
        carried.write(files.directory(partial.path / "config"), found)
        checkpoint("get:config")
        moment = datetime.now(UTC)
        passed = _copy(paths, slave, there, name, mode, partial, progress)
        former = partial.newest
        written = manifest.write(partial.path, former.path if former else None, partial.check)
        _describe(partial, slave, told, mode, passed, written.sha256)
        checkpoint("get:manifest")
        return partial.commit(moment)


def _copy(
    paths: Paths, slave: Slave, there: Agent, name: str, mode: str, partial: Partial, progress: Callable[[int], None]
) -> rsync.Passed:
    """The tree; what the generation before has, or an attempt that was killed, is not sent again."""
    tree = files.directory(partial.path / "tree", 0o700)
    checkpoint("get:tree")
    try:
        passed = rsync.pull(
            paths,
            slave,
            name,
            mode,
            partial.path.parent,
            tree,
            before=partial.links,
            progress=progress,
            check=partial.check,
        )
    finally:
        there.call("wake", name=name, timeout=LONG)
    checkpoint("get:copied")
    removed = strange.remove_devices(tree)
    if removed:
        log.note(f"guest {name}: {removed} device nodes of the tree were left out (LXC makes /dev)")
    return passed


def _describe(partial: Partial, slave: Slave, told: parcel.Told, mode: str, passed: rsync.Passed, sha256: str) -> None:
    """about.json, of what the host says."""
    owner, epoch = (told.owner.host, told.owner.epoch) if told.owner else (slave.host, 0)
    found = About(
        host=slave.host, owner=owner, epoch=epoch, mode=mode, arch=told.arch, version=told.version,
        size=passed.size, inodes=passed.files, enabled=told.enabled, seconds=round(passed.seconds, 1),
        sent=passed.received, manifest=sha256,
    )  # fmt: skip
    files.write(partial.path / ABOUT, json.dumps(asdict(found), indent=1) + "\n", 0o600)

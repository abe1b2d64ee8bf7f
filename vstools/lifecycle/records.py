"""What a started guest has in the kernel, in a file: who stops, changes or watches it goes by that."""

import json
import os
from dataclasses import asdict, dataclass, replace

from vstools import files, units
from vstools.alive import is_running
from vstools.lifecycle.host import host_lock
from vstools.network import plan
from vstools.paths import Paths


@dataclass(frozen=True)
class Record:
    """What a started guest has in the kernel: /run/vs-tools/guests/NAME/record."""

    token: str
    netns: str
    cgroup: str
    host_names: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    vlans: tuple[str, ...] = ()


def with_links(record: Record, links: tuple[plan.Link, ...]) -> Record:
    """The record of a guest with these links."""
    return replace(
        record,
        host_names=tuple(dict.fromkeys(link.host_name for link in links)),
        names=tuple(dict.fromkeys(link.name for link in links)),
        vlans=tuple(dict.fromkeys(link.vlan_device for link in links if link.vlan and not link.member)),
    )


def and_links(record: Record, links: tuple[plan.Link, ...]) -> Record:
    """The record of a guest that has these links as well: what it names already, a killed command may have left."""
    more = with_links(record, links)
    return replace(
        record,
        host_names=tuple(dict.fromkeys((*record.host_names, *more.host_names))),
        names=tuple(dict.fromkeys((*record.names, *more.names))),
        vlans=tuple(dict.fromkeys((*record.vlans, *more.vlans))),
    )


def running(paths: Paths, name: str) -> Record | None:
    """What a guest that runs has in the kernel; None where it does not run."""
    return read(paths, name) if is_running(paths, name) else None


def started(paths: Paths, name: str) -> Record | None:
    """What a guest has in the kernel that runs, or that systemd is just starting; None where it is stopped.

    Who holds the runtime lock finds it whole. A command that starts a guest itself holds the guest's lock as well.
    """
    record = read(paths, name)
    if record is None or is_running(paths, name) or (paths.systemd and not units.is_idle(name)):
        return record
    return None


def leave_vlans(paths: Paths, name: str, old: Record, new: Record) -> None:
    """Write a started guest's new record, and delete those VLAN devices of the old one that no record has any more.

    One lock for both: of two guests that leave a VLAN at once, the second finds itself the last. A guest that joins one
    writes its record before it waits for the lock.
    """
    from vstools.network import kernel

    left = [vlan for vlan in old.vlans if vlan not in new.vlans]
    with host_lock(paths, "links"):
        others = (read(paths, entry) for entry in os.listdir(paths.runtime) if entry != name)
        kept = {vlan for other in others if other is not None for vlan in other.vlans}
        kernel.drop_vlans(tuple(vlan for vlan in left if vlan not in kept))
        write(paths, name, new)


def write(paths: Paths, name: str, record: Record) -> None:
    """Note what a started guest has, or is about to have, in the kernel."""
    files.write(paths.runtime_of(name) / "record", json.dumps(asdict(record)) + "\n", 0o600)


def read(paths: Paths, name: str) -> Record | None:
    """The record of a guest's start, None when it is not started (or was killed before its record was whole)."""
    try:
        fields = json.loads((paths.runtime_of(name) / "record").read_text())
    except (FileNotFoundError, ValueError):
        return None
    for key in ("host_names", "names", "vlans"):
        fields[key] = tuple(fields.get(key, ()))  # an older record knows no VLANs
    return Record(**fields)

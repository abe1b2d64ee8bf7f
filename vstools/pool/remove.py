"""A guest's copy goes from a host of the pool: never one that runs or is enabled, the last one only if meant."""

from collections.abc import Sequence

from vstools import log
from vstools.config.slaves import Slave
from vstools.errors import Refused
from vstools.paths import Paths
from vstools.pool import get, remote, scan


def check(pool: scan.Pool, slave: Slave, name: str, *, last_copy: bool) -> None:
    """Raise Refused for a copy that may not go. A host that does not answer is not known to have another."""
    copies = [seen for seen in pool.guests if seen.guest == name]
    here = next((seen for seen in copies if seen.host == slave.host), None)
    if here is None:
        raise Refused(f"there is no guest {name!r} on host {slave.host}", "vs-scan lists the guests")
    if here.running:
        raise Refused(f"guest {name} is running on {slave.host}", "stop it there first")
    if here.enabled:
        raise Refused(f"guest {name} is enabled on {slave.host}", "disable it there first")
    if len(copies) < 2 and not last_copy:
        raise Refused(f"no other host that answers has guest {name}", "--last-copy removes it all the same")


def remove(paths: Paths, slave: Slave, names: Sequence[str]) -> None:
    """Remove the copies of guests from a host; it refuses what runs or is enabled by then."""
    with remote.agent(paths, slave) as there:
        for name in names:
            there.call("claim", name=name)
        for name in names:
            with log.change(f"remove from {slave.host}", name):
                there.call("remove", name=name, timeout=get.LONG)

"""What vs-net shows of a guest's network."""

from dataclasses import dataclass

from vstools.config import guests
from vstools.errors import Refused
from vstools.firewall import backend, live
from vstools.guest import Address
from vstools.lifecycle import records
from vstools.lifecycle.host import settings
from vstools.paths import Paths


@dataclass(frozen=True)
class Line:
    """One address of a guest: what is up of it."""

    address: Address
    vlan: bool = False
    route: bool = False
    fw_in: bool = False
    fw_out: bool = False


def state(paths: Paths, name: str) -> tuple[Line, ...]:
    """A guest's addresses; all is down where it does not run."""
    guest = guests.load(paths, name)
    netns = namespace(paths, name)
    if netns is None:
        return tuple(Line(nic.address) for nic in guest.nics if not nic.disabled)
    from vstools.network import status

    filters = backend.up(netns)
    return tuple(
        Line(one.address, one.vlan, one.route, filters["input"], filters["output"])
        for one in status.state(netns, settings(paths).links(guest))
    )


def namespace(paths: Paths, name: str) -> str | None:
    """The network namespace of a running guest."""
    record = records.running(paths, name)
    return record.netns if record else None


def needed_namespace(paths: Paths, name: str) -> str:
    """The network namespace of a guest that must run; raises Refused."""
    netns = namespace(paths, name)
    if netns is None:
        raise Refused(f"guest {name} does not run", "its firewall comes with its start")
    return netns


def rules(paths: Paths, name: str) -> tuple[live.LiveRule, ...]:
    """The rules in force that decide, with their counters; none where the guest does not run."""
    guests.require(paths, name)
    netns = namespace(paths, name)
    return tuple(rule for rule in backend.read(netns).rules if rule.decides) if netns else ()

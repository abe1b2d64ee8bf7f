"""What vs-net shows of a guest's network, and its firewall while it runs."""

from dataclasses import dataclass

from vstools import log
from vstools.alive import is_running
from vstools.config import guests
from vstools.config.firewall import FILE
from vstools.errors import Refused
from vstools.firewall import backend, live, model
from vstools.guest import Address
from vstools.lifecycle import filtering, phases
from vstools.lifecycle.host import guest_lock, runtime_lock, settings
from vstools.network import plan
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
    netns = _namespace(paths, name)
    if netns is None:
        return tuple(Line(nic.address) for nic in guest.nics if not nic.disabled)
    from vstools.network import status

    host = settings(paths)
    filters = live.is_up(backend.read(netns))
    return tuple(
        Line(one.address, one.vlan, one.route, filters["input"], filters["output"])
        for one in status.state(netns, plan.links(guest, host.networks, host.conf))
    )


def _namespace(paths: Paths, name: str) -> str | None:
    """The network namespace of a running guest."""
    record = phases.read_record(paths, name) if is_running(paths, name) else None
    return record.netns if record else None


def _needed_namespace(paths: Paths, name: str) -> str:
    netns = _namespace(paths, name)
    if netns is None:
        raise Refused(f"guest {name} does not run", "its firewall comes with its start")
    return netns


def rules(paths: Paths, name: str) -> tuple[live.LiveRule, ...]:
    """The rules in force that decide, with their counters; none where the guest does not run."""
    guests.require(paths, name)
    netns = _namespace(paths, name)
    return tuple(rule for rule in backend.read(netns).rules if rule.decides) if netns else ()


def ruleset(paths: Paths, name: str, *, up: bool) -> str:
    """What would be loaded now; raises BadFiles when firewall.conf has faults, Refused when the guest does not run."""
    return backend.choose(settings(paths).conf.firewall_backend).text(_wanted(paths, name, up=up))


def _wanted(paths: Paths, name: str, *, up: bool) -> model.Chains:
    """The filter for the addresses that a guest has, not for those that the files would give it at the next start."""
    from vstools.network import status

    guests.require(paths, name)
    policy = filtering.policy(paths, name)
    netns = _needed_namespace(paths, name)
    if up and not policy.enabled:
        log.warn(f"guest {name}: its {FILE} says disable, so everything but forged addresses and the host passes")
    return filtering.chains(policy, status.addresses(netns), up=up)


def set_firewall(paths: Paths, name: str, *, up: bool) -> None:
    """Load the rules of firewall.conf, or let everything pass until the next start; what is open stays open."""
    tool = settings(paths).conf.firewall_backend
    with guest_lock(paths, name), runtime_lock(paths, name):
        wanted = _wanted(paths, name, up=up)
        with log.change(f"firewall {'up' if up else 'down'}", name):
            filtering.load(_needed_namespace(paths, name), wanted, tool)

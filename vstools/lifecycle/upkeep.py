"""A running guest's network beside its files: what differs, and putting it right; parts of it up and down by hand."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from vstools import log
from vstools.config import guests
from vstools.errors import Refused
from vstools.lifecycle import confirm, filtering, presence, records, window
from vstools.lifecycle.host import guest_lock, host_lock, runtime_lock, settings
from vstools.network import plan
from vstools.paths import Paths

if TYPE_CHECKING:
    from vstools.config.firewall import Policy


@dataclass(frozen=True)
class Switches:
    """What of a guest's network shall be up or down; None leaves it as it is."""

    vlan: bool | None = None
    route: bool | None = None
    fw: bool | None = None

    def __str__(self) -> str:
        said = ((key, value) for key, value in asdict(self).items() if value is not None)
        return " ".join(f"{key} {'up' if value else 'down'}" for key, value in said)


def differences(paths: Paths, name: str) -> tuple[str, ...]:
    """A sentence for each thing that the kernel has otherwise than the files say; none where the guest does not run."""
    record = records.running(paths, name)
    if record is None:
        guests.require(paths, name)
        return ()
    return tuple(_differences(paths, name, record))


def _differences(paths: Paths, name: str, record: records.Record) -> Iterator[str]:
    from vstools.network import local, mend

    host = settings(paths)
    links = host.links(guests.load(paths, name))
    yield from mend.differences(record.netns, links)
    yield from local.differences(paths, links)
    own = (address for link in links for address in link.addresses)
    wanted = filtering.chains(filtering.policy(paths, name), own)
    yield from filtering.differences(record.netns, wanted, host.conf.firewall_backend)


def _links(paths: Paths, name: str) -> tuple[plan.Link, ...]:
    return settings(paths).links(guests.load(paths, name))


def repair(paths: Paths, name: str) -> tuple[str, ...]:
    """Make the kernel as the files say; returns what was otherwise. Connections that may go on do so."""
    with guest_lock(paths, name), confirm.around(paths, name, None, confirm.Pending):
        found = differences(paths, name)
        if found:
            check_devices(paths, name)
            with log.change("repair the network", name):
                mend_links(paths, name)
                _load_rules(paths, name, filtering.policy(paths, name), up=True)
    return found


def switch(paths: Paths, name: str, parts: Switches, seconds: int | None = None) -> None:
    """Bring parts of a running guest's network up or down until its next start.

    With ``seconds`` all goes back unless it is confirmed. Raises Refused or BadFiles before anything changes.
    """
    with guest_lock(paths, name):
        netns = needed(paths, name).netns
        policy = filtering.policy(paths, name)
        if parts.vlan or parts.route:
            check_devices(paths, name)
        with (
            confirm.around(paths, name, seconds, lambda: pending(paths, name)),
            log.change(f"network {parts}", name),
        ):
            if parts.fw:
                _load_rules(paths, name, policy, up=True)
            if parts.vlan or parts.route:
                mend_links(paths, name)
            if parts.vlan:  # its addresses may be others now
                _load_rules(paths, name, policy, up=filtering.is_up(netns))
            if parts.vlan is False or parts.route is False:
                take_down(paths, name, vlan=parts.vlan is False, route=parts.route is False)
            if parts.fw is False:
                _load_rules(paths, name, policy, up=False)


def pending(paths: Paths, name: str) -> confirm.Pending:
    """What a guest's network goes back to when a change is not confirmed: its rules and what is down, by the kernel."""
    from vstools.network import mend

    record = records.started(paths, name)
    if record is None:
        return confirm.Pending()
    backend, rules = window.rules(paths, name, record.netns)
    down = mend.switched_off(record.netns, _links(paths, name))
    return confirm.Pending(life=record.token, backend=backend, rules=rules, down=down)


def check_devices(paths: Paths, name: str) -> None:
    """Raise Refused when a device that the files give the guest is missing: its links would be lost for nothing."""
    from vstools.network import local

    local.check_devices(_links(paths, name))


def mend_links(paths: Paths, name: str) -> None:
    """The links, addresses and routes of a running guest as its files say. The caller holds the guest's lock."""
    from vstools.network import local, mend

    with runtime_lock(paths, name):
        record = records.started(paths, name)
        if record is None:
            return
        host = settings(paths)
        links = host.links(guests.load(paths, name))
        now, both = records.with_links(record, links), records.and_links(record, links)
        gone = tuple(key for key in both.names if key not in now.names)
        records.write(paths, name, both)
        with host_lock(paths, "links"):
            local.ensure(paths, links, host.networks)
            local.mend(paths, links, host.networks)
            mend.mend(record.netns, links, gone)
        presence.check_ipv6(record.netns, links, wait=True)
        records.leave_vlans(paths, name, both, now)


def take_down(paths: Paths, name: str, *, vlan: bool, route: bool) -> None:
    """Set the guest's links down, or take its routes away. The caller holds the guest's lock."""
    from vstools.network import mend

    with runtime_lock(paths, name):
        mend.take_down(needed(paths, name).netns, _links(paths, name), vlan=vlan, route=route)


def needed(paths: Paths, name: str) -> records.Record:
    """The record of a guest that runs; raises Refused for one that does not."""
    guests.require(paths, name)
    record = records.started(paths, name)
    if record is None:
        raise Refused(f"guest {name} does not run", "its network comes with its start")
    return record


def _load_rules(paths: Paths, name: str, policy: "Policy", *, up: bool) -> None:
    """Put the rules of a policy in force, or let everything pass; what is open stays open."""
    with runtime_lock(paths, name):
        netns = needed(paths, name).netns
        host = settings(paths)
        filters = filtering.wanted(policy, name, netns, host.links(guests.load(paths, name)), up=up)
        filtering.load(netns, filters, host.conf.firewall_backend)
        window.again(paths, name, netns)


def ruleset(paths: Paths, name: str, *, up: bool) -> str:
    """What would be loaded now, as the back end reads it; raises Refused when the guest does not run."""
    netns = needed(paths, name).netns
    host = settings(paths)
    links = host.links(guests.load(paths, name))
    filters = filtering.wanted(filtering.policy(paths, name), name, netns, links, up=up)
    return filtering.text(filters, host.conf.firewall_backend)

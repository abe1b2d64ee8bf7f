"""What this host's kernel is told about a guest's limits, and what it cannot enforce: the rooms' answers together."""

from dataclasses import replace

from vstools import limits
from vstools.guest import Guest
from vstools.lifecycle import disk
from vstools.paths import Paths
from vstools.storage import disks


def items(paths: Paths, guest: Guest, cgroup: str) -> tuple[tuple[str, str], ...]:
    """The items of LXC's configuration for a guest whose cgroups lie below ``cgroup``."""
    plan = limits.of_this_host(guest.limits, disks.number(paths.tree_of(guest.name)))
    if not any(setting.inner and setting.explicit for setting in plan.settings):
        return plan.items
    from vstools.limits import live

    return (*plan.items, *live.Group(f"{cgroup}/payload").hooks(plan.settings))


def of(paths: Paths, guest: Guest) -> limits.Plan:
    """The plan for a guest on this host. The network's part of it is carried by the guest's links."""
    number = disks.number(paths.tree_of(guest.name))
    plan = limits.of_this_host(guest.limits, number, disk.fault(paths, guest.name, guest.limits))
    if guest.limits.net_rate is None:
        return plan
    from vstools.network import rates

    sentence = rates.missing(guest.limits.net_rate)
    return plan if sentence is None else replace(plan, missing=(*plan.missing, ("net_rate", sentence)))

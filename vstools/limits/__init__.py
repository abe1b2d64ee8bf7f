"""What a guest may use, as the kernel's controllers understand it: cgroup v2, and v1 where a host still has that."""

from vstools.guest import Limits
from vstools.limits.cgroups import Controllers, controllers, end_processes, remove_cgroups
from vstools.limits.plan import Plan, plan

__all__ = ["Controllers", "Plan", "controllers", "end_processes", "of_this_host", "plan", "remove_cgroups"]


def of_this_host(limits: Limits, no_disk: str | None = None) -> Plan:
    """What to tell this kernel about a guest's limits. ``no_disk``: why no limit of the disk is enforced."""
    from vstools.limits.processes import most_files

    return plan(limits, controllers(), most_files=most_files() if limits.rlimits else None, no_disk=no_disk)

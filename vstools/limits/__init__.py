"""What a guest may use, as the kernel's controllers understand it: cgroup v2, and v1 where a host still has that."""

from vstools.guest import Limits
from vstools.limits.cgroups import Controllers, controllers, end_processes, remove_cgroups
from vstools.limits.plan import Plan, plan

__all__ = ["Controllers", "Plan", "controllers", "end_processes", "of_this_host", "plan", "remove_cgroups"]


def of_this_host(limits: Limits, device: str | None = None, no_disk: str | None = None) -> Plan:
    """What to tell this kernel about a guest's limits.

    ``device``: MAJOR:MINOR of the disk that its tree lies on. ``no_disk``: why no limit of disk space is enforced.
    """
    from vstools.limits.processes import most_files

    files = most_files() if limits.rlimits else None
    return plan(limits, controllers(), most_files=files, device=device, no_disk=no_disk)

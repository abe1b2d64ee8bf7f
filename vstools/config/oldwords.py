"""What the words of a Linux-VServer guest mean here: capabilities, flags, and files that have no equivalent."""

_INSIDE = "its root has it within the guest"
_NETWORK = "the guest has a network of its own, with a loopback of its own"
_LXCFS = "where lxcfs runs on the host, the guest sees its own"
_WHOLE = "limits count the whole guest here"
_NONE = "no equivalent"

_CAPABILITIES = {
    "net_admin": "no guest has it: links, addresses, routes and firewall are the host's (vs-net)",
    "net_raw": "no guest has it: ping works without, other raw sockets do not",
    "net_broadcast": "no guest has it, and the kernel asks nobody for it",
    "sys_admin": "within the guest's own namespaces only: it mounts no disk and sets no quota",
    "sys_module": "no guest has it", "sys_rawio": "no guest has it", "sys_time": "no guest sets the host's clock",
    "sys_boot": "it ends or restarts the guest itself", "mknod": "no guest makes device nodes",
    "sys_resource": "no guest passes its limits (vs-limit)", "sys_nice": "priorities are raised on the host only",
    "sys_pacct": "no guest has it", "linux_immutable": "no guest sets or clears immutable files",
    "ipc_lock": "memory is locked up to the limit memlock (vs-limit --rlimit)",
    "mac_admin": "no guest has it", "mac_override": "no guest has it", "syslog": "the kernel's log is the host's",
    "audit_control": "no guest has it", "audit_write": "no guest has it: the kernel's audit is the host's",
    "lease": "no guest has it: leases are for one's own files", "sys_tty_config": "no guest has it",
    **dict.fromkeys(
        ("chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
         "net_bind_service", "ipc_owner", "sys_chroot", "sys_ptrace", "setfcap"),
        _INSIDE,
    ),
}  # fmt: skip
_CONTEXT = {
    "raw_icmp": "ping works in every guest", "utsname": "its root names the guest by itself",
    "set_utsname": "its root names the guest by itself", "set_rlimit": "its root sets limits up to those of vs-limit",
    "secure_mount": "its root mounts what the kernel lets a user namespace mount",
    "secure_remount": "its root mounts what the kernel lets a user namespace mount",
    "binary_mount": "its root mounts what the kernel lets a user namespace mount",
    "quota_ctl": "no quotas for users within a guest; vs-limit --disk bounds all of it",
    "syslog": "the kernel's log is the host's",
}  # fmt: skip
_FLAGS = {
    "sched_hard": "a share of the CPUs is a hard limit here", "sched_prio": "a share of the CPUs is a hard limit here",
    "virt_mem": _LXCFS, "virt_uptime": _LXCFS, "virt_cpu": _LXCFS, "virt_load": _LXCFS,
    "hide_mount": "a guest sees its own mounts only", "hide_vinfo": "a guest sees its own processes only",
    "nproc": _WHOLE, "ulimit": _WHOLE, "fork_rss": _WHOLE, "info_init": "its own /sbin/init runs",
    "fakeinit": "its own /sbin/init runs", "reboot_kill": "reboot and poweroff are the guest's own",
    "hide_netif": _NETWORK, "hide_lback": _NETWORK, "lback_remap": _NETWORK, "lback_allow": _NETWORK,
    "single_ip": _NETWORK,
}  # fmt: skip

LISTS = {
    "bcapabilities": _CAPABILITIES, "capabilities": _CAPABILITIES, "ccapabilities": _CONTEXT, "cflags": _FLAGS,
    "flags": _FLAGS, "nflags": _FLAGS, "ncapabilities": {},
}  # fmt: skip
"""File -> its words. A word begins with ``~`` where it takes something away."""


def meaning(word: str, meanings: dict[str, str]) -> str:
    """What a word of such a file means here."""
    if word[:1] in "~!-":
        return "nothing is taken away from a guest by a file here: it has what every guest has"
    return meanings.get(word.lower().removeprefix("cap_").removeprefix("vxc_").removeprefix("vxf_"), _NONE)


_OWN = "util-vserver's own, and not needed"
_INIT = "its own /sbin/init runs here, and its scripts decide"
_NETWORKS = "networks.conf decides"
NOT_HERE = (
    (r"run$|cache$|run\.rev$|uts/context$", _OWN),
    (r"ulimits", "limits of kernel 2.4, which were not in force any more"),
    (r"nice$", "no equivalent; vs-limit --cpu bounds its share"),
    (r"personality$", "a mainline kernel shows its own; 32-bit programs run on a 64-bit host as they are"),
    (r"shell$", "vs-enter takes root's shell"),
    (r"badness$", "the kernel chooses; a guest's memory is its own limit"),
    (r"(no)?namespace|spaces|nonetns$|nocgroup$|n(on)?context$", "every guest has namespaces of its own"),
    (r"uts/(sysname|release|version|machine)$", "a mainline kernel shows its own"),
    (r"uts/domainname$", "the NIS domain is set in the guest (/etc/defaultdomain)"),
    (r"apps/init/(mtab|tty|killseq|sync|environment|cmd\.[a-z-]+|runlevel\.stop)$", _INIT),
    (r"apps/v(unify|hashify)", "vs-unify shares the blocks of equal files instead"),
    (r"apps/pkgmgmt", "the guest's packages are managed by its own programs"),
    (r"apps/vshelper[a-z-]*|vshelper[a-z-]*", "a guest's own reboot and poweroff are seen without a helper"),
    (r"cpuset|cgroup", "not taken over: vs-limit says what a guest may use"),
    (r"sysctl", "set it in the guest (/etc/sysctl.conf); the kernel allows there what belongs to its namespaces"),
    (r"fstab\.remote$", "not mounted: no guest mounts over the network by itself"),
    (r"interfaces/.*(bcast|scope|vlandev|novlandev|lback[a-z_]*|only_ip)$", _NETWORKS),
    (r"rlimits/.*\.min$", "nothing is guaranteed to a guest, its use is bounded"),
    (r"rlimits/.*", "no such limit here"),
    (r"sched/.*", "no equivalent: a share of the CPUs is fill-rate and interval"),
    (r"scripts/initialize(\.d)?", "no such phase; prepre-start is the first"),
    (r"scripts/.*", "no such phase"),
    (r"devices$", "not taken over: a guest's devices are given on this host"),
)
"""Files without an equivalent: what a path begins with, and the reason. The first that matches is said once."""

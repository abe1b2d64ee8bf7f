"""Which packet filters the kernel has, asked without starting a program."""

from pathlib import Path

from vstools.firewall import nfnetlink

_GETTABLE, _GETGEN = 0x0A01, 0x0A10  # NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_* (linux/netfilter/nf_tables.h)
_INET = 1  # NFPROTO_INET
_TABLE_NAME = 1  # NFTA_TABLE_NAME
_LEGACY = ("ip_tables_names", "ip6_tables_names")


def nf_tables() -> bool:
    """Whether the kernel has nf_tables: it then tells the number of the ruleset's last change."""
    return nfnetlink.knows(nfnetlink.request(_GETGEN, _INET))


def nft_table(name: str) -> bool:
    """Whether this thread's network namespace has an nft table of this name in the family inet."""
    return nfnetlink.knows(nfnetlink.request(_GETTABLE, _INET, 0, nfnetlink.named(_TABLE_NAME, name)))


def legacy_tables() -> bool:
    """Whether this thread's network namespace has a table ``filter`` of iptables or ip6tables, even an empty one."""
    found = []
    for name in _LEGACY:
        path = Path("/proc/thread-self/net", name)  # not /proc/net: that is the namespace of the first thread
        if path.exists():  # it comes with the kernel's module
            found += path.read_text().split()
    return "filter" in found

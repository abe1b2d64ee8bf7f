"""Which packet filters the kernel has, asked without starting a program."""

import socket
import struct
from pathlib import Path

_NETLINK_NETFILTER = 12
_GETTABLE, _GETGEN = 0x0A01, 0x0A10  # NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_* (linux/netfilter/nf_tables.h)
_INET = 1  # NFPROTO_INET
_TABLE_NAME = 1  # NFTA_TABLE_NAME
_REQUEST, _ERROR = 1, 2  # NLM_F_REQUEST, NLMSG_ERROR
_LEGACY = ("ip_tables_names", "ip6_tables_names")


def nf_tables() -> bool:
    """Whether the kernel has nf_tables: it then tells the number of the ruleset's last change."""
    return _answers(_GETGEN)


def nft_table(name: str) -> bool:
    """Whether this thread's network namespace has an nft table of this name in the family inet."""
    text = name.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(text), _TABLE_NAME) + text
    return _answers(_GETTABLE, attribute + b"\0" * (-len(attribute) % 4))


def legacy_tables() -> bool:
    """Whether this thread's network namespace has a table ``filter`` of iptables or ip6tables, even an empty one."""
    found = []
    for name in _LEGACY:
        path = Path("/proc/thread-self/net", name)  # not /proc/net: that is the namespace of the first thread
        if path.exists():  # it comes with the kernel's module
            found += path.read_text().split()
    return "filter" in found


def _answers(kind: int, attributes: bytes = b"") -> bool:
    """Whether nf_tables answers a request with something else than an error (``man 7 netlink``)."""
    body = struct.pack("=BBH", _INET, 0, 0) + attributes
    header = struct.pack("=IHHII", 16 + len(body), kind, _REQUEST, 1, 0)
    try:
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    except OSError:  # a kernel without nfnetlink
        return False
    with netlink:
        netlink.settimeout(10)
        netlink.send(header + body)
        answer = netlink.recv(8192)
    return bool(struct.unpack_from("=H", answer, 4)[0] != _ERROR)

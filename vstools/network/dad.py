"""Duplicate address detection of IPv6 (RFC 4862, 5.4), which the kernel does: made quick, and its result read.

It begins when a link comes up. Addresses are optimistic meanwhile (RFC 4429): servers of the guest can bind to them,
and the neighbours' caches are left alone. All functions are called inside the guest's namespace.
"""

import fcntl
import socket
import struct
import time
from contextlib import suppress
from ipaddress import IPv6Address
from pathlib import Path

from vstools.network.namespace import sysctl

_TABLE = Path("/proc/thread-self/net/if_inet6")  # address, index, prefix, scope, flags, name; numbers in hex
OPTIMISTIC = 0x04  # IFA_F_*, linux/if_addr.h
_FAILED = 0x08
_TENTATIVE = 0x40
_SIOCGIFFLAGS = 0x8913  # man 7 netdevice
_RUNNING = 0x40  # IFF_RUNNING: it has a carrier
_PAUSE = 0.005
_PATIENCE = 3.0
_QUICK = {
    "conf/{}/router_solicitation_delay": "0",
    "conf/{}/dad_transmits": "3",
    "conf/{}/optimistic_dad": "1",
    "conf/{}/use_optimistic": "1",
    "neigh/{}/retrans_time_ms": "100",
}
"""Three questions, 100 ms apart; the kernel's own values take one to two seconds for a single one."""
_PLAIN = {"neigh/{}/retrans_time_ms": "1000"}


def hasten(link: str) -> None:
    """Before the link is up: let the detection take 300 ms. Old kernels lack some of the settings: it is slow there."""
    for key, value in _QUICK.items():
        sysctl(f"net/ipv6/{key.format(link)}", value, needed=False)


def settle(link: str) -> None:
    """After it: neighbours are looked for as patiently as everywhere."""
    for key, value in _PLAIN.items():
        sysctl(f"net/ipv6/{key.format(link)}", value, needed=False)


def duplicates() -> tuple[tuple[str, IPv6Address], ...]:
    """(link, address) of those that another machine has, as far as that is known yet."""
    return tuple((link, address) for link, address, flags in _addresses() if flags & _FAILED)


def wait() -> bool:
    """Wait until the detection is over, or has found a duplicate; whether it is over.

    A link without a carrier is not waited for: nobody can be asked there, and the kernel asks when it gets one.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        pending = {link for link, _, flags in _addresses() if flags & _TENTATIVE and not flags & _FAILED}
        if duplicates() or not any(map(_has_carrier, pending)):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)


def _addresses() -> list[tuple[str, IPv6Address, int]]:
    """(link, address, flags) of all in this namespace; none where the kernel has no IPv6."""
    try:
        lines = _TABLE.read_text().splitlines()
    except OSError:
        return []
    rows = (line.split() for line in lines)
    return [(row[5], IPv6Address(bytes.fromhex(row[0])), int(row[4], 16)) for row in rows]


def _has_carrier(link: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket, suppress(OSError):
        found = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16s24x", link.encode()))
        return bool(struct.unpack_from("H", found, 16)[0] & _RUNNING)
    return False

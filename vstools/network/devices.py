"""What this network namespace answers without netlink, whose library takes longer to load than a command may take."""

import ipaddress
import socket

from vstools.errors import Refused
from vstools.network.plan import Link


def has_device(name: str) -> bool:
    """Whether this namespace has a network device of that name (/sys may show another's)."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def has_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is the host's own: then a socket can be bound to it.

    Where anything can be bound (net.ipv4.ip_nonlocal_bind) the kernel's list of addresses decides.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    from vstools.network import kernel

    return any(interface.ip == address for interface in kernel.host_addresses())


def check_devices(links: tuple[Link, ...]) -> None:
    """Raise Refused when a device that a link stands on is missing, or cannot carry its VLAN."""
    for link in links:
        if not has_device(link.device):
            raise Refused(f"the network device {link.device} does not exist", "ip link shows those that do")
        if link.vlan and _is_bridge(link.device):
            raise Refused(
                f"{link.device} is a bridge and cannot carry VLAN {link.vlan}",
                "bridges carry untagged networks: give networks.conf VLAN 0, or a device that is no bridge",
            )


def _is_bridge(name: str) -> bool:
    from vstools.network import kernel

    return kernel.is_bridge(name)

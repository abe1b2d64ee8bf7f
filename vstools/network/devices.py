"""What this network namespace answers without netlink, whose library takes longer to load than a command may take."""

import array
import fcntl
import ipaddress
import socket
import struct
from collections.abc import Iterable
from dataclasses import replace

from vstools.errors import Refused
from vstools.guest import Address, Interface
from vstools.libc import interface_addresses
from vstools.network.plan import Link

_SIOCETHTOOL = 0x8946
_GET_DRIVER = 3  # ETHTOOL_GDRVINFO


def has_device(name: str) -> bool:
    """Whether this namespace has a network device of that name (/sys may show another's)."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def addresses() -> tuple[tuple[str, Interface], ...]:
    """(link, address) of all that this namespace has."""
    return tuple((link, ipaddress.ip_interface((address, prefix))) for link, address, prefix in interface_addresses())


def host_addresses() -> tuple[Interface, ...]:
    """Every address of the host, with its prefix."""
    return tuple(interface for _, interface in addresses())


def has_address(address: Address) -> bool:
    """Whether an address is the host's own."""
    return any(interface.ip == address for interface in host_addresses())


def check_own(wanted: Iterable[Address]) -> None:
    """Raise Refused when one of the addresses is the host's own."""
    for address in wanted:
        if has_address(address):
            raise Refused(f"{address} is this host's own address", "choose another address")


def resolve(links: tuple[Link, ...]) -> tuple[Link, ...]:
    """The links as this host's devices make them: a VLAN on a bridge is a matter of the bridge's port."""
    return tuple(replace(link, member=is_bridge(link.device)) if link.vlan else link for link in links)


def check_devices(links: tuple[Link, ...]) -> None:
    """Raise Refused when a device that a link stands on is missing, or cannot carry its VLAN."""
    for link in links:
        if not has_device(link.device):
            raise Refused(f"the network device {link.device} does not exist", "ip link shows those that do")
        if link.vlan and is_bridge(link.device) and not _filters(link.device):
            raise Refused(
                f"{link.device} is a bridge without vlan_filtering and cannot carry VLAN {link.vlan}",
                "switch vlan_filtering on for it, or give networks.conf VLAN 0, or a device that is no bridge",
            )
        if link.ipvlan and not is_bridge(link.device) and not _has_ipvlan():
            raise Refused("this kernel has no ipvlan", "LINK=auto in create.conf takes macvlan")


def is_bridge(name: str) -> bool:
    """Whether a device of this namespace is a bridge: its driver says so (SIOCETHTOOL, linux/ethtool.h)."""
    answer = array.array("B", struct.pack("I192x", _GET_DRIVER))
    request = struct.pack("16sP16x", name.encode(), answer.buffer_info()[0])
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
    except OSError:  # it is not there, or has no driver that speaks
        return False
    return answer.tobytes()[4:36].rstrip(b"\0") == b"bridge"


def _filters(name: str) -> bool:
    from vstools.network import bridges, kernel
    from vstools.network.netlink import IPRoute

    with IPRoute() as ipr:
        index = kernel.index_of(ipr, name)
        return index is not None and bridges.filters(ipr, index)


def _has_ipvlan() -> bool:
    from vstools.network import kernel

    return kernel.has_ipvlan()

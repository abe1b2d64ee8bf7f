"""Machines beside a guest for tests about its network: namespaces with an address on a bridge, and what they hear."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vstools.libc import network_namespace


def sh(script: str) -> str:
    """Run a shell script that must succeed; its output."""
    return subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=True).stdout


@contextmanager
def bridge(name: str) -> Iterator[str]:
    """A bridge of the test's own, without addresses."""
    sh(f"ip link add {name} type bridge; ip link set {name} addrgenmode none up")
    try:
        yield name
    finally:
        sh(f"ip link delete {name}")


class Machine:
    """Another machine on a bridge: the namespace ``name`` with the link eth0 and its MAC."""

    def __init__(self, name: str) -> None:
        self.name, self.path = name, Path("/run/netns", name)

    def sh(self, script: str) -> str:
        """Run a shell script there."""
        return sh(f"ip netns exec {self.name} sh -ec '{script}'")

    @property
    def mac(self) -> str:
        """Of its link."""
        return self.sh("cat /sys/class/net/eth0/address").strip()

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of that machine."""
        with network_namespace(self.path):
            return socket.socket(family, kind, protocol)


@contextmanager
def machine(name: str, bridge: str, *addresses: str, mac: str = "") -> Iterator[Machine]:
    """A machine with addresses (with their prefixes) on a bridge; those of IPv6 are its own at once."""
    words = f"address {mac}" if mac else ""
    sh(f"""
    ip netns add {name}
    ip link add {name}0 type veth peer name eth0 {words} netns {name}
    ip link set {name}0 master {bridge} up; ip -n {name} link set lo up; ip -n {name} link set eth0 up
    """)
    try:
        for address in addresses:
            sh(f"ip -n {name} address add {address} dev eth0 {'nodad' if ':' in address else ''}")
        yield Machine(name)
    finally:
        sh(f"ip link delete {name}0; ip netns delete {name}")

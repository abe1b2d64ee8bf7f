"""``install.sh --demo``: a network and a template for a single machine that needs no configuration."""

import ipaddress
import re
import socket
import time
from pathlib import Path

from vstools import files
from vstools.config import create, guests
from vstools.config.firewall import FILE
from vstools.config.text import lines_of
from vstools.errors import Refused, VsError
from vstools.guest import bracketed, parse_address, parse_domain
from vstools.lifecycle.host import settings
from vstools.network.local import BRIDGE
from vstools.paths import Paths

_CANDIDATES = tuple(ipaddress.IPv4Network(f"10.{second}.0.0/24") for second in (77, 78, 79, 87, 97, 107, 117, 137))
_PATIENCE = 60.0
_RESOLV = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))


def configure(paths: Paths, template: str) -> str:
    """Make networks.conf and create.conf name the local network and the template; returns the network's line.

    firewall.conf gets a line that lets the host reach its new guests.
    """
    host = settings(paths)
    line = next((net for net in host.networks.lines if not net.vlan and net.net in _CANDIDATES), None)
    if line is None:
        text = _new_line(paths)
        networks = paths.conf / "networks.conf"
        old = networks.read_text() if networks.exists() else ""
        files.write(networks, old + ("\n" if old and not old.endswith("\n") else "") + text + "\n")
    else:
        text = f"0:{line.net},{line.gateway}"
    _allow(paths, f"allow from {line.gateway if line else text.split(',')[1]} to icmp,tcp:22")
    create.change(paths.conf / "create.conf", {"DEFAULT_DEVICE": BRIDGE, "DEFAULT_TEMPLATE": template})
    return text


def firewall(paths: Paths) -> None:
    """Write the host's firewall.conf where there is none: new guests reach the host's name servers and nothing else."""
    path = paths.conf / FILE
    if path.exists():
        return
    _, servers = _resolver()
    line = f"allow to {','.join(servers)} to udp:53,tcp:53\n" if servers else ""
    files.directory(paths.conf)
    files.write(path, f"# What new guests begin with; {FILE}.sample describes the lines.\nenable\n{line}")


def _allow(paths: Paths, line: str) -> None:
    """Add a line to the host's firewall.conf where it is not there."""
    firewall(paths)
    path = paths.conf / FILE
    lines = lines_of(path)
    if line not in lines:
        files.write(path, "\n".join([*lines, line]) + "\n")


def _new_line(paths: Paths) -> str:
    net = choose_network(_taken(paths))
    domain, servers = _resolver()
    return ",".join([f"0:{net}", str(net[1]), domain, *servers])


def choose_network(taken: tuple[ipaddress.IPv4Network, ...]) -> ipaddress.IPv4Network:
    """The first of our candidates that overlaps nothing taken; raises Refused when all do."""
    for net in _CANDIDATES:
        if not any(net.overlaps(other) for other in taken):
            return net
    raise Refused("no private network is free on this host", "write a line with VLAN 0 into networks.conf yourself")


def _taken(paths: Paths) -> tuple[ipaddress.IPv4Network, ...]:
    from vstools.network import kernel

    known = [line.net for line in settings(paths).networks.lines]
    networks = (*known, *kernel.host_networks())
    return tuple(net for net in networks if isinstance(net, ipaddress.IPv4Network) and net.prefixlen)


def _resolver() -> tuple[str, list[str]]:
    """The host's search domain and its name servers that are not loopback."""
    text = "\n".join(line for path in _RESOLV for line in lines_of(path))
    words = re.search(r"^\s*(?:search|domain)\s+(\S+)", text, re.MULTILINE)
    domain = "internal"
    if words and words[1] != ".":
        try:
            domain = parse_domain(words[1].rstrip("."))
        except ValueError:
            domain = "internal"
    servers: list[str] = []
    for word in re.findall(r"^\s*nameserver\s+(\S+)", text, re.MULTILINE):
        try:
            address = parse_address(word)
        except ValueError:
            continue
        if not address.is_loopback and not address.is_link_local and str(address) not in servers:
            servers.append(str(address))
    return domain, servers[:3]


def address(paths: Paths) -> str:
    """The first free address of the local network."""
    used = guests.addresses_in_use(paths)
    for line in settings(paths).networks.lines:
        if not line.vlan and line.net in _CANDIDATES:
            for host in line.net.hosts():
                if host != line.gateway and bracketed(host) not in used:
                    return str(host)
            raise Refused(f"every address of {line.net} is taken", "vs-remove a guest that is no longer needed")
    raise Refused("networks.conf has no local network", "install.sh --demo makes one")


def reach(paths: Paths, name: str) -> str:
    """Connect to the guest's ssh port until it answers; returns what it said. Raises VsError when it does not."""
    guest = guests.load(paths, name)
    where = (str(guest.nics[0].address), 22)
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            with socket.create_connection(where, timeout=5) as link:
                banner = link.recv(64).decode("ascii", "replace").strip()
        except OSError as error:
            if time.monotonic() >= deadline:
                raise VsError(f"guest {name} does not answer on {where[0]}:22", str(error)) from error
            time.sleep(0.1)
        else:
            return f"{name} answers on {where[0]}:22: {banner}"

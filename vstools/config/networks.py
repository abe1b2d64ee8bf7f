"""/etc/vs-tools/networks.conf: which VLAN, prefix, gateway, domain and name servers belong to an address.

One network a line, the format of 2008: ``vlan:address/prefix[,gateway[,domain[,nameserver ...]]]``. VLAN 0 is
untagged; fields may be empty; name servers are separated by commas or spaces.
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vstools.config.text import Faults, statements, whole_number
from vstools.guest import Address, parse_address, parse_domain

T = TypeVar("T")
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Network:
    """One line of networks.conf."""

    vlan: int
    net: IpNetwork
    gateway: Address | None = None
    domain: str | None = None
    nameservers: tuple[Address, ...] = ()


@dataclass(frozen=True)
class Networks:
    """All lines; no two of them overlap."""

    lines: tuple[Network, ...] = ()

    def of(self, address: Address) -> Network | None:
        """The network that an address lies in."""
        return next((line for line in self.lines if address in line.net), None)


def load(path: Path, faults: Faults) -> Networks:
    """Read networks.conf; a missing file has no networks. Faults are added to ``faults``."""
    found: list[Network] = []
    for number, text in statements(path):
        place = _Line(path, number, text, faults)
        network = place.parse()
        if network is None:
            continue
        for earlier in found:
            if earlier.net.version == network.net.version and earlier.net.overlaps(network.net):
                faults.add(path, number, place.column, f"{network.net} overlaps {earlier.net} of an earlier line")
        found.append(network)
    return Networks(tuple(found))


@dataclass
class _Line:
    path: Path
    number: int
    text: str
    faults: Faults

    @property
    def column(self) -> int:
        """Where the network begins."""
        return self._fields(self.text.index(":") + 1)[0][0]

    def parse(self) -> Network | None:
        indent = len(self.text) - len(self.text.lstrip())
        head, colon, _ = self.text.partition(":")
        if not colon or not head.strip().isdigit():
            self.faults.add(self.path, self.number, indent + 1, "a line is VLAN:ADDRESS/PREFIX[,GATEWAY[,...]]")
            return None
        attempt = self.faults.attempt
        vlan = attempt(self.path, self.number, indent + 1, whole_number(0, 4094), head.strip())
        fields = self._fields(len(head) + 1)
        net = attempt(self.path, self.number, fields[0][0], _network, fields[0][1])
        gateway = self._optional(fields, 1, parse_address)
        domain = self._optional(fields, 2, parse_domain)
        servers = [attempt(self.path, self.number, column, parse_address, word) for column, word in fields[3:] if word]
        if vlan is None or net is None:
            return None
        if gateway is not None and gateway not in net:
            self.faults.add(self.path, self.number, fields[1][0], f"the gateway {gateway} is outside {net}")
        return Network(vlan, net, gateway, domain, tuple(server for server in servers if server is not None))

    def _fields(self, start: int) -> list[tuple[int, str]]:
        """(column, text) of each field; what follows the domain is split at spaces as well."""
        fields: list[tuple[int, str]] = []
        position = start
        for index, part in enumerate(self.text[start:].split(",")):
            words = re.finditer(r"\S+", part) if index >= 3 else [re.match(r"\s*(.*?)\s*$", part)]
            for word in words:
                if word is not None:
                    lead = len(word.group()) - len(word.group().lstrip())
                    fields.append((position + word.start() + lead + 1, word.group().strip()))
            position += len(part) + 1
        return fields

    def _optional(self, fields: list[tuple[int, str]], index: int, parse: Callable[[str], T]) -> T | None:
        if len(fields) <= index or not fields[index][1]:
            return None
        column, word = fields[index]
        return self.faults.attempt(self.path, self.number, column, parse, word)


def _network(text: str) -> IpNetwork:
    if not re.fullmatch("[^/]*/[0-9]{1,3}", text):  # Python would take masks as well, also inverted ones
        raise ValueError(f"{text!r} is not ADDRESS/PREFIX")
    if "%" in text:
        raise ValueError(f"{text!r} has a zone, which means nothing to another host")
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(str(error)) from None

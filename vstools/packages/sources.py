"""The repositories that a guest's files name, and which of their hosts a window may lead to.

The files belong to the guest's root: what they name is a wish. Without a word of the admin's (PKG_HOSTS) only public
addresses are believed, at the ports of HTTP: else a guest would open ways into the admin's own networks by naming them.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vstools.guest import Address
from vstools.inside import Inside

WEB = {"http": 80, "https": 443}
HOSTS_MAX = 32
_FILES_MAX = 200
_URL = re.compile(
    r"(?:mirror\+|tor\+)?(https?)://(?:[^/@\s]*@)?"
    r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?))(?::([0-9]{1,5}))?(?=[/\s]|$)"
)
_RETURNED = 1 << 18
_UNICAST = ipaddress.ip_network("2000::/3")
"""What IANA has given out of IPv6; elsewhere are a translator's addresses of IPv4 (RFC 6052) and site-local ones."""


@dataclass(frozen=True)
class End:
    """A host, by its name or an address, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def ends(tree: Inside, manager: str) -> tuple[End, ...]:
    """Where the repositories of a guest are, HOSTS_MAX at most: what the files of its manager name, in their order."""
    texts = (text for name in _files(tree, manager) if (text := tree.read(name, _RETURNED)))
    found = dict.fromkeys(end for text in texts for end in named(manager, text))
    return tuple(found)[:HOSTS_MAX]


def _files(tree: Inside, manager: str) -> Iterator[str]:
    folders = {
        "apt": (("etc/apt/sources.list.d", (".list", ".sources")), ("etc/apt/mirrors", (".list",))),  # mirror+file:
        "dnf": (("etc/yum.repos.d", (".repo",)),),
        "zypper": (("etc/zypp/repos.d", (".repo",)),),
    }
    single = {
        "apt": ("etc/apt/sources.list",),
        "apk": ("etc/apk/repositories",),
        "pacman": ("etc/pacman.conf", "etc/pacman.d/mirrorlist"),
    }
    yield from single.get(manager, ())
    for folder, suffixes in folders.get(manager, ()):
        yield from (f"{folder}/{name}" for name in tree.names(folder)[:_FILES_MAX] if name.endswith(suffixes))


def named(manager: str, text: str) -> Iterator[End]:
    """The hosts in a file of repositories (``man 5 sources.list``, dnf.conf, apk-repositories, pacman.conf)."""
    lines: Iterator[str] = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    if manager in ("dnf", "zypper"):
        lines = _enabled(lines)
    elif manager == "apt":
        lines = _without_disabled(lines)
    for line in lines:
        for scheme, v6, name, port in _URL.findall(line):
            if 0 < (number := int(port or WEB[scheme])) < 65536:
                yield End((v6 or name).lower(), number)


def _enabled(lines: Iterable[str]) -> Iterator[str]:
    """The lines of a .repo file's sections that are not switched off."""
    section: list[str] = []
    for line in (*lines, "["):
        if line.startswith("["):
            if not any(re.fullmatch(r"enabled\s*=\s*(0|no|false)", each.strip(), re.IGNORECASE) for each in section):
                yield from (each for each in section if re.match(r"\s|(baseurl|mirrorlist|metalink)\s*=", each))
            section = []
        section.append(line)


def _without_disabled(lines: Iterable[str]) -> Iterator[str]:
    """The lines of a file of apt's without the stanzas of a .sources file that are switched off."""
    stanza: list[str] = []
    for line in (*lines, ""):
        if line.strip():
            stanza.append(line)
            continue
        if not any(re.fullmatch(r"enabled:\s*(no|false|0)", each.strip(), re.IGNORECASE) for each in stanza):
            yield from stanza
        stanza = []


def is_named(end: End, words: tuple[End, ...]) -> bool:
    """Whether the admin named a host with this port; port 0 stands for those of HTTP and HTTPS."""
    ports = {end.port, 0} if end.port in WEB.values() else {end.port}
    return any(end.host == word.host and word.port in ports for word in words)


def fitting(end: End, addresses: Iterable[Address], words: tuple[End, ...], own: Iterable[Address]) -> list[Address]:
    """Those addresses of a host that a window may lead to. ``own`` are this host's.

    Where the admin named hosts, all of theirs and no others; else the public ones that are not this host's.
    """
    if words:
        return list(addresses) if is_named(end, words) else []
    mine = set(own)
    return [each for each in addresses if end.port in WEB.values() and _is_public(each) and each not in mine]


def _is_public(address: Address) -> bool:
    if address.version == 6 and address not in _UNICAST:
        return False
    inner = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    return address.is_global and not address.is_multicast and (inner is None or inner.is_global)


def parse_end(text: str, port: int = 0) -> End:
    """``HOST[:PORT]``, an IPv6 address in brackets; ``port`` where none is named."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        number = rest.removeprefix(":")
    else:
        host, _, number = text.partition(":")
    return End(host.lower(), int(number) if number else port)

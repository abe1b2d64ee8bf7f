"""Sockets that wait for others in this thread's network namespace, by netlink (``man 7 sock_diag``).

The kernel passes on those in the asked states only: however many connections a guest has open, they are not looked at.
Connected UDP sockets are such: they hear one peer only, and each resolver of a program has one for a moment.
"""

import ipaddress
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice

MOST = 512
"""Sockets of one kind and one guest that are looked at; that there are more is told."""
_LISTEN, _UNCONNECTED = 1 << 10, 1 << 7  # TCP_LISTEN; TCP_CLOSE is a UDP socket that is not connected
_TCP = (("tcp", 6, _LISTEN),)
_UDP = (("udp", 17, _UNCONNECTED),)
_UDPLITE = 136
_SHOW_NAME, _SHOW_UID = 0x1, 0x40
_BY_FAMILY, _ERROR, _DONE = 20, 2, 3
_REQUEST_DUMP = 0x301
_HEADER = struct.Struct("=IHHII")
_PATIENCE = 10.0
_UNIX_NAME, _UNIX_UID = 0, 7


@dataclass(frozen=True)
class Socket:
    """A socket that waits: ``tcp``, ``udp`` or ``udplite`` at an address, or ``unix`` at a path (``@``: abstract).

    ``uid`` is the host's number of its owner, None where the kernel does not tell.
    """

    protocol: str
    where: str
    port: int
    uid: int | None
    inode: int

    @property
    def address(self) -> str:
        """``0.0.0.0:22``, ``[::]:22``, or the path."""
        return f"{self.where}:{self.port}" if self.protocol != "unix" else self.where


def listening() -> tuple[list[Socket], bool]:
    """At most MOST of TCP, of Unix, and of UDP; and whether there are more of one.

    None uses up the room of another: whoever opens a thousand UDP sockets hides no listener.
    """
    found: list[Socket] = []
    cut = False
    for kind in (_internet(_TCP), _unix(), _internet((*_UDP, *_udplite()))):
        part = list(islice(kind, MOST + 1))
        found += part[:MOST]
        cut = cut or len(part) > MOST
    return found, cut


@cache
def _udplite() -> tuple[tuple[str, int, int], ...]:
    """UDP-Lite, where this kernel has it: of one that has not, each question would start a modprobe."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _UDPLITE).close()
    except OSError:
        return ()
    return (("udplite", _UDPLITE, _UNCONNECTED),)


def _internet(protocols: tuple[tuple[str, int, int], ...]) -> Iterator[Socket]:
    """Over IPv4 and IPv6; a kernel without a family or a protocol has none of it."""
    for family in (socket.AF_INET, socket.AF_INET6):
        for name, protocol, states in protocols:
            request = struct.pack("=BBBBI", family, protocol, 0, 0, states) + bytes(48)
            for body in _dump(request):
                if (found := _bound(name, body)) is not None:
                    yield found


def _unix() -> Iterator[Socket]:
    request = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, _LISTEN, 0, _SHOW_NAME | _SHOW_UID, 2**32 - 1, 2**32 - 1)
    for body in _dump(request):
        if (local := _local(body)) is not None:
            yield local


def _dump(request: bytes) -> Iterator[bytes]:
    """The bodies of the answers. Closing the socket early ends the kernel's work."""
    try:
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 4)  # NETLINK_SOCK_DIAG
    except OSError:
        return
    with netlink:
        netlink.settimeout(_PATIENCE)
        netlink.send(_HEADER.pack(_HEADER.size + len(request), _BY_FAMILY, _REQUEST_DUMP, 1, 0) + request)
        while True:
            content = netlink.recv(1 << 16)
            at = 0
            while at + _HEADER.size <= len(content):
                length, kind, _, _, _ = _HEADER.unpack_from(content, at)
                if kind in (_ERROR, _DONE) or not _HEADER.size <= length <= len(content) - at:
                    return
                yield content[at + _HEADER.size : at + length]
                at += length + -length % 4


def _bound(name: str, body: bytes) -> Socket | None:
    """struct inet_diag_msg of linux/inet_diag.h; ports and addresses in network order."""
    if len(body) < 72:
        return None
    family, (port,) = body[0], struct.unpack_from("!H", body, 4)
    uid, inode = struct.unpack_from("=II", body, 64)
    if family == socket.AF_INET:
        where = str(ipaddress.IPv4Address(body[8:12]))
    else:
        where = f"[{ipaddress.IPv6Address(body[8:24])}]"
    return Socket(name, where, port, uid, inode) if port else None


def _local(body: bytes) -> Socket | None:
    """struct unix_diag_msg of linux/unix_diag.h, then attributes."""
    if len(body) < 16:
        return None
    (inode,) = struct.unpack_from("=I", body, 4)
    where, uid, at = "", None, 16
    while at + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, at)
        if length < 4:
            break
        content = body[at + 4 : at + length]
        if kind == _UNIX_NAME:
            text = content.decode("utf-8", "surrogateescape")
            where = f"@{text[1:]}" if text.startswith("\0") else text.rstrip("\0")
        elif kind == _UNIX_UID and len(content) >= 4:
            (uid,) = struct.unpack_from("=I", content)
        at += length + -length % 4
    return Socket("unix", where, 0, uid, inode) if where else None

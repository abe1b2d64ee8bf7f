"""Messages of the kernel's packet filters by netlink (linux/netfilter/nfnetlink.h), as far as they are needed here.

pyroute2 has all of nf_tables; loading that takes longer than a state query may.
"""

import socket
import struct
from collections.abc import Iterator

FAMILY = 12  # NETLINK_NETFILTER
ERROR = 2
_DONE = 3
_REQUEST, _DUMP = 1, 0x300
_HEADER, _GENERIC, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("!BBH"), struct.Struct("=HH")
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_RECEIVED_MAX = 1 << 17
_PATIENCE = 10.0

Attributes = dict[int, bytes]


def request(kind: int, family: int, resource: int = 0, *attributes: bytes, flags: int = 0) -> bytes:
    """One message: ``kind`` is the subsystem << 8 | its message."""
    body = _GENERIC.pack(family, 0, resource) + b"".join(attributes)
    return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, 1, 0) + body


def attribute(kind: int, content: bytes) -> bytes:
    """One attribute, filled up to four bytes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(content), kind) + content + b"\0" * (-len(content) % 4)


def named(kind: int, name: str) -> bytes:
    """An attribute that holds a name."""
    return attribute(kind, name.encode() + b"\0")


def name(content: bytes | None) -> str:
    """The name that an attribute holds; empty where there is none."""
    return (content or b"").split(b"\0", 1)[0].decode("ascii", "replace")


def number(content: bytes | None) -> int | None:
    """The number that an attribute holds, in network byte order."""
    return int.from_bytes(content, "big") if content else None


def messages(content: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, body) of each message in a piece from the kernel; what is cut short ends it."""
    at = 0
    while at + _HEADER.size <= len(content):
        length, kind, _, _, _ = _HEADER.unpack_from(content, at)
        if not _HEADER.size <= length <= len(content) - at:
            return
        yield kind, content[at + _HEADER.size : at + length]
        at += length + -length % 4


def body(content: bytes) -> Attributes:
    """The attributes of a message's body."""
    return dict(attributes(content[_GENERIC.size :]))


def attributes(content: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, content) of attributes that follow each other."""
    at = 0
    while at + _ATTRIBUTE.size <= len(content):
        length, kind = _ATTRIBUTE.unpack_from(content, at)
        if not _ATTRIBUTE.size <= length <= len(content) - at:
            return
        yield kind & _TYPE_MASK, content[at + _ATTRIBUTE.size : at + length]
        at += length + -length % 4


def error(content: bytes) -> int | None:
    """The error code in what the kernel sent, 0 for success; None where it is no answer."""
    for kind, found in messages(content):
        if kind == ERROR and len(found) >= 4:
            return -int(struct.unpack_from("=i", found)[0])
    return None


def knows(message: bytes) -> bool:
    """Whether the kernel answers a request with something else than an error; False where it knows no such messages."""
    try:
        netlink = _socket()
    except OSError:  # a kernel without nfnetlink
        return False
    with netlink:
        netlink.send(message)
        return next(messages(netlink.recv(_RECEIVED_MAX)))[0] != ERROR


def dump(kind: int, family: int, *wanted: bytes) -> Iterator[Attributes]:
    """All objects of a kind in this thread's network namespace; none where the kernel answers with an error."""
    with _socket() as netlink:
        netlink.send(request(kind, family, 0, *wanted, flags=_DUMP))
        while True:
            for answer, found in messages(netlink.recv(_RECEIVED_MAX)):
                if answer in (_DONE, ERROR):
                    return
                yield body(found)


def _socket() -> socket.socket:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, FAMILY)
    netlink.settimeout(_PATIENCE)
    return netlink

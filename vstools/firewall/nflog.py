"""What a guest's filter drops, as the kernel tells an NFLOG group of that namespace (linux/netfilter/nfnetlink_log.h).

pyroute2 knows connection tracking, ipsets and nf_tables of this netlink family, but not its log; what else there is for
Python are unmaintained bindings of libnetfilter_log. One message to bind, one kind to read: that is all of it here.
"""

import errno
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from vstools.errors import Refused
from vstools.firewall import nfnetlink
from vstools.libc import network_namespace
from vstools.paths import NAMESPACES

LOCAL_IN, FORWARD, LOCAL_OUT = 1, 2, 3  # enum nf_inet_hooks
COPY_MAX = 256  # bytes of each packet: the addresses, and some extension headers before the ports
BUFFER = 4 << 20  # what the kernel keeps for us, in bytes; what comes on top of it is lost, and counted
_PACKET, _CONFIG = 4 << 8, 4 << 8 | 1  # NFNL_SUBSYS_ULOG with NFULNL_MSG_PACKET, NFULNL_MSG_CONFIG
_ACK = 4
_CFG_CMD, _CFG_MODE, _CFG_TIMEOUT, _CFG_FLAGS = 1, 2, 4, 6
_BIND, _COPY_PACKET, _COUNTED = 1, 2, 1
_DELAY = 10  # hundredths of a second that the kernel may gather packets for
_PACKET_HDR, _TIMESTAMP, _INDEV, _OUTDEV, _PAYLOAD, _PREFIX, _SEQ = 1, 3, 4, 5, 9, 10, 12
_RECEIVED_MAX = 1 << 17


@dataclass(frozen=True)
class Dropped:
    """One packet: the hook where it ended, the rule's prefix, its first bytes, the link's index (0: none known).

    ``time`` is in seconds since 1970, of the reading where the kernel had none. ``number`` counts what the group was
    told, so that a gap tells what was lost.
    """

    hook: int
    prefix: str
    payload: bytes
    link: int = 0
    time: float = 0
    number: int | None = None


class Listener:
    """Listens to a group in a namespace. Only one can; the namespace is the host's, so nobody in the guest may."""

    def __init__(self, netns: str, group: int) -> None:
        """Raises Refused where somebody else listens, OSError where the kernel cannot log."""
        with network_namespace(NAMESPACES / netns):
            self._wire = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, nfnetlink.FAMILY)
            self.links = dict(socket.if_nameindex())
        self._expected: int | None = None
        self._overrun = False
        self._lost = self._ahead = 0
        try:
            with suppress(PermissionError):  # the common buffer will do
                self._wire.setsockopt(socket.SOL_SOCKET, 33, BUFFER)  # SO_RCVBUFFORCE
            self._wire.bind((0, 0))
            self._bind(group)
            self._wire.setblocking(False)
        except BaseException:
            self._wire.close()
            raise

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_: object) -> None:
        self._wire.close()

    def fileno(self) -> int:
        """For select and poll: readable when packets are there."""
        return self._wire.fileno()

    def _bind(self, group: int) -> None:
        self._wire.settimeout(5)
        self._wire.send(bind_message(group))
        while True:  # a busy group may tell of packets before it says that it is ours
            code = nfnetlink.error(self._wire.recv(_RECEIVED_MAX))
            if code in (errno.EPERM, errno.EBUSY):
                raise Refused("somebody else listens to what the guest is refused", "only one can: end that one first")
            if code:
                raise OSError(code, os.strerror(code), "NFLOG")
            if code == 0:
                return

    def read(self) -> Iterator[Dropped]:
        """The packets that are there now, at most one piece of the kernel's; nothing where there are none."""
        try:
            content, (sender, _) = self._wire.recvfrom(_RECEIVED_MAX)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._overrun = True
            return
        if sender:  # not the kernel
            return
        for found in packets(content):
            if found.number is not None:
                if self._expected is not None:
                    self._lost += (found.number - self._expected) & 0xFFFFFFFF
                self._expected = (found.number + 1) & 0xFFFFFFFF
            yield found

    def lost(self) -> int:
        """How many packets, at least, were not told since this was last asked: they came faster than they were read."""
        overrun, self._overrun = self._overrun, False
        if overrun and not self._lost:  # the number of a packet that comes later will tell how many
            self._ahead += 1
            return 1
        lost = max(self._lost - self._ahead, 0)
        self._ahead = max(self._ahead - self._lost, 0)
        self._lost = 0
        return lost


def bind_message(group: int) -> bytes:
    """Asks for the first bytes of what a group is told, numbered; the kernel answers with an error code."""
    attributes = b"".join((
        nfnetlink.attribute(_CFG_CMD, struct.pack("!B", _BIND)),
        nfnetlink.attribute(_CFG_MODE, struct.pack("!IBB", COPY_MAX, _COPY_PACKET, 0)),
        nfnetlink.attribute(_CFG_TIMEOUT, struct.pack("!I", _DELAY)),
        nfnetlink.attribute(_CFG_FLAGS, struct.pack("!H", _COUNTED)),
    ))  # fmt: skip
    return nfnetlink.request(_CONFIG, socket.AF_UNSPEC, group, attributes, flags=_ACK)


def packets(content: bytes) -> Iterator[Dropped]:
    """The packets that one piece from the kernel tells of; what is cut short is left out."""
    for kind, body in nfnetlink.messages(content):
        if kind == _PACKET:
            yield _dropped(nfnetlink.body(body))


def _dropped(found: nfnetlink.Attributes) -> Dropped:
    stamp = found.get(_TIMESTAMP, b"")
    seconds, micro = struct.unpack("!QQ", stamp) if len(stamp) == 16 else (time.time(), 0)
    hook = found.get(_PACKET_HDR, b"")[2:3]
    return Dropped(
        hook=hook[0] if hook else 0,
        prefix=nfnetlink.name(found.get(_PREFIX)),
        payload=found.get(_PAYLOAD, b""),
        link=nfnetlink.number(found.get(_INDEV) or found.get(_OUTDEV)) or 0,
        time=seconds + micro / 1e6,
        number=nfnetlink.number(found.get(_SEQ)),
    )

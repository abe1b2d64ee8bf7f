"""Whole Ethernet frames (``man 7 packet``), past a namespace's addresses, routes and packet filter.

One socket serves all devices: to close one takes the kernel 10 ms.
"""

import ctypes
import fcntl
import socket
import struct
import time
from collections.abc import Iterable
from contextlib import suppress

_ETHERNET = 1  # ARPHRD_ETHER
_FRAME_MAX = 2048
_SIOCGIFHWADDR = 0x8927  # man 7 netdevice
_SO_ATTACH_FILTER = 26
_INSTRUCTION = struct.Struct("HBBI")  # struct sock_filter, linux/filter.h
_PROGRAM_MAX = 4096  # BPF_MAXINSNS
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K


class Wire:
    """Sends frames, and receives those of one type, on the devices of the namespace that it was made in.

    The kernel keeps what comes until it is received. Without an ethertype nothing is received.
    """

    def __init__(self, ethertype: int = 0) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ethertype))

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is sent or received any more; doing it twice does no harm."""
        self._socket.close()

    def keep_only(self, offset: int, values: Iterable[bytes]) -> None:
        """Let the kernel keep only frames with one of the values, 4 bytes each, at an offset: floods push none out.

        Of more than two thousand values it keeps all frames.
        """
        words = [int.from_bytes(value, "big") for value in values]
        code = [(_LOAD, 0, 0, offset)]
        for word in words:
            code += [(_EQUAL, 0, 1, word), (_RETURN, 0, 0, _FRAME_MAX)]
        code.append((_RETURN, 0, 0, 0))
        if len(code) > _PROGRAM_MAX:
            return
        program = b"".join(_INSTRUCTION.pack(*line) for line in code)
        held = ctypes.create_string_buffer(program)
        self._socket.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(code), ctypes.addressof(held))
        )

    def send(self, device: str, frame: bytes) -> None:
        """Send one frame, its Ethernet header included; OSError where the device is down or gone."""
        self._socket.sendto(frame, (device, 0))

    def receive(self, until: float) -> tuple[str, bytes] | None:
        """The next frame with its device; None when none came until then (``time.monotonic``)."""
        self._socket.settimeout(max(until - time.monotonic(), 0))
        with suppress(OSError):  # TimeoutError, or it would have to wait
            frame, (device, *_) = self._socket.recvfrom(_FRAME_MAX)
            return device, frame
        return None


def mac_of(device: str) -> bytes | None:
    """The MAC of a device of this namespace, None where it is no Ethernet or not there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket, suppress(OSError):
        found = fcntl.ioctl(any_socket, _SIOCGIFHWADDR, struct.pack("16s24x", device.encode()))
        if struct.unpack_from("H", found, 16)[0] == _ETHERNET:
            return found[18:24]
    return None


def printable(mac: bytes) -> str:
    """A MAC as people write it."""
    return mac.hex(":")

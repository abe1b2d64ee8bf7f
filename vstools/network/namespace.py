"""A guest's network namespace entered, and its settings; without netlink, whose library takes long to load."""

from contextlib import AbstractContextManager
from pathlib import Path

from vstools.errors import VsError
from vstools.libc import network_namespace
from vstools.paths import NAMESPACES


def inside(netns: str) -> AbstractContextManager[None]:
    """Be in a guest's network namespace: sockets opened and /proc/sys/net written here are the guest's."""
    return network_namespace(NAMESPACES / netns)


def sysctl(key: str, value: str, *, needed: bool = True) -> None:
    """Write one kernel setting of the namespace we are in; kernels without IPv6 lack some."""
    try:
        Path("/proc/sys", key).write_text(value)
    except OSError as error:
        if needed:
            raise VsError(f"{key.replace('/', '.')} could not be set", str(error)) from error

"""A guest's network namespace entered, and its settings; without netlink, whose library takes long to load."""

from contextlib import AbstractContextManager
from pathlib import Path

from vstools import run
from vstools.errors import VsError
from vstools.guest import Interface
from vstools.libc import network_namespace
from vstools.network import devices
from vstools.paths import NAMESPACES


def make_namespace(netns: str) -> None:
    """Make the named namespace; the host owns it, so the guest's root may not change what is in it."""
    run.run(["ip", "netns", "add", netns])


def drop_namespace(netns: str) -> None:
    """Remove the namespace's name; it dies with its last process."""
    if (NAMESPACES / netns).exists():
        run.run(["ip", "netns", "delete", netns])


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


def addresses(netns: str) -> tuple[Interface, ...]:
    """The addresses of a guest, but for loopback and link-local ones."""
    with inside(netns):
        found = [interface for _, interface in devices.addresses()]
    return tuple(each for each in found if not each.is_loopback and not each.is_link_local)

"""One host's configuration, read together; and the locks that commands hold while they change a guest."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vstools import files
from vstools.config import create, networks
from vstools.config.text import Faults
from vstools.guest import Guest
from vstools.network import devices, plan
from vstools.paths import Paths


@dataclass(frozen=True)
class Settings:
    """create.conf and networks.conf."""

    conf: create.CreateConf
    networks: networks.Networks

    def links(self, guest: Guest) -> tuple[plan.Link, ...]:
        """A guest's links as this host's devices make them; raises Refused when an address has no prefix or device."""
        return devices.resolve(plan.links(guest, self.networks, self.conf))


def settings(paths: Paths) -> Settings:
    """Read the host's configuration; raises BadFiles with every fault of both files."""
    faults = Faults()
    found = Settings(
        create.load(paths.conf / "create.conf", faults),
        networks.load(paths.conf / "networks.conf", faults),
    )
    faults.check()
    return found


@contextmanager
def guest_lock(paths: Paths, name: str, patience: float = files.LOCK_PATIENCE) -> Iterator[None]:
    """Held by a command for as long as it changes the guest."""
    with files.lock(paths.locks / f"{name}.command", what=f"guest {name}", patience=patience):
        yield


@contextmanager
def runtime_lock(paths: Paths, name: str, patience: float = files.LOCK_PATIENCE) -> Iterator[None]:
    """Held while what a started guest has in the kernel is made or unmade; never while a program is waited for long."""
    with files.lock(paths.locks / f"{name}.runtime", what=f"guest {name}", patience=patience, reentrant=True):
        yield


@contextmanager
def host_lock(paths: Paths, what: str) -> Iterator[None]:
    """Held for a moment while something that guests share is changed: contexts, addresses, VLANs, bridges."""
    with files.lock(paths.locks / f"_{what}", what=what):
        yield

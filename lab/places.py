"""Where the lab keeps things, and how it names them: one checkout never meets the lab of another."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Places:
    """Paths and kernel names of this checkout's lab.

    `key` is in every name that is visible machine-wide (state directory, network namespace, taps); eight digits
    keep a tap's name within the kernel's 15 characters.
    """

    key: str
    cache: Path = Path("/var/cache/vs-tools/lab")
    states: Path = Path("/var/lib/vs-tools-lab")

    @classmethod
    def of(cls, checkout: Path = CHECKOUT) -> Places:
        """The places of the lab that belongs to a checkout."""
        return cls(hashlib.sha256(str(checkout.resolve()).encode()).hexdigest()[:8])

    @property
    def state(self) -> Path:
        """The directory with all files of the running lab; it is gone after `lab/down`."""
        return self.states / self.key

    @property
    def namespace(self) -> str:
        """The network namespace that holds the trunk's bridge."""
        return f"vslab-{self.key}"

    def tap(self, index: int) -> str:
        """The name of the tap device of host number `index`."""
        return f"vl{self.key}.{index}"

    @property
    def images(self) -> Path:
        """The cached images: a bare Debian each."""
        return self.cache / "images"

    @property
    def layers(self) -> Path:
        """The cached layers: an installed vs-tools each, on one of the images."""
        return self.cache / "layers"

    @property
    def keys(self) -> Path:
        """The lab's ssh keys: one that opens root on every host, and the host key of each."""
        return self.state / "keys"

    @property
    def ssh_config(self) -> Path:
        """The file for `ssh -F` and `scp -F`, by which every host of the lab is known under its name."""
        return self.state / "ssh_config"


@contextlib.contextmanager
def locked(places: Places, what: str) -> Iterator[None]:
    """Hold the lock called `what`: two commands at once would build one image or start one host twice.

    Locks live in the cache, because the state directory comes and goes under its own lock.
    """
    folder = places.cache / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / what).open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield

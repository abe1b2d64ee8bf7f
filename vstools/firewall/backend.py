"""The back ends, and which one a host uses (FIREWALL_BACKEND)."""

from typing import Protocol

from vstools.firewall import nftables
from vstools.firewall.live import Live
from vstools.firewall.model import Chains


class Backend(Protocol):
    """One way to tell the kernel; what it says and does is the same for all of them."""

    NAME: str

    def text(self, chains: Chains) -> str:
        """The chains in the back end's own words, for people and for ``load``."""

    def load(self, netns: str, words: str) -> None:
        """Put a text in force in a namespace: all of it, or nothing changes and VsError is raised."""

    def saved(self, netns: str) -> str:
        """What is in force, as a text for ``load``; empty where nothing is."""

    def read(self, netns: str) -> Live:
        """What is in force, with counters."""


BACKENDS: dict[str, Backend] = {"auto": nftables}


def choose(name: str) -> Backend:
    """The back end that FIREWALL_BACKEND names; ``auto`` takes nftables."""
    return BACKENDS[name]


def read(netns: str) -> Live:
    """What is in force in a namespace, whichever back end loaded it."""
    return nftables.read(netns)

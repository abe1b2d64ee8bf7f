"""The back ends, and which one a host uses (FIREWALL_BACKEND)."""

from typing import Protocol

from vstools.firewall import nftables, present
from vstools.firewall.live import NOTHING, Live
from vstools.firewall.model import HOOKS, Chains
from vstools.libc import network_namespace
from vstools.paths import NAMESPACES


class Backend(Protocol):
    """One way to tell the kernel; what it says and does is the same for all of them."""

    NAME: str

    def text(self, chains: Chains) -> str:
        """The chains in the back end's own words, for people and for ``load``."""

    def load(self, netns: str, words: str) -> None:
        """Put a text in force in a namespace: all of it, or nothing changes and VsError is raised.

        The other back end's rules are taken away then: they would go on filtering.
        """

    def opened(self, words: str, before: Chains) -> str:
        """A text of ``saved`` with more entries at the heads of chains."""

    def tells_marks(self, words: str) -> bool:
        """Whether a text of ``saved`` accepts nothing established that a window opened."""

    def saved(self, netns: str) -> str:
        """What is in force, as a text for ``load``; empty where nothing is."""

    def read(self, netns: str) -> Live:
        """What is in force, with counters."""

    def up(self, netns: str) -> dict[str, bool]:
        """Base chain -> whether it filters there by the rules of a file (``live.is_up``)."""

    def clear(self, netns: str) -> None:
        """Take away what this back end loaded, where it did."""


def choose(name: str) -> Backend:
    """The back end that FIREWALL_BACKEND names; ``auto`` takes nftables where the kernel has it, else iptables."""
    if name == "iptables" or (name == "auto" and not present.nf_tables()):
        return _iptables()
    return nftables


def _iptables() -> Backend:
    """Loaded where it is used: hosts that never do shall not pay for it."""
    from vstools.firewall import iptables

    return iptables


def in_force(netns: str) -> tuple[Backend, ...]:
    """Those that loaded something in a namespace: one, or both where an exchange was cut off between them.

    Where nothing but nftables was ever used, no program is started to know that.
    """
    with network_namespace(NAMESPACES / netns):
        nft, legacy = present.nft_table(nftables.TABLE), present.legacy_tables()
    return (*((nftables,) if nft else ()), *((_iptables(),) if legacy else ()))


def read(netns: str) -> Live:
    """What is in force in a namespace, whichever back end loaded it; where both did, all that a packet has to pass."""
    found = [live for live in (tool.read(netns) for tool in in_force(netns)) if live != NOTHING]
    if len(found) < 2:
        return found[0] if found else NOTHING
    hooks = {hook: policy for live in reversed(found) for hook, policy in live.hooks.items()}
    return Live(hooks, tuple(rule for live in found for rule in live.rules))


def up(netns: str) -> dict[str, bool]:
    """Base chain -> whether a namespace is filtered there by the rules of a file."""
    found = [tool.up(netns) for tool in in_force(netns)]
    return {hook: any(each[hook] for each in found) for hook in HOOKS}

"""A guest's packet filter: firewall.conf, the guest's addresses and the host's come together here."""

from collections.abc import Iterable

from vstools.config import firewall as file
from vstools.config.text import Faults
from vstools.firewall import backend, model
from vstools.guest import Interface
from vstools.paths import Paths


def policy(paths: Paths, name: str) -> file.Policy:
    """What the guest's firewall.conf says; raises BadFiles with all that is wrong in it."""
    faults = Faults()
    found = file.load(paths.config_of(name) / file.FILE, paths.conf, faults)
    faults.check()
    return found


def chains(said: file.Policy, own: Iterable[Interface], *, up: bool = True) -> model.Chains:
    """The filter on this host for a guest with these addresses."""
    from vstools.network import kernel

    return model.chains(said, own, (address.ip for address in kernel.host_addresses()), up=up)


def load(netns: str, wanted: model.Chains, tool: str) -> None:
    """Put a filter in force with the back end that FIREWALL_BACKEND names; all of it, or nothing changes."""
    chosen = backend.choose(tool)
    chosen.load(netns, chosen.text(wanted))

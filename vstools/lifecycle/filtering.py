"""A guest's packet filter: firewall.conf, the guest's addresses and the host's come together here."""

from collections.abc import Iterable
from dataclasses import replace

from vstools import log
from vstools.config import firewall as file
from vstools.config import guests
from vstools.config.text import Faults
from vstools.errors import VsError
from vstools.firewall import backend, live, model
from vstools.guest import Interface
from vstools.libc import scratch_network
from vstools.lifecycle.host import settings
from vstools.network import plan
from vstools.paths import Paths


def policy(paths: Paths, name: str) -> file.Policy:
    """What the guest's firewall.conf says; raises BadFiles with all that is wrong in it."""
    faults = Faults()
    found = file.load(paths.config_of(name) / file.FILE, paths.conf, faults)
    faults.check()
    if any((paths.config_of(name) / "interfaces").glob(f"*/{guests.ACCEPT_RA}")):
        host = settings(paths)
        links = plan.links(guests.load(paths, name), host.networks, host.conf)
        return replace(found, advised=tuple(link.name for link in links if link.accept_ra))
    return found


def chains(said: file.Policy, own: Iterable[Interface], *, up: bool = True) -> model.Chains:
    """The filter on this host for a guest with these addresses."""
    from vstools.network import devices

    return model.chains(said, own, (address.ip for address in devices.host_addresses()), up=up)


def wanted(said: file.Policy, name: str, netns: str, links: Iterable[plan.Link], *, up: bool) -> model.Chains:
    """The filter that a policy means for the addresses that a running guest has, and those that its files give it.

    The kernel forgets IPv6 addresses of links that are down.
    """
    from vstools.network import namespace

    if up and not said.enabled:
        log.warn(f"guest {name}: its {file.FILE} says disable, so everything but forged addresses and the host passes")
    planned = (address for link in links for address in link.addresses)
    return chains(said, dict.fromkeys((*planned, *namespace.addresses(netns))), up=up)


def text(filters: model.Chains, tool: str) -> str:
    """The words in which the back end that FIREWALL_BACKEND names gives a filter to the kernel."""
    return backend.choose(tool).text(filters)


def load(netns: str, filters: model.Chains, tool: str) -> None:
    """Put a filter in force with that back end: all of it, or nothing changes and VsError is raised.

    Kernels without conntrack marks get one without them: no window can be opened there, and that is said then.
    """
    chosen = backend.choose(tool)
    try:
        chosen.load(netns, chosen.text(filters))
    except VsError as error:
        plain = model.unmarked(filters)
        if plain == filters:
            raise
        try:
            chosen.load(netns, chosen.text(plain))
        except VsError:
            raise error from None


def saved(netns: str) -> tuple[str, str]:
    """What is in force in a namespace: the name of its back end, and a text to load there again."""
    for tool in backend.in_force(netns):
        found = tool.saved(netns)
        if found:
            return tool.NAME, found
    return "auto", ""


def is_up(netns: str) -> bool:
    """Whether the kernel filters in a namespace by the rules of a file, at least in one direction."""
    return any(backend.up(netns).values())


def differences(netns: str, filters: model.Chains, tool: str) -> tuple[str, ...]:
    """A sentence for each rule that a namespace has otherwise; the kernel says how it would list those wanted."""
    has = backend.read(netns)
    with scratch_network() as scratch:
        load(str(scratch), filters, tool)
        should = backend.read(str(scratch))
    if any(live.is_up(should).values()) and not any(live.is_up(has).values()):
        return ("the firewall is down",)
    return tuple(live.differences(should, has))

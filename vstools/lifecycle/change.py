"""Other addresses for a guest, while it runs: links, routes, firewall and names follow, or nothing changes."""

from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from vstools import log
from vstools.config import guests
from vstools.config.firewall import Policy
from vstools.errors import Refused, VsError
from vstools.faults import checkpoint
from vstools.guest import Address, Guest, Nic
from vstools.inside import Inside
from vstools.lifecycle import addresses, confirm, filtering, presence, records, trees, upkeep, window
from vstools.lifecycle.host import Settings, guest_lock, host_lock, runtime_lock, settings
from vstools.network import devices, plan
from vstools.network.namespace import inside
from vstools.paths import Paths
from vstools.tree import identity


@dataclass(frozen=True)
class Edits:
    """What the command line asks for: ``put`` by key (``interfaces/KEY``), then ``drop``, then ``add``."""

    put: tuple[tuple[str, Address], ...] = ()
    add: tuple[Address, ...] = ()
    drop: tuple[Address, ...] = ()


@dataclass(frozen=True)
class Change:
    """Everything decided about a change of a guest's addresses."""

    before: Guest
    after: Guest
    host: Settings
    policy: Policy

    @property
    def old_links(self) -> tuple[plan.Link, ...]:
        return self.host.links(self.before)

    @property
    def links(self) -> tuple[plan.Link, ...]:
        return self.host.links(self.after)

    @property
    def added(self) -> tuple[Address, ...]:
        """The addresses that the guest has not yet."""
        had = {nic.address for nic in self.before.nics}
        return tuple(nic.address for nic in self.after.nics if nic.address not in had)

    def describe(self) -> tuple[str, ...]:
        """What would be changed, a line each."""
        old, new = ({link.name: _told(link) for link in links} for links in (self.old_links, self.links))
        lines = [f"{key} {new[key]}" for key in new if new[key] != old.get(key)]
        return (*lines, *(f"{key} goes" for key in old if key not in new)) or ("nothing changes",)


def _told(link: plan.Link) -> str:
    vlan = f" VLAN {link.vlan}" if link.vlan else ""
    return f"on {link.device}{vlan}: {', '.join(map(str, link.addresses))}, MAC {link.mac}"


def decide(paths: Paths, name: str, edits: Edits) -> Change:
    """Read and check everything; raises Refused or BadFiles, changes nothing."""
    guest, host = guests.load(paths, name), settings(paths)
    wanted = Change(guest, _edited(guest, edits, host), host, filtering.policy(paths, name))
    addresses.check_free(paths, wanted.added, but=name)
    addresses.check_links(wanted.links, wanted.added)
    return wanted


def unchanged(paths: Paths, name: str) -> Change:
    """The guest as its files say it: a change to begin from."""
    guest = guests.load(paths, name)
    return Change(guest, guest, settings(paths), filtering.policy(paths, name))


def _edited(guest: Guest, edits: Edits, host: Settings) -> Guest:
    nics = {nic.key: nic for nic in guest.nics}
    for key, address in edits.put:
        if key not in nics:
            has = ", ".join(f"{nic.key}={nic.address}" for nic in guest.nics) or "none"
            raise Refused(f"guest {guest.name} has no interface {key!r}", f"it has {has}; --add makes another one")
        if nics[key].address != address:
            nics[key] = _moved(nics[key], address, host)
    for address in edits.drop:
        keys = [key for key, nic in nics.items() if nic.address == address]
        if not keys:
            log.note(f"guest {guest.name} has no address {address}")
        for key in keys:
            del nics[key]
    for address in edits.add:
        off = next((key for key, nic in nics.items() if nic.address == address and nic.disabled), None)
        if off is not None:
            where = f"interfaces/{off}/disabled"
            raise Refused(
                f"guest {guest.name} has {address}, switched off", f"remove {where} and say --repair, or --del it"
            )
        if all(nic.address != address for nic in nics.values()):
            key = next(str(number) for number in range(len(nics) + 1) if str(number) not in nics)
            nics[key] = addresses.new_nic(key, address, host)
    found = tuple(sorted(nics.values(), key=lambda nic: guests.natural(nic.key)))
    if len({nic.address for nic in found}) < len(found):
        raise Refused(f"guest {guest.name} would have one address twice", "each interface has another address")
    return _with_macs(replace(guest, nics=found), guest, host)


def _moved(nic: Nic, address: Address, host: Settings) -> Nic:
    """The interface with another address; a prefix of its own it keeps in the network that it was for."""
    same = nic.prefix is not None and address in plan.interface(nic, host.networks.of(nic.address), host.conf).network
    new = addresses.new_nic(nic.key, address, host, nic.device, nic.prefix if same else None)
    return replace(nic, address=address, prefix=new.prefix)


def _with_macs(after: Guest, before: Guest, host: Settings) -> Guest:
    """A link that stays keeps its MAC, whichever of its addresses held it; no two links share one."""
    was = {(link.device, link.vlan): link.mac for link in plan.links(before, host.networks, host.conf)}
    holders: dict[Address, str] = {}
    used = set()
    found = plan.links(after, host.networks, host.conf)
    for link in sorted(found, key=lambda link: (link.device, link.vlan) not in was):
        mac = was.get((link.device, link.vlan), link.mac)
        if mac in used:
            mac = addresses.new_mac()
        used.add(mac)
        if mac != link.mac:
            holders[link.addresses[0].ip] = mac
    return replace(after, nics=tuple(replace(nic, mac=holders.get(nic.address, nic.mac)) for nic in after.nics))


def apply(paths: Paths, name: str, edits: Edits, seconds: int | None = None) -> None:
    """Make the change; with ``seconds`` it goes back unless it is confirmed. Killed, the same command does the rest.

    Raises Refused, and changes nothing, where one of the addresses answers on the wire.
    """
    # Whoever waits for a start or a stop of this guest shall not hold what all guests need meanwhile.
    with guest_lock(paths, name), runtime_lock(paths, name), host_lock(paths, "allocation"):
        confirm.none_waits(paths, name)
        wanted = decide(paths, name, edits)
        if wanted.before == wanted.after:
            upkeep.mend_links(paths, name)
            return
        _ask(paths, wanted)
        with (
            confirm.around(paths, name, seconds, lambda: _pending(paths, wanted)),
            log.change(f"addresses {' '.join(str(nic.address) for nic in wanted.after.nics) or 'none'}", name),
        ):
            put(paths, wanted, ask=True)


def _ask(paths: Paths, wanted: Change) -> None:
    """Raise Refused where a neighbour has a new address; for a guest that runs also in VLANs without a device yet.

    A guest that does not run asks there when it starts. Unasked, the announcements would take that neighbour's address.
    """
    from vstools.network import kernel

    name = wanted.before.name
    with runtime_lock(paths, name):
        record = records.started(paths, name)
        fresh = tuple(link for link in wanted.links if not devices.has_device(link.vlan_device) and link.vlan)
        if record is None or not fresh:
            addresses.check_wire(wanted.links, wanted.added)
            return
        both = records.and_links(record, fresh)
        records.write(paths, name, both)
        try:
            with host_lock(paths, "links"):
                kernel.make_vlans(fresh)
            addresses.check_wire(wanted.links, wanted.added)
        except BaseException:
            records.leave_vlans(paths, name, both, record)
            raise


def _pending(paths: Paths, wanted: Change) -> confirm.Pending:
    return replace(upkeep.pending(paths, wanted.before.name), before=wanted.before.nics, after=wanted.after.nics)


def put(paths: Paths, wanted: Change, *, ask: bool = False) -> None:
    """The kernel first, then the files: what fails is undone, and then both are as they were.

    With ``ask``, the neighbours that only the guest's own links reach are asked for the new addresses.
    """
    name = wanted.before.name
    with runtime_lock(paths, name):
        record = records.started(paths, name)
        if record is None:
            guests.save(paths.config_of(name), wanted.after)
            return
        try:
            _connect(paths, wanted, record)
            checkpoint("change:connected")
            if ask:
                _ask_inside(wanted, record)
            _write_names(paths, wanted)
            guests.save(paths.config_of(name), wanted.after)
        except BaseException:
            _back(paths, replace(wanted, before=wanted.after, after=wanted.before), record)
            raise
    checkpoint("change:saved")
    with suppress(FileNotFoundError):  # the guest ended meanwhile, and its namespace with it
        presence.announce(record.netns, wanted.links)


def _ask_inside(wanted: Change, record: records.Record) -> None:
    """Raise VsError where a neighbour has a new address, on bridges that let the host into none of their VLANs."""
    from vstools.network import arp

    for link in wanted.links:
        for address in (interface.ip for interface in link.addresses if link.member and interface.ip in wanted.added):
            if isinstance(address, IPv4Address):
                with inside(record.netns):
                    mac = arp.probe(link.name, address)
                if mac:
                    raise presence.taken(address, mac)


def _back(paths: Paths, wanted: Change, record: records.Record) -> None:
    """After a failure: all as it was."""
    name = wanted.after.name
    guests.save(paths.config_of(name), wanted.after)
    try:
        _connect(paths, wanted, record)
        _write_names(paths, wanted)
    except (VsError, OSError) as error:
        log.warn(f"guest {name}: its old addresses could not all be brought back, vs-net --repair may: {error}")


def _write_names(paths: Paths, wanted: Change) -> None:
    """The names in the tree; a guest whose root made that impossible keeps the host from nothing."""
    name = wanted.after.name
    try:
        with Inside(trees.opened(paths, name)) as tree:
            identity.write_names(tree, wanted.after, plan.names(wanted.after, wanted.host.networks, wanted.host.conf))
    except (VsError, OSError) as error:
        log.warn(f"guest {name}: its /etc/hosts and resolv.conf could not be written: {error}")


def _connect(paths: Paths, wanted: Change, record: records.Record) -> None:
    """The rules for the new addresses, then the links; the record knows both old and new ones in between."""
    from vstools.network import local, mend

    name, links = wanted.before.name, wanted.links
    now = records.with_links(record, links)
    both = records.and_links(record, (*links, *wanted.old_links))
    up = filtering.is_up(record.netns)
    records.write(paths, name, both)
    with host_lock(paths, "links"):
        local.ensure(paths, links, wanted.host.networks)
        own = (address for link in links for address in link.addresses)
        filtering.load(record.netns, filtering.chains(wanted.policy, own, up=up), wanted.host.conf.firewall_backend)
        window.again(paths, name, record.netns)
        checkpoint("change:firewall")
        mend.mend(record.netns, links, tuple(key for key in both.names if key not in now.names))
    presence.check_ipv6(record.netns, links, wait=True)
    records.leave_vlans(paths, name, both, now)

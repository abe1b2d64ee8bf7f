"""A guest from two arguments. First everything is decided, then it is made beside and takes its name at the end.

The order makes a kill harmless: the directory of the guest is staged (it reserves name, address and context), the
tree is staged and filled and on the disk, the tree takes its name, the directory takes its name - from there on
the guest exists. lifecycle/sweep.py removes everything up to there.
"""

import ipaddress
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from vstools import ahead, files, hooks, log
from vstools.config import firewall, guests, monitor
from vstools.config.text import LIMIT, Faults
from vstools.errors import Refused
from vstools.faults import checkpoint
from vstools.guest import CONTEXT_MIN, Address, Guest, Limits, Nic, Place, check_name
from vstools.inside import Inside
from vstools.lifecycle import addresses, control, disk, staging, templates
from vstools.lifecycle.host import Settings, guest_lock, host_lock, settings
from vstools.lifecycle.sweep import sweep_one
from vstools.network import devices, plan
from vstools.paths import STAGED, Paths
from vstools.storage import choose, flush, plain
from vstools.tree import bootstrap, identity, unpack
from vstools.tree.stream import Progress

_OUTSIDE = ", or give both --prefix and --device"


@dataclass(frozen=True)
class Request:
    """What the command line asked for; None and () mean: as configured."""

    name: str
    addresses: tuple[Address, ...]
    template: Path | None = None
    distro: str | None = None
    skeleton: bool = False
    include: tuple[str, ...] = ()
    domain: str | None = None
    nameservers: tuple[Address, ...] = ()
    device: str | None = None
    prefix: int | None = None
    limits: dict[str, object] = field(default_factory=dict)
    storage: Place | None = None
    ssh_keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Creation:
    """Everything decided about a new guest; its context is drawn when it is made."""

    request: Request
    settings: Settings
    nics: tuple[Nic, ...]
    limits: Limits

    @property
    def archive(self) -> Path | None:
        """The archive that is unpacked, if it is made from one."""
        return self.request.template

    @property
    def place(self) -> Place:
        """Where the tree is made."""
        return self.settings.conf.storage if self.request.storage is None else self.request.storage

    @property
    def source(self) -> str:
        """Where the tree comes from, in words."""
        if self.request.skeleton:
            return "an empty skeleton"
        if self.request.template:
            return f"the template {self.request.template}"
        return f"{self.request.distro} from packages"

    def guest(self, context: int) -> Guest:
        """The guest with a context."""
        request = self.request
        return Guest(
            name=request.name, context=context, nodename=request.name, nics=self.nics, limits=self.limits,
            domain=request.domain, nameservers=request.nameservers,
        )  # fmt: skip


def decide(paths: Paths, request: Request) -> Creation:
    """Check everything that can be checked beforehand; raises Refused or BadFiles, changes nothing."""
    check_name(request.name)
    host = settings(paths)
    faults = Faults()
    firewall.load(paths.conf / firewall.FILE, paths.conf, faults)
    monitor.load(paths.conf / monitor.FILE, faults)
    faults.check()
    request = _with_method(request, host)
    _check_free(paths, request)
    nics = tuple(
        addresses.new_nic(str(index), address, host, request.device, request.prefix, more=_OUTSIDE)
        for index, address in enumerate(request.addresses)
    )
    if not nics:
        raise Refused("a guest needs an address", "give --interface ADDRESS")
    if request.include and not request.distro:
        raise Refused("--include goes with --debootstrap", "a template holds what it holds")
    hooks.check(paths, request.name)
    creation = Creation(request, host, nics, _limits(request, host))
    addresses.check_links(_links(creation), request.addresses)
    if creation.place.group:
        from vstools.storage import lvplace

        lvplace.check(creation.place, creation.limits.disk)
    if request.template:
        unpack.check_archive(request.template)
    elif request.distro:
        bootstrap.check(request.distro)
        bootstrap.mirrors(host.conf)
    return creation


def describe(creation: Creation) -> tuple[str, ...]:
    """What would be made, a line each (--dry-run)."""
    host, limits = creation.settings, creation.limits
    lines = [f"guest {creation.request.name} from {creation.source}"]
    if creation.place.group:
        lines.append(f"a volume of its own: {creation.place}, {limits.disk} MiB")
    for link in _links(creation):
        addresses = ", ".join(str(address) for address in link.addresses)
        gateways = ", ".join(str(route.gateway) for route in link.routes) or "none"
        vlan = f" VLAN {link.vlan}" if link.vlan else ""
        mac = "of the device" if link.ipvlan and not devices.is_bridge(link.device) else link.mac
        lines.append(f"{link.name} on {link.device}{vlan}: {addresses}, gateway {gateways}, MAC {mac}")
    names = plan.names(creation.guest(CONTEXT_MIN), host.networks, host.conf)
    servers = ", ".join(str(server) for server in names.nameservers) or "none"
    lines.append(f"domain {names.domain or 'none'}, name servers {servers}")
    pairs = (
        ("rss", limits.rss),
        ("disk", limits.disk),
        ("tmpfs", limits.tmpfs),
        ("proc", limits.proc),
        ("cpu", limits.cpu),
    )
    rates = (("net_rate", limits.net_rate), ("io_rate", limits.io_rate))
    more = (("burst", limits.burst), ("swap", limits.swap), *rates, *limits.rlimits)
    told = (*pairs, *((key, value) for key, value in more if value))
    lines.append("limits " + ", ".join(f"{key} {'inf' if value is None else value}" for key, value in told))
    return tuple(lines)


def _with_method(request: Request, host: Settings) -> Request:
    """Fill in how the tree is made, from create.conf, where the command line did not say."""
    from dataclasses import replace

    if request.template or request.distro or request.skeleton:
        return request
    conf = host.conf
    if conf.method == "skeleton":
        return replace(request, skeleton=True)
    if conf.method == "debootstrap" and conf.distro:
        return replace(request, distro=conf.distro)
    if conf.method == "template" and conf.template:
        return replace(request, template=Path(conf.template))
    key = "DEFAULT_DISTRO" if conf.method == "debootstrap" else "DEFAULT_TEMPLATE"
    raise Refused(
        "nothing says what to make the guest from", f"set {key} in create.conf, or give --template or --debootstrap"
    )


def _check_free(paths: Paths, request: Request) -> None:
    """Name and addresses are taken by nobody on this host, other creations included."""
    staging.check_free(paths, request.name, request.addresses)
    if len(set(request.addresses)) < len(request.addresses):
        raise Refused("an address was given twice", "each --interface is another address")


def _limits(request: Request, host: Settings) -> Limits:
    conf = host.conf
    defaults: dict[str, object] = {key: getattr(conf, key) for key in ("rss", "disk", "tmpfs", "proc", "cpu")}
    return Limits(**{**defaults, **request.limits})  # type: ignore[arg-type]


def _links(creation: Creation) -> tuple[plan.Link, ...]:
    return creation.settings.links(creation.guest(CONTEXT_MIN))


def create(paths: Paths, creation: Creation, progress: Progress = lambda _: None) -> Guest:
    """Make the guest. Raises Refused when its address answers on the wire, VsError when anything fails; either
    way nothing is left. Killed at any point, ``sweep`` finds what is left."""
    name = creation.request.name
    if creation.settings.conf.fake_os:
        log.warn("FAKE_OS in create.conf has no effect: a mainline kernel shows its own release")
    plain.barrier(paths)
    files.directory(paths.guests)
    with guest_lock(paths, name, patience=0), log.change(f"create from {creation.source}", name):
        sweep_one(paths, name)
        guest = _stage(paths, creation)
        try:
            _fill(paths, creation, guest, progress)
            staging.take_name(paths, name)
            staging.finish(paths, name)
        except BaseException:
            sweep_one(paths, name)
            staging.give_back(paths, guest.context)
            raise
    return guest


def finish(paths: Paths, name: str, *, enable: bool, start: bool) -> None:
    """What follows when the guest is there: the hook ``post-create``, then enabling and starting it."""
    hooks.run_all(paths, name, "post-create", must=True)
    if enable:
        control.set_enabled(paths, name, True)
    if start:
        control.start(paths, name)


def _stage(paths: Paths, creation: Creation) -> Guest:
    """Reserve name, addresses and context by a hidden directory."""
    name = creation.request.name
    with host_lock(paths, "allocation"):
        _check_free(paths, creation.request)
        guest = staging.placed(paths, creation.guest(staging.draw_context(paths)), creation.place)
        checkpoint("create:context")
        staged = paths.guests / f"{STAGED}{name}"
        staged.mkdir(mode=0o755)
        try:
            checkpoint("create:staged")
            guests.save(staged, guest)
            _copy_models(paths, staged)
        except BaseException:
            sweep_one(paths, name)
            raise
    checkpoint("create:reserved")
    return guest


def _copy_models(paths: Paths, staged: Path) -> None:
    """A new guest begins with the host's firewall.conf and monitor.conf; from then on it has its own."""
    for name in (firewall.FILE, monitor.FILE):
        with suppress(FileNotFoundError):
            files.write(staged / name, files.read_bounded(paths.conf / name, LIMIT))


def _fill(paths: Paths, creation: Creation, guest: Guest, progress: Progress) -> None:
    """Make the tree under its hidden name, complete and on the disk; ask the wire for the addresses meanwhile."""
    host, request = creation.settings, creation.request
    ahead.load("jinja2", "vstools.network.kernel")  # which come next, and take as long as all the rest of a creation
    own = choose.own(paths, f"{STAGED}{guest.name}")
    if own is not None:
        own.make(creation.place, guest.limits.disk or 0)
    source = templates.Source(paths, request.template, own or choose.of(paths))
    tree = source.stage(guest)
    checkpoint("create:tree")
    with (
        flush.Flusher(tree) as flusher,
        _Probe(creation) as probe,
        identity.new_ssh_host_keys(guest.nodename, paths.guests / f"{STAGED}{guest.name}" / ".keys") as keys,
    ):
        if request.skeleton:
            with Inside(tree) as inside:
                identity.skeleton(inside)
        elif request.template:
            source.fill(tree, probe.watching(progress))
        else:
            bootstrap.bootstrap(tree, str(request.distro), host.conf, request.include)
        checkpoint("create:filled")
        names = plan.names(guest, host.networks, host.conf)
        wishes = identity.Wishes(host.conf.timezone, host.conf.locale, request.ssh_keys)
        with Inside(tree) as inside:
            identity.personalize(inside, guest, names, wishes, keys())
        probe.check()
        checkpoint("create:personalized")
        flusher.finish()
        disk.fit(guest, tree)
    checkpoint("create:synced")


class _Probe:
    """Asks the wire for the new guest's IPv4 addresses while its tree is made."""

    def __init__(self, creation: Creation) -> None:
        self._links = _links(creation)
        self._answers: list[tuple[ipaddress.IPv4Address, str]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> "_Probe":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        from vstools.network import arp

        for link in self._links:
            if link.member:
                continue  # the host itself is in no VLAN of a bridge that filters them: the start asks
            for interface in link.addresses:
                if isinstance(interface.ip, ipaddress.IPv4Address) and devices.has_device(link.vlan_device):
                    answer = arp.probe(link.vlan_device, interface.ip, self._stop.is_set)
                    if answer:
                        self._answers.append((interface.ip, answer))

    def watching(self, progress: Callable[[int], None]) -> Callable[[int], None]:
        """``progress`` that also ends the work when an address turned out to be taken."""

        def step(count: int) -> None:
            self._refuse_taken()
            progress(count)

        return step

    def check(self) -> None:
        """Wait for the probes' end; raises Refused when an address is in use."""
        self._thread.join()
        self._refuse_taken()

    def _refuse_taken(self) -> None:
        for address, mac in self._answers:
            raise Refused(f"{address} is in use on the network by {mac}", "choose another address")

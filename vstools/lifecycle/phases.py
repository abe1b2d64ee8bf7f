"""The phases of a guest's life on its host. Commands, systemd's unit and the guest's runner all call these.

``prepare`` makes all that a guest has in the kernel, ``undo`` is the one way back. What ``undo`` needs is in the
guest's record, which is written first; so it is the same after a failure, a stop, the guest's own poweroff and a
kill at any point, and doing it twice does no harm.
"""

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vstools import ahead, files, hooks, limits, log, lxc, units
from vstools.config import guests
from vstools.config.passed import Passed
from vstools.config.registry import WAITING
from vstools.errors import BadFiles, Refused, VsError
from vstools.faults import checkpoint
from vstools.guest import Guest, Names
from vstools.inside import Inside
from vstools.lifecycle import bounds, disk, filling, ownership, passing, records, trees, window
from vstools.lifecycle.host import Settings, host_lock, runtime_lock, settings
from vstools.network import devices, plan
from vstools.paths import Paths
from vstools.storage import lxcfs, mounts, plain
from vstools.tree import identity

if TYPE_CHECKING:
    from vstools.config import firewall as firewall_file
    from vstools.lifecycle.presence import Inquiry


@dataclass(frozen=True)
class Start:
    """Everything decided about one start, before anything is done."""

    guest: Guest
    settings: Settings
    links: tuple[plan.Link, ...]
    policy: "firewall_file.Policy"
    names: Names
    limits: limits.Plan
    given: Passed
    record: records.Record


def decide(paths: Paths, name: str) -> Start:
    """Read and check all that a start needs; raises Refused or BadFiles, changes nothing."""
    from vstools.lifecycle import filtering

    guest = guests.load(paths, name)
    ownership.check(paths, name)
    filling.check(paths, name)
    host = settings(paths)
    if (owner := guests.contexts_in_use(paths, but=name).get(guest.context)) is not None:
        raise Refused(f"guest {name} has the context {guest.context} of guest {owner}", "each guest needs its own")
    tree = paths.tree_of(name)
    if guest.volume is None and (not tree.is_dir() or tree.is_symlink()):
        raise Refused(f"guest {name} has no tree", f"{tree} is missing")
    hooks.check(paths, name)
    links = host.links(guest)
    policy = filtering.policy(paths, name)
    record = records.with_links(
        records.Record(
            token=os.urandom(8).hex(),
            netns=plan.netns(guest.context),
            cgroup=units.cgroup(name) if paths.systemd else f"{paths.cgroup}/{name}",
        ),
        links,
    )
    told = plan.names(guest, host.networks, host.conf)
    return Start(guest, host, links, policy, told, bounds.of(paths, guest), passing.of(paths, name), record)


def warn(start: Start) -> None:
    """Say which of the guest's limits this host cannot enforce, and what of its fstab is not mounted."""
    for sentence in (*start.limits.unenforced, *start.given.left):
        log.warn(f"guest {start.guest.name}: {sentence}")


def prepare(paths: Paths, name: str, inquiry: "Inquiry | None" = None) -> str:
    """Make everything that the guest needs before LXC starts it; returns the start's token.

    Raises when anything cannot be made, or another machine has one of its addresses, and leaves nothing then. Answers
    may come later still: who has an ``inquiry`` gives it to ``settle`` as well, else they are waited for here.
    """
    from vstools.lifecycle import presence
    from vstools.network import local

    ahead.load("vstools.network.kernel")  # needed when namespace and firewall are there: programs make them
    with (
        runtime_lock(paths, name),  # from here on vs-net finds a start, or this its files
        presence.Inquiry() as own,
        ownership.told(paths, name),
    ):
        if (paths.config_of(name) / WAITING).exists():
            from vstools.lifecycle import confirm

            confirm.before_start(paths, name)
        window.forget_abandoned(paths, name)
        trees.opened(paths, name)
        start = decide(paths, name)
        local.check_devices(start.links)
        devices.check_own(address.ip for link in start.links for address in link.addresses)
        _check_mount_points(paths, start.guest)
        passing.check(paths, name, start.given)
        if lxc.is_running(paths, name):
            raise Refused(f"guest {name} runs already", "vs-control shows its state")
        undo(paths, name)
        try:
            _make(paths, start, inquiry or own)
            (inquiry or own).check(wait=inquiry is None)
            presence.check_ipv6(start.record.netns, start.links)
        except BaseException:
            undo(paths, name)
            raise
    return start.record.token


def _check_mount_points(paths: Paths, guest: Guest) -> None:
    """The directories on which LXC mounts what every guest has."""
    places = ("dev", "proc", "sys", *(("tmp",) if guest.limits.tmpfs is not None else ()))
    places += ("run",) if window.is_idle(paths, guest.name) else ()
    passing.check_places(paths, guest.name, places)


def _make(paths: Paths, start: Start, inquiry: "Inquiry") -> None:
    guest, record = start.guest, start.record
    name, runtime = guest.name, paths.runtime_of(guest.name)
    files.directory(paths.runtime, 0o711)
    files.directory(paths.ended, 0o700)
    runtime.mkdir(mode=0o700, exist_ok=True)
    os.chown(runtime, 0, guest.id_base)
    runtime.chmod(0o710)  # LXC enters it as the guest's root; nobody else of the host does
    files.directory(paths.log_of(name), 0o700)
    lxc.reset_logs(paths, name)
    records.write(paths, name, record)
    checkpoint("start:recorded")
    hooks.run_all(paths, name, "prepre-start", must=True)
    plain.barrier(paths)
    with disk.starting(paths, guest):
        _connect(paths, start, inquiry)
        if guest.limits.tmpfs is not None:
            mounts.mount_tmp(runtime / "tmp", guest.limits.tmpfs, guest.id_base)
        passing.make(paths, guest, start.given)
        checkpoint("start:tmp")
        with Inside(paths.tree_of(name)) as tree:
            identity.write_names(tree, guest, start.names)
        checkpoint("start:names")
    warn(start)
    write_lxc_config(paths, guest, record)
    hooks.run_all(paths, name, "pre-start", must=True)
    inquiry.ask_inside(record.netns, start.links)
    checkpoint("start:prepared")


def _connect(paths: Paths, start: Start, inquiry: "Inquiry") -> None:
    """The guest's network. The neighbours are asked three times for its addresses meanwhile, before it could answer."""
    record, links = start.record, start.links
    if not record.vlans:
        inquiry.ask(links)
    from vstools.lifecycle import filtering
    from vstools.network import local, namespace

    if record.vlans:
        from vstools.network import kernel

        with host_lock(paths, "links"):
            kernel.make_vlans(links)
        checkpoint("start:vlans")
        inquiry.ask(links)
    namespace.make_namespace(record.netns)
    checkpoint("start:namespace")
    mounts.mount_sysfs(paths.runtime_of(start.guest.name) / "sys", record.netns)
    checkpoint("start:sysfs")
    inquiry.ask(links)
    with host_lock(paths, "links"):
        local.ensure(paths, links, start.settings.networks)
    checkpoint("start:local")
    own = (address for link in links for address in link.addresses)
    filtering.load(record.netns, filtering.chains(start.policy, own), start.settings.conf.firewall_backend)
    checkpoint("start:firewall")
    inquiry.ask(links)
    from vstools.network import kernel

    with host_lock(paths, "links"):
        kernel.connect(record.netns, links, start.guest.id_base)
    inquiry.ask_inside(record.netns, links)
    checkpoint("start:links")


def write_lxc_config(paths: Paths, guest: Guest, record: records.Record) -> None:
    """LXC's configuration for the guest's next life, and for what enters it, with the limits of now."""
    items = bounds.items(paths, guest, record.cgroup)
    shown = lxcfs.FILES if lxcfs.usable(paths.lxcfs, guest.name) else ()
    given = passing.entries(paths, guest.name, passing.known(paths, guest.name))
    idle = window.is_idle(paths, guest.name)
    around = lxc.Surroundings(record.netns, record.cgroup, guest.limits.tmpfs is not None, items, shown, given, idle)
    lxc.write_config(paths, guest, around)


def settle(paths: Paths, name: str, process: lxc.Runner | None = None, inquiry: "Inquiry | None" = None) -> None:
    """Wait until the guest's init runs, tell the neighbours where its addresses are, run ``post-start``.

    Raises VsError when init does not run, or one of its addresses turns out to be another machine's.
    """
    from vstools.lifecycle import presence

    lxc.settle(paths, name, units.main_has_ended if process is None else lambda: process.poll() is not None)
    checkpoint("start:running")
    guest = guests.load(paths, name)
    netns, links = plan.netns(guest.context), settings(paths).links(guest)
    with ownership.told(paths, name):
        if inquiry is not None:
            inquiry.check(wait=True)
        presence.check_ipv6(netns, links, wait=True)
    presence.announce(netns, links, (lambda: None) if inquiry is None else inquiry.close)
    hooks.run_all(paths, name, "post-start", must=False)
    checkpoint("start:done")


def announce(paths: Paths, name: str) -> None:
    """Tell the neighbours of a running guest where its addresses are."""
    from vstools.lifecycle import presence

    guest = guests.load(paths, name)
    presence.announce(plan.netns(guest.context), settings(paths).links(guest))


def reboot(paths: Paths, name: str) -> None:
    """Between two lives of a guest that rebooted itself: its network stays, its /tmp is new, limits are those of now.

    Who was just entering the guest when it ended may hold its cgroups; LXC starts no guest in cgroups that exist.
    """
    with runtime_lock(paths, name):
        guest = guests.load(paths, name)
        if (record := records.read(paths, name)) is not None:
            for group in ("payload", "monitor"):
                limits.end_processes(f"{record.cgroup}/{group}")
                limits.remove_cgroups(f"{record.cgroup}/{group}")
            write_lxc_config(paths, guest, record)
        passing.drop(paths, name)
        given = passing.of(paths, name)
        passing.check(paths, name, given)
        passing.make(paths, guest, given)
        mounts.unmount(paths.runtime_of(name) / "tmp")
        if guest.limits.tmpfs is not None:
            _check_mount_points(paths, guest)
            mounts.mount_tmp(paths.runtime_of(name) / "tmp", guest.limits.tmpfs, guest.id_base)


def stop(paths: Paths, name: str) -> bool:
    """Shut the guest down; returns whether it went by itself (else it was killed after STOP_TIMEOUT).

    systemd asks for this also after a guest's own poweroff: then there is nothing to do.
    """
    if not lxc.is_running(paths, name):
        return True
    hooks.run_all(paths, name, "pre-stop", must=False)
    with lxc.Stop(paths, name, _stop_timeout(paths)) as request:
        checkpoint("stop:asked")
        from vstools.network import kernel  # noqa: F401 - loaded while the guest shuts down

        by_itself = request.wait(lambda: _disconnect_early(paths, name))
    if not by_itself:
        log.warn(f"guest {name} did not shut down in time and was killed")
    return by_itself


def _disconnect_early(paths: Paths, name: str) -> None:
    """Take the links away while LXC cleans up behind the guest, unless a hook may want to see them; ``undo`` checks."""
    from vstools.network import kernel

    record = records.read(paths, name)
    if record is not None and not hooks.scripts(paths, name, "post-stop"):
        with suppress(VsError):
            kernel.disconnect(record.netns, record.host_names, record.names)


def _stop_timeout(paths: Paths) -> float:
    try:
        return settings(paths).conf.stop_timeout
    except BadFiles as error:
        log.warn(f"{error.message}: the default STOP_TIMEOUT is used")
        return 60


def cleanup(paths: Paths, name: str, token: str = "") -> None:
    """After the guest's end: undo its start. With ``token``, only that of the start it belongs to."""
    with runtime_lock(paths, name):
        record = records.read(paths, name)
        if record is not None and (not token or record.token == token) and not lxc.is_running(paths, name):
            undo(paths, name)


def undo(paths: Paths, name: str) -> None:
    """Take away all that a start made. Needs the runtime lock, and that the guest does not run."""
    runtime = paths.runtime_of(name)
    if not runtime.exists():
        return
    from vstools.network import kernel, namespace

    record = records.read(paths, name)
    if record is not None:
        limits.end_processes(f"{record.cgroup}/payload")
        hooks.run_all(paths, name, "post-stop", must=False)
        checkpoint("stop:post-stop")
        kernel.disconnect(record.netns, record.host_names, record.names)
        checkpoint("stop:links")
        if record.vlans:
            records.leave_vlans(paths, name, record, replace(record, vlans=()))
        checkpoint("stop:vlans")
    for where in ("sys", "tmp"):
        mounts.unmount(runtime / where)
    passing.drop(paths, name)
    lxc.forget(paths, name)
    checkpoint("stop:mounts")
    if record is not None:
        namespace.drop_namespace(record.netns)
        limits.remove_cgroups(record.cgroup)
        hooks.run_all(paths, name, "postpost-stop", must=False)
    checkpoint("stop:namespace")
    _drop(runtime)


def _drop(runtime: Path) -> None:
    """Remove the runtime directory, the record last: until then a later ``undo`` knows what is left."""
    for where in ("sys", "tmp"):
        if (runtime / where).exists():
            (runtime / where).rmdir()
    for entry in sorted(runtime.iterdir(), key=lambda path: path.name == "record"):
        if entry.is_dir() and not entry.is_symlink():
            raise VsError(f"{entry} is not ours", "move it away and try again")
        entry.unlink()
    runtime.rmdir()

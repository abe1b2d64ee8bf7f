"""What guests have installed, changed from the host: inside the guest, by its own manager, through a window.

The repositories' names are resolved here, on the host. The guest's firewall is opened for these addresses alone, and
the manager finds them in an /etc/hosts of its own. All of it runs in the guest's namespaces and within its limits; a
stopped guest is started for that with an init that runs nothing.
"""

import ipaddress
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from vstools import log, lxc, run
from vstools.config import guests
from vstools.errors import Refused, VsError
from vstools.faults import checkpoint
from vstools.guest import Address
from vstools.inside import Inside
from vstools.lifecycle import control, inner, records, trees, window
from vstools.lifecycle.host import Settings, guest_lock, settings
from vstools.packages import databases, managers, sources, stale, upgrades
from vstools.packages.databases import Installed
from vstools.packages.managers import Manager, Step, Wishes
from vstools.packages.upgrades import Upgrade
from vstools.paths import Paths

WINDOW = 1800
"""Seconds that a window is open at most."""
_AFTERWARDS = 3600
"""Seconds that a manager has to end by itself after its window was closed."""
_BUSY_PATIENCE, _BUSY_PAUSE = 300.0, 5.0
_PROXY_PORT = 3128
_RESOLVE_DEADLINE, _RESOLVED_AT_ONCE, _ADDRESSES_MAX = 20.0, 8, 16
_PROCESSES_MAX, _MAPS_MAX = 4000, 1 << 20
_LAST_LINES, _LINES_MAX, _LINE_MAX = 6, 10_000, 500
_SOME = 8
"""Packages that a sentence names."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """All that is decided before anything is done.

    ``ends`` are what is opened, ``hosts`` lines of /etc/hosts for them; ``closed`` are sentences about repositories
    that stay closed.
    """

    manager: Manager
    steps: tuple[Step, ...]
    ends: tuple[tuple[str, int], ...] = ()
    hosts: str = ""
    proxy: str = ""
    closed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What came of it for one guest. ``failed`` is a sentence, empty where all went well.

    ``changes`` are (package, version before, version after), ``mended`` what was found half installed, ``restart``
    services that still run what was replaced, ``found`` the lines of a search.
    """

    guest: str
    manager: str = ""
    changes: tuple[tuple[str, str, str], ...] = ()
    upgradable: tuple[Upgrade, ...] = ()
    found: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()
    failed: str = ""
    status: int = 0


def manager_of(tree: Inside, name: str) -> Manager:
    """The package manager of a guest; raises Refused where there is none that we know."""
    text = tree.read("etc/os-release", 1 << 16) or tree.read("usr/lib/os-release", 1 << 16) or ""
    found = managers.choose(text)
    if found is None:
        raise Refused(f"guest {name} has no package manager that is known", "its /etc/os-release names its system")
    return found


def _tree(paths: Paths, name: str) -> Inside:
    """A guest's tree, running or not."""
    tree = trees.opened(paths, name)
    try:
        return Inside(tree)
    except (FileNotFoundError, NotADirectoryError):
        raise Refused(f"guest {name} has no tree", f"{tree} is missing") from None


def decide(paths: Paths, name: str, wishes: Wishes) -> Plan:
    """Read what a guest has and resolve the names of its repositories; raises Refused, changes nothing."""
    guest, host = guests.load(paths, name), settings(paths)
    if wishes.snapshot:
        from vstools.lifecycle import kept

        kept.check(paths, name)
    with _tree(paths, name) as tree:
        manager = manager_of(tree, name)
        wanted = sources.ends(tree, manager.name)
    plan = Plan(manager, managers.steps(manager, wishes))
    if not managers.asks_repositories(manager, plan.steps):
        return plan
    families: set[int] = {nic.address.version for nic in guest.nics if not nic.disabled}
    if not families:
        raise Refused(f"guest {name} has no address", "it cannot reach any repository")
    if host.conf.pkg_proxy:
        return _by_proxy(plan, wishes, host.conf.pkg_proxy, families)
    return _directly(plan, name, wanted, host, families)


def _by_proxy(plan: Plan, wishes: Wishes, word: str, families: set[int]) -> Plan:
    end = sources.parse_end(word, _PROXY_PORT)
    found = [each for each in resolve(end.host) if each.version in families and not each.is_loopback]
    if not found:
        raise Refused(f"PKG_PROXY {word} has no address that the guest could reach")
    url = f"http://{sources.End(str(found[0]), end.port)}"
    return replace(
        plan,
        steps=managers.steps(plan.manager, wishes, url),
        ends=((str(found[0]), end.port),),
        proxy=url,
    )


def _directly(plan: Plan, name: str, wanted: tuple[sources.End, ...], host: Settings, families: set[int]) -> Plan:
    """A plan that leads to the repositories themselves, as far as that is allowed."""
    from vstools.network import devices

    words = tuple(sources.parse_end(word) for word in host.conf.pkg_hosts)
    own = [interface.ip for interface in devices.host_addresses()]
    ends: dict[tuple[str, int], None] = {}
    lines: dict[str, None] = {}
    closed: list[str] = []
    open_to = tuple(end for end in wanted if not words or sources.is_named(end, words))
    closed += [f"{end} is not among PKG_HOSTS in create.conf" for end in wanted if end not in open_to]
    with ThreadPoolExecutor(_RESOLVED_AT_ONCE) as pool:
        found = tuple(pool.map(resolve, [end.host for end in open_to]))
    for end, addresses in zip(open_to, found, strict=True):
        fitting = [each for each in sources.fitting(end, addresses, words, own) if each.version in families]
        if not addresses:
            closed.append(f"{end} has no address")
        elif not fitting:
            closed.append(f"{end} is not public, or of no family of the guest's: PKG_HOSTS in create.conf may name it")
        for address in fitting:
            ends[str(address), end.port] = None
            if str(address) != end.host:
                lines[f"{address} {end.host}"] = None
    if wanted and not ends:
        raise Refused(f"guest {name} has no repository that may be opened", "; ".join(closed))
    return replace(plan, ends=tuple(ends), hosts="".join(f"{line}\n" for line in lines), closed=tuple(closed))


def resolve(host: str) -> list[Address]:
    """The addresses of a name, ``_ADDRESSES_MAX`` at most, by what this host asks (``man 1 getent``)."""
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        pass
    try:
        said = run.run(["getent", "ahosts", host], timeout=_RESOLVE_DEADLINE, check=False).out
    except VsError:  # whoever should answer does not
        return []
    words = dict.fromkeys(line.split()[0] for line in said.splitlines() if line.strip())
    return [ipaddress.ip_address(word) for word in words if "%" not in word][:_ADDRESSES_MAX]


def work(paths: Paths, name: str, wishes: Wishes, seconds: int, say: Say) -> Report:
    """Do to one guest what is wished for. Raises VsError where nothing was begun; else the report says what failed."""
    guests.require(paths, name)
    with window.alone(paths, name):
        if window.read(paths, name) is not None:  # of a command that was killed
            with guest_lock(paths, name):
                window.end(paths, name)
        plan = decide(paths, name, wishes)
        for sentence in plan.closed:
            log.warn(f"guest {name}: the repository {sentence}")
        if wishes.snapshot:
            from vstools.lifecycle import kept

            say("keeping its tree")
            kept.keep(paths, name)
        with log.change(f"packages: {wishes}", name) as failures:
            with nullcontext() if lxc.is_running(paths, name) else _idle(paths, name, say):
                report = _worked(paths, name, plan, wishes, seconds, say)
            failures += [report.failed] if report.failed else []
        return report


@contextmanager
def _idle(paths: Paths, name: str, say: Say) -> Iterator[None]:
    """A stopped guest is started for the time of a block, without anything of its own that runs."""
    with guest_lock(paths, name):
        window.write(paths, name, window.State(idle=True))
        try:
            say("starting it for this, without its services")
            control.start_idle(paths, name)
            checkpoint("packages:idle")
            yield
        finally:
            window.end(paths, name)


def _worked(paths: Paths, name: str, plan: Plan, wishes: Wishes, seconds: int, say: Say) -> Report:
    """The steps one after the other; what was changed is what the database says, whatever the manager said."""
    report = Report(name, plan.manager.name)
    before = _installed(paths, name, plan.manager) if wishes.changes else {}
    half = _half_done(paths, name, plan.manager) if wishes.changes else ()
    if half:
        say(f"mending {len(half)} packages that are half installed")
    deadline = time.monotonic() + seconds + _AFTERWARDS
    begun = False
    try:
        with _open(paths, name, plan, seconds):
            for step in plan.steps:
                say(step.act.replace("_", " "))
                begun = True
                report = _told(report, step, _call(paths, name, plan, step, deadline))
    except (VsError, OSError) as error:
        report = replace(report, failed=str(error), status=1 if begun else getattr(error, "exit_code", 1))
    except KeyboardInterrupt:
        report = replace(report, failed=f"guest {name}: interrupted", status=128 + signal.SIGINT)
    except SystemExit as error:
        report = replace(report, failed=f"guest {name}: interrupted", status=int(error.code or 1))
    return _compared(paths, plan.manager, report, before, half) if wishes.changes else report


def _compared(paths: Paths, manager: Manager, report: Report, before: Installed, half: tuple[str, ...]) -> Report:
    """A report with what was changed, by the guest's database before and now."""
    name = report.guest
    try:
        after, left = _installed(paths, name, manager), set(_half_done(paths, name, manager))
        restart = () if window.is_idle(paths, name) else _stale(paths, name)
    except (VsError, OSError) as error:
        failed = f"{report.failed}\n" * bool(report.failed) + f"guest {name}: what was changed is not known: {error}"
        return replace(report, failed=failed, status=report.status or 1)
    mended = tuple(package for package in half if package not in left)
    if report.failed and left:
        some = ", ".join(sorted(left)[:_SOME]) + ", ..." * (len(left) > _SOME)
        report = replace(report, failed=f"{report.failed}\n  half installed, and mended by the next vs-pkg: {some}")
    return replace(report, changes=tuple(databases.changes(before, after)), mended=mended, restart=restart)


@contextmanager
def _open(paths: Paths, name: str, plan: Plan, seconds: int) -> Iterator[None]:
    """The guest's firewall is open for the plan for the time of a block."""
    if not plan.ends:
        yield
        return
    try:
        window.opened(paths, name, plan.ends, seconds)
        yield
    finally:
        window.closed(paths, name)
        if not window.is_idle(paths, name):
            window.forget(paths, name)


def _call(paths: Paths, name: str, plan: Plan, step: Step, deadline: float) -> str:
    """What a step prints; raises VsError where it fails. A lock of another one's is waited for."""
    patience = time.monotonic() + _BUSY_PATIENCE
    environment = managers.environment(plan.manager, plan.proxy)
    while True:
        code, text = inner.call(paths, name, step.words, environment, plan.hosts, deadline)
        if code in step.fine:
            return text
        busy = any(word in text for word in plan.manager.busy)
        if not busy or time.monotonic() > patience:
            break
        time.sleep(_BUSY_PAUSE)
    said = [line for line in map(_shown, text.splitlines()[-_LINES_MAX:]) if line][-_LAST_LINES:]
    raise VsError(f"guest {name}: {step.words[0]} failed ({step.act})", "\n  ".join(said) or f"exit status {code}")


def _told(report: Report, step: Step, text: str) -> Report:
    if step.act == managers.LIST_UPGRADES:
        return replace(report, upgradable=upgrades.parse(report.manager, text)[:_LINES_MAX])
    if step.act == managers.SEARCH:
        return replace(report, found=tuple(line for line in map(_shown, text.splitlines()[:_LINES_MAX]) if line))
    return report


def _shown(line: str) -> str:
    """A line of a guest's for the terminal: not without end, and without what the terminal would obey."""
    return lxc.printable(line[:_LINE_MAX]).strip()


def _installed(paths: Paths, name: str, manager: Manager) -> Installed:
    """What is installed in a guest that runs; raises Refused where that cannot be known."""
    if manager.name in databases.READABLE:
        with Inside(paths.tree_of(name)) as tree:
            return _readable(name, manager, databases.installed(tree, manager.name))
    code, text = inner.call(paths, name, databases.RPM_QUERY, {}, "", time.monotonic() + run.DEADLINE)
    if code:
        said = [line for line in map(_shown, text.splitlines()[-_LINES_MAX:]) if line]
        raise Refused(f"guest {name}: its rpm does not tell what is installed", said[-1] if said else f"status {code}")
    return databases.of_rpm(text)


def _readable(name: str, manager: Manager, found: Installed | None) -> Installed:
    if found is None:
        raise Refused(f"guest {name} has no package database of {manager.name}'s", "nobody knows what it has installed")
    return found


def _half_done(paths: Paths, name: str, manager: Manager) -> tuple[str, ...]:
    with Inside(paths.tree_of(name)) as tree:
        return databases.half_done(tree, manager.name)


def _stale(paths: Paths, name: str) -> tuple[str, ...]:
    """The services of a running guest that still use what was replaced."""
    from vstools.limits import cgroups

    record = records.running(paths, name)
    found = set()
    for pid in sorted(cgroups.members(f"{record.cgroup}/payload") if record else ())[:_PROCESSES_MAX]:
        folder = Path(f"/proc/{pid}")
        try:
            with (folder / "maps").open(errors="replace") as maps:
                if stale.uses_deleted(maps.read(_MAPS_MAX)):
                    words = ((folder / file).read_text(errors="replace") for file in ("cgroup", "comm"))
                    found.add(stale.service(*words))  # both are the guest's words
        except OSError:  # it ended meanwhile
            continue
    return tuple(sorted(found))


def inventory(paths: Paths, name: str) -> tuple[str, Installed]:
    """The manager of a guest, running or not, and what it has installed; nothing is started for that.

    Raises Refused where that cannot be known.
    """
    with _tree(paths, name) as tree:
        manager, found = recorded(tree, name)
    if found is not None:
        return manager.name, found
    if not lxc.is_running(paths, name):
        raise Refused(f"guest {name} is stopped, and only its own rpm can read its database", "start it, and ask again")
    return manager.name, _installed(paths, name, manager)


def recorded(tree: Inside, name: str) -> tuple[Manager, Installed | None]:
    """The manager of a guest, and what the database in a tree of it says; None where only the guest's rpm can read it.

    Raises Refused where there is none.
    """
    manager = manager_of(tree, name)
    if manager.name not in databases.READABLE:
        return manager, None
    return manager, _readable(name, manager, databases.installed(tree, manager.name))

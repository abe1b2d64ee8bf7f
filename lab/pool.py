"""The verbs of the lab, each over one host or all of them.

All take the Places of a checkout (`Places.of()`) and lock its lab while they change it, so that two commands at once
wait for each other. Their text goes to `say`, a line each; what goes wrong is a LabError.
"""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess
from typing import Concatenate, ParamSpec, TypeVar

from lab import boot, builder, identity, machine, qemu, ssh, trunk
from lab import host as hosts
from lab.command import LabError
from lab.host import Host, HostFiles, Origin
from lab.image import cached_image
from lab.layer import About, read_checkout
from lab.places import CHECKOUT, Places, locked
from lab.recipe import RELEASES, read_recipe

Say = Callable[[str], None]
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
POWER = ("off", "on", "cut")
NICS = ("trunk", "mgmt")


def exclusive(
    verb: Callable[Concatenate[Places, Arguments], Result],
) -> Callable[Concatenate[Places, Arguments], Result]:
    """Let a verb hold the lock of its lab; verbs do not call each other."""

    @functools.wraps(verb)
    def holding(places: Places, /, *arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        with locked(places, places.key):
            return verb(places, *arguments, **options)

    return holding


def silent(_line: str) -> None:
    """Say nothing."""


@exclusive
def up(
    places: Places,
    *,
    count: int = 3,
    memory: int = 1024,
    release: str = RELEASES[0],
    bare: bool = False,
    templates: Sequence[Path] = (),
    renew: bool = False,
    say: Say = silent,
) -> None:
    """Bring up hosts number 0 to count-1, with this checkout installed unless bare, and wait until all are up.

    They have the templates in /var/lib/vservers/TEMPLATES.

    Hosts that the lab has already stay as they are and are switched on; `renew` makes those anew that were made from
    another state of the checkout or with other settings.
    """
    with locked(places, "packages"):
        machine.install_packages()
    places.state.mkdir(parents=True, mode=0o700, exist_ok=True)
    identity.make_keys(places)
    ssh.write_config(places)
    trunk.make(places)
    boot.remove(HostFiles.of(places, hosts.name_of(hosts.BUILDER)))  # a killed lab/up may have left it running
    recipe = read_recipe(release)
    checkout = read_checkout(CHECKOUT)
    about = About(recipe.name, checkout.base, checkout.digest)
    brought = " ".join(f"{path.name}:{path.stat().st_size}" for path in templates)
    wanted = Origin(recipe.name, "" if bare else about.name, memory, brought)
    known = hosts.load_all(places)
    new = to_make(known, count, wanted, renew=renew)
    kept = [host for host in known if host.number not in new]
    for host in kept:
        if host.origin != wanted:
            say(f"{host.name} stays as another state of the checkout made it (lab/up --renew makes it anew)")
    if new:
        image = cached_image(places, recipe, say)
        accelerator = qemu.choose_accelerator(image)
        layer = None if bare else builder.installed(places, image, accelerator, checkout, say)
        fresh = [
            Host(number, wanted.image, wanted.layer, memory, qemu.free_port(), accelerator, templates=brought)
            for number in new
        ]
        kept += [boot.create(places, host, image, layer) for host in fresh]
    side_by_side(kept, lambda host: bring_up(places, host, templates), say)


def to_make(known: Sequence[Host], count: int, wanted: Origin, *, renew: bool) -> list[int]:
    """Which hosts have to be made: the missing ones, those never saved, and with `renew` the outdated ones."""
    keep = {host.number for host in known if host.saved and (host.origin == wanted or not renew)}
    return sorted({*range(count), *(host.number for host in known)} - keep)


def bring_up(places: Places, host: Host, templates: Sequence[Path] = ()) -> str:
    """Switch one host on: again, or for the first time, and then bring it the templates."""
    if hosts.is_up(HostFiles.of(places, host.name)) and host.saved:
        return "was up"
    if host.saved:
        boot.boot(places, host)
    else:
        boot.first_boot(places, host, templates)
    return f"up ({host.accelerator})"


@exclusive
def reset(places: Places, names: Sequence[str] = (), *, say: Say = silent) -> None:
    """Put hosts (all, without names) back to where their first boot left them, whatever state they are in."""
    chosen = [hosts.load(places, name) for name in names] or hosts.load_all(places)
    if not chosen:
        raise LabError("the lab has no hosts", "bring it up with lab/up")
    trunk.make(places)

    def one(host: Host) -> str:
        boot.restore(places, host)
        return "is as its first boot left it"

    side_by_side(chosen, one, say)


def side_by_side(chosen: Iterable[Host], act: Callable[[Host], str], say: Say) -> None:
    """Do something with several hosts at once and tell of each; the ones that fail are named together."""

    def one(host: Host) -> str:
        begun = time.monotonic()
        try:
            done = act(host)
        except LabError as error:
            return f"{error.message}\n{error.hint}"
        say(f"{host.name} {done}, {time.monotonic() - begun:.1f} s")
        return ""

    chosen = sorted(chosen, key=lambda host: host.number)
    with ThreadPoolExecutor(max_workers=len(chosen) or 1) as workers:
        failed = [text for text in workers.map(one, chosen) if text]
    if failed:
        raise LabError("\n".join(failed), "lab/status shows the rest; lab/down removes it all")


@exclusive
def power(places: Places, name: str, what: str, say: Say = silent) -> None:
    """Press the power button (off), switch on and wait for the boot (on), or pull the plug (cut)."""
    host = hosts.load(places, name)
    files = HostFiles.of(places, name)
    if what == "on":
        boot.need_saved(host)
        trunk.make(places)
        side_by_side([host], lambda host: bring_up(places, host), say)
    elif what == "off":
        qemu.shut_down(files, timeout=boot.POWER_OFF_SECONDS)
    else:
        qemu.cut(files)


@exclusive
def reboot(places: Places, name: str, *, command: str = "systemctl reboot") -> None:
    """Let a host reboot itself, and wait until it has booted again."""
    host = hosts.load(places, name)
    boot_id = "/proc/sys/kernel/random/boot_id"
    before = ssh.check(places, name, f"cat {boot_id}").strip()
    ssh.call(places, name, command)  # the connection may end before the command does
    boot.wait(places, host, f'[ "$(cat {boot_id})" != {before} ]', boot.BOOT_SECONDS)
    boot.wait_booted(places, host)
    boot.wait_trunk(places, host)


@exclusive
def net(places: Places, name: str, nic: str, *, link_up: bool) -> None:
    """Pull (or plug) the cable of a host's trunk or mgmt NIC."""
    qemu.set_link(HostFiles.of(places, hosts.load(places, name).name), nic, up=link_up)


@exclusive
def down(places: Places) -> None:
    """End every host and remove every trace of the lab but the cache."""
    if places.state.is_dir():
        for folder in sorted(path for path in places.state.iterdir() if path.is_dir()):
            qemu.cut(HostFiles(folder))
        shutil.rmtree(places.state)
    with contextlib.suppress(OSError):  # not there, or another checkout's lab is in it
        places.states.rmdir()
    trunk.remove(places)


def call(places: Places, name: str, command: str, *, timeout: float = 120) -> CompletedProcess[str]:
    """Run a shell line on a host and give its result, whatever its exit code."""
    return ssh.call(places, hosts.load(places, name).name, command, timeout=timeout)


def check(places: Places, name: str, command: str, *, timeout: float = 120) -> str:
    """Run a shell line on a host and give its standard output; a non-zero exit is a LabError with its last words."""
    return ssh.check(places, hosts.load(places, name).name, command, timeout=timeout)


def copy_to(places: Places, name: str, source: Path, folder: str, *, timeout: float = 600) -> None:
    """Copy a file or a directory of this machine into a folder on a host, with modes and links, owned by root."""
    ssh.copy_to(places, hosts.load(places, name).name, source, folder, timeout=timeout)


def names(places: Places) -> list[str]:
    """The names of the lab's hosts, the master's first."""
    return [host.name for host in hosts.load_all(places)]


_SESSIONS = re.compile(
    r"^(\S+ +){4}((sshd\S*|systemd-logind|cron|CRON|\(sd-pam\)|\(systemd\)|systemd\[\d{2,}\])(\[\d+\])?:"
    r"|systemd\[1\]: .*(session-c?\d+\.scope|user@0\.|user-0\.|user-runtime-dir@0\.))"
)
"""Lines of the journal (short-precise) about who comes and goes: each command over ssh leaves ten."""


def events(text: str, lines: int) -> str:
    """The last lines of a journal that are not about sessions of ssh."""
    return "\n".join([line for line in text.splitlines() if not _SESSIONS.match(line)][-lines:])


def journal(places: Places, name: str, *, lines: int = 200) -> str:
    """The end of a host's journal, of all its boots, without ssh's; if it does not answer, the end of its console."""
    try:
        text = check(places, name, "journalctl --no-pager -q -o short-precise -n 6000", timeout=120)
    except LabError as error:
        tail = HostFiles.of(places, name).console_tail(lines)
        return f"{name} does not answer ({error.message}); the end of its console:\n{tail}"
    return events(text, lines)


def status(places: Places) -> list[str]:
    """A line for each host: name, on or off, ssh port, trunk address, how it is run, what it was made from."""
    lines = []
    for host in hosts.load_all(places):
        files = HostFiles.of(places, host.name)
        state = "on" if hosts.running_pid(files) is not None else "off"
        lines.append(
            f"{host.name} {state:3} ssh 127.0.0.1:{host.port} trunk {host.trunk_address} "
            f"{host.accelerator} {host.memory} MiB {host.layer or host.image} console {files.console}"
        )
    if lines:
        lines.append(f"ssh -F {places.ssh_config} HOST    bridge in namespace {places.namespace}")
    return lines or ["the lab is down"]

"""The verbs of the lab, each over one host or all of them."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from lab import host as hosts
from lab import machine, qemu, ssh, trunk
from lab.command import LabError
from lab.host import Host, HostFiles
from lab.image import Image, cached_image
from lab.places import Places

Say = Callable[[str], None]
BOOT_SECONDS = 600.0  # three hosts at once, emulated, on a busy machine
POWER_OFF_SECONDS = 180.0


def up(places: Places, *, count: int, memory: int, release: str, say: Say) -> None:
    """Bring up hosts number 0 to count-1 and wait until all have booted; those that are up stay."""
    machine.install_packages()
    image = cached_image(places, release, say)
    known = {host.number: host for host in hosts.load_all(places)}
    new = [number for number in range(count) if number not in known]
    places.state.mkdir(parents=True, exist_ok=True)
    if new:
        accelerator = qemu.choose_accelerator(image)
        for number in new:
            fresh = Host(number, image.folder.name, accelerator, memory, qemu.free_port())
            known[number] = create(places, fresh, image)
    ssh.write_config(places, known.values())
    switch_on(places, [known[number] for number in sorted(known)], say)


def create(places: Places, host: Host, image: Image) -> Host:
    """Make the files of a host that has never booted."""
    files = HostFiles.of(places, host.name)
    with contextlib.ExitStack() as undo:
        files.folder.mkdir()
        undo.callback(shutil.rmtree, files.folder)
        qemu.make_disks(files, image)
        hosts.save(places, host)
        undo.pop_all()
    return host


def switch_on(places: Places, chosen: Iterable[Host], say: Say) -> None:
    """Start hosts side by side and wait for all; the ones that fail are named together."""
    trunk.make(places)
    chosen = list(chosen)

    def one(host: Host) -> str:
        files = HostFiles.of(places, host.name)
        begun = time.monotonic()
        was_on = hosts.running_pid(files) is not None
        try:
            qemu.start(places, host)
            ssh.wait_ready(
                places,
                host,
                timeout=BOOT_SECONDS,
                alive=lambda: hosts.running_pid(files) is not None,
                console=files.console,
            )
        except LabError as error:
            return f"{host.name}: {error.message}\n{error.hint}"
        how = "was up" if was_on else f"up in {time.monotonic() - begun:.0f} s ({host.accelerator})"
        say(f"{host.name} {how}")
        return ""

    with ThreadPoolExecutor(max_workers=len(chosen) or 1) as workers:
        failed = [text for text in workers.map(one, chosen) if text]
    if failed:
        raise LabError("\n".join(failed), "lab/status shows the rest; lab/down removes it all")


def power(places: Places, name: str, what: str, say: Say) -> None:
    """Press the power button (off), switch on and wait for the boot (on), or pull the plug (cut)."""
    host = hosts.load(places, name)
    files = HostFiles.of(places, name)
    if what == "on":
        switch_on(places, [host], say)
    elif what == "off":
        qemu.shut_down(files, timeout=POWER_OFF_SECONDS)
    else:
        qemu.cut(files)


def net(places: Places, name: str, nic: str, *, link_up: bool) -> None:
    """Pull (or plug) the cable of a host's trunk or mgmt NIC."""
    qemu.set_link(HostFiles.of(places, hosts.load(places, name).name), nic, up=link_up)


def down(places: Places) -> None:
    """End every host and remove every trace of the lab but the cache."""
    if places.state.is_dir():
        for folder in sorted(path for path in places.state.glob("vsh-*") if path.is_dir()):
            qemu.cut(HostFiles(folder))
        shutil.rmtree(places.state)
        with contextlib.suppress(OSError):  # another checkout's lab is in it
            places.states.rmdir()
    trunk.remove(places)


def status(places: Places) -> list[str]:
    """A line for each host: name, on or off, ssh port, trunk address, how it is run, its console's file."""
    lines = []
    for host in hosts.load_all(places):
        files = HostFiles.of(places, host.name)
        state = "on" if hosts.running_pid(files) is not None else "off"
        lines.append(
            f"{host.name} {state:3} ssh 127.0.0.1:{host.port} trunk {host.trunk_address} "
            f"{host.accelerator} {host.memory} MiB {host.image} console {files.console}"
        )
    if lines:
        lines.append(f"ssh -F {places.ssh_config} HOST    bridge in namespace {places.namespace}")
    return lines or ["the lab is down"]

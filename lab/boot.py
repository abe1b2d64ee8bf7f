"""One host's way up: made and booted for the first time, booted again, or back at its saved first boot."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterable
from pathlib import Path

from lab import host as hosts
from lab import identity, qemu, ssh
from lab.command import LabError
from lab.host import Host, HostFiles
from lab.image import Image
from lab.layer import Layer
from lab.places import Places

BOOT_SECONDS = 600.0  # three hosts at once, emulated, on a busy machine
POWER_OFF_SECONDS = 180.0
RESTORE_SECONDS = 120.0
SNAPSHOT = "fresh"
TEMPLATES = "/var/lib/vservers/TEMPLATES"
BOOTED = 'state=$(systemctl is-system-running --wait); echo "$state"; [ "$state" = running ] || [ "$state" = degraded ]'
# The restored clock stands still at the moment of the snapshot; the emulated hardware clock went on.
SET_CLOCK = "date -s @$(cat /sys/class/rtc/rtc0/since_epoch) > /dev/null"


def create(places: Places, host: Host, image: Image, layer: Layer | None, *, new_data: bool = False) -> Host:
    """Make the files of a host that has never booted, in place of whatever an interrupted command left of it."""
    files = HostFiles.of(places, host.name)
    remove(files)
    with contextlib.ExitStack() as undo:
        files.folder.mkdir()
        undo.callback(shutil.rmtree, files.folder)
        hosts.save(places, host)  # first: from here on nobody prunes what its disks lie on
        files.identity.write_bytes(identity.archive(identity.identity(host, identity.read_keys(places))))
        qemu.make_root_disk(files, image, layer)
        qemu.make_data_disk(files, None if new_data else layer)
        ssh.write_host_config(places, host)
        undo.pop_all()
    return host


def remove(files: HostFiles) -> None:
    """End a host and remove its files, as far as there are any."""
    if files.folder.exists():
        qemu.cut(files)
        shutil.rmtree(files.folder)


def first_boot(places: Places, host: Host, templates: Iterable[Path] = ()) -> None:
    """Boot a fresh host, bring it templates and save what it is then, so that `restore` can go back there.

    The trunk NIC is plugged in after the snapshot, and again after each restore: one that QEMU restores together
    with its tap no longer receives.
    """
    files = HostFiles.of(places, host.name)
    host = qemu.start(places, host)
    wait_booted(places, host)
    for template in templates:
        ssh.copy_to(places, host.name, template, TEMPLATES)
    qemu.save_snapshot(files, SNAPSHOT)
    qemu.plug_trunk_nic(files, host)
    wait_trunk(places, host)
    settle(files)
    hosts.save(places, dataclasses.replace(host, saved=True))


def boot(places: Places, host: Host) -> None:
    """Boot a host from its disks as they are now, unless it is up."""
    files = HostFiles.of(places, host.name)
    if hosts.is_up(files):
        return
    qemu.cut(files)  # an interrupted command may have left it half started
    host = qemu.start(places, host, with_trunk_nic=True)
    wait_booted(places, host)
    wait_trunk(places, host)
    settle(files)


def restore(places: Places, host: Host) -> None:
    """Put a host back to where `first_boot` saved it, whatever state it is in."""
    need_saved(host)
    files = HostFiles.of(places, host.name)
    qemu.cut(files)
    host = qemu.start(places, host, snapshot=SNAPSHOT)
    qemu.plug_trunk_nic(files, host)
    wait_trunk(places, host, first=SET_CLOCK)
    settle(files)


def need_saved(host: Host) -> None:
    """Refuse a host whose first boot was interrupted: nobody knows what is on its disks."""
    if not host.saved:
        raise LabError(f"the first boot of {host.name} was interrupted", "lab/up makes the host anew")


def settle(files: HostFiles) -> None:
    """Note that the host's start was followed to its end."""
    files.settled.write_text(str(hosts.running_pid(files)))


def wait_booted(places: Places, host: Host) -> None:
    """Wait until systemd calls the boot finished, as `running` or `degraded`."""
    wait(places, host, BOOTED, BOOT_SECONDS)


def wait_trunk(places: Places, host: Host, *, first: str = "true") -> None:
    """Wait until the host has its address on the trunk."""
    here = f"ip -4 -o address show dev eth1 2>/dev/null | grep -qF ' {host.trunk_address}/'"
    wait(places, host, f"{first}; until {here}; do sleep 0.1; done", RESTORE_SECONDS)


def wait(places: Places, host: Host, script: str, timeout: float) -> None:
    """Run a script on a host that comes up, until it succeeds."""
    files = HostFiles.of(places, host.name)
    try:
        ssh.wait(places, host, script, timeout=timeout, alive=lambda: hosts.running_pid(files) is not None)
    except LabError as error:
        hint = f"the end of its console ({files.console}):\n{files.console_tail()}"
        raise LabError(f"{host.name}: {error.message}", hint) from error

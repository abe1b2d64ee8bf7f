"""Make a layer: install vs-tools once, as a user would, on a host that then gives up its identity and its disks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from lab import boot, cache, qemu, ssh
from lab.command import LabError, run
from lab.host import BUILDER, Host, HostFiles
from lab.image import Image
from lab.layer import PLACE, About, Checkout, Layer, parent
from lab.places import Places, locked

INSTALL_SECONDS = 1800.0  # Debian and Python packages, emulated
MEMORY = 1024  # MiB
# What the builder knows of itself, and what a first boot makes anew. The journal lets go of its files first; the
# random seed is written when its unit stops.
GIVE_UP_IDENTITY = """set -e
systemctl stop systemd-random-seed.service
journalctl --relinquish-var
rm -rf /var/lib/systemd/random-seed /var/log/journal/* /var/lib/lab-first-boot.done /var/lib/dbus/machine-id
rm -rf /etc/ssh/ssh_host_* /etc/ssh/ssh_known_hosts /root/.ssh /root/.bash_history
: > /etc/machine-id
apt-get clean
sync
fstrim -a || true
"""


def installed(places: Places, image: Image, accelerator: str, checkout: Checkout, say: Callable[[str], None]) -> Layer:
    """The layer with this checkout on this image, built now unless it is in the cache."""
    about = About(image.folder.name, checkout.base, checkout.digest)
    layer = Layer(places.layers / about.name)
    with locked(places, cache.LOCK):
        if not layer.folder.exists():
            build(places, image, accelerator, checkout, about, say)
            cache.prune(places)
        cache.touch(layer.folder)
    return layer


def build(
    places: Places, image: Image, accelerator: str, checkout: Checkout, about: About, say: Callable[[str], None]
) -> None:
    """Build a layer; it is in the cache by one rename, after the builder has switched itself off."""
    start_from = newest_parent(places, about)
    say(f"installing vs-tools ({f'an update of {start_from.folder.name}' if start_from else 'minutes'})")
    fresh = Host(BUILDER, image.folder.name, "", MEMORY, qemu.free_port(), accelerator)
    host = boot.create(places, fresh, image, start_from, new_data=True)
    files = HostFiles.of(places, host.name)
    try:
        host = qemu.start(places, host)
        boot.wait_booted(places, host)
        install(places, host, checkout)
        qemu.shut_down(files, timeout=boot.POWER_OFF_SECONDS)
        if start_from:  # a layer lies on the image alone, so that each can be pruned on its own
            run(["qemu-img", "rebase", "-b", str(image.root), "-F", "raw", str(files.root)], timeout=600)
        keep(files, places.layers / about.name, about)
    finally:
        boot.remove(files)


def install(places: Places, host: Host, checkout: Checkout) -> None:
    """Bring the checkout to the builder, run install.sh there, and make the builder nobody."""
    ssh.send(places, host.name, f"rm -rf /{PLACE}; tar -x -m -C /", checkout.archive())
    done = ssh.call(places, host.name, f"cd /{PLACE} && ./install.sh", timeout=INSTALL_SECONDS)
    if done.returncode != 0:
        words = (done.stdout + done.stderr).strip().splitlines()[-20:]
        raise LabError(f"install.sh ended with {done.returncode} on the builder", "\n".join(words))
    ssh.check(places, host.name, GIVE_UP_IDENTITY)


def keep(files: HostFiles, folder: Path, about: About) -> None:
    """Put the disks of a builder that is off into the cache."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Layer(folder.with_name(f".{folder.name}"))
    shutil.rmtree(made.folder, ignore_errors=True)
    made.folder.mkdir()
    shutil.move(files.root, made.root)
    shutil.move(files.data, made.data)
    made.describe(about)
    made.folder.rename(folder)


def newest_parent(places: Places, wanted: About) -> Layer | None:
    """The layer in the cache that an update can start from."""
    folders = sorted(cache.entries(places.layers).values(), key=lambda path: path.stat().st_mtime, reverse=True)
    found = parent([Layer(folder).about for folder in folders], wanted)
    return Layer(places.layers / found.name) if found else None

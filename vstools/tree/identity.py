"""What must differ between guests, and what a guest must not try: written into a tree that is not running.

The tree may be hostile: every path is resolved inside it (inside.py).
"""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from vstools import run
from vstools.errors import VsError
from vstools.guest import IDS, Guest, Names
from vstools.inside import Inside
from vstools.render import render

SSH_KEYS = ("ecdsa", "ed25519")  # RSA would cost more than all the rest; no client of this decade needs it
MASKED_UNITS = (
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-networkd-wait-online.service",
    "systemd-resolved.service",
    "NetworkManager.service",
    "networking.service",
    "ifup@.service",
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udev-trigger.service",
    "systemd-udev-settle.service",
)
"""Units of a tree that would configure links or devices, which belong to the host."""

SKELETON = (
    ("dev", 0o755), ("etc", 0o755), ("home", 0o755), ("mnt", 0o755), ("proc", 0o555), ("root", 0o700),
    ("run", 0o755), ("srv", 0o755), ("sys", 0o555), ("tmp", 0o1777), ("usr", 0o755), ("var", 0o755),
    ("var/log", 0o755), ("var/tmp", 0o1777),
)  # fmt: skip
_INTERFACES = "# The host owns this guest's links, addresses and routes: nothing is configured from here.\n"


@dataclass(frozen=True)
class Wishes:
    """What a new guest's tree is given beside its identity."""

    timezone: str
    locale: str
    ssh_keys: tuple[str, ...] = ()


@contextmanager
def new_ssh_host_keys(comment: str, folder: Path) -> Iterator[Callable[[], Path]]:
    """Make ssh host keys beside other work: the guest needs no program and no first boot for them.

    ``folder`` is made for them and removed at the end. Gives a function that waits for the keys and returns it.
    """
    folder.mkdir(mode=0o700)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        makers = [
            stack.enter_context(
                run.piped(
                    ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", f"root@{comment}", "-f", f"{folder}/{kind}"],
                    stdout=run.DEVNULL,
                )
            )
            for kind in SSH_KEYS
        ]

        def ready() -> Path:
            for maker in makers:
                if (words := maker.finish()) is not None:
                    raise VsError("no ssh host keys could be made", words)
            return folder

        yield ready


def skeleton(tree: Inside) -> None:
    """The minimal directories of a tree that something else will fill."""
    for name, mode in SKELETON:
        tree.directory(name, mode)


def personalize(tree: Inside, guest: Guest, names: Names, wishes: Wishes, keys: Path) -> None:
    """Make an unpacked tree this guest's own; ``keys`` holds new ssh host keys (``new_ssh_host_keys``)."""
    _forget(tree)
    write_names(tree, guest, names)
    harmless_network(tree)
    no_kernel_units(tree)
    _time_and_language(tree, wishes)
    _lock_root(tree)
    console_of_sysvinit(tree)
    if wishes.ssh_keys:
        tree.directory("root/.ssh", 0o700)
        tree.write("root/.ssh/authorized_keys", "".join(f"{key}\n" for key in wishes.ssh_keys), 0o600)
    _ssh_host_keys(tree, keys)


def write_names(tree: Inside, guest: Guest, names: Names) -> None:
    """hostname, hosts and resolv.conf, as networks.conf has them now (also done at each start)."""
    addresses = tuple(nic.address for nic in guest.nics if not nic.disabled)
    short = guest.nodename.partition(".")[0]
    full = guest.nodename if "." in guest.nodename or not names.domain else f"{guest.nodename}.{names.domain}"
    aliases = " ".join(dict.fromkeys((full, guest.nodename, short)))
    tree.write("etc/hostname", f"{guest.nodename}\n")
    tree.write("etc/hosts", render("hosts", addresses=addresses, names=aliases))
    tree.write("etc/resolv.conf", render("resolv.conf", domain=names.domain, nameservers=names.nameservers))


def _forget(tree: Inside) -> None:
    """Remove what identified the system that the template was made from."""
    if tree.exists("etc/machine-id") or tree.exists("etc/systemd"):
        tree.write("etc/machine-id", "", 0o444)  # empty: systemd makes one at the first boot
    tree.remove("var/lib/dbus/machine-id")
    tree.remove("var/lib/systemd/random-seed")
    tree.remove("var/lib/systemd/credential.secret")
    for name in tree.names("etc/ssh"):
        if name.startswith("ssh_host_"):
            tree.remove(f"etc/ssh/{name}")


def harmless_network(tree: Inside) -> None:
    """No configuration of links is left in the tree."""
    if tree.exists("etc/network"):
        tree.write("etc/network/interfaces", _INTERFACES)
    for name in tree.names("etc/systemd/network"):
        if name.endswith((".network", ".netdev", ".link")):
            tree.remove(f"etc/systemd/network/{name}")
    for name in tree.names("etc/netplan"):
        tree.remove(f"etc/netplan/{name}")


def no_kernel_units(tree: Inside) -> None:
    """systemd's units of links and devices are masked."""
    if not tree.exists("etc/systemd/system"):
        return
    for unit in MASKED_UNITS:
        tree.link(f"etc/systemd/system/{unit}", "/dev/null")


def _time_and_language(tree: Inside, wishes: Wishes) -> None:
    if tree.exists(f"usr/share/zoneinfo/{wishes.timezone}"):
        tree.link("etc/localtime", f"/usr/share/zoneinfo/{wishes.timezone}")
        tree.write("etc/timezone", f"{wishes.timezone}\n")
    text = f"LANG={wishes.locale}\n"
    tree.write("etc/locale.conf", text)
    if tree.exists("etc/default"):
        tree.link("etc/default/locale", "../locale.conf")


def _lock_root(tree: Inside) -> None:
    """root's password is locked, whatever the template said: no one knows it but the template's maker."""
    shadow, passwd = tree.read("etc/shadow"), tree.read("etc/passwd")
    if shadow is not None:
        tree.write("etc/shadow", _without_password(shadow, "*"), 0o640, group=_shadow_group(tree))
    if passwd is not None:
        tree.write("etc/passwd", _without_password(passwd, "*" if shadow is None else "x"))


def _without_password(text: str, word: str) -> str:
    """A passwd or shadow file (``man 5 passwd``) with ``word`` in root's second field."""
    lines = [line.split(":") for line in text.splitlines()]
    for fields in lines:
        if fields[0] == "root" and len(fields) > 1:
            fields[1] = word
    return "".join(":".join(fields) + "\n" for fields in lines)


def _shadow_group(tree: Inside) -> int:
    for line in (tree.read("etc/group") or "").splitlines():
        fields = line.split(":")
        if fields[0] == "shadow" and len(fields) > 2 and re.fullmatch("[0-9]{1,5}", fields[2]):
            return int(fields[2]) if int(fields[2]) < IDS else 0
    return 0


def console_of_sysvinit(tree: Inside) -> None:
    """A login on the console and no virtual terminals, where the init reads /etc/inittab."""
    inittab = tree.read("etc/inittab")
    if inittab is None:
        return
    lines = [line for line in inittab.splitlines() if ":respawn:/sbin/getty" not in line and line[:3] != "co:"]
    lines.append("co:2345:respawn:/sbin/getty 38400 console")
    tree.write("etc/inittab", "\n".join(lines) + "\n")


def _ssh_host_keys(tree: Inside, folder: Path) -> None:
    if not tree.exists("etc/ssh/sshd_config"):
        return
    for kind in SSH_KEYS:
        tree.write(f"etc/ssh/ssh_host_{kind}_key", (folder / kind).read_text(), 0o600)
        tree.write(f"etc/ssh/ssh_host_{kind}_key.pub", (folder / f"{kind}.pub").read_text(), 0o644)

"""Who a host is: its name, addresses and keys, as one archive that it unpacks over / at its first boot.

QEMU hands the archive over as a firmware file (docs/specs/fw_cfg.txt), so neither image nor layer holds a secret or
the trace of one particular host. All hosts know each other's host keys from the start, and one key opens root on
all of them: ssh between hosts works by name, with strict checking. The keys are as old as the lab and go with it.
"""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass

from lab.command import run
from lab.host import BUILDER, MANAGEMENT, MOST, Host, name_of, trunk_address_of
from lab.places import Places

FIRMWARE_FILE = "opt/vs-tools-lab/identity"
ROOT_KEY = "root"
NUMBERS = (*range(MOST), BUILDER)


@dataclass(frozen=True)
class File:
    """A file of an archive."""

    content: bytes
    mode: int = 0o644


def archive(files: Mapping[str, File]) -> bytes:
    """A tar archive of files that belong to root; the same files always give the same bytes."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path, file in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(file.content), file.mode
            tar.addfile(entry, io.BytesIO(file.content))
    return made.getvalue()


def make_keys(places: Places) -> None:
    """Make all keys of the lab at once, unless they are there."""
    if places.keys.exists():
        return
    scratch = places.keys.with_suffix(".new")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    for name in (ROOT_KEY, *map(name_of, NUMBERS)):
        comment = f"{name} of a vs-tools lab"
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(scratch / name)])
    (scratch / "known_hosts").write_text(known_hosts({n: (scratch / f"{name_of(n)}.pub").read_text() for n in NUMBERS}))
    scratch.rename(places.keys)


def known_hosts(public_keys: Mapping[int, str]) -> str:
    """Host number -> public key line, as the text of a known_hosts file: by name and by address on the trunk."""
    lines = []
    for number, line in public_keys.items():
        kind, key = line.split()[:2]
        lines.append(f"{name_of(number)},{trunk_address_of(number)} {kind} {key}\n")
    return "".join(lines)


def identity(host: Host, keys: Mapping[str, bytes]) -> dict[str, File]:
    """All files that make a fresh host this one; keys are the files of `Places.keys` by name."""
    return {
        "etc/hostname": File(f"{host.name}\n".encode()),
        "etc/hosts": File(hosts_text().encode()),
        "etc/resolv.conf": File(f"nameserver {MANAGEMENT}.3\n".encode()),
        "etc/network/interfaces": File(interfaces_text(host).encode()),
        "etc/ssh/ssh_host_ed25519_key": File(keys[host.name], 0o600),
        "etc/ssh/ssh_host_ed25519_key.pub": File(keys[f"{host.name}.pub"]),
        "etc/ssh/ssh_known_hosts": File(keys["known_hosts"]),
        "root/.ssh/id_ed25519": File(keys[ROOT_KEY], 0o600),
        "root/.ssh/id_ed25519.pub": File(keys[f"{ROOT_KEY}.pub"]),
        "root/.ssh/authorized_keys": File(keys[f"{ROOT_KEY}.pub"], 0o600),
    }


def hosts_text() -> str:
    """/etc/hosts: every host there can be, by its address on the trunk."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    lines += [f"{trunk_address_of(number)} {name_of(number)}" for number in NUMBERS]
    return "".join(f"{line}\n" for line in lines)


def interfaces_text(host: Host) -> str:
    """/etc/network/interfaces: ifupdown, as Debian's installer sets up a server."""
    return f"""\
# eth0 is the way out, for packages and for lab/ssh; eth1 is the trunk between the hosts, its untagged frames are ours.
auto lo
iface lo inet loopback

auto eth0
iface eth0 inet static
    address {MANAGEMENT}.15/24
    gateway {MANAGEMENT}.2

allow-hotplug eth1
iface eth1 inet static
    address {host.trunk_address}/24
"""


def read_keys(places: Places) -> dict[str, bytes]:
    """The files of `Places.keys` by name."""
    return {path.name: path.read_bytes() for path in places.keys.iterdir()}

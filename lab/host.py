"""One host of the lab: its names, addresses and files, and what one command leaves for the next."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lab.command import LabError
from lab.places import Places

MANAGEMENT = "10.99.0"  # QEMU's user network, the same and private for each host; its default would be 10.0.2
TRUNK = "10.99.1"  # untagged addresses on the trunk: host N has .10+N
MOST = 10
BUILDER = 99  # the host that a layer is made in


def name_of(number: int) -> str:
    """vsh-00 is the pool's master."""
    return "builder" if number == BUILDER else f"vsh-{number:02d}"


def trunk_address_of(number: int) -> str:
    """Where the other hosts find host number `number`."""
    return f"{TRUNK}.{10 + number}"


class Origin(NamedTuple):
    """What a host was made from."""

    image: str
    layer: str
    memory: int
    templates: str = ""


@dataclass(frozen=True)
class Host:
    """A host as it was brought up; everything here survives its power cuts."""

    number: int
    image: str  # directory of the image in the cache
    layer: str  # directory of the layer in the cache, empty on a bare host
    memory: int  # MiB
    port: int  # of 127.0.0.1, leads to the host's ssh
    accelerator: str
    templates: str = ""  # names and sizes of the templates that were brought to it
    saved: bool = False  # whether its disks hold the snapshot of its first boot

    @property
    def name(self) -> str:
        """The host's name, as itself and the other hosts know it."""
        return name_of(self.number)

    @property
    def origin(self) -> Origin:
        """What the host was made from."""
        return Origin(self.image, self.layer, self.memory, self.templates)

    @property
    def trunk_address(self) -> str:
        """Where the other hosts find it."""
        return trunk_address_of(self.number)


@dataclass(frozen=True)
class HostFiles:
    """The files of one host below the lab's state directory."""

    folder: Path

    @classmethod
    def of(cls, places: Places, name: str) -> HostFiles:
        """The files of the host called name."""
        return cls(places.state / name)

    @property
    def root(self) -> Path:
        """The root disk, an overlay on the image or the layer."""
        return self.folder / "root.qcow2"

    @property
    def data(self) -> Path:
        """The data disk with the volume group."""
        return self.folder / "data.qcow2"

    @property
    def qmp(self) -> Path:
        """QEMU's control socket."""
        return self.folder / "qmp.sock"

    @property
    def pid(self) -> Path:
        """QEMU's process id; QEMU removes it when it ends by itself."""
        return self.folder / "qemu.pid"

    @property
    def console(self) -> Path:
        """All that ever came out of the serial console."""
        return self.folder / "console.log"

    @property
    def identity(self) -> Path:
        """The archive that the host unpacks at its first boot."""
        return self.folder / "identity.tar"

    @property
    def ssh_config(self) -> Path:
        """The host's own part of the lab's ssh_config."""
        return self.folder / "ssh_config"

    @property
    def settled(self) -> Path:
        """The id of the QEMU process that came up in full: what an interrupted command started has none."""
        return self.folder / "settled"

    @property
    def record(self) -> Path:
        """The Host itself."""
        return self.folder / "host.json"

    def console_tail(self, lines: int = 20) -> str:
        """The console's last lines, for error messages."""
        if not self.console.exists():
            return ""
        return "\n".join(self.console.read_text(errors="replace").splitlines()[-lines:])


def save(places: Places, host: Host) -> None:
    """Remember host for the next command; never half, wherever this one is killed."""
    record = HostFiles.of(places, host.name).record
    scratch = record.with_suffix(".new")
    scratch.write_text(json.dumps(dataclasses.asdict(host)) + "\n")
    scratch.replace(record)


def load_all(places: Places) -> list[Host]:
    """Every host of the lab, by number; none when the lab is down."""
    records = sorted(places.state.glob("vsh-*/host.json"))
    return [Host(**json.loads(path.read_text())) for path in records]


def load(places: Places, name: str) -> Host:
    """The host called name."""
    hosts = load_all(places)
    for host in hosts:
        if host.name == name:
            return host
    known = ", ".join(host.name for host in hosts)
    raise LabError(f"the lab has no host {name}", f"it has: {known}" if known else "bring it up with lab/up")


def running_pid(files: HostFiles) -> int | None:
    """The id of the host's QEMU process, None if it is off.

    A process id left over by a crash may be somebody else's by now: the command line has to name our directory.
    """
    try:
        pid = int(files.pid.read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(files.pid) in words.split(b"\0") else None


def is_up(files: HostFiles) -> bool:
    """Whether the host runs and its start was followed to the end."""
    pid = running_pid(files)
    return pid is not None and files.settled.exists() and files.settled.read_text() == str(pid)

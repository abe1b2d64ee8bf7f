"""Things that several tests need, made in one line."""

import os
import stat
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from vstools.config import guests
from vstools.guest import Guest, Nic
from vstools.paths import Paths

DATA = Path(__file__).parent / "data"
REPO = Path(__file__).parents[2]


def nic(address: str, key: str = "0", **more: Any) -> Nic:
    """One address of a guest."""
    return Nic(key, ip_address(address), **more)


def guest(name: str = "web", context: int = 10000, **more: Any) -> Guest:
    """A guest; without further words it has no address and no limits."""
    return Guest(**{"name": name, "context": context, "nodename": name, **more})


def saved(paths: Paths, made: Guest) -> Guest:
    """The guest, written below /etc/vservers."""
    guests.save(paths.config_of(made.name), made)
    return made


def below(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Everything below a directory, links not followed: name -> (kind and mode, content or target)."""
    found: dict[str, tuple[str, bytes]] = {}
    for where, directories, files in os.walk(folder):
        for name in (*directories, *files):
            path = Path(where, name)
            mode = path.lstat().st_mode
            content = b""
            if stat.S_ISREG(mode):
                content = path.read_bytes()
            elif stat.S_ISLNK(mode):
                content = os.fsencode(path.readlink())
            found[str(path.relative_to(folder))] = (stat.filemode(mode), content)
    return found


def written(config: Path, made: Guest) -> set[str]:
    """The files that saving the guest wrote or removed."""
    before = _inodes(config)
    guests.save(config, made)
    after = _inodes(config)
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def _inodes(config: Path) -> dict[str, int]:
    """A file that is written is another file afterwards: it is replaced whole."""
    names = [name for name, (kind, _) in below(config).items() if kind.startswith("-")]
    return {name: (config / name).stat().st_ino for name in names}

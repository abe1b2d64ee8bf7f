"""/etc/vservers/NAME <-> Guest, in util-vserver's layout: one value a file, a boolean is a file's existence.

Sources of the format: util-vserver's "configuration layout" page and its 2008 use in VS-Tools. Reading and writing
back changes no byte: a file is written only when its value changed, and files that are not ours are never touched.
"""

import os
import re
import shutil
from pathlib import Path

from vstools.config import limits
from vstools.config.create import parse_nameservers
from vstools.config.registry import MARK, STORAGE, exists, is_enabled, names, require
from vstools.config.text import Faults, whole_number
from vstools.config.values import Reader, update
from vstools.faults import checkpoint
from vstools.files import directory, sync_directory
from vstools.guest import (
    Guest,
    Limits,
    Nic,
    bracketed,
    check_context,
    check_name,
    parse_address,
    parse_device,
    parse_domain,
    parse_mac,
    parse_nodename,
    parse_volume,
)
from vstools.libc import exchange
from vstools.paths import STAGED, Paths

__all__ = [
    "addresses_in_use", "contexts_in_use", "exists", "is_enabled", "load", "names", "read", "require",
    "save", "set_enabled",
]  # fmt: skip

_DOMAIN, _NAMESERVERS = "domain", "nameservers"
NICS = "interfaces"
ACCEPT_RA = "accept_ra"


def set_enabled(config: Path, enabled: bool) -> None:
    """Write or remove ``apps/init/mark``."""
    update(config, MARK, is_enabled(config), enabled, "default" if enabled else None)


def load(paths: Paths, name: str) -> Guest:
    """Read a guest of this host; raises Refused (unknown) or BadFiles."""
    require(paths, name)
    faults = Faults()
    guest = read(paths.config_of(name), name, faults)
    faults.check()
    return guest


def read(config: Path, name: str, faults: Faults) -> Guest:
    """Read one guest's directory; what is wrong is added to ``faults``, and a default taken in its place."""
    value = Reader(config, faults)
    context = value.get("context", lambda text: check_context(whole_number(0, 1 << 32)(text)))
    if context is None and not (config / "context").exists():
        faults.add(config / "context", 1, 1, "the file is missing: every guest has a context")
    return Guest(
        name=name,
        context=context or 2,
        nodename=value.get("uts/nodename", parse_nodename) or name,
        nics=nics(config, faults),
        limits=limits.read(value, faults),
        enabled=is_enabled(config),
        depends=value.get("apps/init/depends", _parse_depends) or (),
        domain=value.get(_DOMAIN, parse_domain),
        nameservers=value.get(_NAMESERVERS, parse_nameservers) or (),
        volume=value.get(STORAGE, parse_volume),
    )


def save(config: Path, guest: Guest) -> None:
    """Make the directory tell ``guest``: only files whose value differs are written."""
    directory(config, 0o755)
    faults = Faults()
    old = read(config, guest.name, faults) if (config / "context").exists() else None
    update(config, "context", old and old.context, guest.context, str(guest.context))
    update(config, "name", old and old.name, guest.name, guest.name)
    update(config, "uts/nodename", old and old.nodename, guest.nodename, guest.nodename)
    update(config, MARK, old is not None and old.enabled, guest.enabled, "default" if guest.enabled else None)
    update(config, "apps/init/depends", old.depends if old else (), guest.depends, "\n".join(guest.depends) or None)
    update(config, _DOMAIN, old and old.domain, guest.domain, guest.domain)
    update(config, STORAGE, old and old.volume, guest.volume, str(guest.volume) if guest.volume else None)
    servers = "\n".join(str(server) for server in guest.nameservers)
    update(config, _NAMESERVERS, old.nameservers if old else (), guest.nameservers, servers or None)
    if (old.nics if old else ()) != guest.nics:
        _save_nics(config, guest, old)
    limits.save(config, guest.name, old.limits if old else Limits(), guest.limits)


def _save_nics(config: Path, guest: Guest, old: Guest | None) -> None:
    """Exchange all of a guest's interfaces at once: who is killed, or finds the disk full, leaves those of before."""
    there, new = config / NICS, config / f".{NICS}~"
    shutil.rmtree(new, ignore_errors=True)
    try:
        if there.is_dir():
            shutil.copytree(there, new, symlinks=True, copy_function=os.link)
        directory(new)
        kept = {nic.key for nic in guest.nics}
        for gone in (nic.key for nic in (old.nics if old else ()) if nic.key not in kept):
            shutil.rmtree(new / gone)
        for nic in guest.nics:
            _save_nic(new / nic.key, nic, old)
        for folder in (*(entry for entry in new.iterdir() if entry.is_dir()), new):
            sync_directory(folder)
        checkpoint("save:interfaces")
        if there.is_dir():
            exchange(new, there)
        else:
            new.rename(there)
        sync_directory(config)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _save_nic(folder: Path, nic: Nic, old: Guest | None) -> None:
    was = next((other for other in (old.nics if old else ()) if other.key == nic.key), None)
    update(folder, "ip", was and was.address, nic.address, str(nic.address))
    update(folder, "prefix", was and was.prefix, nic.prefix, str(nic.prefix) if nic.prefix is not None else None)
    update(folder, "dev", was and was.device, nic.device, nic.device)
    update(folder, "mac", was and was.mac, nic.mac, nic.mac)
    update(folder, "name", was and was.name, nic.name, nic.name)
    update(folder, "disabled", was is not None and was.disabled, nic.disabled, "" if nic.disabled else None)
    update(folder, ACCEPT_RA, was is not None and was.accept_ra, nic.accept_ra, "" if nic.accept_ra else None)


def _parse_depends(text: str) -> tuple[str, ...]:
    return tuple(check_name(word, imported=True) for word in text.split())


def nics(config: Path, faults: Faults, folder: str = NICS) -> tuple[Nic, ...]:
    """The interfaces that a guest's directory tells, in a directory of it."""
    try:
        keys = [entry.name for entry in (config / folder).iterdir() if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return ()
    found = (_read_nic(config / folder / key, faults) for key in sorted(keys, key=natural))
    return tuple(nic for nic in found if nic is not None)


def natural(key: str) -> tuple[int, str]:
    """The order of a guest's interfaces: numbers by their value, other keys behind them."""
    return (int(key), "") if re.fullmatch("[0-9]{1,9}", key) else (1 << 31, key)


def _read_nic(folder: Path, faults: Faults) -> Nic | None:
    value = Reader(folder, faults)
    address = value.get("ip", lambda text: parse_address(text.strip("[]")))
    if address is None:
        if not (folder / "ip").exists():
            faults.add(folder / "ip", 1, 1, "the file is missing: an interface has an address")
        return None
    return Nic(
        key=folder.name,
        address=address,
        prefix=value.get("prefix", whole_number(1, 32 if address.version == 4 else 128)),
        device=value.get("dev", parse_device),
        mac=value.get("mac", parse_mac),
        name=value.get("name", str),
        disabled=(folder / "disabled").exists(),
        accept_ra=(folder / ACCEPT_RA).exists(),
    )


def addresses_in_use(paths: Paths) -> dict[str, str]:
    """Every address of every guest of this host (and of those being made), with the guest's name."""
    used: dict[str, str] = {}
    for config in sorted(paths.guests.glob("*")):
        for nic in nics(config, Faults()):
            used.setdefault(bracketed(nic.address), config.name.removeprefix(STAGED))
    return used


def contexts_in_use(paths: Paths, but: str = "") -> dict[int, str]:
    """Every context of this host (also of guests being made) with its guest's name; the guest ``but`` is left out."""
    used: dict[int, str] = {}
    for config in sorted(paths.guests.glob("*")):
        name = config.name.removeprefix(STAGED)
        context = Reader(config, Faults()).get("context", whole_number(0, 1 << 32))
        if context is not None and name != but:
            used.setdefault(context, name)
    return used

"""/etc/vservers/NAME <-> Guest, in util-vserver's layout: one value a file, a boolean is a file's existence.

Sources of the format: util-vserver's "configuration layout" page and its 2008 use in VS-Tools. In util-vserver
memory limits count pages of 4 KiB, and a suffix K or M counts 1024 or 1024^2 *pages*; they are converted here and
nowhere else. Reading and writing back changes no byte: a file is written only when its value changed, and files
that are not ours are never touched.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from vstools.config.create import parse_nameservers
from vstools.config.registry import MARK, exists, is_enabled, names, require
from vstools.config.text import LIMIT, Faults, whole_number
from vstools.errors import VsError
from vstools.files import directory, read_bounded, write
from vstools.guest import (
    MIB_MAX,
    Cpu,
    Guest,
    Limits,
    Nic,
    bracketed,
    check_context,
    check_name,
    parse_address,
    parse_device,
    parse_domain,
    parse_limit,
    parse_mac,
    parse_nodename,
)
from vstools.paths import STAGED, Paths

__all__ = [
    "addresses_in_use", "contexts_in_use", "exists", "is_enabled", "load", "names", "read", "require",
    "save", "set_enabled",
]  # fmt: skip

T = TypeVar("T")
PAGES_PER_MIB = 256
_PAGE_SUFFIX = {"": 1, "K": 1024, "M": 1024**2}
_TMP_LINE = re.compile(r"^[ \t]*[^\s#]\S*[ \t]+/tmp[ \t]+tmpfs[ \t]+(?P<options>\S+)", re.MULTILINE)
_SIZE = re.compile(r"(?:^|,)size=(?P<number>[0-9]+)(?P<unit>[kKmMgG]?)(?=,|$)")
_NEW_FSTAB_LINE = "none\t/tmp\ttmpfs\tsize={size}m,mode=1777\t0 0\n"
_DOMAIN, _NAMESERVERS = "domain", "nameservers"
ACCEPT_RA = "accept_ra"


def set_enabled(config: Path, enabled: bool) -> None:
    """Write or remove ``apps/init/mark``."""
    _update(config, MARK, is_enabled(config), enabled, "default" if enabled else None)


def load(paths: Paths, name: str) -> Guest:
    """Read a guest of this host; raises Refused (unknown) or BadFiles."""
    require(paths, name)
    faults = Faults()
    guest = read(paths.config_of(name), name, faults)
    faults.check()
    return guest


def read(config: Path, name: str, faults: Faults) -> Guest:
    """Read one guest's directory; what is wrong is added to ``faults``, and a default taken in its place."""
    value = _Reader(config, faults)
    context = value.get("context", lambda text: check_context(whole_number(0, 1 << 32)(text)))
    if context is None and not (config / "context").exists():
        faults.add(config / "context", 1, 1, "the file is missing: every guest has a context")
    return Guest(
        name=name,
        context=context or 2,
        nodename=value.get("uts/nodename", parse_nodename) or name,
        nics=_read_nics(config, faults),
        limits=_read_limits(config, faults),
        enabled=is_enabled(config),
        depends=value.get("apps/init/depends", _parse_depends) or (),
        domain=value.get(_DOMAIN, parse_domain),
        nameservers=value.get(_NAMESERVERS, parse_nameservers) or (),
    )


def save(config: Path, guest: Guest) -> None:
    """Make the directory tell ``guest``: only files whose value differs are written."""
    directory(config, 0o755)
    faults = Faults()
    old = read(config, guest.name, faults) if (config / "context").exists() else None
    _update(config, "context", old and old.context, guest.context, str(guest.context))
    _update(config, "name", old and old.name, guest.name, guest.name)
    _update(config, "uts/nodename", old and old.nodename, guest.nodename, guest.nodename)
    _update(config, MARK, old is not None and old.enabled, guest.enabled, "default" if guest.enabled else None)
    _update(config, "apps/init/depends", old.depends if old else (), guest.depends, "\n".join(guest.depends) or None)
    _update(config, _DOMAIN, old and old.domain, guest.domain, guest.domain)
    servers = "\n".join(str(server) for server in guest.nameservers)
    _update(config, _NAMESERVERS, old.nameservers if old else (), guest.nameservers, servers or None)
    kept = {nic.key for nic in guest.nics}
    for gone in (nic.key for nic in (old.nics if old else ()) if nic.key not in kept):
        shutil.rmtree(config / "interfaces" / gone)
    for nic in guest.nics:
        _save_nic(config / "interfaces" / nic.key, nic, old)
    _save_limits(config, guest.name, old.limits if old else Limits(), guest.limits)


def _save_nic(folder: Path, nic: Nic, old: Guest | None) -> None:
    was = next((other for other in (old.nics if old else ()) if other.key == nic.key), None)
    _update(folder, "ip", was and was.address, nic.address, str(nic.address))
    _update(folder, "prefix", was and was.prefix, nic.prefix, str(nic.prefix) if nic.prefix is not None else None)
    _update(folder, "dev", was and was.device, nic.device, nic.device)
    _update(folder, "mac", was and was.mac, nic.mac, nic.mac)
    _update(folder, "name", was and was.name, nic.name, nic.name)
    _update(folder, "disabled", was is not None and was.disabled, nic.disabled, "" if nic.disabled else None)
    _update(folder, ACCEPT_RA, was is not None and was.accept_ra, nic.accept_ra, "" if nic.accept_ra else None)


def _save_limits(config: Path, name: str, old: Limits, new: Limits) -> None:
    rss = None if new.rss is None else str(new.rss * PAGES_PER_MIB)
    _update(config, "rlimits/rss", old.rss, new.rss, rss)
    _update(config, "rlimits/nproc", old.proc, new.proc, None if new.proc is None else str(new.proc))
    rate, interval = (str(new.cpu.rate), str(new.cpu.interval)) if new.cpu else (None, None)
    _update(config, "sched/fill-rate", old.cpu and old.cpu.rate, new.cpu and new.cpu.rate, rate)
    _update(config, "sched/interval", old.cpu and old.cpu.interval, new.cpu and new.cpu.interval, interval)
    disk = None if new.disk is None else str(new.disk * 1024)
    _update(config, "dlimits/0/space_total", old.disk, new.disk, disk)
    if disk is not None and not (config / "dlimits/0/directory").exists():
        _update(config, "dlimits/0/directory", None, True, f"/var/lib/vservers/{name}")
    if old.tmpfs != new.tmpfs:
        _save_tmpfs(config / "fstab", new.tmpfs)


def _save_tmpfs(path: Path, size: int | None) -> None:
    """Change the ``size=`` of fstab's /tmp line, or add or drop the line; all else stays as it is."""
    text = path.read_bytes().decode("utf-8", "surrogateescape") if path.exists() else ""
    match = _TMP_LINE.search(text)
    if size is None:
        text = "".join(line for line in text.splitlines(keepends=True) if not _TMP_LINE.match(line))
    elif match is None:
        text += ("\n" if text and not text.endswith("\n") else "") + _NEW_FSTAB_LINE.format(size=size)
    else:
        options, found = re.subn(r"(^|,)size=[^,]*", rf"\g<1>size={size}m", match["options"], count=1)
        if not found:
            options = f"size={size}m,{options}"
        text = text[: match.start("options")] + options + text[match.end("options") :]
    write(path, text)


def _update(folder: Path, relative: str, old: object, new: object, text: str | None) -> None:
    """Write ``text`` (None: remove the file) when the value changed; the same value may be written in many ways."""
    path = folder / relative
    if old == new:
        return
    if text is None:
        path.unlink(missing_ok=True)
    else:
        directory(path.parent, 0o755)
        write(path, f"{text}\n" if text else "")


class _Reader:
    """Reads one-value files of one directory."""

    def __init__(self, folder: Path, faults: Faults) -> None:
        self.folder, self.faults = folder, faults

    def get(self, relative: str, parse: Callable[[str], T]) -> T | None:
        """The parsed value, or None where there is no file (or it is wrong: then a fault was added)."""
        path = self.folder / relative
        try:
            text = read_bounded(path, LIMIT).strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self.faults.add(path, 1, 1, f"the file cannot be read: {error.strerror}")
            return None
        except VsError as error:
            self.faults.add(path, 1, 1, error.message)
            return None
        return self.faults.attempt(path, 1, 1, parse, text)


def _parse_depends(text: str) -> tuple[str, ...]:
    return tuple(check_name(word, imported=True) for word in text.split())


def _read_nics(config: Path, faults: Faults) -> tuple[Nic, ...]:
    try:
        keys = [entry.name for entry in (config / "interfaces").iterdir() if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return ()
    nics = (_read_nic(config / "interfaces" / key, faults) for key in sorted(keys, key=natural))
    return tuple(nic for nic in nics if nic is not None)


def natural(key: str) -> tuple[int, str]:
    """The order of a guest's interfaces: numbers by their value, other keys behind them."""
    return (int(key), "") if re.fullmatch("[0-9]{1,9}", key) else (1 << 31, key)


def _read_nic(folder: Path, faults: Faults) -> Nic | None:
    value = _Reader(folder, faults)
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


def _read_limits(config: Path, faults: Faults) -> Limits:
    value = _Reader(config, faults)
    rate = value.get("sched/fill-rate", whole_number(1, 10**9))
    interval = value.get("sched/interval", whole_number(1, 10**9))
    if rate and interval and rate > interval:
        faults.add(config / "sched/fill-rate", 1, 1, f"{rate} is more than the interval {interval}")
    return Limits(
        rss=value.get("rlimits/rss", _parse_pages),
        disk=value.get("dlimits/0/space_total", _parse_kib),
        tmpfs=value.get("fstab", _parse_fstab),
        proc=value.get("rlimits/nproc", lambda text: parse_limit("inf" if text == "-1" else text)),
        cpu=Cpu(rate, interval) if rate and interval else None,
    )


def _parse_pages(text: str) -> int | None:
    """Pages of 4 KiB, K and M for 1024 and 1024^2 pages, ``inf`` or -1 -> MiB, rounded up."""
    if text in ("inf", "-1"):
        return None
    match = re.fullmatch(r"([0-9]{1,16})([KM]?)", text)
    if not match or int(match[1]) == 0:
        raise ValueError(f"{text!r} is not a number of 4 KiB pages")
    return _bounded(-(-int(match[1]) * _PAGE_SUFFIX[match[2]] // PAGES_PER_MIB), repr(text))


def _bounded(mib: int, text: str) -> int:
    if mib > MIB_MAX:
        raise ValueError(f"{text} is past what a kernel counts (2^63 bytes)")
    return mib


def _parse_kib(text: str) -> int | None:
    """KiB, ``inf`` or -1 -> MiB, rounded up."""
    if text in ("inf", "-1"):
        return None
    kib = whole_number(1, 1 << 53)(text)
    return -(-kib // 1024)


def _parse_fstab(text: str) -> int | None:
    """The size of /tmp in MiB (rounded up), None where fstab has no tmpfs there, or one without a size (0 is none)."""
    line = _TMP_LINE.search(text)
    size = _SIZE.search(line["options"]) if line else None
    if size is None or not int(size["number"]):
        return None
    units = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    return _bounded(-(-int(size["number"]) * units[size["unit"].lower()] >> 20), size.group().lstrip(","))


def addresses_in_use(paths: Paths) -> dict[str, str]:
    """Every address of every guest of this host (and of those being made), with the guest's name."""
    used: dict[str, str] = {}
    for config in sorted(paths.guests.glob("*")):
        for nic in _read_nics(config, Faults()):
            used.setdefault(bracketed(nic.address), config.name.removeprefix(STAGED))
    return used


def contexts_in_use(paths: Paths, but: str = "") -> dict[int, str]:
    """Every context of this host (also of guests being made) with its guest's name; the guest ``but`` is left out."""
    used: dict[int, str] = {}
    for config in sorted(paths.guests.glob("*")):
        name = config.name.removeprefix(STAGED)
        context = _Reader(config, Faults()).get("context", whole_number(0, 1 << 32))
        if context is not None and name != but:
            used.setdefault(context, name)
    return used

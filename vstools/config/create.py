"""/etc/vs-tools/create.conf: what a new guest gets where the command line does not say otherwise.

Shell-style ``KEY=VALUE`` lines of 2008. Nothing is executed or expanded. A value is quoted by ``'`` or ``"``, or
runs to the end of the line or to `` #``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vstools.config.text import Faults, lines_of, whole_number
from vstools.files import write
from vstools.guest import (
    Address,
    Cpu,
    Place,
    parse_address,
    parse_cpu,
    parse_device,
    parse_domain,
    parse_limit,
    parse_place,
)

AMONG_OTHERS = Place()


@dataclass(frozen=True)
class Reserve:
    """What stays free of a file system: MiB, or percent of it."""

    amount: int
    percent: bool = False

    def of(self, size: int) -> int:
        """Bytes, of a file system of so many bytes."""
        return size * self.amount // 100 if self.percent else min(size, self.amount << 20)


@dataclass(frozen=True)
class CreateConf:
    """The host's settings; limits in MiB or counts, None where there is none."""

    device: str | None = None
    mtu: int | None = None
    domain: str | None = None
    nameservers: tuple[Address, ...] = ()
    prefix: int | None = None
    disk: int | None = None
    rss: int | None = None
    tmpfs: int | None = None
    proc: int | None = None
    cpu: Cpu | None = None
    fake_os: str = ""
    context_method: str = "crit"
    method: str = "template"
    template: str = ""
    distro: str = ""
    main_mirror: str = ""
    update_mirror: str = ""
    timezone: str = "Etc/UTC"
    locale: str = "C.UTF-8"
    stop_timeout: int = 60
    firewall_backend: str = "auto"
    link: str = "auto"
    storage: Place = AMONG_OTHERS
    store: str = ""
    store_reserve: Reserve = Reserve(5, percent=True)
    monitor_smtp: str = ""
    backup_mailto: tuple[str, ...] = ("root",)
    pkg_proxy: str = ""
    pkg_hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setting:
    """One row: the key in the file, the field it fills, how its text is read, and what it means."""

    key: str
    field: str
    parse: Callable[[str], Any]
    help: str


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is not one of: {', '.join(words)}")
        return text

    return parse


def _pattern(pattern: str, what: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text) or ".." in text:
            raise ValueError(f"{text!r} is not {what}")
        return text

    return parse


def parse_nameservers(text: str) -> tuple[Address, ...]:
    """Addresses separated by spaces or commas."""
    return tuple(parse_address(word) for word in re.split(r"[\s,]+", text.strip()) if word)


def _cpu(text: str) -> Cpu | None:
    return None if text == "inf" else parse_cpu(text)


parse_timezone = _pattern(r"[A-Za-z0-9+_-]+(/[A-Za-z0-9+_-]+)*", "a time zone like Europe/Paris")
parse_locale = _pattern(r"[A-Za-z]{1,8}(_[A-Z]{2})?(\.[A-Za-z0-9-]+)?(@[a-z]+)?", "a locale like fr_FR.UTF-8")
parse_distro = _pattern(r"[a-z][a-z0-9.-]*", "a Debian suite like trixie")
_path = _pattern(r"/[^\0]*", "an absolute path")
_relay = _pattern(
    r"(\[[0-9A-Fa-f:.]+\]|(?=[^:]{1,253}(:|$))[A-Za-z0-9]([A-Za-z0-9-]{0,62})(\.[A-Za-z0-9-]{1,63})*\.?)(:[0-9]{1,5})?",
    "a host or an address, with :PORT if need be",
)


def parse_relay(text: str) -> str:
    """``HOST[:PORT]`` or ``[IPV6][:PORT]``; a part of a name has at most 63 characters (RFC 1035)."""
    port = _relay(text).rpartition(":")[2]
    if port.isdigit() and ":" in text and not 0 < int(port) < 65536:
        raise ValueError(f"{port} is not a port from 1 to 65535")
    return text


def parse_reserve(text: str) -> Reserve:
    """``N%`` or ``N`` in MiB."""
    if match := re.fullmatch(r"([0-9]{1,2})%", text):
        return Reserve(int(match[1]), percent=True)
    if re.fullmatch(r"[0-9]{1,12}", text):
        return Reserve(int(text))
    raise ValueError(f"{text!r} is neither a number of MiB nor a share like 5%")


def _mailto(text: str) -> tuple[str, ...]:
    from vstools.config.monitor import parse_mailto

    return parse_mailto(text)


def _ends(text: str) -> tuple[str, ...]:
    return tuple(parse_relay(word) for word in re.split(r"[\s,]+", text.strip()) if word)


SETTINGS = (
    Setting("DEFAULT_DEVICE", "device", parse_device, "network device or bridge that guests are linked to"),
    Setting("MTU", "mtu", whole_number(576, 65535), "MTU of the guests' links"),
    Setting("DEFAULT_DOMAIN", "domain", parse_domain, "DNS domain"),
    Setting("DEFAULT_NAMESERVER", "nameservers", parse_nameservers, "name servers"),
    Setting("DEFAULT_PREFIX", "prefix", whole_number(1, 128), "prefix length where networks.conf has no line"),
    Setting("DEFAULT_DISK_LIMIT", "disk", parse_limit, "disk space in MiB"),
    Setting("DEFAULT_RSS_LIMIT", "rss", parse_limit, "memory in MiB"),
    Setting("DEFAULT_TMPFS_LIMIT", "tmpfs", parse_limit, "size of /tmp in MiB"),
    Setting("DEFAULT_PROC_LIMIT", "proc", parse_limit, "number of processes"),
    Setting("DEFAULT_CPU_LIMIT", "cpu", _cpu, "share of the host's CPUs, R/T"),
    Setting("FAKE_OS", "fake_os", str, "no effect: a mainline kernel shows its own release"),
    Setting("CONTEXT_METHOD", "context_method", _one_of("crit"), "crit: a counter under a lock"),
    Setting("DEFAULT_METHOD", "method", _one_of("template", "debootstrap", "skeleton"), "how a tree is made"),
    Setting("DEFAULT_TEMPLATE", "template", _path, "archive that guests are made from"),
    Setting("DEFAULT_DISTRO", "distro", parse_distro, "suite that debootstrap installs"),
    Setting("MAIN_MIRROR", "main_mirror", str, "Debian mirror; empty: the host's own"),
    Setting("UPDATE_MIRROR", "update_mirror", str, "security mirror; empty: the host's own"),
    Setting("DEFAULT_TIMEZONE", "timezone", parse_timezone, "time zone"),
    Setting("DEFAULT_LOCALE", "locale", parse_locale, "locale"),
    Setting("STOP_TIMEOUT", "stop_timeout", whole_number(1, 3600), "seconds a guest has to shut down by itself"),
    Setting("FIREWALL_BACKEND", "firewall_backend", _one_of("auto", "nftables", "iptables"), "what filters for guests"),
    Setting("LINK", "link", _one_of("auto", "ipvlan"), "on devices that are no bridges: macvlan, or ipvlan"),
    Setting("STORAGE", "storage", parse_place, "auto: among the others; lvm:GROUP[/POOL]: a volume of its own"),
    Setting("MONITOR_SMTP", "monitor_smtp", parse_relay, "HOST[:PORT] that takes mails; empty: sendmail"),
    Setting("BACKUP_MAILTO", "backup_mailto", _mailto, "who gets vs-backup's summary: mail addresses"),
    Setting("PKG_PROXY", "pkg_proxy", parse_relay, "HOST[:PORT] that vs-pkg opens in place of the repositories"),
    Setting("PKG_HOSTS", "pkg_hosts", _ends, "HOST[:PORT] ... that vs-pkg may open; empty: the guest's, if public"),
    Setting("STORE", "store", _path, "where a master keeps copies of guests; empty: /var/lib/vs-tools/store"),
    Setting("STORE_RESERVE", "store_reserve", parse_reserve, "what copies leave free there: MiB, or a share like 5%"),
)
_BY_KEY = {setting.key: setting for setting in SETTINGS}
_LINE = re.compile(r"(?P<indent>\s*)(?P<key>[A-Za-z_][A-Za-z0-9_]*)(?P<equals>=)(?P<value>.*)")


def load(path: Path, faults: Faults) -> CreateConf:
    """Read create.conf; a missing file is an empty one. Faults are added to ``faults``."""
    return CreateConf(**values_of(path, _BY_KEY, faults))


def values_of(path: Path, settings: Mapping[str, Setting], faults: Faults) -> dict[str, Any]:
    """The values of a file of ``KEY=VALUE`` lines by field; what is missing, empty or at fault is left out."""
    values: dict[str, Any] = {}
    seen: dict[str, int] = {}
    for number, line in enumerate(lines_of(path), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if not match:
            faults.add(path, number, len(line) - len(line.lstrip()) + 1, "a line is KEY=VALUE or begins with #")
            continue
        key, column = match["key"], match.start("value") + 1
        setting = settings.get(key)
        if setting is None:
            faults.add(path, number, match.start("key") + 1, f"{key} is not a key of this file")
            continue
        if key in seen:
            faults.add(path, number, match.start("key") + 1, f"{key} was set in line {seen[key]} already")
            continue
        seen[key] = number
        text = faults.attempt(path, number, column, unquote, match["value"])
        if text:
            values[setting.field] = faults.attempt(path, number, column, setting.parse, text)
    return {field: value for field, value in values.items() if value is not None}


def unquote(text: str) -> str:
    """The value of a right-hand side; raises ValueError on an open quote or words after a closing one."""
    text = text.strip()
    if text[:1] not in ("'", '"'):
        return re.split(r"(?:^|\s)#", text, maxsplit=1)[0].rstrip()
    end = text.find(text[0], 1)
    if end < 0:
        raise ValueError(f"the quote {text[0]} is not closed")
    rest = text[end + 1 :].strip()
    if rest and not rest.startswith("#"):
        raise ValueError(f"{rest!r} stands after the closing quote")
    return text[1:end]


def change(path: Path, values: dict[str, str]) -> None:
    """Set keys of create.conf: in the line that sets one now, else after its commented sample, else at the end."""
    lines = lines_of(path)
    for key, value in values.items():
        active = next((index for index, line in enumerate(lines) if line.strip().startswith(f"{key}=")), None)
        sample = next((index for index, line in enumerate(lines) if line.startswith(f"#{key}=")), None)
        if active is not None:
            lines[active] = f"{key}={value}"
        elif sample is not None:
            lines.insert(sample + 1, f"{key}={value}")
        else:
            lines.append(f"{key}={value}")
    write(path, "\n".join(lines) + "\n")

"""monitor.conf: what vs-monitor watches of a guest, and who is told. The keys of 2008, shell-style ``KEY=VALUE`` lines.

Each key is optional: what is missing has the value of 2008's sample, and ``inf`` for a threshold means that it is not
watched. A guest without a file of its own is watched as /etc/vs-tools/monitor.conf says.
"""

import re
from dataclasses import dataclass
from math import inf
from pathlib import Path

from vstools.config.create import Setting, values_of
from vstools.config.text import Faults, whole_number

FILE = "monitor.conf"
_RECIPIENTS_MAX = 32
_PATTERNS_MAX = 256
_ADDRESS = re.compile(r"[A-Za-z0-9._+=][A-Za-z0-9._%+=-]{0,63}(@[A-Za-z0-9]([A-Za-z0-9.-]{0,253}))?")


@dataclass(frozen=True)
class MonitorConf:
    """What is watched of one guest: percent of its limits, a load average, hits of limits, listening sockets."""

    mailto: tuple[str, ...] = ("root",)
    pooling: int = 60
    rss: float = 90
    disk: float = 90
    tmpfs: float = 90
    proc: float = 90
    load_15: float = 2
    rss_hits: bool = True
    proc_hits: bool = True
    sockets: bool = True
    sockets_filter: tuple[re.Pattern[str], ...] = ()


def parse_mailto(text: str) -> tuple[str, ...]:
    """Mail addresses, or names of local users, separated by commas or spaces."""
    words = tuple(dict.fromkeys(word for word in re.split(r"[\s,]+", text) if word))
    for word in words:
        if not _ADDRESS.fullmatch(word):
            raise ValueError(f"{word!r} is not a mail address")
    if not 0 < len(words) <= _RECIPIENTS_MAX:
        raise ValueError(f"{len(words)} mail addresses, not 1 to {_RECIPIENTS_MAX}")
    return words


def parse_percent(text: str) -> float:
    """A whole percentage of a limit, with or without ``%``; inf for one that is not watched."""
    return inf if text == "inf" else whole_number(1, 100)(text.removesuffix("%"))


def parse_load(text: str) -> float:
    """A load average like 2 or 0.5; inf for one that is not watched."""
    if text == "inf":
        return inf
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3})?", text) or not float(text):
        raise ValueError(f"{text!r} is not a load like 2 or 0.5")
    return float(text)


def parse_switch(text: str) -> bool:
    """``yes`` or ``no``."""
    if text not in ("yes", "no"):
        raise ValueError(f"{text!r} is neither yes nor no")
    return text == "yes"


def parse_patterns(text: str) -> tuple[re.Pattern[str], ...]:
    r"""Regular expressions separated by spaces (a space in one is ``\s``)."""
    words = text.split()
    if len(words) > _PATTERNS_MAX:
        raise ValueError(f"{len(words)} regular expressions, at most {_PATTERNS_MAX}")
    found = []
    for word in words:
        try:
            found.append(re.compile(word))
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{word!r} is not a regular expression: {error}") from None
    return tuple(found)


SETTINGS = (
    Setting("MONITOR_MAILTO", "mailto", parse_mailto, "who is told: mail addresses"),
    Setting("MONITOR_POOLING", "pooling", whole_number(1, 86400), "seconds between two looks"),
    Setting("RSS_THRESHOLD", "rss", parse_percent, "memory that cannot be reclaimed, in percent of its limit"),
    Setting("DISK_THRESHOLD", "disk", parse_percent, "disk space, in percent of its limit"),
    Setting("TMPFS_THRESHOLD", "tmpfs", parse_percent, "use of /tmp, in percent of its size"),
    Setting("PROC_THRESHOLD", "proc", parse_percent, "processes, in percent of their limit"),
    Setting("LOADAVG_15_THRESHOLD", "load_15", parse_load, "load average over 15 minutes"),
    Setting("MONITOR_RSS_HITS", "rss_hits", parse_switch, "tell when the memory limit is reached"),
    Setting("MONITOR_PROC_HITS", "proc_hits", parse_switch, "tell when a process is refused"),
    Setting("MONITOR_SOCKETS", "sockets", parse_switch, "tell of new listening sockets"),
    Setting("SOCKETS_FILTER", "sockets_filter", parse_patterns, "regular expressions of sockets that are not told"),
)
_BY_KEY = {setting.key: setting for setting in SETTINGS}


def load(path: Path, faults: Faults) -> MonitorConf:
    """Read a monitor.conf; a missing file is an empty one. Faults are added to ``faults``."""
    return MonitorConf(**values_of(path, _BY_KEY, faults))

"""What the kernel's small files say. Pure: text in, numbers out; what is not as expected is None, never an error.

Formats: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/*.rst, accounting/psi.rst of the kernel, ``man 5 proc``.
"""

from collections.abc import Iterable
from math import inf

_V1_UNLIMITED = 1 << 62
"""Version 1 knows no word for it: PAGE_COUNTER_MAX pages, just below 2^63 bytes."""
_DIGITS = 20  # 2^64 has so many


def number(text: str) -> int | None:
    """A whole number that stands alone."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else None


def limit(text: str) -> float | None:
    """A limit, infinity where there is none: ``max``, -1, or as large as a number can be."""
    text = text.strip()
    if text in ("max", "-1"):
        return inf
    value = number(text)
    return inf if value is not None and value >= _V1_UNLIMITED else value


def flat(text: str) -> dict[str, int]:
    """``key value`` lines (memory.stat, memory.events, cpu.stat, pids.events, memory.oom_control)."""
    found = {}
    for line in text.splitlines():
        key, _, rest = line.partition(" ")
        if (value := number(rest)) is not None:
            found[key] = value
    return found


def quota(text: str) -> float | None:
    """CPUs that ``cpu.max`` allows: ``QUOTA PERIOD`` in microseconds, or ``max PERIOD``."""
    words = text.split()
    if len(words) != 2:
        return None
    allowed, period = limit(words[0]), number(words[1])
    return allowed / period if allowed is not None and period else None


def pressure(text: str) -> dict[str, float]:
    """``some`` and ``full`` of a PSI file: percent over ten seconds, and seconds in all (``total`` in microseconds).

    Keys: ``some_percent``, ``some_seconds``, ``full_percent``, ``full_seconds``; what the kernel has not is missing.
    """
    found: dict[str, float] = {}
    for line in text.splitlines():
        kind, *words = line.split()[:10] or [""]
        if kind not in ("some", "full"):
            continue
        values = dict(word.partition("=")[::2] for word in words)
        percent, total = decimal(values.get("avg10", "")), number(values.get("total", ""))
        if percent is not None and total is not None:
            found |= {f"{kind}_percent": percent, f"{kind}_seconds": total / 1e6}
    return found


def decimal(text: str) -> float | None:
    """A number with a fraction, as in ``0.25``; no sign, no exponent."""
    whole, dot, fraction = text.partition(".")
    if number(whole) is None or (dot and number(fraction) is None):
        return None
    return float(text)


Transfers = dict[str, tuple[int, int]]
"""Device ``MAJOR:MINOR`` -> bytes read and written."""


def io_stat(text: str) -> Transfers:
    """``io.stat`` of version 2: ``8:0 rbytes=1 wbytes=2 rios=...``, a line a device."""
    found = {}
    for line in text.splitlines():
        device, *words = line.split()[:32] or [""]
        values = dict(word.partition("=")[::2] for word in words)
        read, written = number(values.get("rbytes", "")), number(values.get("wbytes", ""))
        if read is not None and written is not None:
            found[device] = (read, written)
    return found


def blkio(text: str) -> Transfers:
    """``blkio.throttle.io_service_bytes`` of version 1: ``8:0 Read 1``, ``8:0 Write 2``, ...; then ``Total 3``."""
    found: Transfers = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) != 3 or (value := number(words[2])) is None:
            continue
        read, written = found.get(words[0], (0, 0))
        found[words[0]] = (read + value * (words[1] == "Read"), written + value * (words[1] == "Write"))
    return found


def started(text: str) -> int | None:
    """Clock ticks from the boot to a process's start (``/proc/PID/stat``, field 22).

    The second field is the process's own name: it may hold spaces and parentheses, so the last one counts.
    """
    fields = text.rpartition(")")[2].split()
    return number(fields[19]) if len(fields) > 19 else None


def total(values: Iterable[int | None]) -> int | None:
    """The sum of what is known, None when nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None

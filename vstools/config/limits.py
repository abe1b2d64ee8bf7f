"""A guest's limits in its directory: rlimits, sched, dlimits, rates and the /tmp line of fstab.

Sources of the format: util-vserver's "configuration layout" page and its ``vlimit`` (``rlimits/NAME`` is both soft and
hard limit, ``NAME.soft`` and ``NAME.hard`` win over it) and ``vsched``. Units are converted here and nowhere else:

- rss, as, memlock (and our own swap) count pages of 4 KiB; a suffix K or M counts 1024 or 1024^2 *pages*;
- the other rlimits are the kernel's numbers (``man 2 getrlimit``); K and M mean 1024, k and m 1000 of them;
- ``dlimits/0/space_total`` counts KiB;
- ``sched/tokens-max``, the size of the bucket, counts tokens. A token was one tick of CPU time; we reckon with 1000
  ticks a second: **a token is a millisecond of CPU time**, of the guest as a whole;
- ``rates/`` is our own: ``net-sent`` and ``net-received`` count Mbit/s, ``io-read`` and ``io-written`` MiB/s.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from vstools.config.text import Faults, whole_number
from vstools.config.values import Reader, update
from vstools.files import write
from vstools.guest import (
    BURST_MAX,
    MIB_MAX,
    NET_RATE_MAX,
    RLIMIT_MAX,
    RLIMITS,
    Cpu,
    IoRate,
    Limits,
    NetRate,
    Rlimit,
    parse_limit,
)

PAGE = 4096
PAGES_PER_MIB = 256
_PAGE_SUFFIX = {"": 1, "K": 1024, "M": 1024**2}
_SUFFIX = {**_PAGE_SUFFIX, "k": 1000, "m": 1000**2}
_IN_PAGES = frozenset({"as", "memlock"})
_NO_LIMIT = -1
_TMP_LINE = re.compile(r"^[ \t]*[^\s#]\S*[ \t]+/tmp[ \t]+tmpfs[ \t]+(?P<options>\S+)", re.MULTILINE)
_SIZE = re.compile(r"(?:^|,)size=(?P<number>[0-9]+)(?P<unit>[kKmMgG]?)(?=,|$)")
_NEW_FSTAB_LINE = "none\t/tmp\ttmpfs\tsize={size}m,mode=1777\t0 0\n"


def read(value: Reader, faults: Faults) -> Limits:
    """The limits of the guest whose directory ``value`` reads; what is wrong is added to ``faults``."""
    config = value.folder
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
        burst=value.get("sched/tokens-max", whole_number(1, BURST_MAX)),
        swap=value.get("rlimits/swap", _parse_swap) if (config / "rlimits/swap").exists() else 0,
        rlimits=_read_rlimits(value, faults),
        **_read_rates(value),
    )


class _Rates(TypedDict, total=False):
    net_rate: NetRate | None
    io_rate: IoRate | None


def _read_rates(value: Reader) -> _Rates:
    if not (value.folder / "rates").is_dir():
        return {}
    sent, received = (value.get(f"rates/net-{what}", _open_number(NET_RATE_MAX)) for what in ("sent", "received"))
    read, written = (value.get(f"rates/io-{what}", _open_number(MIB_MAX)) for what in ("read", "written"))
    return {
        "net_rate": None if sent is received is None else NetRate(sent, received),
        "io_rate": None if read is written is None else IoRate(read, written),
    }


def _open_number(most: int) -> Callable[[str], int | None]:
    """A reader of whole numbers up to ``most``; ``inf`` is None."""
    parse = whole_number(1, most)
    return lambda text: None if text == "inf" else parse(text)


def _read_rlimits(value: Reader, faults: Faults) -> tuple[tuple[str, Rlimit], ...]:
    try:
        found = {entry.name.partition(".")[0] for entry in (value.folder / "rlimits").iterdir()}
    except OSError:
        return ()
    pairs = ((name, _read_rlimit(value, name, faults)) for name in sorted(found & RLIMITS.keys()))
    return tuple((name, limit) for name, limit in pairs if limit is not None)


def _read_rlimit(value: Reader, name: str, faults: Faults) -> Rlimit | None:
    """``NAME.hard`` alone is both limits, ``NAME.soft`` alone leaves the hard one open."""
    parse = _parse_page_rlimit if name in _IN_PAGES else _parse_rlimit
    both, soft, hard = (value.get(f"rlimits/{name}{suffix}", parse) for suffix in ("", ".soft", ".hard"))
    if both is None and soft is None and hard is None:
        return None
    hard = both if hard is None else hard
    soft = both if soft is None else soft
    limit = Rlimit(_open(hard if soft is None else soft), _open(hard))
    if not limit.is_possible:
        where = value.folder / "rlimits" / name
        place = where.with_name(f"{name}.soft") if soft is not both else where
        faults.add(place, 1, 1, f"the soft limit {limit.soft_text} is above the hard limit {limit.hard_text}")
        return None
    return limit


def _open(number: int | None) -> int | None:
    return None if number is None or number == _NO_LIMIT else number


def _parse_rlimit(text: str) -> int:
    """A number of what the kernel counts, -1 for ``inf``."""
    if text in ("inf", "-1"):
        return _NO_LIMIT
    match = re.fullmatch(r"([0-9]{1,19})([KMkm]?)", text)
    if not match:
        raise ValueError(f"{text!r} is not a number, nor inf")
    return _below_max(int(match[1]) * _SUFFIX[match[2]], text)


def _parse_page_rlimit(text: str) -> int:
    """Pages of 4 KiB -> bytes, -1 for ``inf``."""
    if text in ("inf", "-1"):
        return _NO_LIMIT
    match = re.fullmatch(r"([0-9]{1,16})([KM]?)", text)
    if not match:
        raise ValueError(f"{text!r} is not a number of 4 KiB pages")
    return _below_max(int(match[1]) * _PAGE_SUFFIX[match[2]] * PAGE, text)


def _below_max(number: int, text: str) -> int:
    if number > RLIMIT_MAX:
        raise ValueError(f"{text!r} is past what a kernel counts (2^63)")
    return number


def save(config: Path, name: str, old: Limits, new: Limits) -> None:
    """Write the files whose value differs. What a kill leaves in between can be read and completed."""
    update(config, "rlimits/rss", old.rss, new.rss, None if new.rss is None else str(new.rss * PAGES_PER_MIB))
    update(config, "rlimits/nproc", old.proc, new.proc, None if new.proc is None else str(new.proc))
    swap = "inf" if new.swap is None else str(new.swap * PAGES_PER_MIB)
    update(config, "rlimits/swap", old.swap, new.swap, None if new.swap == 0 else swap)
    _save_cpu(config, old.cpu, new.cpu)
    update(config, "sched/tokens-max", old.burst, new.burst, None if new.burst is None else str(new.burst))
    disk = None if new.disk is None else str(new.disk * 1024)
    update(config, "dlimits/0/space_total", old.disk, new.disk, disk)
    if disk is not None and not (config / "dlimits/0/directory").exists():
        update(config, "dlimits/0/directory", None, True, f"/var/lib/vservers/{name}")
    if old.tmpfs != new.tmpfs:
        _save_tmpfs(config / "fstab", new.tmpfs)
    _save_rates(config, old, new)
    was, now = dict(old.rlimits), dict(new.rlimits)
    for key in sorted(was.keys() | now.keys()):
        if was.get(key) != now.get(key):
            _save_rlimit(config, key, was.get(key), now.get(key))


def _save_rates(config: Path, old: Limits, new: Limits) -> None:
    was, now = old.net_rate or NetRate(None, None), new.net_rate or NetRate(None, None)
    io_was, io_now = old.io_rate or IoRate(None, None), new.io_rate or IoRate(None, None)
    for key, before, after in (
        ("net-sent", was.sent, now.sent),
        ("net-received", was.received, now.received),
        ("io-read", io_was.read, io_now.read),
        ("io-written", io_was.written, io_now.written),
    ):
        update(config, f"rates/{key}", before, after, None if after is None else str(after))


def _save_cpu(config: Path, old: Cpu | None, new: Cpu | None) -> None:
    """The rate is never above the interval in between."""
    files = [
        ("sched/interval", old and old.interval, new and new.interval),
        ("sched/fill-rate", old and old.rate, new and new.rate),
    ]
    if old and new and new.interval < old.rate:
        files.reverse()
    for relative, was, now in files:
        update(config, relative, was, now, None if now is None else str(now))


def _save_rlimit(config: Path, name: str, old: Rlimit | None, new: Rlimit | None) -> None:
    """One file where both limits are the same; the soft one is never above the hard one in between."""
    same = new is not None and new.soft == new.hard
    parts = [
        (".hard", None if new is None or same else _rlimit_text(name, new.hard)),
        (".soft", None if new is None or same else _rlimit_text(name, new.soft)),
    ]
    if old and new and new.hard is not None and (old.soft is None or new.hard < old.soft):
        parts.reverse()
    if new is not None and same:
        update(config, f"rlimits/{name}", None, True, _rlimit_text(name, new.hard))
    for suffix, text in parts:
        update(config, f"rlimits/{name}{suffix}", None, True, text)
    if not same:
        update(config, f"rlimits/{name}", None, True, None)


def _rlimit_text(name: str, number: int | None) -> str:
    if number is None:
        return "inf"
    return str(number // PAGE if name in _IN_PAGES else number)


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


def _parse_swap(text: str) -> int | None:
    """Pages of 4 KiB as in ``_parse_pages``, or 0."""
    return 0 if text == "0" else _parse_pages(text)


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

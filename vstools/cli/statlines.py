"""How statistics are written: lines for scripts, JSON, and columns with units for people."""

from collections.abc import Mapping
from math import inf
from typing import Any

from vstools.cli import app
from vstools.stats.sample import FIELDS, HOST_FIELDS, Sample, plain

_UNITS = "BKMGTPE"
_DAY = 86400


def row(sample: Sample) -> dict[str, object]:
    """A sample as it is in JSON: null is not known or, for a limit, none."""
    head: dict[str, object] = {"host": app.host_name()}
    if sample.guest:
        head |= {"guest": sample.guest, "running": sample.running}
    fields = FIELDS if sample.guest else HOST_FIELDS
    return head | {field.key: _rounded(plain(sample.get(field.key))) for field in fields}


def _rounded(value: float | None) -> float | None:
    return round(value, 6) if isinstance(value, float) else value


def line(sample: Sample) -> str:
    """``<host>:<guest>:<running|stopped>:...`` with all fields that are in lines; of the host ``<host>:...``."""
    words = [app.host_name()]
    if sample.guest:
        words += [sample.guest, "running" if sample.running else "stopped"]
    fields = FIELDS if sample.guest else HOST_FIELDS
    return ":".join(words + [text(sample.get(field.key)) for field in fields if field.line])


def text(value: float | None) -> str:
    """A number in a line: ``-`` is not known, ``inf`` no limit; fractions have two digits."""
    if value is None:
        return "-"
    if value == inf:
        return "inf"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def columns(sample: Sample) -> dict[str, object]:
    """A guest's row of a table for people."""
    get = sample.get
    pressure = "/".join(short(get(f"{resource}_some_percent")) for resource in ("cpu", "memory", "io"))
    return {
        "guest": sample.guest,
        "memory": size(get("memory_bytes")),
        "kept": size(get("memory_unreclaimable_bytes")),
        "of": size(get("memory_limit_bytes")),
        "swap": size(get("swap_bytes")),
        "proc": short(get("processes")),
        "of proc": short(get("processes_limit")),
        "cpu%": percent(get("cpu_percent")),
        "of cpu%": percent(get("cpu_limit_percent")),
        "time": duration(get("cpu_seconds")),
        "psi c/m/i": pressure,
        "read": size(get("read_bytes")),
        "written": size(get("written_bytes")),
        "in": size(get("received_bytes")),
        "out": size(get("sent_bytes")),
        "tmp": size(get("tmpfs_bytes")),
        "disk": size(get("disk_bytes")),
        "kills": short(get("oom_kills")),
        "up": duration(get("uptime_seconds")) if sample.running else "stopped",
    }


def host_columns(sample: Sample) -> dict[str, object]:
    """The host's row of a table for people."""
    get = sample.get
    return {
        "host": app.host_name(),
        "memory": f"{size(get('memory_bytes'))} of {size(get('memory_total_bytes'))}",
        "swap": f"{size(get('swap_bytes'))} of {size(get('swap_total_bytes'))}",
        "load": " ".join(f"{get(key) or 0:.2f}" for key in ("load_1", "load_5", "load_15")),
        "cpu%": percent(get("cpu_percent")),
        "cpus": short(get("cpus")),
        "guests": f"{short(get('guests_running'))} of {short(get('guests'))}",
        "free": f"{size(get('trees_free_bytes'))} of {size(get('trees_total_bytes'))}",
        "promised memory": f"{size(get('promised_memory_bytes'))}{_share(sample)}",
        "cpu": f"{percent(get('promised_cpu_percent'))}%",
        "disk": size(get("promised_disk_bytes")),
    }


def _share(sample: Sample) -> str:
    promised, total = sample.get("promised_memory_bytes"), sample.get("memory_total_bytes")
    return f" ({100 * promised / total:.0f}%)" if promised is not None and total else ""


def size(value: float | None) -> str:
    """Bytes with a unit of 1024: ``0``, ``812K``, ``1.5G``."""
    if value is None or value == inf:
        return text(value)
    for unit in _UNITS:
        if value < 999.5 or unit == _UNITS[-1]:
            break
        value /= 1024
    digits = f"{value:.1f}" if value < 9.95 and unit != "B" else f"{value:.0f}"
    return digits if unit == "B" else digits + unit


def short(value: float | None) -> str:
    """A count or a percentage without a fraction."""
    return text(value) if value is None or value == inf else f"{value:.0f}"


def percent(value: float | None) -> str:
    """With one digit."""
    return text(value) if value is None or value == inf else f"{value:.1f}"


def duration(seconds: float | None) -> str:
    """``4.2s``, ``3m07s``, ``5h12m``, ``12d03h``."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    if seconds < 60:
        return f"{seconds:.1f}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < _DAY:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // _DAY}d{whole % _DAY // 3600:02}h"


def show(samples: list[Sample], *, as_json: bool, table: bool) -> None:
    """Print samples of guests, or that of the host."""
    if not as_json and not table:
        for sample in samples:
            print(line(sample))
        return
    make = row if as_json else columns if samples and samples[0].guest else host_columns
    app.show((make(sample) for sample in samples), _no_line, as_json=as_json, table=table)


def _no_line(_: Mapping[str, Any]) -> str:
    return ""

"""Samples as Prometheus reads them: the text exposition format 0.0.4, in base units.

https://prometheus.io/docs/instrumenting/exposition_formats/ - counters end in _total, sizes are bytes, times seconds.
"""

from collections.abc import Iterable
from math import inf
from pathlib import Path

from vstools.stats.sample import FIELDS, HOST_FIELDS, Field, Sample

_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_RUNNING = Field("running", "whether the guest runs", "running")


def exposition(host: Sample, guests: Iterable[Sample]) -> str:
    """All metrics of the host and of guests. What is not known has no line; no limit is ``+Inf``."""
    guests = list(guests)
    lines = _family("vs_guest_", [_RUNNING], guests)
    for prefix, fields, samples in (("vs_guest_", FIELDS, guests), ("vs_host_", HOST_FIELDS, [host])):
        families: dict[str, list[Field]] = {}
        for field in fields:
            if field.metric:
                families.setdefault(field.metric, []).append(field)
        for family in families.values():
            lines += _family(prefix, family, samples)
    return "".join(line + "\n" for line in lines)


def _family(prefix: str, family: list[Field], samples: list[Sample]) -> list[str]:
    """One metric: its help, its type, and a line for each guest; nothing when nobody has a value."""
    name = prefix + family[0].metric
    values = []
    for sample in samples:
        for field in family:
            value = float(sample.running) if field is _RUNNING else sample.get(field.key)
            if value is not None:
                labels = ((("guest", sample.guest),) if sample.guest else ()) + field.labels
                values.append(f"{name}{_labels(labels)} {_number(value * field.scale)}")
    kind = "counter" if name.endswith("_total") else "gauge"
    told = family[0].help if len(family) == 1 else f"time that tasks waited for {_words(family[0])}"
    return [f"# HELP {name} {_help(told)}", f"# TYPE {name} {kind}", *values] if values else []


def _words(field: Field) -> str:
    return " by ".join(("a resource", " and ".join(key for key, _ in field.labels)))


def _help(sentence: str) -> str:
    return sentence.replace("\\", r"\\").replace("\n", r"\n")


def _labels(labels: Iterable[tuple[str, str]]) -> str:
    inner = ",".join(f'{key}="{value.translate(_ESCAPES)}"' for key, value in labels)
    return f"{{{inner}}}" if inner else ""


def _number(value: float) -> str:
    return "+Inf" if value == inf else repr(round(value, 9))


def write(path: Path, text: str) -> None:
    """Replace the file at once: node_exporter's textfile collector reads whole files only, whose names end in .prom."""
    from vstools import files
    from vstools.errors import Refused

    if not path.parent.is_dir():
        raise Refused(f"{path.parent} is no directory", "the collector's own directory has to be there")
    if path.is_dir():
        raise Refused(f"{path} is a directory", "give the name of a file that ends in .prom")
    files.write(path, text)

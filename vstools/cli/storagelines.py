"""How vs-stats --storage is written: a line for scripts, JSON, and columns with units for people."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from vstools.cli import app, statlines
from vstools.lifecycle.space import Report


def line(row: Mapping[str, Any]) -> str:
    """All fields in their order; ``-`` is none, booleans are yes or no."""
    words = {True: "yes", False: "no", None: "-"}
    return ":".join(words[value] if value is None or isinstance(value, bool) else str(value) for value in row.values())


def columns(found: Report) -> dict[str, object]:
    """A row of a table for people."""
    return {
        "storage": found.kind,
        "device": found.device,
        "file system": found.filesystem,
        "free": f"{statlines.size(found.free)} of {statlines.size(found.size)}",
        "snapshots": found.snapshots,
        "clones": found.clones,
        "limits": found.limits,
        "group": found.group,
        "free for snapshots": f"{statlines.size(found.group_free)} of {statlines.size(found.group_size)}",
    }


def show(reports: list[Report], *, as_json: bool, table: bool) -> None:
    """Print what storages are and have."""
    rows = (columns(each) if table else {"host": app.host_name(), **asdict(each)} for each in reports)
    app.show(rows, line, as_json=as_json, table=table)

"""vs-munin, called by share/munin/vs_: guests as Munin graphs them, a field for each guest.

The protocol of plugins: https://guide.munin-monitoring.org/en/latest/develop/plugins/ - ``config`` describes the graph,
no word fetches its values (``U``: not known), ``autoconf`` says whether it can work, ``suggest`` which graphs it has.
"""

import os
import re
import sys
from dataclasses import dataclass

from vstools import paths as installation
from vstools.cli import app
from vstools.errors import Refused
from vstools.paths import Paths
from vstools.stats.sample import Sample

_PREFIX = "vs_"


@dataclass(frozen=True)
class Graph:
    """One graph. ``second`` is drawn upwards from the same line, ``key`` then downwards.

    ``scale``: a counter (DERIVE) is a whole number in Munin; times are in milliseconds, so that ten of them a second
    are one percent.
    """

    title: str
    label: str
    key: str
    second: str = ""
    counter: bool = False
    scale: int = 1
    percent: bool = False
    arguments: str = "--base 1000 -l 0"


GRAPHS = {
    "cpu": Graph("CPU of guests", "% of one CPU", "cpu_seconds", counter=True, scale=1000, percent=True),
    "disk": Graph(
        "Disk traffic of guests",
        "bytes/s read (-) written (+)",
        "read_bytes",
        "written_bytes",
        counter=True,
        arguments="",
    ),
    "kills": Graph("Processes of guests killed for want of memory", "since the start", "oom_kills"),
    "memory": Graph(
        "Memory of guests that cannot be reclaimed", "bytes", "memory_unreclaimable_bytes", arguments="--base 1024 -l 0"
    ),
    "network": Graph(
        "Network of guests", "bytes/s in (-) out (+)", "received_bytes", "sent_bytes", counter=True, arguments=""
    ),
    "space": Graph("Disk space of guests, where it is counted", "bytes", "disk_bytes", arguments="--base 1024 -l 0"),
    "processes": Graph("Processes of guests", "processes and threads", "processes"),
}


def field(guest: str) -> str:
    """A guest's name as the name of a field: letters, digits and underscores; different guests stay different."""
    return "g_" + re.sub(r"[^A-Za-z0-9]", lambda found: f"_{ord(found[0]):02x}", guest)


def config(graph: Graph, guests: list[str]) -> list[str]:
    """What Munin is told about a graph."""
    lines = [
        f"graph_title {graph.title}",
        f"graph_vlabel {graph.label}",
        "graph_category virtualization",
        f"graph_info {graph.title}, as vs-stats tells.",
        *([f"graph_args {graph.arguments}"] if graph.arguments else []),
    ]
    for guest in guests:
        name = field(guest)
        kind = ["type DERIVE", "min 0"] if graph.counter else ["type GAUGE"]
        if graph.second:
            lines += [f"{name}_n.label {guest}", *(f"{name}_n.{word}" for word in kind), f"{name}_n.graph no"]
            lines += [f"{name}.label {guest}", *(f"{name}.{word}" for word in kind), f"{name}.negative {name}_n"]
        else:
            lines += [f"{name}.label {guest}", *(f"{name}.{word}" for word in kind), f"{name}.draw AREASTACK"]
            lines += [f"{name}.cdef {name},10,/"] if graph.percent else []
    return lines


def values(graph: Graph, samples: list[Sample]) -> list[str]:
    """A graph's values; what is not known is ``U``."""
    lines = []
    for sample in samples:
        for key, suffix in ((graph.key, "_n" if graph.second else ""), (graph.second, "")):
            if key:
                value = sample.get(key)
                lines.append(
                    f"{field(sample.guest)}{suffix}.value {'U' if value is None else int(value * graph.scale)}"
                )
    return lines


def _answer(paths: Paths, name: str, word: str) -> list[str]:
    from vstools.config import registry

    if word == "suggest":
        return list(GRAPHS)
    if word == "autoconf":
        if os.geteuid() != 0:
            return ["no (it needs root: put user root into plugin-conf.d)"]
        return ["yes" if registry.names(paths) else "no (this host has no guests)"]
    graph = GRAPHS.get(name.removeprefix(_PREFIX))
    if graph is None:
        raise Refused(f"there is no graph {name!r}", f"link the plugin as {_PREFIX}{f', {_PREFIX}'.join(GRAPHS)}")
    if os.geteuid() != 0:
        raise Refused("this plugin is for root", "put user root into plugin-conf.d")
    guests = registry.names(paths)
    if word == "config":
        return config(graph, list(guests))
    if word not in ("", "fetch"):
        raise Refused(f"munin has no word {word!r}", "config, autoconf, suggest, or none")
    from vstools.lifecycle import stats

    return values(graph, stats.single(paths, guests))


def main() -> None:
    """Answer what Munin's node asks: the plugin's name, then its word."""

    def answer() -> None:
        name, *words = sys.argv[1:] or [""]
        print("\n".join(_answer(installation.from_environment(), name, words[0] if words else "")))

    sys.exit(app.status_of(sys.argv[1] if sys.argv[1:] else "vs-munin", answer))

"""vs-ps: the processes of guests, and which guest a process belongs to."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from vstools import paths as installation
from vstools.cli import app
from vstools.errors import Refused

if TYPE_CHECKING:
    from vstools.stats.processes import Process


def ps(
    name: app.Names = None,
    everyone: app.All = False,
    pid: Annotated[
        list[int] | None, typer.Option("--pid", help="a process of the host's (repeatable)", metavar="PID", min=1)
    ] = None,
    more: Annotated[list[int] | None, typer.Argument(metavar="PID...", help="more of them, after --pid", min=1)] = None,
    full: Annotated[bool, typer.Option("--full", help="whole command lines; a hostile guest can stall this")] = False,
    as_json: app.Json = False,
) -> int:
    """List the processes of guests, as ps does, with a column for the guest.

    All guests are meant without --name. With --pid, which guest each of these processes belongs to; "-" is the host.
    PID is the host's number, GPID the guest's, UID the guest's user. The process's cgroup decides, which nobody in a
    guest can leave. COMMAND is the process's own claim; what a terminal might obey is escaped.
    """
    if more and not pid:
        raise Refused("numbers of processes go with --pid")
    app.exclusive(name=bool(name), all=everyone, pid=bool(pid))
    from vstools.lifecycle import stats as reading

    paths = installation.from_environment()
    if not pid:
        names = app.selected(paths, name, everyone=False) if name else ()
        _show(reading.processes(paths, names, command=full), as_json=as_json)
        return 0
    asked = tuple(dict.fromkeys([*pid, *(more or ())]))
    looked = {number: reading.process(paths, number, command=full) for number in asked}
    found = [process for process in looked.values() if process is not None]
    if not found:
        raise Refused(f"there is no process {', '.join(map(str, asked))}")
    _show(found, as_json=as_json)
    for number in (number for number, process in looked.items() if process is None):
        print(f"vs-ps: there is no process {number}", file=sys.stderr)
    return 0 if len(found) == len(asked) else 1


def _show(processes: "list[Process]", *, as_json: bool) -> None:
    from vstools.cli.statlines import duration, size

    if as_json:
        app.show((_row(process) for process in processes), str, as_json=True, table=False)
        return
    rows: list[dict[str, object]] = [
        {
            "guest": process.guest or "-",
            "pid": process.pid,
            "gpid": process.guest_pid,
            "uid": process.uid,
            "s": process.state,
            "rss": size(process.memory_bytes),
            "time": duration(process.cpu_seconds),
            "up": duration(process.uptime_seconds),
            "command": _command(process),
        }
        for process in processes
    ]
    app.show(rows, str, as_json=False, table=True)


def _row(process: "Process") -> dict[str, object]:
    """A process in JSON."""
    return {
        "host": app.host_name(),
        "guest": process.guest or None,
        "pid": process.pid,
        "guest_pid": process.guest_pid,
        "uid": process.uid,
        "state": process.state,
        "threads": process.threads,
        "memory_bytes": process.memory_bytes,
        "cpu_seconds": round(process.cpu_seconds, 2),
        "uptime_seconds": round(process.uptime_seconds, 2),
        "name": escaped(process.name),
        "command": None if process.words is None else [escaped(word) for word in process.words],
    }


def _command(process: "Process") -> str:
    """The command line where it was read and is there; the bare name otherwise, in brackets when that was expected."""
    if process.words is None:
        return escaped(process.name)
    return " ".join(escaped(word) for word in process.words) or f"[{escaped(process.name)}]"


def escaped(text: bytes) -> str:
    r"""A process's claim with nothing left that a terminal obeys: ``\x1b``, ``\u202e``; a backslash is ``\\``."""
    return "".join(_safe(char) for char in text.decode("utf-8", "surrogateescape"))


def _safe(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte that is no UTF-8
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char if char.isprintable() and char != "\\" else char.encode("unicode_escape").decode("ascii")


def main() -> None:
    """The command."""
    app.execute(ps)

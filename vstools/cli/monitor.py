"""vs-monitor: mail when a guest comes near its limits, dies, or begins to listen."""

import signal
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vstools import paths as installation
from vstools.cli import app
from vstools.errors import Refused, VsError

if TYPE_CHECKING:
    from vstools.lifecycle.monitor import Monitor, Told
    from vstools.monitor.spool import Spool
    from vstools.paths import Paths

_TICK = 10.0  # seconds between two looks at which guests there are and whether a monitor.conf was changed
_MAIL = 5.0  # seconds between two looks for mails whose time has come
_SETTLE = 120.0


def monitor(
    once: Annotated[bool, typer.Option("--once", help="one round, then print what began and ended")] = False,
    settle: Annotated[
        float,
        typer.Option(
            "--settle",
            help="sockets are first looked at SECONDS after a guest's start (120)",
            min=0,
            max=86400,
            metavar="SECONDS",
        ),
    ] = _SETTLE,
    as_json: app.Json = False,
) -> int:
    """Watch all guests of this host as their monitor.conf says, and send mail when an alert begins and when it is over.

    Stays in the foreground until SIGTERM or Ctrl-C; there is one on a host. With --once each guest is looked at one
    time and a line is printed for each alert that began or is over: <host>:<guest>:<began|over>:<what>:<text>. What is
    remembered between two rounds is the same either way, so that cron can call it.

    Mail goes to MONITOR_SMTP of create.conf, else to /usr/sbin/sendmail; what cannot be sent is kept and tried again.
    """
    if as_json and not once:
        raise Refused("--json goes with --once")
    from vstools.lifecycle import monitor as watching

    paths = installation.from_environment()
    with watching.alone(paths):
        found = watching.Monitor(paths, settle)
        try:
            if once:
                _once(found, as_json=as_json)
            else:
                _stay(paths, found)
        finally:
            found.close()
    return 0


def _once(found: "Monitor", *, as_json: bool) -> None:
    found.wait_for_sizes()
    told = found.round(everyone=True)
    app.show((_row(each) for each in told), _line, as_json=as_json, table=False)
    found.send()
    if waiting := found.spool.count():
        print(f"vs-monitor: {waiting} mails wait to be sent", file=sys.stderr)


def _row(told: "Told") -> dict[str, object]:
    from vstools.monitor.text import escaped

    event = told.event
    return {
        "host": app.host_name(),
        "guest": told.guest,
        "began": event.began,
        "what": escaped(event.key, 900),
        "text": escaped(event.text, 900),
        "at": round(event.at, 3),
        "value": event.value,
        "limit": event.limit,
        "details": [escaped(detail) for detail in event.details],
    }


def _line(row: Mapping[str, Any]) -> str:
    what = row["what"].partition(" ")[0]
    return f"{row['host']}:{row['guest']}:{'began' if row['began'] else 'over'}:{what}:{row['text']}"


def _stay(paths: "Paths", found: "Monitor") -> None:
    """Rounds until a signal comes. Mails are sent by a thread of their own: a relay that hangs delays no look."""
    from vstools import log

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=_send, args=(paths, found.spool, stop), daemon=True).start()
    while not stop.is_set():
        try:
            found.round()
        except (VsError, OSError) as error:  # a full disk: what is seen meanwhile is told when there is room again
            log.warn(f"a round failed: {error}")
            stop.wait(_TICK)
        stop.wait(found.pause(_TICK))


def _send(paths: "Paths", spool: "Spool", stop: threading.Event) -> None:
    from vstools import log
    from vstools.lifecycle.monitor import send

    while not stop.is_set():
        try:
            send(paths, spool)
        except Exception as error:  # this thread has to go on: without it no mail would be sent
            log.warn(f"mails wait: {str(error) or type(error).__name__}")
        stop.wait(_MAIL)


def main() -> None:
    """The command."""
    app.execute(monitor)

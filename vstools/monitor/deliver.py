"""A mail's way out: a relay by SMTP where create.conf names one, else the host's own sendmail."""

import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from vstools import log, run
from vstools.errors import VsError

if TYPE_CHECKING:
    import smtplib

SENDMAIL = "/usr/sbin/sendmail"
_PATIENCE, _ALL = 20.0, 60.0
"""Seconds that a relay may be silent, and that it may take for a mail from its greeting on."""
_PORT = 25
Way = Callable[[str], str]
"""Sends one mail, a whole text with headers; raises VsError or OSError when it could not.

Returns the mail for those recipients who were refused for now; empty: nothing is left to be sent.
"""


def way(relay: str) -> Way:
    """By this relay; empty: by the host's MTA."""
    if relay:
        host, port = endpoint(relay)
        return lambda text: by_smtp(host, port, text)
    return by_sendmail


def endpoint(relay: str) -> tuple[str, int]:
    """Host and port of ``HOST[:PORT]`` or ``[IPV6][:PORT]``."""
    match = re.fullmatch(r"(?:\[([^]]+)\]|([^:]+))(?::([0-9]+))?", relay)
    if match is None or not 0 < int(match[3] or _PORT) < 65536:
        raise VsError(f"{relay!r} is no mail relay", "MONITOR_SMTP is HOST[:PORT]")
    return match[1] or match[2], int(match[3] or _PORT)


def by_sendmail(text: str) -> str:
    """Give it to the host's MTA, which reads the recipients from the headers."""
    if not os.access(SENDMAIL, os.X_OK):
        raise VsError(f"there is no {SENDMAIL}", "install an MTA, or set MONITOR_SMTP in create.conf")
    run.run([SENDMAIL, "-i", "-t"], stdin=text, timeout=60)
    return ""


def by_smtp(host: str, port: int, text: str) -> str:
    """Give it to a relay. Of several recipients, those whom it refuses for good are told in syslog."""
    import smtplib

    sender, recipients = envelope(text)
    try:
        relay = smtplib.SMTP(timeout=_PATIENCE)
        with _ended_in_time(relay), relay:
            code, words = relay.connect(host, port)
            if code != 220:
                raise smtplib.SMTPConnectError(code, words)
            refused = relay.sendmail(sender, recipients, text)
    except smtplib.SMTPException as error:
        raise VsError(f"the mail relay {host}:{port} did not take a mail", _line(str(error))) from error
    for recipient, (code, words) in refused.items():
        if code >= 500:
            log.warn(f"the mail relay {host}:{port} refused {recipient}: {_line(f'{code} {words!r}')}")
    later = [recipient for recipient in recipients if refused.get(recipient, (500, b""))[0] < 500]
    return _addressed(text, later) if later else ""


@contextmanager
def _ended_in_time(relay: "smtplib.SMTP") -> Iterator[None]:
    """Shut the connection down when the time is over: a byte now and then passes each deadline of the socket's own."""
    done = threading.Event()

    def cut() -> None:
        pause = _ALL
        while not done.wait(pause):
            if relay.sock is not None:
                with suppress(OSError):
                    relay.sock.shutdown(socket.SHUT_RDWR)
            pause = 1.0

    threading.Thread(target=cut, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _addressed(text: str, recipients: list[str]) -> str:
    """The same mail to others."""
    head, blank, body = text.partition("\n\n")
    lines = [f"To: {', '.join(recipients)}" if line.startswith("To: ") else line for line in head.split("\n")]
    return "\n".join(lines) + blank + body


def _line(text: str) -> str:
    return " ".join(text.split())[:300]


def envelope(text: str) -> tuple[str, list[str]]:
    """Sender and recipients, from the headers that we wrote ourselves: one line each."""
    headers = dict(line.partition(": ")[::2] for line in text.partition("\n\n")[0].splitlines())
    sender = headers["From"].partition("<")[2].rstrip(">")
    return sender, [word.strip() for word in headers["To"].split(",")]

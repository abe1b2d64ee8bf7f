"""A mail's way out: a relay by SMTP where create.conf names one, else the host's own sendmail."""

import os
import re
from collections.abc import Callable

from vstools import run
from vstools.errors import VsError

SENDMAIL = "/usr/sbin/sendmail"
_PATIENCE = 20.0
_PORT = 25


def way(relay: str) -> Callable[[str], None]:
    """What sends one mail (a whole text with headers); it raises VsError or OSError when it could not."""
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


def by_sendmail(text: str) -> None:
    """Give it to the host's MTA, which reads the recipients from the headers."""
    if not os.access(SENDMAIL, os.X_OK):
        raise VsError(f"there is no {SENDMAIL}", "install an MTA, or set MONITOR_SMTP in create.conf")
    run.run([SENDMAIL, "-i", "-t"], stdin=text, timeout=60)


def by_smtp(host: str, port: int, text: str) -> None:
    """Give it to a relay. It is done as well when only some of several recipients were refused."""
    import smtplib

    sender, recipients = envelope(text)
    try:
        with smtplib.SMTP(host, port, timeout=_PATIENCE) as relay:
            relay.sendmail(sender, recipients, text)
    except smtplib.SMTPException as error:
        said = " ".join(str(error).split())[:300]
        raise VsError(f"the mail relay {host}:{port} did not take a mail", said) from error


def envelope(text: str) -> tuple[str, list[str]]:
    """Sender and recipients, from the headers that we wrote ourselves: one line each."""
    headers = dict(line.partition(": ")[::2] for line in text.partition("\n\n")[0].splitlines())
    sender = headers["From"].partition("<")[2].rstrip(">")
    return sender, [word.strip() for word in headers["To"].split(",")]

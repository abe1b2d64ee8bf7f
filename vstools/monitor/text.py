"""Mails as text: what the admin reads first stands first, and nothing that a guest says is more than a word in it.

A mail is ASCII with lines of at most 998 characters (RFC 5322); a guest's strings are escaped, so that they can neither
end a header nor play with a terminal.
"""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

from vstools.monitor.alerts import Alert, Event

_SUBJECT = 180
_LINE = 900
_WORD = 300


@dataclass(frozen=True)
class About:
    """Whom a mail is about and who gets it; ``host`` and ``guest`` as the lines of all commands begin."""

    host: str
    node: str
    guest: str
    mailto: tuple[str, ...]
    source: str


def escaped(text: str | bytes, most: int = _WORD) -> str:
    """Whatever a guest says, as printable ASCII of at most ``most`` characters."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    plain = "".join(char if 32 <= ord(char) < 127 and char != "\\" else _code(ord(char)) for char in text[:most])
    return plain[:most] + ("..." if len(text) > most or len(plain) > most else "")


def _code(number: int) -> str:
    if number == ord("\\"):
        return "\\\\"
    if 0xDC80 <= number <= 0xDCFF:  # a byte that is no UTF-8
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}" if number < 65536 else f"\\U{number:08x}"


def subject(about: About, events: tuple[Event, ...], dropped: int = 0) -> str:
    """``host: guest: what``: of the first that began, else of the first that ended; and how many more there are."""
    first = next((event for event in events if event.began), events[0])
    more = len(events) - 1 + dropped
    words = first.text if first.began else f"over: {first.text}"
    room = _SUBJECT - (20 if more else 0)
    return escaped(f"{about.host}: {about.guest}: {words}", room) + (f" (and {more} more)" if more else "")


def mail(
    about: About, events: tuple[Event, ...], dropped: int, still: Iterable[tuple[str, Alert]], now: float, number: int
) -> str:
    """A whole mail with its headers; ``still`` are the alerts that are open now, ``number`` makes its Message-ID."""
    title = subject(about, events, dropped)
    return letter("vs-monitor", about.node, about.mailto, title, _body(about, events, dropped, still), now, number)


def letter(
    program: str, node: str, mailto: Iterable[str], title: str, lines: Iterable[str], now: float, number: int
) -> str:
    """A mail of one of our programs; ``title`` and ``lines`` are ASCII, without ends of lines."""
    node = re.sub(r"[^A-Za-z0-9.-]", "-", node) or "localhost"
    head = [
        f"From: {program} <root@{node}>",
        f"To: {', '.join(mailto)}",
        f"Subject: {title}",
        f"Date: {time.strftime('%a, %d %b %Y %H:%M:%S +0000', time.gmtime(now))}",
        f"Message-ID: <{program}.{number}.{now:.0f}@{node}>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=us-ascii",
        "Content-Transfer-Encoding: 7bit",
    ]
    return "\n".join(_cut(line) for line in [*head, "", *lines]) + "\n"


def _body(about: About, events: tuple[Event, ...], dropped: int, still: Iterable[tuple[str, Alert]]) -> list[str]:
    lines = [f"Guest {escaped(about.guest)} on {escaped(about.node)}", ""]
    for event in events:
        lines.append(f"{_clock(event.at)}  {'BEGAN' if event.began else 'over '}  {escaped(event.text, _LINE)}")
        lines += [f"    {escaped(detail, _LINE)}" for detail in event.details]
    if dropped:
        lines.append(f"... and {dropped} more, not kept: there were too many to be told one by one")
    told = {event.key for event in events if event.began}
    rest = [(key, alert) for key, alert in still if key not in told]
    if rest:
        lines += ["", "Still so:"]
        lines += [f"    since {_clock(alert.since)}: {escaped(alert.text, _LINE)}" for _, alert in rest[:50]]
    return [*lines, "", f"What is watched: {escaped(about.source)}; now: vs-stats --name {escaped(about.guest)}"]


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(at))


def _cut(line: str) -> str:
    return line if len(line) <= 998 else line[:990] + "..."


def size(value: float) -> str:
    """Bytes with a unit of 1024, as vs-stats has them: ``64M``, ``1.5G``."""
    for unit in "BKMGTP":
        if value < 999.5 or unit == "P":
            break
        value /= 1024
    digits = f"{value:.1f}" if value < 9.95 and unit != "B" and value != int(value) else f"{value:.0f}"
    return digits if unit == "B" else digits + unit

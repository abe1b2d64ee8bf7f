"""What the master and a host's agent say to each other: one JSON object a line, bounded.

The agent speaks first: ``{"agent": 1, "version": ..., "node": ...}``. Then, for each request ``{"id": n, "verb": ...,
"with": {...}}``, one answer: ``{"id": n, "value": ...}``, or ``"refused"`` or ``"failed"`` with ``[sentence, hint]``;
before it any number of ``{"note": sentence}`` and ``{"done": bytes}``. ``{"cancel": n}`` ends a copy that is under way.
The master sends an empty line every few seconds: an agent that hears nothing any more ends, as at the end of its input.
"""

import json
import math
from typing import Any

from vstools import faults

PROTOCOL = 1
LONGEST = 32 << 20
"""Bytes of a line: a guest's configuration has 8 MiB at most, in base64."""
BEAT, SILENCE = min(5.0, faults.patience(30.0) / 3), faults.patience(30.0)
"""Seconds between the master's empty lines, and of silence after which its agent takes it for dead."""


def line(message: dict[str, Any]) -> bytes:
    """A message as it is sent."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def message(text: bytes) -> dict[str, Any]:
    """A message that was received; raises ValueError for anything else."""
    if len(text) > LONGEST or not text.endswith(b"\n"):
        raise ValueError("it is too long, or cut off")
    try:
        found = json.loads(text, parse_constant=_number, parse_float=_number)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(found, dict):
        raise ValueError("it is no object")  # noqa: TRY004 - as for what is no JSON
    return found


def _number(text: str) -> float:
    """A number that is one: JSON's readers make infinity of 1e999."""
    found = float(text)
    if not math.isfinite(found):
        raise ValueError("it holds no number")
    return found


def clean(words: object) -> str:
    """What a host said, for a line of ours: bounded, printable, no line of its own, nothing that turns text around."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(words)[:500])

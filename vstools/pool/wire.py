"""What the master and a host's agent say to each other: one JSON object a line, bounded.

The agent speaks first: ``{"agent": 1, "version": ..., "node": ...}``. Then, for each request ``{"id": n, "verb": ...,
"with": {...}}``, one answer: ``{"id": n, "value": ...}``, or ``"refused"`` or ``"failed"`` with ``[sentence, hint]``;
before it any number of ``{"note": sentence}`` and ``{"done": bytes}``. ``{"cancel": n}`` ends a copy that is under way.
"""

import json
from typing import Any

PROTOCOL = 1
LONGEST = 32 << 20
"""Bytes of a line: a guest's configuration has 8 MiB at most, in base64."""


def line(message: dict[str, Any]) -> bytes:
    """A message as it is sent."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def message(text: bytes) -> dict[str, Any]:
    """A message that was received; raises ValueError for anything else."""
    if len(text) > LONGEST or not text.endswith(b"\n"):
        raise ValueError("it is too long, or cut off")
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("it is no object")  # noqa: TRY004 - as for what is no JSON
    return found

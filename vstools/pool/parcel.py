"""A guest's description as it goes over the wire: files in base64, and back, checked for its shape."""

import base64
import binascii
from typing import Any

from vstools.config.carried import File, check
from vstools.config.owner import Owner
from vstools.errors import Refused
from vstools.lifecycle.arrival import Arrival


def packed(files: list[File]) -> list[list[object]]:
    """Files as JSON has them."""
    return [[file.path, file.mode, base64.b64encode(file.content).decode()] for file in files]


def unpacked(rows: Any) -> list[File]:
    """Files from JSON, checked; raises Refused for what cannot be a guest's files."""
    try:
        found = [
            File(path=_text(path), mode=whole(mode) & 0o777, content=base64.b64decode(_text(content), validate=True))
            for path, mode, content in rows
        ]
    except (TypeError, ValueError, binascii.Error) as error:
        raise Refused(f"these are no files of a guest: {error}") from None
    check(found)
    return found


def whole(value: object) -> int:
    """A whole number that is not negative, and that JSON's readers hold exactly; raises ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 53:
        raise ValueError("a whole number is missing")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is missing")  # noqa: TRY004 - as for the rest of what is wrong
    return value


def arrival(words: dict[str, Any]) -> Arrival:
    """A guest that comes, from JSON; raises Refused where that is not its shape."""
    try:
        host, epoch = words["owner"]
        return Arrival(
            transfer=_text(words["transfer"]), name=_text(words["name"]), files=tuple(unpacked(words["files"])),
            owner=Owner(_text(host), whole(epoch)), size=whole(words["size"]), inodes=whole(words["inodes"]),
            arch=_text(words["arch"]), version=_text(words["version"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(f"this is no description of a guest: {error}") from None

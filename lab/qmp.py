"""Talk to a running QEMU over its machine protocol (QMP: JSON lines on a unix socket, qmp-spec.txt)."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import TracebackType
from typing import Any

from lab.command import LabError


class Qmp:
    """One conversation with one QEMU; use it as a context manager."""

    def __init__(self, path: Path, *, timeout: float = 60) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise LabError(f"no QEMU answers at {path}: {error.strerror}", "is the host switched on?") from error
        self._lines = self._socket.makefile("r", encoding="utf-8")
        self._lines.readline()  # the greeting
        self.execute("qmp_capabilities")

    def __enter__(self) -> Qmp:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._socket.close()

    def execute(self, command: str, **arguments: object) -> object:
        """Run one command and give what it returns; underscores in argument names stand for hyphens."""
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        self._socket.sendall(json.dumps({"execute": command, "arguments": named}).encode() + b"\n")
        while line := self._lines.readline():
            answer: dict[str, Any] = json.loads(line)
            if "error" in answer:
                raise LabError(f"QEMU refused {command}: {answer['error']['desc']}")
            if "return" in answer:
                result: object = answer["return"]
                return result  # all other lines are events
        raise LabError(f"QEMU ended during {command}")

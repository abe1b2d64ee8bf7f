"""The master's end of a conversation with a host: what it answers is data, checked before it is believed."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vstools import log
from vstools.config.slaves import Slave
from vstools.errors import Refused, VsError
from vstools.paths import Paths
from vstools.pool import ssh, wire

if TYPE_CHECKING:
    from paramiko import Channel

ANSWER_TIMEOUT = 60.0
_MOST_NOTES = 200
_LAST_WORDS = 5.0
"""Seconds for the exit status of an agent that ended."""
COMMAND = "vs-slave"
_NOT_FOUND = 127
"""What a shell ends with that knows no such program."""


class Outdated(VsError):
    """A host that is in order, but for its vs-tools."""


@dataclass
class Agent:
    """A running agent on a host, for one operation; its locks end with it."""

    slave: Slave
    channel: "Channel"
    version: str = ""
    _asked: int = 0
    _buffer: bytearray = field(default_factory=bytearray)
    _sending: threading.Lock = field(default_factory=threading.Lock)
    _deadline: float = 0.0

    def call(
        self,
        verb: str,
        /,
        words: Mapping[str, object] | None = None,
        *,
        timeout: float = ANSWER_TIMEOUT,
        progress: Callable[[int], None] | None = None,
        **more: object,
    ) -> Any:
        """Ask the host for something. Raises what it raised there, or VsError when it says nothing sensible.

        ``timeout`` is what the answer may take, in seconds.
        """
        self._deadline = time.monotonic() + timeout
        self._asked += 1
        self.channel.settimeout(timeout)
        self._ask(verb, {"id": self._asked, "verb": verb, "with": {**(words or {}), **more}})
        try:
            return self._value(self._answer(verb, progress))
        except BaseException as error:
            if not isinstance(error, VsError):  # interrupted: what comes of it is not waited for
                self._ask(verb, {"cancel": self._asked})
            raise

    def _ask(self, verb: str, message: dict[str, Any]) -> None:
        try:
            self._send(wire.line(message))
        except (OSError, EOFError) as error:  # paramiko's word for a transport that is gone is an end of file
            raise ssh.Unreachable(f"host {self.slave.host}: the connection ended", verb) from error

    def _answer(self, verb: str, progress: Callable[[int], None] | None) -> dict[str, Any]:
        """The answer to what was asked last; notes and progress before it are told."""
        notes = 0
        while notes < _MOST_NOTES:
            answer = self._message(verb)
            if "note" in answer:
                notes += 1
                log.warn(f"{self.slave.host}: {wire.clean(answer['note'])}")
            elif progress and isinstance(done := answer.get("done"), int) and 0 <= done < 1 << 60:
                progress(done)
            elif answer.get("id") == self._asked:
                return answer
            else:  # to what was asked before, and not waited for
                notes += 1
        raise VsError(f"host {self.slave.host} says too much", verb)

    def _value(self, answer: dict[str, Any]) -> Any:
        for key, kind in (("refused", Refused), ("failed", VsError)):
            if key in answer:
                said = answer[key] if isinstance(answer[key], list) else [answer[key]]
                sentence, hint = ([wire.clean(word) for word in said] + ["", ""])[:2]
                raise kind(f"{self.slave.host}: {sentence}", hint)
        if "value" not in answer:
            raise VsError(f"host {self.slave.host} answers nothing that is understood")
        return answer["value"]

    def _send(self, text: bytes) -> None:
        with self._sending:
            self.channel.sendall(text)

    def _beat(self, ended: threading.Event) -> None:
        """Let the agent hear that its master lives."""
        with suppress(OSError, EOFError):
            self._send(b"\n")  # at once: who was never heard is waited for without an end
            while not ended.wait(wire.BEAT):
                self._send(b"\n")

    @property
    def address(self) -> tuple[str, int]:
        """Address and port of the host's sshd, as this connection has them."""
        place, port, *_ = self.channel.get_transport().getpeername()
        return str(place), int(port)

    def greet(self, patience: float) -> None:
        """Read the agent's first line; raises VsError where no vs-tools of a version that fits is installed."""
        self._deadline = time.monotonic() + patience
        hello = self._message("its first line")
        if hello.get("agent") != wire.PROTOCOL:
            raise Outdated(
                f"host {self.slave.host} has another version of vs-tools ({wire.clean(hello.get('version'))})",
                "vs-update brings it up",
            )
        node = hello.get("node")
        if node != self.slave.host:
            raise VsError(
                f"host {self.slave.host} calls itself {wire.clean(node)}",
                f"its line in slaves.conf begins with its own name: {wire.clean(node)}:address={self.slave.place}",
            )
        self.version = wire.clean(hello.get("version"))

    def _message(self, verb: str) -> dict[str, Any]:
        try:
            return wire.message(self._line(verb))
        except ValueError as error:
            raise VsError(f"host {self.slave.host} answers nothing that is understood", f"{verb}: {error}") from error

    def _line(self, verb: str) -> bytes:
        """One line, however it comes. Raises Unreachable at its end or deadline, ValueError when it is too long."""
        begun = time.monotonic()
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > wire.LONGEST:
                raise ValueError("it is too long")
            self.channel.settimeout(max(0.01, self._deadline - time.monotonic()))
            try:
                more = self.channel.recv(1 << 18)
            except TimeoutError as error:
                silence = time.monotonic() - begun
                raise ssh.Unreachable(f"host {self.slave.host} said nothing for {silence:.0f} seconds", verb) from error
            if not more:
                raise self._ended(verb)
            self._buffer += more
        found = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        return found

    def _ended(self, verb: str) -> VsError:
        """Why the agent is gone: its exit status tells a shell that has no such program."""
        self.channel.status_event.wait(_LAST_WORDS)
        if self.channel.exit_status == _NOT_FOUND:
            return Outdated(f"host {self.slave.host} has no vs-tools, or an old one", "vs-update installs it")
        said = self.channel.recv_stderr(4096) if self.channel.recv_stderr_ready() else b""
        last = (said.decode("utf-8", "replace").strip().splitlines() or [verb])[-1]
        return ssh.Unreachable(f"host {self.slave.host}: the agent ended", wire.clean(last))


@contextmanager
def agent(
    paths: Paths, slave: Slave, timeout: float = ssh.CONNECT_TIMEOUT, patience: float = ANSWER_TIMEOUT
) -> Iterator[Agent]:
    """The agent of a host for the time of a block: seconds to the connection, and from there to its first line."""
    with ssh.connected(paths, slave, timeout) as connection:
        channel = ssh.session(slave, connection, timeout, COMMAND)
        found, ended = Agent(slave, channel), threading.Event()
        try:
            found.greet(patience)
            threading.Thread(target=found._beat, args=(ended,), daemon=True).start()
            yield found
        finally:
            ended.set()
            with suppress(OSError, EOFError):
                channel.close()

"""Mails on their way to a relay that speaks SMTP on a real socket, and to one that only pretends to."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller

from vstools.config.create import parse_relay
from vstools.errors import VsError
from vstools.monitor import deliver
from vstools.monitor.spool import Spool

MAIL = "From: vs-monitor <root@h>\nTo: ops@example.org, grey@example.net, gone@example.net\nSubject: To: x\n\nTo: y\n"


class Choosy:
    """A relay that refuses grey@ until it is white, and gone@ for good."""

    def __init__(self) -> None:
        self.white = False
        self.got: list[tuple[list[str], bytes]] = []

    async def handle_RCPT(self, _server: object, _session: object, envelope: object, address: str, _: object) -> str:  # noqa: N802
        if address.startswith("gone"):
            return "550 no such user"
        if address.startswith("grey") and not self.white:
            return "450 4.2.0 greylisted, try again later"
        envelope.rcpt_tos.append(address)  # type: ignore[attr-defined]
        return "250 yes"

    async def handle_DATA(self, _server: object, _session: object, envelope: object) -> str:  # noqa: N802
        self.got.append((envelope.rcpt_tos, envelope.content))  # type: ignore[attr-defined]
        return "250 kept"


class Relay(Controller):
    """On a port that the kernel chose."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@pytest.fixture
def choosy() -> Iterator[tuple[Choosy, deliver.Way]]:
    found = Choosy()
    relay = Relay(found, hostname="127.0.0.1", port=0)
    relay.start()
    try:
        yield found, deliver.way(f"127.0.0.1:{relay.port}")
    finally:
        relay.stop()


def test_who_is_refused_for_now_gets_the_mail_later_and_who_is_for_good_is_told(
    tmp_path: Path, choosy: tuple[Choosy, deliver.Way], logged: list[str]
) -> None:
    relay, way = choosy
    found, now = Spool(tmp_path / "spool"), [1000.0]
    found.put(0, MAIL, now[0])
    found.committed = 1
    assert (found.send(way, lambda: now[0]), found.count()) == (1, 1)
    assert any("refused gone@example.net: 550" in line for line in logged)
    now[0] += 30
    relay.white = True
    assert (found.send(way, lambda: now[0]), found.count()) == (0, 0)
    assert [recipients for recipients, _ in relay.got] == [["ops@example.org"], ["grey@example.net"]]
    assert b"Subject: To: x\r\n\r\nTo: y" in relay.got[1][1]
    assert sum("gone@example.net" in line for line in logged) == 1


def test_a_relay_that_sends_a_byte_now_and_then_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver, "_ALL", 1.0)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            peer, _ = server.accept()
            with peer, suppress(OSError):
                peer.sendall(b"220")
                while not over.wait(0.1):
                    peer.sendall(b"-")

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        begun = time.monotonic()
        try:
            with pytest.raises((VsError, OSError)):
                deliver.by_smtp("127.0.0.1", server.getsockname()[1], MAIL)
        finally:
            over.set()
            thread.join()
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize(
    "text", ["mail", "mail.example.org.:25", f"{'a' * 63}.org", "10.0.0.1:2525", "[2001:db8::1]:26"]
)
def test_a_relay_that_can_be_asked(text: str) -> None:
    assert parse_relay(text) == text


@pytest.mark.parametrize(
    "text", [f"{'a' * 64}.org", ".org", "mail:0", "mail:65536", "a." * 127 + "org", "[::1", "a..b"]
)
def test_a_relay_that_no_resolver_takes_is_a_fault(text: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        parse_relay(text)

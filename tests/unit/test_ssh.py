"""Connections to a host that lets the master in and then says nothing: each wait has an end."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paramiko
import pytest

from vstools.config.slaves import Slave
from vstools.paths import Paths
from vstools.pool import remote, ssh


class Mute(paramiko.ServerInterface):
    """An sshd that takes any key, and never answers one kind of request."""

    def __init__(self, kind: str, end: threading.Event) -> None:
        self._kind, self._end = kind, end

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return self._answer("login", paramiko.AUTH_SUCCESSFUL)

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return self._answer("session", paramiko.OPEN_SUCCEEDED)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        return bool(self._answer("program", 1))

    def _answer(self, kind: str, answer: int) -> int:
        if kind == self._kind:
            self._end.wait(60)
        return answer


@contextmanager
def mute(paths: Paths, kind: str) -> Iterator[Slave]:
    """Such a host of the pool."""
    folder = ssh.folder(paths)
    folder.mkdir(parents=True)
    key = paramiko.RSAKey.generate(2048)
    key.write_private_key_file(str(folder / ssh.KEY))
    (folder / ssh.KNOWN_HOSTS).write_text(f"vsh-01 {key.get_name()} {key.get_base64()}\n")
    end = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            transport = paramiko.Transport(server.accept()[0])
            transport.add_server_key(key)
            transport.start_server(server=Mute(kind, end))
            end.wait(60)
            transport.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield Slave("vsh-01", address="127.0.0.1", port=server.getsockname()[1])
        finally:
            end.set()
            thread.join()


@pytest.mark.parametrize("kind", ["login", "session", "program"])
def test_a_host_that_falls_silent_is_given_up(tmp_path: Path, kind: str) -> None:
    paths = Paths(tmp_path)
    with mute(paths, kind) as slave, pytest.raises(ssh.Unreachable) as caught, remote.agent(paths, slave, 1.0):
        pass
    assert not isinstance(caught.value, ssh.KeyRefused)
    assert str(caught.value).startswith("host vsh-01")
    assert kind == "login" or str(caught.value) == "host vsh-01 does not answer within 1 seconds"

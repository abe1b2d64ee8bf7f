"""Connections to the hosts of the pool: the pool's own key, known hosts only, an end to every wait.

What fabric would do by itself is turned off: it accepts the key of any unknown host, reads the ssh configuration of
whoever calls, and asks an agent for other keys. rsync and this use the same key and the same known_hosts, so that both
talk to the same machine or to none.
"""

import os
import shlex
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vstools import faults
from vstools.config.slaves import Slave
from vstools.errors import VsError
from vstools.paths import Paths

if TYPE_CHECKING:
    from fabric import Connection
    from paramiko import Channel

CONNECT_TIMEOUT = 30.0
_DEAD_AFTER = int(faults.patience(60))
"""Seconds without an answer to what was sent after which a connection is given up; kept alive, they are all asked."""
KEY, KNOWN_HOSTS = "key", "known_hosts"


class Unreachable(VsError):
    """A host that does not answer, or is not the one that it was."""


class KeyRefused(Unreachable):
    """A host that answers, and does not take the pool's key."""


def folder(paths: Paths) -> Path:
    """Where the pool's key and the keys of its hosts are: root's, mode 0700."""
    return paths.conf / "pool"


@contextmanager
def connected(paths: Paths, slave: Slave, timeout: float = CONNECT_TIMEOUT) -> Iterator["Connection"]:
    """A connection to a host; raises Unreachable when there is none within the time, or the host's key is another."""
    import paramiko
    from fabric import Config, Connection

    known = folder(paths) / KNOWN_HOSTS
    settings = Config(overrides={"load_ssh_configs": False, "connect_kwargs": {}}, lazy=True)
    with said(slave, timeout):
        wire = dial(slave, timeout)
    connection = Connection(
        slave.name, user=slave.user, port=22, config=settings, connect_timeout=int(timeout) or 1,
        connect_kwargs={
            "sock": wire, "key_filename": str(folder(paths) / KEY), "allow_agent": False, "look_for_keys": False,
            "banner_timeout": timeout, "auth_timeout": timeout, "channel_timeout": timeout,
        },
    )  # fmt: skip
    client: paramiko.SSHClient = connection.client
    try:
        with said(slave, timeout):
            if known.exists():
                client.load_host_keys(str(known))
            client.set_missing_host_key_policy(paramiko.RejectPolicy())
            connection.open()
            connection.transport.set_keepalive(_DEAD_AFTER // 4)
        yield connection
    finally:
        with suppress(Exception):
            connection.close()
        wire.close()


def session(slave: Slave, connection: "Connection", timeout: float, *argv: str) -> "Channel":
    """Begin a program on a host; raises Unreachable when that takes too long, where paramiko would wait forever."""
    transport = connection.transport
    impatience = threading.Timer(timeout, transport.close)
    impatience.daemon = True
    impatience.start()
    try:
        with said(slave, timeout):
            channel: Channel = transport.open_session(timeout=timeout)
            channel.exec_command(shlex.join(remote(slave, *argv)))
            return channel
    finally:
        impatience.cancel()


def dial(slave: Slave, timeout: float) -> socket.socket:
    """The name is for the key, the address for the wire: fabric is given a socket that is connected already."""
    wire = socket.create_connection((slave.place, slave.port), timeout=timeout)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_AFTER * 1000)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return wire


@contextmanager
def said(slave: Slave, timeout: float) -> Iterator[None]:
    """Whatever the libraries raise, in one sentence."""
    import paramiko

    try:
        yield
    except paramiko.BadHostKeyException as error:
        raise Unreachable(
            f"host {slave.host} shows another key than it had: {fingerprint(error.key.asbytes())}",
            "if it was installed anew: vs-hosts --forget-key, then --add; if not, somebody is in between",
        ) from error
    except paramiko.AuthenticationException as error:
        if "timeout" in str(error).lower():
            raise Unreachable(f"host {slave.host} lets nobody in within {timeout:g} seconds") from error
        raise KeyRefused(
            f"host {slave.host} does not take the pool's key", f"vs-hosts --add {slave.name} installs it"
        ) from error
    except TimeoutError as error:
        raise Unreachable(f"host {slave.host} does not answer within {timeout:g} seconds") from error
    except paramiko.SSHException as error:
        words = str(error)
        if "not found in known_hosts" in words:
            raise unknown(slave) from error
        raise Unreachable(f"host {slave.host}: {words or type(error).__name__}") from error
    except (OSError, EOFError) as error:
        words = getattr(error, "strerror", None) or str(error) or "the connection was closed"
        raise Unreachable(f"host {slave.host}: {words}") from error


def known_lines(paths: Paths) -> list[str]:
    """The pool's known_hosts: a host's name, the type of its key, and the key in base64, a line each."""
    path = folder(paths) / KNOWN_HOSTS
    return path.read_text().splitlines() if path.exists() else []


def known_line(paths: Paths, slave: Slave) -> str | None:
    """The line with a host's key; None where it is not known yet."""
    return next((line for line in known_lines(paths) if line.split()[:1] == [slave.name]), None)


def unknown(slave: Slave) -> Unreachable:
    """What is wrong with a host whose key is not known."""
    return Unreachable(f"the key of host {slave.host} is unknown", f"vs-hosts --add {slave.name}")


def fingerprint(key: bytes) -> str:
    """What ssh-keygen -l shows of a public key: SHA256 in base64."""
    import base64
    import hashlib

    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def words(paths: Paths, slave: Slave, *, own_key: bool = True) -> list[str]:
    """The system's ssh to a host of the pool, the same machine with the same key.

    Without ``own_key`` it is for the admin at the terminal: with his keys, and it may ask for a password.
    """
    return words_with(slave, folder(paths) / KNOWN_HOSTS, folder(paths) / KEY if own_key else None)


def words_with(slave: Slave, known: Path, key: Path | None) -> list[str]:
    """ssh with one known_hosts, one key (None: the caller's own), and none of the caller's configuration."""
    keys = {} if key is None else {"BatchMode": "yes", "IdentitiesOnly": "yes", "IdentityFile": key}
    options = {
        **keys, "StrictHostKeyChecking": "yes", "UserKnownHostsFile": known,
        "GlobalKnownHostsFile": os.devnull, "HostKeyAlias": slave.name, "CheckHostIP": "no",
        "ConnectTimeout": int(CONNECT_TIMEOUT), "ControlPath": "none",
        "ServerAliveInterval": _DEAD_AFTER // 4, "ServerAliveCountMax": 4, "UpdateHostKeys": "no", "LogLevel": "ERROR",
        "HostName": slave.place, "Port": slave.port, "User": slave.user,
    }  # fmt: skip
    return ["ssh", "-F", os.devnull, "-a", "-x", "-T", *(f"-o{key}={value}" for key, value in options.items())]


def remote(slave: Slave, *argv: str) -> list[str]:
    """A command's words on a host: by sudo where its user is not root."""
    return [*(() if slave.user == "root" else ("sudo", "-n")), *argv]

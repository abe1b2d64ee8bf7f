"""The first contact with a host: its key is shown and stored, the pool's key is installed, versions are compared."""

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vstools import __version__, files, run
from vstools.config import slaves
from vstools.config.slaves import Slave
from vstools.config.text import LIMIT, Faults, lines_of
from vstools.errors import Refused, VsError
from vstools.faults import checkpoint
from vstools.paths import Paths, host_name
from vstools.pool import remote, ssh

_APPEND = """umask 077; mkdir -p ~/.ssh; cd ~/.ssh; touch authorized_keys
[ -z "$(tail -c 1 authorized_keys)" ] || echo >> authorized_keys
grep -qF {key} authorized_keys || echo {line} >> authorized_keys"""
_REMOVE = """cd ~/.ssh && grep -vF {key} authorized_keys > .authorized_keys.vs-tools; [ $? -lt 2 ] &&
cat .authorized_keys.vs-tools > authorized_keys; rm -f .authorized_keys.vs-tools"""


@dataclass(frozen=True)
class HostKey:
    """The key that a host's sshd shows: its type and itself in base64, as known_hosts has them."""

    kind: str
    text: str
    fingerprint: str


def pool_key(paths: Paths) -> str:
    """The public half of the pool's key; made when there is none."""
    folder = files.directory(ssh.folder(paths), 0o700)
    key = folder / ssh.KEY
    with files.lock(folder / ".lock", what="the pool's key"):
        if not key.exists():
            new = folder / ".key.new"
            for left in (new, new.with_suffix(".new.pub")):
                left.unlink(missing_ok=True)
            comment = f"vs-tools pool of {host_name()}"
            run.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(new)])
            checkpoint("contact:key")
            new.with_suffix(".new.pub").rename(folder / f"{ssh.KEY}.pub")
            new.rename(key)
            files.sync_directory(folder)
    return run.run(["ssh-keygen", "-y", "-f", str(key)]).out.strip()


def shown_key(slave: Slave, timeout: float = ssh.CONNECT_TIMEOUT) -> HostKey:
    """Ask a host's sshd for its key, and nothing else."""
    import paramiko

    with ssh.said(slave, timeout), ssh.dial(slave, timeout) as wire:
        transport = paramiko.Transport(wire)
        try:
            transport.start_client(timeout=timeout)
            key = transport.get_remote_server_key()
        finally:
            transport.close()
    return HostKey(key.get_name(), key.get_base64(), ssh.fingerprint(key.asbytes()))


def add(paths: Paths, slave: Slave, accept: Callable[[HostKey], None], timeout: float = ssh.CONNECT_TIMEOUT) -> str:
    """Let a host be of the pool; returns its version of vs-tools. ``accept`` raises when the key is not right.

    Done again, it does what is missing. Nothing but the question for its key goes to a host before that is accepted.
    """
    public = pool_key(paths)
    recognize(paths, slave, accept, timeout)
    checkpoint("contact:known")
    try:
        return _enlisted(paths, slave, timeout)
    except ssh.KeyRefused:
        _install_key(paths, slave, public)
        checkpoint("contact:key-installed")
        return _enlisted(paths, slave, timeout)


def recognize(
    paths: Paths, slave: Slave, accept: Callable[[HostKey], None], timeout: float = ssh.CONNECT_TIMEOUT
) -> None:
    """Let nothing be sent to a host before its key was accepted, once; raises Refused where it shows another one."""
    key = shown_key(slave, timeout)
    known = ssh.known_line(paths, slave)
    if known is None:
        accept(key)
        _remember(paths, slave, key)
    elif known.split()[1:] != [key.kind, key.text]:
        raise Refused(
            f"host {slave.host} shows another key than it had: {key.fingerprint}",
            f"if it was installed anew: vs-hosts --forget-key {slave.host}; if not, somebody is in between",
        )


def _enlisted(paths: Paths, slave: Slave, timeout: float) -> str:
    """The host's version; it is of the pool now, also where that has to be brought up first."""
    try:
        version = _version(paths, slave, timeout)
    except remote.Outdated:
        _enlist(paths, slave)
        raise
    _enlist(paths, slave)
    return version


def _version(paths: Paths, slave: Slave, timeout: float) -> str:
    with remote.agent(paths, slave, timeout) as there:
        if there.version.split(".")[0] != __version__.split(".")[0]:
            raise remote.Outdated(
                f"host {slave.host} has vs-tools {there.version}, this node {__version__}", "vs-update brings it up"
            )
        return there.version


def _install_key(paths: Paths, slave: Slave, public: str) -> None:
    """By whatever lets the admin in now: his own key, or the password that ssh asks him for."""
    own = {key: value for key, value in os.environ.items() if key in ("SSH_AUTH_SOCK", "SSH_ASKPASS", "DISPLAY")}
    script = _APPEND.format(key=shlex.quote(public.split()[1]), line=shlex.quote(public))
    argv = [*ssh.words(paths, slave, own_key=False), slave.name, script]
    if run.interactive(argv, more=own):
        raise VsError(
            f"the pool's key was not installed on {slave.host}", f"ssh {slave.user}@{slave.place} has to work"
        )


def _remember(paths: Paths, slave: Slave, key: HostKey) -> None:
    _write_known(paths, [*ssh.known_lines(paths), f"{slave.name} {key.kind} {key.text}"])


def forget_key(paths: Paths, name: str) -> None:
    """Forget the key of a host that was installed anew; raises Refused when none is stored."""
    lines = ssh.known_lines(paths)
    kept = [line for line in lines if line.split()[:1] != [name]]
    if len(kept) == len(lines):
        raise Refused(f"no key of host {name!r} is stored")
    _write_known(paths, kept)


def _write_known(paths: Paths, lines: list[str]) -> None:
    files.write(ssh.folder(paths) / ssh.KNOWN_HOSTS, "".join(f"{line}\n" for line in lines), 0o600)


def _enlist(paths: Paths, slave: Slave) -> None:
    """Add the host's line to slaves.conf; one that is there already stays as it is."""
    path, faults = paths.conf / slaves.FILE, Faults()
    known = slaves.load(path, faults)
    faults.check()
    if all(other.host != slave.host for other in known):
        _rewrite(path, [*lines_of(path), slaves.line(slave)])


def remove(paths: Paths, slave: Slave) -> None:
    """Take the pool's key off a host, where it answers, and forget the host."""
    public = pool_key(paths)
    try:
        with ssh.connected(paths, slave) as connection:
            script = _REMOVE.format(key=shlex.quote(public.split()[1]))
            connection.run(script, hide=True, in_stream=False, timeout=30)
    except ssh.Unreachable as error:
        raise VsError(
            f"{error}: it still takes the pool's key", f"remove its line from {paths.conf / slaves.FILE} by hand"
        ) from error
    path = paths.conf / slaves.FILE
    _rewrite(path, [line for line in lines_of(path) if not _is_line_of(line, slave)])
    forget_key(paths, slave.name)


def _is_line_of(line: str, slave: Slave) -> bool:
    return line.partition(":")[0].strip() == slave.name


def _rewrite(path: Path, lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    if len(text) > LIMIT:
        raise Refused(f"{path} would be too long")
    files.write(path, text)

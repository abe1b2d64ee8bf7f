"""A host lets another one in for one transfer: a line of authorized_keys that allows one command and expires."""

import os
import pwd
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from vstools import files
from vstools.errors import Refused
from vstools.guest import check_name
from vstools.paths import Paths

_KEY = re.compile(r"ssh-ed25519 [A-Za-z0-9+/=]{68,80} vs-tools-transfer-[A-Za-z0-9._-]+")
_DAY = timedelta(days=1)


def admit(paths: Paths, name: str, key: str) -> None:
    """Let this key in, for the tree that was staged for a guest, for a day at most."""
    check_name(name, imported=True)
    if not _KEY.fullmatch(key) or not key.endswith(f" vs-tools-transfer-{name}"):
        raise Refused("this is no key for a transfer")
    until = (datetime.now(UTC) + _DAY).strftime("%Y%m%d%H%MZ")
    program = "sudo -n vs-slave" if _user() != "root" else "vs-slave"
    command = f'{program} receive {name} --asked \\"$SSH_ORIGINAL_COMMAND\\"'
    line = f'restrict,expiry-time="{until}",command="{command}" {key}'
    _change(paths, lambda lines: [*_without(lines, name), line])


def expel(paths: Paths, name: str) -> None:
    """Let in nobody any more for a guest's transfer."""
    check_name(name, imported=True)
    _change(paths, lambda lines: _without(lines, name))


def _without(lines: list[str], name: str) -> list[str]:
    return [line for line in lines if not line.endswith(f" vs-tools-transfer-{name}")]


def _user() -> str:
    """Who the master is here: root, or who became root by sudo."""
    return os.environ.get("SUDO_USER") or "root"


def _change(paths: Paths, edit: Callable[[list[str]], list[str]]) -> None:
    """Rewrite authorized_keys; a file that is the same afterwards is left alone."""
    entry = pwd.getpwnam(_user())
    path = (Path(entry.pw_dir) / ".ssh/authorized_keys").resolve()
    with files.lock(paths.locks / "_authorized_keys", what=str(path)):
        before = path.read_bytes().decode("utf-8", "surrogateescape").splitlines() if path.exists() else []
        after = edit(before)
        if after == before:
            return
        path.parent.mkdir(mode=0o700, exist_ok=True)
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
        files.write(path, "".join(f"{line}\n" for line in after), mode)
        os.chown(path, entry.pw_uid, entry.pw_gid)

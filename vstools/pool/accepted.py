"""What comes from a host is data until the admin accepted it: the master's copy of what could harm a host."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from vstools import files, libc
from vstools.config import carried
from vstools.config.carried import File
from vstools.errors import Refused
from vstools.pool.store import Store

_FOLDER, _NEW = "accepted", ".accepted.new"
_SHOWN = 20


def require(store: Store, name: str, host: str, found: Iterable[File], *, accept: bool) -> None:
    """Hold a guest whose hooks and the like are not as they were accepted; with ``accept`` they are from now on.

    Raises Refused with the paths that differ.
    """
    found = list(found)
    folder = store.root / name / _FOLDER
    known = carried.read(folder) if folder.is_dir() else []
    differing = carried.sensitive(found, known)
    if not differing:
        return
    if not accept:
        more = [f"and {len(differing) - _SHOWN} more"] if len(differing) > _SHOWN else []
        raise Refused(
            f"guest {name} has files that can do more to a host than a guest may, and nobody has accepted them: "
            f"{', '.join([*differing[:_SHOWN], *more])}",
            f"look at them on {host}, then give --accept-config",
        )
    paths = set(carried.sensitive(found))
    _write(folder, [file for file in found if file.path in paths])


def _write(folder: Path, wanted: list[File]) -> None:
    new = folder.with_name(_NEW)
    for above in (folder.parent.parent, folder.parent):
        files.directory(above, 0o700)
    shutil.rmtree(new, ignore_errors=True)
    files.directory(new, 0o700)
    carried.write(new, wanted)
    if folder.is_dir():
        libc.exchange(new, folder)
    else:
        new.rename(folder)
    files.sync_directory(folder.parent)
    shutil.rmtree(new, ignore_errors=True)

"""Device nodes in a tree that came from another host: LXC makes /dev, and no guest could have made one by itself.

Character devices 0:0 stay: overlayfs writes them for files that were removed (kernel, filesystems/overlayfs.rst).
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from vstools import run
from vstools.errors import VsError
from vstools.inside import Inside

_DEADLINE = 3600.0
_BLOCK = 1 << 16
_WHITEOUT = os.makedev(0, 0)


def remove_devices(tree: Path) -> int:
    """Remove all device nodes but overlayfs's from a tree that nobody changes; returns how many there were.

    find looks for them: no Python for each file. Raises VsError for one that lies too deep to be reached.
    """
    count = 0
    with Inside(tree) as inside:
        for path in _found(tree):
            if _is_whiteout(path):
                continue
            inside.remove(str(path.relative_to(tree)))
            if os.path.lexists(path):
                raise VsError(f"the device node {path} could not be removed")
            count += 1
    return count


def _is_whiteout(path: Path) -> bool:
    try:
        state = path.lstat()
    except OSError as error:
        raise VsError(f"a device node lies too deep in the tree: {error.strerror}", str(path)[:200]) from error
    return stat.S_ISCHR(state.st_mode) and state.st_rdev == _WHITEOUT


def _found(tree: Path) -> Iterator[Path]:
    """The device nodes of a tree; no link is followed, no mount entered."""
    argv = ["find", str(tree), "-xdev", "(", "-type", "b", "-o", "-type", "c", ")", "-print0"]
    with run.piped(argv, stdout=run.PIPE) as find:
        rest = b""
        while block := find.stdout.read1(_BLOCK):  # type: ignore[attr-defined]
            *names, rest = (rest + block).split(b"\0")
            yield from (Path(os.fsdecode(name)) for name in names)
        if said := find.finish(_DEADLINE):
            raise VsError(f"{tree} could not be searched for device nodes", said)

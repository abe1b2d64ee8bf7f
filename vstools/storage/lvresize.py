"""A guest's own volume gets another size: larger while it is used, smaller while it is not.

At every moment the file system fits into the volume. What was begun is done by doing all of it again.
"""

import re

from vstools import run
from vstools.errors import Refused, VsError
from vstools.faults import checkpoint
from vstools.storage import lvplace, volumes
from vstools.storage.own import RESIZING, Own, check_alone
from vstools.storage.volumes import Group, Volume

_MIB, _BLOCK = 1 << 20, 4096
_DEADLINE = 12 * 3600.0


def check(own: Own, size: int, *, running: bool) -> None:
    """Raise Refused where a volume, whose tree is mounted, cannot get a size in MiB."""
    found, group = own.required(), volumes.group(own.volume.group)
    if (wanted := lvplace.rounded(size, group.extent)) == found.size:
        return
    check_alone(found)
    if wanted > found.size:
        _check_growth(found, group, wanted)
        return
    if running:
        raise Refused(f"disk {size}: a guest's own volume is made smaller while it is stopped only", "stop the guest")
    held = own.use()
    if held is None or held.used > wanted:
        used = "an unknown number of" if held is None else f"{-(-held.used // _MIB)}"
        raise Refused(f"disk {size}: {used} MiB are in use", "files have to go first")


def _check_growth(found: Volume, group: Group, wanted: int) -> None:
    if not found.pool:
        lvplace.check_room(group, wanted - found.size)
    elif (pool := volumes.pool(found.group, found.pool)) is not None and wanted > pool.size:
        said = f"thin pool {found.group}/{found.pool} has {pool.size // _MIB} MiB in all"
        raise Refused(said, f"lvextend {found.group}/{found.pool}")


def resize(own: Own, name: str, size: int) -> None:
    """Give the volume of a guest, whose tree is mounted, at least ``size`` MiB, or so many where it has more."""
    found, group = own.required(), volumes.group(own.volume.group)
    wanted = lvplace.rounded(size, group.extent)
    if wanted < found.size:
        _shrink(own, name, wanted)
        return
    if wanted > found.size:
        run.unbroken(["lvextend", "--quiet", "--yes", "--size", f"{wanted}b", found.full_name])
        checkpoint("limit:extended")
    _fit(own)  # also where a killed command had extended the volume already
    checkpoint("limit:grown")


def _fit(own: Own, *size: str) -> None:
    run.unbroken(["resize2fs", own.device, *size], timeout=_DEADLINE)


def _shrink(own: Own, name: str, wanted: int) -> None:
    own.release(name)
    checkpoint("limit:unmounted")
    own.tag(RESIZING, on=True)
    checkpoint("limit:tagged")
    try:
        own.check()
        checkpoint("limit:checked")
        least = _least(own)
        if least > wanted:
            raise Refused(f"the files of guest {name} need {-(-least // _MIB)} MiB", "files have to go first")
        _fit(own, f"{wanted // 1024}K")
        checkpoint("limit:shrunk")
        run.unbroken(["lvreduce", "--quiet", "--yes", "--size", f"{wanted}b", own.volume.full_name])
        checkpoint("limit:reduced")
        own.tag(RESIZING, on=False)
    finally:
        own.attach(name)
        own.tidy(name)
    checkpoint("limit:mounted")


def _least(own: Own) -> int:
    said = run.run(["resize2fs", "-P", own.device]).out
    return parse_least(said)


def parse_least(said: str) -> int:
    """The bytes that a file system needs at least, as ``resize2fs -P`` estimates them in its blocks. Pure."""
    if (found := re.search(r":\s*([0-9]+)\s*$", said)) is None:
        raise VsError("resize2fs does not say how small the file system can be", said.strip()[:200])
    return int(found[1]) * _BLOCK

"""What of the host a guest is given at its start: its directories and files, bound, and its device nodes.

The host opens each source without following a link and makes a mount of it below the guest's runtime directory; LXC is
told of that one. So nobody who can write in a source, or beside it, leads LXC elsewhere between look and mount.
"""

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from vstools import inside
from vstools.config import passed
from vstools.config.passed import Bind, Passed
from vstools.config.text import Faults
from vstools.errors import Refused
from vstools.guest import Guest
from vstools.inside import Inside
from vstools.paths import Paths
from vstools.storage import mounts

SHARES, NODES = "shares", "devices"
"""Below the guest's runtime directory: the host's mounts, and device nodes, by number."""
_ALWAYS = ("nosuid", "nodev")


def of(paths: Paths, name: str) -> Passed:
    """What a guest's files give it; raises BadFiles."""
    faults = Faults()
    found = passed.load(paths.config_of(name), faults)
    faults.check()
    return found


def known(paths: Paths, name: str) -> Passed:
    """The same of files that may have got faults since the guest's start: what they say without those lines."""
    return passed.load(paths.config_of(name), Faults())


def objections(paths: Paths, wanted: Passed) -> list[str]:
    """A sentence for each thing that this host does not have, or does not give."""
    found = []
    for bind in wanted.binds:
        place = Path(bind.source)
        if place.is_relative_to(paths.trees) or paths.trees.is_relative_to(place):
            found.append(f"{place} is given to nobody: guests' trees are there")
            continue
        try:
            os.close(_open(bind))
        except OSError as error:
            why = "a link is on its way, name where it leads" if error.errno == errno.ELOOP else error.strerror
            found.append(f"{place} cannot be given to the guest: {why}")
    for device in wanted.devices:
        mode = os.stat(device).st_mode if os.path.exists(device) else 0  # noqa: PTH110, PTH116 - links of udev's are followed
        if not stat.S_ISCHR(mode) and not stat.S_ISBLK(mode):
            found.append(f"{device} is no device node of this host")
    return found


def check(paths: Paths, name: str, wanted: Passed) -> None:
    """Raise Refused where this host cannot give it, or its place in the guest's tree is not what it has to be."""
    for sentence in objections(paths, wanted):
        raise Refused(f"guest {name} cannot be started: {sentence}", f"see {paths.config_of(name)}")
    folders: list[str] = []
    single: list[str] = []
    for bind in wanted.binds:
        parts = bind.target.split("/")
        folders += ["/".join(parts[:count]) for count in range(1, len(parts))]
        (folders if Path(bind.source).is_dir() else single).append(bind.target)
    check_places(paths, name, folders, single)


def check_places(paths: Paths, name: str, folders: Iterable[str], single: Iterable[str] = ()) -> None:
    """Raise Refused where one of these places in the guest's tree is no directory, or no file; missing ones are right.

    LXC mounts there: a link left by the guest's root would lead it astray, a pipe would hold it for ever.
    """
    with Inside(paths.tree_of(name)) as tree:
        for kind, places, fits in (("directory", folders, tree.is_directory), ("file", single, tree.is_file)):
            for place in places:
                if tree.exists(place) and not fits(place):
                    where = paths.tree_of(name) / place
                    raise Refused(f"guest {name} cannot be started: {where} is no {kind}", "make it one")


def _open(bind: Bind) -> int:
    """The source itself, open (O_PATH); raises OSError where it is not there, or a link is on the way."""
    return inside.open_plain(bind.source, os.O_PATH)


def make(paths: Paths, guest: Guest, wanted: Passed) -> None:
    """The host's mounts, and their places in the tree. Nobody of the guest's runs."""
    if wanted.devices:
        mounts.give_devices(paths.runtime_of(guest.name) / NODES, wanted.devices, guest.id_base)
    if not wanted.binds:
        return
    shares = paths.runtime_of(guest.name) / SHARES
    shares.mkdir(mode=0o710, exist_ok=True)
    os.chown(shares, 0, guest.id_base)
    with Inside(paths.tree_of(guest.name)) as tree:
        for number, bind in enumerate(wanted.binds):
            descriptor = _open(bind)
            try:
                mounts.share(shares / str(number), descriptor, (*_ALWAYS, *bind.options))
            finally:
                os.close(descriptor)
            if (shares / str(number)).is_dir():
                tree.directory(bind.target)
            elif not tree.exists(bind.target):
                tree.write(bind.target, "")


def drop(paths: Paths, name: str) -> None:
    """Take the host's mounts away again."""
    nodes = paths.runtime_of(name) / NODES
    if nodes.is_dir():
        mounts.unmount(nodes)
        nodes.rmdir()
    mounts.unshare(paths.runtime_of(name) / SHARES)


def entries(paths: Paths, name: str, wanted: Passed) -> tuple[str, ...]:
    """What LXC is told: values of ``lxc.mount.entry``."""
    runtime = passed.escaped(str(paths.runtime_of(name)))
    found = [
        f"{runtime}/{SHARES}/{number} {passed.escaped(bind.target)} none bind 0 0"
        for number, bind in enumerate(wanted.binds)
    ]
    found += [
        f"{runtime}/{NODES}/{number} {passed.escaped(device[1:])} none bind,create=file 0 0"
        for number, device in enumerate(wanted.devices)
    ]
    return tuple(found)

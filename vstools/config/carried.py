"""A guest's directory as data: what is carried from one host to another, and what of it could harm the host.

Regular files only; their paths are relative. What belongs to the one host, or to a moment, never travels: ``storage``,
``owner``, ``apps/init/mark`` and hidden names. Everything here may come from a host that lies.
"""

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vstools.config.owner import FILE as OWNER
from vstools.config.registry import MARK, STORAGE
from vstools.errors import Refused
from vstools.files import directory, sync_directory
from vstools.guest import RLIMITS

SIZE_MAX, COUNT_MAX = 8 << 20, 4096
_PATH_MAX, _DEEPEST = 1024, 16
_STAYS = (STORAGE, OWNER, MARK)
_NIC = r"interfaces/[^/]+/(ip|prefix|dev|mac|name|disabled|accept_ra)"
_RLIMIT = rf"rlimits/({'|'.join(sorted({*RLIMITS, 'rss', 'nproc', 'swap'}))})(\.soft|\.hard)?"
_KNOWN = re.compile(
    rf"context|name|uts/nodename|domain|nameservers|firewall\.conf|monitor\.conf|fstab|apps/init/(depends|style)|{_NIC}"
    rf"|{_RLIMIT}|sched/(fill-rate|interval|tokens-max)|dlimits/0/(directory|space_total|inodes_total|reserved)"
    r"|rates/(net|io)-[a-z]+"
)
_OUTSIDE = re.compile(rb"^[ \t]*include[ \t]++(?![A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*[ \t]*(#|\r?$))", re.MULTILINE)
"""A firewall.conf that reads another file than one beside the host's own."""
_TMP = re.compile(rb"\S+[ \t]+/tmp[ \t]+tmpfs([ \t]|$)")


@dataclass(frozen=True)
class File:
    """A file of a guest's directory: its path below that, the lowest nine bits of its mode, its bytes."""

    path: str
    mode: int
    content: bytes


def read(config: Path) -> list[File]:
    """The files of a guest's directory that travel, sorted. Raises Refused for links, and for what is too much."""
    found: list[File] = []
    room = SIZE_MAX
    for path in _paths(config, ""):
        if path in _STAYS:
            continue
        found.append(_read(config, path, room))
        room -= len(found[-1].content)
    check(found)
    return found


def _paths(config: Path, folder: str) -> Iterable[str]:
    """Whatever is no directory, hidden names left out, in the order of the names."""
    if folder.count("/") > _DEEPEST:
        raise Refused(f"{config / folder} lies too deep", f"at most {_DEEPEST} directories")
    with os.scandir(config / folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _paths(config, f"{folder}{entry.name}/")
        else:
            yield f"{folder}{entry.name}"


def _read(config: Path, path: str, room: int) -> File:
    """One file; raises Refused where it is none, or larger than ``room``."""
    try:
        descriptor = os.open(config / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if (config / path).is_symlink():
            raise Refused(f"{config / path} is a symbolic link", "put the file itself there") from error
        raise
    with open(descriptor, "rb") as handle:  # noqa: PTH123 - a descriptor
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise Refused(f"{config / path} is no regular file", "move it away")
        content = handle.read(room + 1)
    if len(content) > room:
        raise Refused(f"{config} has more than {SIZE_MAX >> 20} MiB", f"move {path} away")
    return File(path, state.st_mode & 0o777, content)


def check(files: Iterable[File]) -> None:
    """Raise Refused where these cannot be the files of a guest's directory that travel."""
    seen: set[str] = set()
    folders: set[str] = set()
    size = 0
    for file in files:
        check_path(file.path)
        if file.path in seen:
            raise Refused(f"the file {file.path} is there twice")
        seen.add(file.path)
        folders.update(str(parent) for parent in Path(file.path).parents)
        size += len(file.content)
        if size > SIZE_MAX or len(seen) > COUNT_MAX:
            raise Refused(f"a guest's files are more than {COUNT_MAX}, or {SIZE_MAX >> 20} MiB")
    if both := sorted(seen & folders):
        raise Refused(f"{both[0]} is a file and a directory at once")


def check_path(path: str) -> None:
    """Raise Refused unless this is a path below a guest's directory, of a file that travels."""
    parts = path.split("/")
    bad = any(part in ("", ".", "..") or len(os.fsencode(part)) > 255 for part in parts)
    if bad or len(path) > _PATH_MAX or len(parts) > _DEEPEST + 1 or not path.isprintable():
        raise Refused(f"{path[:_PATH_MAX]!a} cannot be the path of a guest's file")
    if path in _STAYS or any(part.startswith(".") for part in parts):
        raise Refused(f"{path!r} never comes from another host")


def write(config: Path, files: Iterable[File]) -> None:
    """Write checked files into a new directory, as root's and writable by nobody else; durable but for its name."""
    folders = {config}
    for file in files:
        path = config / file.path
        folders.update(config / parent for parent in Path(file.path).parents)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as handle:  # noqa: PTH123 - a descriptor
            os.fchmod(descriptor, (file.mode & 0o755) | 0o600)
            handle.write(file.content)
            handle.flush()
            os.fsync(descriptor)
    for folder in sorted(folders, reverse=True):
        sync_directory(directory(folder))


def sensitive(files: Iterable[File], accepted: Iterable[File] = ()) -> list[str]:
    """The paths, sorted, of files that can do more to a host than a guest's values, and are not as they were accepted.

    These are hooks, lines of fstab but that of /tmp, what reads other files, and whatever vs-tools does not know. Pure.
    """
    known = {_identity(file) for file in accepted}
    return sorted(file.path for file in files if _is_sensitive(file) and _identity(file) not in known)


def _identity(file: File) -> tuple[str, int, bytes]:
    """What has to be the same: the mode only as far as it is taken over."""
    return file.path, file.mode & 0o755, file.content


def _is_sensitive(file: File) -> bool:
    if not _KNOWN.fullmatch(file.path):
        return True
    if file.path == "fstab":
        lines = (line.strip() for line in file.content.splitlines())
        return any(line and not line.startswith(b"#") and not _TMP.match(line) for line in lines)
    return file.path == "firewall.conf" and _OUTSIDE.search(file.content) is not None

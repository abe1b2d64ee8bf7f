"""A guest's fstab and devices <-> what of the host it is given: directories, files and device nodes.

fstab has the lines of ``man 5 fstab``, as util-vserver read them: ``SOURCE TARGET TYPE OPTIONS``. A line with the
option ``bind`` gives the guest a directory or a file of the host's. The /tmp line is a limit (limits.py), the kernel's
own file systems are LXC's; nothing else is mounted. The format of devices is ours: a node below /dev a line.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from vstools.config.text import Faults, statements
from vstools.errors import BadFiles

FSTAB, DEVICES = "fstab", "devices"
_BY_LXC = ("proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2")
_PLAIN = {"bind", "ro", "rw", "nosuid", "nodev", "noexec", "defaults", "auto"}
_TAKEN = ("dev", "proc", "sys", "run", "tmp")
"""Directories of the guest that are made anew at each start."""
_FORM = "a line is SOURCE TARGET none bind[,ro][,noexec]"


@dataclass(frozen=True)
class Bind:
    """A directory or file of the host's, and where in the guest's tree it is (without the first slash)."""

    source: str
    target: str
    options: tuple[str, ...] = ()
    """``ro`` and ``noexec``, as far as they were asked for."""


@dataclass
class Passed:
    """What a guest is given of the host. ``left``: a sentence for each line of fstab that is not mounted."""

    binds: list[Bind] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def load(config: Path, faults: Faults) -> Passed:
    """Read both files of a guest's directory; missing ones give nothing. Faults are added to ``faults``."""
    found = Passed()
    for number, text in statements(config / FSTAB):
        _fstab(found, config / FSTAB, number, text, faults)
    for number, text in statements(config / DEVICES):
        column = len(text) - len(text.lstrip()) + 1
        device = faults.attempt(config / DEVICES, number, column, _device, text.strip())
        if device is not None:
            found.devices.append(device)
    return found


def _fstab(found: Passed, path: Path, number: int, text: str, faults: Faults) -> None:
    words = [(match[0], match.start() + 1) for match in re.finditer(r"\S+", text)]
    fields = [word for word, _ in words]
    if len(fields) < 4 or "bind" not in re.split(",", fields[3].replace("rbind", "bind")):
        if fields[2:3] and fields[2] not in _BY_LXC and fields[1:3] != ["/tmp", "tmpfs"]:  # noqa: S108 - the guest's
            found.left.append(f"{path}:{number}: {fields[1]} is not mounted: it is no bind of a directory or a file")
        return
    options = fields[3].split(",")
    for option in sorted(set(options) - _PLAIN):
        faults.add(path, number, words[3][1], f"{option!a} is no option here: {_FORM}")
        return
    source = faults.attempt(path, number, words[0][1], _source, fields[0])
    target = faults.attempt(path, number, words[1][1], _target, fields[1])
    if source is None or target is None:
        return
    if any(_overlap(target, other.target) for other in found.binds):
        faults.add(path, number, words[1][1], f"/{target} is in another line's target, or holds it")
        return
    found.binds.append(Bind(source, target, tuple(option for option in ("ro", "noexec") if option in options)))


def _overlap(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def _source(text: str) -> str:
    path = _unescaped(text)
    if path == "/" or not _is_plain(path):
        raise ValueError(f"{text!a} is no absolute path of a directory or file of the host")
    return path


def _target(text: str) -> str:
    path = _unescaped(text)
    if not _is_plain(path) or path.split("/")[1] in ("", *_TAKEN):
        raise ValueError(f"{text!a} is no absolute path in the guest where something of the host can be")
    return path[1:]


def _device(text: str) -> str:
    if not _is_plain(text) or not text.startswith("/dev/") or text.startswith("/dev/."):
        raise ValueError(f"{text!a} is no path below /dev")
    return text


def _is_plain(path: str) -> bool:
    """Whether a path is absolute, says nothing twice and leads nowhere back."""
    return path.isprintable() and path.startswith("/") and not re.search(r"//|/\.{1,2}(/|$)|.+/$", path)


def _unescaped(text: str) -> str:
    r"""``man 5 fstab``: a blank is ``\040``, a backslash ``\134``."""
    return re.sub(r"\\([0-3][0-7]{2})", lambda match: chr(int(match[1], 8)), text)


def escaped(path: str) -> str:
    """A path as a field of fstab, also of LXC's ``lxc.mount.entry``."""
    return re.sub(r"[\s\\#]", lambda match: f"\\{ord(match[0]):03o}", path)


def complaint(line: str) -> str:
    """What is wrong with a line of a fstab, without its place; empty where a guest can start with it."""
    faults = Faults()
    _fstab(Passed(), Path(FSTAB), 1, line, faults)
    try:
        faults.check()
    except BadFiles as error:
        return error.faults[0].partition(": ")[2]
    return ""

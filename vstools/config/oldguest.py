"""A guest's directory of an old Linux-VServer host -> the files that a guest has here, and a word on all the rest.

Source of the format: util-vserver's "configuration layout" page (0.30.216), and for ``schedule`` the Scheduler
Parameters page of linux-vserver.org. Most of it is what a guest has here, too (config/guests.py, config/limits.py): it
is taken over as it stands. Every file is taken over, or translated, or named with the reason why not. All of it may
come from a host that lies: it is data, and what it becomes is checked like the files of any guest that comes.
"""

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address
from pathlib import Path

from vstools.config import oldwords, passed
from vstools.config.carried import COUNT_MAX, SIZE_MAX, File
from vstools.errors import Refused
from vstools.guest import RLIMITS, Address

_DEEPEST = 16
_MOST, _LONGEST = 1000, 1000
"""Lines of what there is to say of a guest's files, and letters of one."""
_PHASES = r"(prepre-start|pre-start|post-start|pre-stop|post-stop|postpost-stop)"
_SCHEDULE = ("fill-rate", "interval", "tokens", "tokens-min", "tokens-max", "prio-bias")
"""The lines of ``schedule``, in their order."""
_LIMITS = "|".join(sorted(RLIMITS))
_MADE_BY_LXC = ("proc", "sysfs", "devpts")
_TMP = ["/tmp", "tmpfs"]  # noqa: S108 - the guest's
_UTIL = re.compile(rb"\b(vattribute|vcontext|chcontext|chbind|vlimit|vnamespace|vsched|vserver|naddress|ncontext)\b")


@dataclass(frozen=True)
class Old:
    """What a guest's directory there holds: regular files, symbolic links (path -> target), and what is neither."""

    files: tuple[File, ...]
    links: dict[str, str]
    strange: tuple[str, ...]


@dataclass(frozen=True)
class Translated:
    """The files that the guest gets here, what an admin should know of the others, and its runlevel, if it says one."""

    files: tuple[File, ...]
    notes: tuple[str, ...]
    runlevel: str | None


def read(config: Path) -> Old:
    """Read a guest's directory of an old host; no link is followed. Raises Refused for what is too much."""
    files: list[File] = []
    links: dict[str, str] = {}
    strange: list[str] = []
    room = SIZE_MAX
    folders = [""]
    while folders:
        folder = folders.pop()
        for entry in sorted(os.scandir(config / folder), key=lambda found: found.name):
            path = f"{folder}{entry.name}"
            if len(files) + len(links) + len(strange) + len(folders) > COUNT_MAX or path.count("/") > _DEEPEST:
                raise Refused(f"{config} is no guest's directory: it has too much in it")
            if entry.is_symlink():
                links[path] = os.readlink(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(f"{path}/")
            elif not entry.is_file(follow_symlinks=False) or not path.isprintable():
                strange.append(path)
            else:
                files.append(_file(Path(entry.path), path, room))
                room -= len(files[-1].content)
    return Old(tuple(sorted(files, key=lambda file: file.path)), links, tuple(sorted(strange)))


def _file(where: Path, path: str, room: int) -> File:
    descriptor = os.open(where, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as handle:  # noqa: PTH123 - a descriptor
        content = handle.read(room + 1)
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o777
    if len(content) > room:
        raise Refused(f"{path} makes the guest's directory larger than {SIZE_MAX >> 20} MiB", "move it away there")
    return File(path, mode, content)


def translate(name: str, old: Old, *, known: Callable[[Address], bool], device: str | None = None) -> Translated:
    """What the guest's files say here. Pure. ``known``: whether a line of networks.conf has the address.

    ``device`` takes the place of whatever device the files name.
    """
    work = _Work(name, old)
    for step in (work.identity, work.schedule, work.limits, work.disk, work.mounts, work.hooks, work.init):
        step()
    work.interfaces(known, device)
    work.words()
    work.rest()
    return Translated(tuple(work.out[path] for path in sorted(work.out)), tuple(work.notes), work.runlevel)


class _Work:
    """What is left to be translated, what came of it, and what there is to say."""

    def __init__(self, name: str, old: Old) -> None:
        self.name, self.old = name, old
        self.left = {file.path: file for file in old.files}
        self.out: dict[str, File] = {}
        self.notes: list[str] = []
        self.runlevel: str | None = None

    def say(self, path: str, words: str) -> None:
        """Something that the admin should know of a file."""
        line = f"{path}: {words}"[:_LONGEST]
        if len(self.notes) > _MOST:
            return
        if len(self.notes) == _MOST:
            line = f"there is more than these {_MOST} lines to say, and no honest guest has so much: look at its files"
        self.notes.append("".join(letter if letter.isprintable() else "?" for letter in line))

    def text(self, path: str) -> str | None:
        """Take a file's value: its text without blanks around."""
        file = self.left.pop(path, None)
        return None if file is None else file.content.decode("utf-8", "replace").strip()

    def put(self, path: str, text: str) -> None:
        """Give the guest a file."""
        self.out[path] = File(path, 0o644, f"{text}\n".encode() if text else b"")

    def keep(self, path: str) -> bool:
        """Take a file over as it stands, if it is there."""
        if (file := self.left.pop(path, None)) is not None:
            self.out[path] = file
        return file is not None

    def identity(self) -> None:
        """Context and name; 2008's own files, which load as they stand."""
        self.keep("context")
        if (name := self.text("name") or self.name) != self.name:
            self.say("name", f"{name[:64]!a}: it is called like its directory here")
        self.put("uts/nodename", self.text("uts/nodename") or self.name)
        for path in ("firewall.conf", "monitor.conf", "domain", "nameservers"):
            self.keep(path)

    def schedule(self) -> None:
        """The token bucket: ``sched/`` or the older ``schedule``, and whether it bound at all (flag sched_hard)."""
        if (lines := self.text("schedule")) is not None and not any(path.startswith("sched/") for path in self.left):
            for key, line in zip(_SCHEDULE, lines.splitlines(), strict=False):
                path = f"sched/{key}"
                self.left[path] = File(path, 0o644, line.strip().encode())
        both = [self.keep(f"sched/{key}") for key in ("fill-rate", "interval")]
        if self.keep("sched/tokens-max"):
            self.say("sched/tokens-max", "a token is a millisecond of CPU time here, it was a tick of the clock there")
        flags = "".join(self.left[path].content.decode("ascii", "replace") for path in ("cflags", "flags")
                        if path in self.left)  # fmt: skip
        if any(both) and not all(both):
            self.say("sched", "fill-rate or interval is missing: its share of the CPUs is not bounded")
        if all(both) and "sched_hard" not in flags.lower():
            self.say("sched", f"without the flag sched_hard it bound nothing there; here it binds: "
                     f"vs-limit --name {self.name} --cpu inf lifts it")  # fmt: skip

    def limits(self) -> None:
        """rss and nproc are one number here; the others keep their names and bind each process."""
        for name in ("rss", "nproc"):
            values = {part: self.text(f"rlimits/{name}{part}") for part in ("", ".hard", ".soft")}
            chosen = next((part for part in (".hard", "", ".soft") if values[part] is not None), None)
            if chosen is None:
                continue
            self.put(f"rlimits/{name}", str(values[chosen]))
            if len({value for value in values.values() if value is not None}) > 1:
                self.say(f"rlimits/{name}", f"there is one limit here: {values[chosen]}")
        for path in sorted(self.left):
            if re.fullmatch(rf"rlimits/({_LIMITS})(\.soft|\.hard)?", path):
                self.keep(path)
                self.say(path, "it bounds each process here, it bounded the guest as a whole there")

    def disk(self) -> None:
        """The limit of the guest's own tree is ``dlimits/0``, whatever it was called there."""
        keys = sorted({path.split("/")[1] for path in self.left if re.fullmatch(r"dlimits/[^/]+/.+", path)})
        own = next((key for key in keys if self._is_own_tree(key)), None)
        for key in keys:
            space, files = self.text(f"dlimits/{key}/space_total"), self.text(f"dlimits/{key}/inodes_total")
            where, reserved = self.text(f"dlimits/{key}/directory"), self.text(f"dlimits/{key}/reserved")
            if key != own:
                self.say(f"dlimits/{key}", f"the limit of {where} is not taken over: there is one for the guest's tree")
                continue
            if space is not None:
                self.put("dlimits/0/space_total", space)
            if files is not None:
                self.say(f"dlimits/{key}/inodes_total", "the disk limit allows a file for each 4 KiB")
            if reserved not in (None, "", "0"):
                self.say(f"dlimits/{key}/reserved", "its root has no space of its own here: everybody may fill it")

    def _is_own_tree(self, key: str) -> bool:
        """Whether a disk limit is for the guest's tree: the only one, or the one whose directory is called like it."""
        file = self.left.get(f"dlimits/{key}/directory")
        if file is None:
            return True
        return file.content.decode("utf-8", "replace").strip().rstrip("/").endswith(f"/{self.name}")

    def mounts(self) -> None:
        """fstab: /tmp and binds are taken over, the kernel's file systems are LXC's, the rest is kept."""
        lines = []
        for line in (self.text("fstab") or "").splitlines():
            fields = line.split()
            if not fields or fields[0].startswith("#"):
                continue
            if len(fields) < 3:
                self.say("fstab", f"{line.strip()[:64]!a} mounts nothing: not taken over")
                continue
            if fields[2] in _MADE_BY_LXC:
                self.say("fstab", f"{fields[1]}: LXC mounts it by itself")
                continue
            if wrong := passed.complaint(line):
                self.say("fstab", f"{fields[1]} ({fields[0]}) is a comment now: {wrong}")
                line = f"# {line}"
            elif "bind" in ",".join(fields[3:4]).split(","):
                self.say("fstab", f"{fields[1]}: {fields[0]} of this host is bound there, with this host's ids")
            elif fields[1:3] != _TMP:
                self.say("fstab", f"{fields[1]} ({fields[0]}) stays in the file and is not mounted: "
                         "copy what it holds into the guest's tree")  # fmt: skip
            lines.append(line)
        if lines:
            self.put("fstab", "\n".join(lines))

    def hooks(self) -> None:
        """Programs of util-vserver's phases are programs of the same phases here."""
        for path in sorted(self.left):
            if not re.fullmatch(rf"scripts/{_PHASES}(\.d/[^/]+)?", path):
                continue
            if not self.left[path].mode & 0o100:
                self.text(path)
                self.say(path, "it is not executable: util-vserver's shell read it, nobody does here")
                continue
            if found := _UTIL.search(self.left[path].content):
                self.say(path, f"it calls {found[0].decode()}, which is not here: change it before the first start")
            self.keep(path)

    def init(self) -> None:
        """What starts the guest: a real init, in the runlevel that it had."""
        style = self.text("apps/init/style") or "sysv"
        levels = [level for part in ("runlevel.start", "runlevel") if (level := self.text(f"apps/init/{part}"))]
        if levels and re.fullmatch("[1-5]", levels[0]):
            self.runlevel = levels[0]
        elif style == "sysv":
            self.runlevel = "3"
        if levels and self.runlevel != levels[0]:
            self.say("apps/init/runlevel.start", f"{levels[0][:32]!a} is none to start in: not taken over")
        if style == "sysv":
            self.say("apps/init/style", "its runlevel scripts ran without an init there; here /sbin/init runs them")
        elif style != "plain":
            self.say("apps/init/style", f"{style[:32]!a}: here its own /sbin/init runs")
        if mark := self.text("apps/init/mark"):
            self.say("apps/init/mark", f"{mark[:32]!a}: a guest that comes is disabled; "
                     f"vs-control --name {self.name} --enable")  # fmt: skip
        self.keep("apps/init/depends")

    def interfaces(self, known: Callable[[Address], bool], device: str | None) -> None:
        """Each interface has its own values, where it has none those of all; networks.conf wins over them."""
        every = {key: self.text(f"interfaces/{key}") for key in ("dev", "prefix", "mask")}
        keys = sorted({path.split("/")[1] for path in self.left if re.fullmatch(r"interfaces/[^/]+/[^/]+", path)})
        for key in keys:
            fields = ("ip", *every, "name", "disabled", "nodev")
            own = {field: self.text(f"interfaces/{key}/{field}") for field in fields}
            values = {field: own.get(field) or every.get(field) for field in fields}
            self._interface(f"interfaces/{key}", values, own["disabled"] is not None, known, device)

    def _interface(
        self, where: str, values: dict[str, str | None], disabled: bool, known: Callable[[Address], bool],
        device: str | None,
    ) -> None:  # fmt: skip
        ip, _, behind = (values["ip"] or "").partition("/")
        prefix = behind or values["prefix"] or _prefix_of(values["mask"])
        try:
            address: Address | None = ip_address(ip.strip("[]"))
        except ValueError:
            address = None  # the reader of the files tells what is wrong
        if address is not None and address.is_loopback:
            self.say(where, f"{address}: a guest has a loopback of its own")
            return
        self.put(f"{where}/ip", ip)
        if disabled:
            self.put(f"{where}/disabled", "")
        if values["name"]:
            self.put(f"{where}/name", values["name"])
        there = (values["dev"] or "").partition(":")[0]
        if address is not None and known(address):
            told = ", ".join(word for word in (there, prefix and f"/{prefix}") if word)
            if told:
                self.say(where, f"{address}: networks.conf says device, VLAN and prefix here, not its files ({told})")
        else:
            if prefix:
                self.put(f"{where}/prefix", prefix)
            if device or there:
                self.put(f"{where}/dev", device or there)
            if address is not None:
                self.say(where, f"{address}: no line of networks.conf has it: device {device or there or 'none'}, "
                         f"prefix {prefix or 'none'} (--device says another one)")  # fmt: skip
        if values["nodev"] is not None:
            self.say(where, "nodev: the address was the host's own there; here the guest has it on a link of its own")

    def words(self) -> None:
        """Capabilities and flags, word by word."""
        for path, meanings in oldwords.LISTS.items():
            lines = (line.partition("#")[0] for line in (self.text(path) or "").splitlines())
            for word in dict.fromkeys(word for line in lines for word in re.split(r"[\s,]+", line) if word):
                self.say(path, f"{word[:64]}: {oldwords.meaning(word, meanings)}")

    def rest(self) -> None:
        """Everything else is named: by a reason of its own, or as unknown."""
        said: set[str] = set()
        for path in [*sorted(self.left), *self.old.links, *self.old.strange]:
            if path == "vdir":
                continue
            for pattern, words in oldwords.NOT_HERE:
                if found := re.match(pattern, path):
                    if found[0] not in said:
                        self.say(found[0], words)
                    said.add(found[0])
                    break
            else:
                kind = (
                    "a symbolic link, which is not followed"
                    if path in self.old.links
                    else "vs-tools knows no such file"
                )
                self.say(ascii(path)[1:-1][:200], f"{kind}: not taken over")


def _prefix_of(mask: str | None) -> str | None:
    """The prefix length of a network mask; None for what is none."""
    try:
        return None if mask is None else str(IPv4Network(f"0.0.0.0/{mask}").prefixlen)
    except ValueError:
        return None

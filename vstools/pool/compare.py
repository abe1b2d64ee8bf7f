"""What changed between two manifests, the most alarming first: a function of their lines (manifest.py) alone.

After a break-in the first questions are: what may act as root now, what program is not what it was, who may log in.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from vstools.pool.manifest import changed, fields_of, quoted, unquoted

Line = tuple[bytes, bytes]
"""Name as it is written, and the other words."""

KINDS = (
    "privilege", "program", "user", "cron", "key", "unit", "preload", "module", "pam", "config", "executable", "etc",
    "other",
)  # fmt: skip
"""What a change is about, the most alarming first."""

_LIB = r"(usr/(local/)?)?lib[^/]*"
_PLACES = tuple(
    (kind, re.compile(pattern.encode()))
    for kind, pattern in (
        ("config", r"config"),
        ("preload", r"/etc/ld\.so\.(preload|conf)"),
        ("module", rf"/{_LIB}/modules(/|$)|/etc/(modules|modprobe\.d)"),
        ("pam", rf"/etc/(pam\.|security(/|$))|/{_LIB}(/[^/]+)?/security(/|$)"),
        ("cron", rf"/etc/(cron|anacrontab|at\.)|/var/spool/(cron|at)(/|$)|/(etc|{_LIB})/systemd/.*\.timer"),
        ("unit", rf"/etc/(systemd|init\.d|rc[.0-9S]|inittab)|/{_LIB}/systemd/|.*/\.config/systemd/"),
        ("key", r".*/\.ssh(/(?!known_hosts)|$)|/etc/ssh(/|$)|.*/\.[rs]hosts$|/etc/s?hosts\.equiv$"),
        ("user", r"/etc/((passwd|shadow|group|gshadow|subuid|subgid|sudoers)$|sudoers\.d(/|$))"),
        ("program", rf"/({_LIB}|(usr/(local/)?)?(s?bin|games))(/|$)|/usr/libexec(/|$)"),
    )
)
"""Kind -> where its files lie; the first that fits, from the more particular to the less."""
_EXECUTABLE = 0o111
_SETID = 0o6000
_SUMMARY_PARTS = 3


@dataclass(frozen=True)
class Change:
    """One name that is new, gone or not what it was; or (``summary``) how much changed below a directory.

    Names of the guest's tree begin with ``/``, those of its configuration with ``config``; they are bytes of hostile
    origin, ``details`` is plain text.
    """

    kind: str
    what: str
    name: bytes
    details: str

    @property
    def shown(self) -> str:
        """The name on one line: what is no plain ASCII, and a colon, is octal."""
        return quoted(self.name).decode("ascii").replace(":", r"\072")


def compare(older: Iterable[Line], newer: Iterable[Line], *, full: bool = False) -> list[Change]:
    """All changes, the most alarming kind first, and in the order of names.

    What is neither listed in KINDS by name nor executable is summed up by directories. ``full``: it is not, and files
    of which the time alone changed are named as well.
    """
    found, counts = [], dict[bytes, Counter[str]]()
    for each in _changes(dict(older), newer, full=full):
        if full or each.kind != "other":
            found.append(each)
        else:
            folder = b"/".join(each.name.split(b"/")[:-1][: _SUMMARY_PARTS + 1]) + b"/"
            counts.setdefault(folder, Counter())[each.what] += 1
    found += _summaries(counts)
    return sorted(found, key=lambda each: (KINDS.index(each.kind), each.name, each.what))


def _changes(before: dict[bytes, bytes], newer: Iterable[Line], *, full: bool) -> Iterator[Change]:
    for name, words in newer:
        earlier = before.pop(name, None)
        if earlier == words:
            continue
        new = fields_of(words)
        if earlier is None:
            yield _change("added", name, None, new, _described(new))
            continue
        old = fields_of(earlier)
        keys = set(changed(old, new)) - {"inode"}
        if name.startswith(b"./config/"):  # it is written anew for each copy
            keys -= {"time"}
        if "dir" in (old["type"], new["type"]):  # its time is that of what is in it
            keys -= {"time"} if old["type"] == new["type"] else set()
        if keys - {"time"} or (keys and full):
            yield _change("changed", name, old, new, _differences(old, new, keys))
    for name, words in before.items():
        old = fields_of(words)
        yield _change("removed", name, old, None, _described(old))


def _change(what: str, name: bytes, old: dict[str, str] | None, new: dict[str, str] | None, details: str) -> Change:
    path = unquoted(name)
    path = path.removeprefix(b"./tree") or b"/" if path.startswith(b"./tree") else path.removeprefix(b"./")
    return Change(_kind(path, old, new), what, path, details)


def _kind(path: bytes, old: dict[str, str] | None, new: dict[str, str] | None) -> str:
    sides = [side for side in (old, new) if side is not None]
    if path.startswith(b"/") and any(_is_privileged(side) for side in sides):
        return "privilege"
    for kind, pattern in _PLACES:
        if pattern.match(path):
            return kind
    if new is not None and new["type"] == "file" and int(new["mode"], 8) & _EXECUTABLE:
        return "executable"
    return "etc" if path.startswith(b"/etc/") else "other"


def _is_privileged(fields: dict[str, str]) -> bool:
    """Whether it gives rights to those who use it: a program that changes ids or has capabilities, a device."""
    if fields["type"] in ("block", "char"):
        return fields.get("device") != "native,0,0"  # an overlay's mark of a removed file
    return fields["type"] == "file" and bool(int(fields["mode"], 8) & _SETID or _capability(fields))


def _capability(fields: dict[str, str]) -> str:
    return fields.get("tags", "").partition("capability:")[2]


def _described(fields: dict[str, str]) -> str:
    """A file in a few words."""
    words = [fields["type"], fields["mode"], f"{fields['uid']}:{fields['gid']}"]
    words += ["with capabilities"] if _capability(fields) else []
    words += [f"to {fields['link']}"] if "link" in fields else []
    words += [fields["device"].removeprefix("native,")] if "device" in fields else []
    return " ".join(words)


def _differences(old: dict[str, str], new: dict[str, str], keys: set[str]) -> str:
    """What differs, in a few words, separated by commas."""
    if "type" in keys:
        return f"{_described(old)} -> {_described(new)}"
    words = ["content"] if keys & {"sha256digest", "size"} else []
    words += [f"mode {old['mode']} -> {new['mode']}"] if "mode" in keys else []
    if keys & {"uid", "gid"}:
        words.append(f"owner {old['uid']}:{old['gid']} -> {new['uid']}:{new['gid']}")
    words += [f"link {old['link']} -> {new['link']}"] if "link" in keys else []
    words += [f"device {old['device']} -> {new['device']}"] if "device" in keys else []
    if "tags" in keys:
        words.append("attributes" if _capability(old) == _capability(new) else "capabilities")
    return ", ".join(words) or "time"


def _summaries(counts: Mapping[bytes, Counter[str]]) -> Iterator[Change]:
    """How much of what is called ``other`` changed below each directory, to the third level."""
    order = ("added", "changed", "removed")
    for folder, count in counts.items():
        yield Change("other", "several", folder, ", ".join(f"{count[what]} {what}" for what in order if count[what]))


def accounts(file: str, before: str, after: str) -> str:
    """Who is new, gone or another in /etc/passwd, group or shadow, by the texts of the file; passwords are not told."""
    old, new = _entries(before), _entries(after)
    words = [f"new {name}{_ids(file, new[name])}" for name in new if name not in old]
    words += [f"gone {name}" for name in old if name not in new]
    for name in new:
        if name in old and old[name] != new[name]:
            words.append(f"{name}{_other(file, old[name], new[name])}")
    return quoted(", ".join(words).encode("utf-8", "surrogateescape"), blanks=False).decode("ascii")


def _entries(text: str) -> dict[str, list[str]]:
    """By their names; of several lines with one name the first counts, as for getpwnam(3)."""
    found: dict[str, list[str]] = {}
    for line in text.split("\n"):
        if line and not line.startswith("#"):
            fields = line.split(":")
            found.setdefault(fields[0], fields[1:])
    return found


def _ids(file: str, fields: list[str]) -> str:
    if file not in ("passwd", "group") or len(fields) < 2:
        return ""
    return f" ({'uid' if file == 'passwd' else 'gid'} {fields[1]})"


def _other(file: str, old: list[str], new: list[str]) -> str:
    """What of an entry is another: ids, members of a group, the shell; of a password only that it is."""
    if file == "group" and len(old) == len(new) == 3:
        before, after = (set(fields[2].split(",")) - {""} for fields in (old, new))
        signs = [f"+{name}" for name in sorted(after - before)] + [f"-{name}" for name in sorted(before - after)]
        if signs:
            return f" ({' '.join(signs)})"
    if old[:1] != new[:1]:
        return " (password)"
    if file == "passwd" and len(old) == len(new) == 6:
        names = ("uid", "gid", "name", "home", "shell")
        pairs = zip(names, old[1:], new[1:], strict=True)
        return f" ({' '.join(f'{name} {one} -> {other}' for name, one, other in pairs if one != other)})"
    return ""

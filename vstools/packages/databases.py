"""What is installed in a guest, read from its package database without starting anything.

The files are the guest's: they are read inside its tree and up to a size, and what does not look like a package is left
out. The database of RPM is a binary one that only rpm itself reads: it is asked in guests that run.
"""

from collections.abc import Iterable, Iterator

from vstools.inside import Inside
from vstools.packages.upgrades import NAME, VERSION

Installed = dict[str, str]
"""Package -> version; where a package is there for several architectures, each is NAME:ARCH but the first."""
READABLE = ("apt", "apk", "pacman")
RPM_QUERY = ("rpm", "--query", "--all", "--queryformat", "%{NAME} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\\n")
_SIZE_MAX = 1 << 25
_PACKAGES_MAX = 50_000
_THERE = ("installed", "triggers-awaited", "triggers-pending", "half-configured", "unpacked")
_HALF = ("half-installed", "half-configured", "unpacked", "triggers-awaited", "triggers-pending")
_APK_DATABASES = ("lib/apk/db/installed", "usr/lib/apk/db/installed")


def installed(tree: Inside, manager: str) -> Installed | None:
    """What a tree has installed, by a manager that is READABLE; None where it has no database of that manager's."""
    if manager not in READABLE:
        return None
    if manager == "pacman":
        names = tree.names("var/lib/pacman/local", _PACKAGES_MAX)
        return _sane(_pacman(names)) if names else None
    files = _APK_DATABASES if manager == "apk" else ("var/lib/dpkg/status",)
    text = next((text for name in files if (text := tree.read(name, _SIZE_MAX)) is not None), None)
    if text is None:
        return None
    return _sane(_apk(text) if manager == "apk" else ((name, version) for name, version, _ in _dpkg(text)))


def half_done(tree: Inside, manager: str) -> tuple[str, ...]:
    """The packages that a manager which was cut short left half installed or not configured."""
    if manager != "apt":
        return ()
    found = _dpkg(tree.read("var/lib/dpkg/status", _SIZE_MAX) or "", _HALF)
    return tuple(sorted(_sane((name, version or "0") for name, version, _ in found)))


def of_rpm(text: str) -> Installed:
    """What RPM_QUERY printed."""
    lines = (line.split(" ") for line in text.splitlines())
    return _sane((words[0], words[1]) for words in lines if len(words) == 2)


def _sane(found: Iterable[tuple[str, str]]) -> Installed:
    kept: Installed = {}
    for name, version in found:
        plain, _, _ = name.partition(":")
        if NAME.fullmatch(plain) and VERSION.fullmatch(version) and len(kept) < _PACKAGES_MAX:
            kept.setdefault(plain if plain not in kept else name, version)
    return kept


def _lines(text: str) -> Iterator[str]:
    """The lines one by one, and an empty one: a guest's file may consist of nothing else, or of signs that only look
    like the end of a line.
    """
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]
    yield ""


def _dpkg(text: str, states: tuple[str, ...] = _THERE) -> Iterator[tuple[str, str, str]]:
    """(package with its architecture, version, state) of each paragraph of dpkg's status file in one of these states.

    ``Status`` is three words: what is wanted, an error flag, the state (``man 1 dpkg-query``).
    """
    fields: dict[str, str] = {}
    for line in _lines(text):
        if line:
            key, sign, value = line.partition(": ")
            if sign and key in ("Package", "Status", "Version", "Architecture"):
                fields[key] = value.strip()
            continue
        state = fields.get("Status", "").rpartition(" ")[2]
        if state in states:
            name = f"{fields.get('Package', '')}:{fields.get('Architecture', '')}"
            yield name, fields.get("Version", ""), state
        fields = {}


def _apk(text: str) -> Iterator[tuple[str, str]]:
    """apk's ``installed``: paragraphs of lines ``P:NAME`` and ``V:VERSION`` among others."""
    fields: dict[str, str] = {}
    for line in _lines(text):
        if line:
            if line[:2] in ("P:", "V:"):
                fields[line[0]] = line[2:]
            continue
        if fields:
            yield fields.get("P", ""), fields.get("V", "")
        fields = {}


def _pacman(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """pacman's database has a directory NAME-VERSION-RELEASE for each package."""
    for name in names:
        parts = name.rsplit("-", 2)
        if len(parts) == 3:
            yield parts[0], f"{parts[1]}-{parts[2]}"


def changes(before: Installed, after: Installed) -> Iterator[tuple[str, str, str]]:
    """(package, version before, version after), empty for none, of each that is not the same."""
    for name in sorted({*before, *after}):
        old, new = before.get(name, ""), after.get(name, "")
        if old != new:
            yield name, old, new

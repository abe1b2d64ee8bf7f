"""Package managers: which one a guest has by its os-release, and the words and environment for each thing to do.

Nothing asks, an admin's changes of configuration files are kept, and locks of others are waited for.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

UPDATE_SOURCES, LIST_UPGRADES, UPGRADE_ALL = "update_sources", "list_upgrades", "upgrade_all"
INSTALL, REMOVE, SEARCH, MEND, UNBREAK = "install", "remove", "search", "mend", "unbreak"
_LOCK_PATIENCE = "300"

Words = tuple[str, ...]


@dataclass(frozen=True)
class Wishes:
    """What shall be done to a guest's packages."""

    update_sources: bool = False
    list_upgrades: bool = False
    upgrade_all: bool = False
    install: Words = ()
    remove: Words = ()
    search: str = ""
    snapshot: bool = False
    """Whether the guest's tree is kept before."""

    @property
    def changes(self) -> bool:
        """Whether packages may be others afterwards."""
        return bool(self.upgrade_all or self.install or self.remove)

    def __str__(self) -> str:
        words = [word for word in (UPDATE_SOURCES, LIST_UPGRADES, UPGRADE_ALL) if getattr(self, word)]
        words += [f"{word} {' '.join(getattr(self, word))}" for word in (REMOVE, INSTALL) if getattr(self, word)]
        return ", ".join([*words, *([f"search {self.search}"] if self.search else [])])


@dataclass(frozen=True)
class Step:
    """One call of a manager; ``fine`` are the exit statuses that mean it went well."""

    act: str
    words: Words
    fine: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Manager:
    """A package manager: act -> its words, to which packages or a pattern are added.

    ``offline``: what needs no repository. ``busy``: what it says where another one holds its lock.
    """

    name: str
    program: str
    acts: dict[str, Words]
    environment: dict[str, str] = field(default_factory=dict)
    offline: frozenset[str] = frozenset({REMOVE, SEARCH, MEND})
    busy: Words = ()
    fine: dict[str, tuple[int, ...]] = field(default_factory=dict)
    proxy: Words = ()


_CONFIGURATION = ("--force-confdef", "--force-confold")
_APT = (
    "apt-get", "-q", "-y", f"-oDPkg::Lock::Timeout={_LOCK_PATIENCE}", "-oDpkg::Use-Pty=0",
    *(f"-oDpkg::Options::={word}" for word in _CONFIGURATION),
    "-oAcquire::EnableSrvRecords=false", "-oAcquire::Retries=1", "-oAcquire::http::Timeout=60",
    "-oAcquire::https::Timeout=60", "-oAPT::Update::Error-Mode=any", "-oAPT::Cmd::Pattern-Only=true",
)  # fmt: skip
_ZYPPER_FINE = (0, 100, 101, 102, 103, 106)  # man 8 zypper, EXIT CODES: informational ones

MANAGERS = {
    manager.name: manager
    for manager in (
        Manager(
            "apt",
            "apt-get",
            {
                MEND: ("dpkg", *_CONFIGURATION, "--configure", "-a"),
                UNBREAK: (*_APT, "--fix-broken", "install"),
                UPDATE_SOURCES: (*_APT, "update"),
                LIST_UPGRADES: ("apt-get", "-q", "--simulate", "--with-new-pkgs", "upgrade"),
                UPGRADE_ALL: (*_APT, "--with-new-pkgs", "upgrade"),
                INSTALL: (*_APT, "install", "--"),
                REMOVE: (*_APT, "remove", "--"),
                SEARCH: ("apt-cache", "search", "--"),
            },
            {
                "DEBIAN_FRONTEND": "noninteractive",
                "DEBIAN_PRIORITY": "critical",
                "APT_LISTCHANGES_FRONTEND": "none",
                "NEEDRESTART_MODE": "l",
            },
            frozenset({REMOVE, SEARCH, MEND, LIST_UPGRADES}),
            ("is locked by another process", "Could not get lock", "is another process using it"),
            proxy=("-oAcquire::http::Proxy={}", "-oAcquire::https::Proxy={}"),
        ),
        Manager(
            "dnf",
            "dnf",
            {
                UPDATE_SOURCES: ("dnf", "-q", "-y", "makecache"),
                LIST_UPGRADES: ("dnf", "-q", "check-update"),
                UPGRADE_ALL: ("dnf", "-q", "-y", "upgrade"),
                INSTALL: ("dnf", "-q", "-y", "install", "--"),
                REMOVE: ("dnf", "-q", "-y", "remove", "--"),
                SEARCH: ("dnf", "-q", "search", "--"),
            },
            offline=frozenset({REMOVE}),
            fine={LIST_UPGRADES: (0, 100)},  # man 8 dnf, check-update: 100 where there are some
            proxy=("--setopt=proxy={}",),
        ),
        Manager(
            "apk",
            "apk",
            {
                UPDATE_SOURCES: ("apk", "--wait", _LOCK_PATIENCE, "update"),
                LIST_UPGRADES: ("apk", "--no-network", "upgrade", "--simulate"),
                UPGRADE_ALL: ("apk", "--wait", _LOCK_PATIENCE, "upgrade"),
                INSTALL: ("apk", "--wait", _LOCK_PATIENCE, "add", "--"),
                REMOVE: ("apk", "--wait", _LOCK_PATIENCE, "del", "--"),
                SEARCH: ("apk", "--no-network", "search", "--"),
            },
            offline=frozenset({REMOVE, SEARCH, LIST_UPGRADES}),
            busy=("Unable to lock database",),
        ),
        Manager(
            "pacman",
            "pacman",
            {
                UPDATE_SOURCES: ("pacman", "--noconfirm", "-Sy"),
                LIST_UPGRADES: ("pacman", "-Qu"),
                UPGRADE_ALL: ("pacman", "--noconfirm", "-Su"),
                INSTALL: ("pacman", "--noconfirm", "--needed", "-S", "--"),
                REMOVE: ("pacman", "--noconfirm", "-R", "--"),
                SEARCH: ("pacman", "-Ss", "--"),
            },
            offline=frozenset({REMOVE, SEARCH, LIST_UPGRADES}),
            busy=("unable to lock database",),
            fine={LIST_UPGRADES: (0, 1), SEARCH: (0, 1)},  # man 8 pacman: 1 where there are none
        ),
        Manager(
            "zypper",
            "zypper",
            {
                UPDATE_SOURCES: ("zypper", "--non-interactive", "--quiet", "refresh"),
                LIST_UPGRADES: ("zypper", "--non-interactive", "--quiet", "list-updates"),
                UPGRADE_ALL: ("zypper", "--non-interactive", "--quiet", "update"),
                INSTALL: ("zypper", "--non-interactive", "--quiet", "install", "--"),
                REMOVE: ("zypper", "--non-interactive", "--quiet", "remove", "--"),
                SEARCH: ("zypper", "--non-interactive", "--quiet", "search", "--"),
            },
            {"ZYPP_LOCK_TIMEOUT": _LOCK_PATIENCE},
            frozenset({REMOVE}),
            ("System management is locked",),
            dict.fromkeys((LIST_UPGRADES, UPGRADE_ALL, INSTALL, REMOVE), _ZYPPER_FINE) | {SEARCH: (0, 104)},
        ),
    )
}
_FAMILIES = {
    "debian": "apt", "ubuntu": "apt", "devuan": "apt", "fedora": "dnf", "rhel": "dnf", "centos": "dnf",
    "alpine": "apk", "arch": "pacman", "suse": "zypper", "opensuse": "zypper", "sles": "zypper",
}  # fmt: skip
"""Word of ID or ID_LIKE (``man 5 os-release``) -> manager."""


def choose(os_release: str) -> Manager | None:
    """The manager of a system by its os-release: by its ID, else by those that it is like; None for others."""
    values = _values(os_release)
    for word in (values.get("ID", ""), *values.get("ID_LIKE", "").split()):
        name = _FAMILIES.get(word) or _FAMILIES.get(word.partition("-")[0])
        if name:
            return MANAGERS[name]
    return None


def _values(text: str) -> dict[str, str]:
    """Variables of os-release; quotes are taken off, no other shell syntax is read."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, sign, value = line.strip().partition("=")
        if sign and not key.startswith("#"):
            found[key] = value.strip("\"'")
    return found


def steps(manager: Manager, wishes: Wishes, proxy: str = "") -> tuple[Step, ...]:
    """What is called one after the other; ``proxy`` is the URL of one, or empty."""
    return tuple(
        Step(act, _proxied(manager, manager.acts[act], proxy) + more, manager.fine.get(act, (0,)))
        for act, more in _acts(wishes)
        if act in manager.acts
    )


def _acts(wishes: Wishes) -> Iterator[tuple[str, Words]]:
    """What is half done comes first, new lists before what is chosen from them, what goes before what takes room."""
    if wishes.changes:
        yield MEND, ()
    if wishes.update_sources:
        yield UPDATE_SOURCES, ()
    if wishes.upgrade_all or wishes.install:
        yield UNBREAK, ()
    if wishes.remove:
        yield REMOVE, wishes.remove
    if wishes.install:
        yield INSTALL, wishes.install
    if wishes.upgrade_all:
        yield UPGRADE_ALL, ()
    if wishes.list_upgrades:
        yield LIST_UPGRADES, ()
    if wishes.search:
        yield SEARCH, (wishes.search,)


def _proxied(manager: Manager, words: Words, proxy: str) -> Words:
    """A manager's words with those that name a proxy behind its own name, where it takes such words."""
    if not proxy or words[0] != manager.program:
        return words
    return (words[0], *(word.format(proxy) for word in manager.proxy), *words[1:])


def environment(manager: Manager, proxy: str = "") -> dict[str, str]:
    """The variables that a manager is called with."""
    urls = dict.fromkeys(("http_proxy", "https_proxy"), proxy) if proxy else {}
    return {"LC_ALL": "C.UTF-8", **manager.environment, **urls}


def asks_repositories(manager: Manager, called: tuple[Step, ...]) -> bool:
    """Whether any of these steps needs the repositories."""
    return any(step.act not in manager.offline for step in called)

"""Where a guest of an old Linux-VServer host is read from: the host by ssh, a copy of its disks, or an archive of them.

An old host has no vs-tools: a few plain programs are run there (readlink, test, rsync, vserver). What it sends is data,
and is written by a program that can write in one directory alone. It may send without an end: everything has a bound.
"""

import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from vstools import run
from vstools.config import slaves
from vstools.config.carried import COUNT_MAX, SIZE_MAX
from vstools.config.slaves import Slave
from vstools.errors import Refused, VsError
from vstools.guest import IDS, check_name
from vstools.inside import Inside
from vstools.paths import Paths
from vstools.pool import rsync, ssh, wire
from vstools.pool.rsync import Passed
from vstools.tree import oldsystem
from vstools.tree.oldsystem import System

Progress = Callable[[int], None]
_CONFIG = "etc/vservers/{name}"
_TREES = ("vservers/{name}", "var/lib/vservers/{name}")
_OLD_SSH = (
    "-oKexAlgorithms=+diffie-hellman-group14-sha1", "-oHostKeyAlgorithms=+ssh-rsa",
    "-oPubkeyAcceptedAlgorithms=+ssh-rsa", "-oMACs=+hmac-sha1",
)  # fmt: skip
"""What sshd of 2006 offers and today's ssh asks for no more. Whatever is better is taken first."""
_LOOKED_AT = (
    "/bin", "/bin/sh", "/bin/bash", "/bin/dash", "/bin/busybox", "/sbin", "/sbin/init", "/lib", "/lib/systemd",
    "/lib/systemd/systemd", "/lib/sysvinit", "/lib/sysvinit/init", "/usr", "/usr/bin", "/usr/bin/sh", "/usr/bin/bash",
    "/usr/bin/dash", "/usr/bin/busybox", "/usr/sbin", "/usr/sbin/init", "/usr/lib", "/usr/lib/systemd",
    "/usr/lib/systemd/systemd", "/usr/lib/sysvinit", "/usr/lib/sysvinit/init",
    *(f"{folder}/{name}" for folder in ("/bin", "/sbin", "/usr/bin", "/usr/sbin")
      for name in ("openrc-init", "runit-init", "runit", "s6-linux-init", "dinit", "upstart")),
)  # fmt: skip
"""What tells which init a tree has."""
_LAST_OWN_STATUS = 125
"""Above it the shell speaks (126, 127), or ssh (255)."""
_KEPT = "before-import"
_NEW_PROTOCOL = 30
"""The first of rsync's protocols that carries ACLs and extended attributes (rsync 3.0, 2008)."""
_STOP_DEADLINE, _FIND_DEADLINE = 600.0, 3600.0
_LONGEST = 4 << 20
"""Bytes of an answer of a program there: /proc/mounts is the longest."""
_PROGRAMS_MAX, _PROGRAM_MAX = 64 << 20, "32m"


@dataclass(frozen=True)
class Place:
    """An old guest, where it is: its directory and tree (paths there), by which ssh, and what is said of it.

    ``slave`` is None for directories of this node.
    """

    words: str
    config: str
    tree: str
    slave: Slave | None = None
    shell: tuple[str, ...] = ()
    more: tuple[str, ...] = ()

    def config_into(self, folder: Path) -> None:
        """Copy the guest's directory."""
        most = SIZE_MAX + COUNT_MAX * 4096  # a file takes whole pages
        words = ("--no-devices", "--no-specials")
        self._draw(self.config, folder, words, live=True, check=_at_most(folder, most, 2 * COUNT_MAX))

    def programs_into(self, folder: Path) -> None:
        """Copy what tells which init the guest has."""
        wanted = [f"--include={path}" for path in _LOOKED_AT]
        words = (*wanted, "--exclude=*", f"--max-size={_PROGRAM_MAX}")
        self._draw(self.tree, folder, words, live=True, check=_at_most(folder, _PROGRAMS_MAX, 2 * len(_LOOKED_AT)))

    def tree_into(
        self, folder: Path, words: Sequence[str], *, live: bool, progress: Progress, check: Callable[[], None]
    ) -> Passed:
        """Copy the guest's tree, what changed of it since the last time; ``check`` raises to end that."""
        return self._draw(self.tree, folder, words, live=live, progress=progress, check=check)

    def size(self, folder: Path, words: Sequence[str]) -> Passed:
        """What the tree holds; nothing is copied into the empty folder."""
        return self._draw(self.tree, folder, ("--dry-run", *words), live=True)

    def _draw(
        self, path: str, into: Path, words: Sequence[str], *, live: bool, progress: Progress = lambda _: None,
        check: Callable[[], None] = lambda: None,
    ) -> Passed:  # fmt: skip
        source, more = path if self.slave is None else f"{self.slave.name}:{path}", (*self.more, *words)
        return rsync.draw(source, self.shell, into, into, words=more, live=live, progress=progress, check=check)

    def runs(self, name: str) -> bool:
        """Whether the guest runs there; what is no host runs nothing.

        Raises VsError where nobody says: silence is no guest that is stopped.
        """
        if self.slave is None:
            return False
        said = self.there("vserver", name, "running", check=False)
        if not 0 <= said.code <= _LAST_OWN_STATUS or said.err.lstrip().startswith("sudo:"):
            words = wire.clean(run.failure(said).hint)
            raise VsError(f"{self.words} does not say whether guest {name} runs there", f"vserver: {words}")
        return said.code == 0

    def stop(self, name: str) -> None:
        """Stop the guest there; raises VsError where it runs on."""
        self.there("vserver", name, "stop", check=False)
        if self.runs(name):
            raise VsError(f"{self.words}: vserver {name} stop did not stop it", "stop it there by hand")

    def start(self, name: str) -> None:
        """Start the guest there again."""
        self.there("vserver", name, "start")

    def unmark(self) -> str:
        """Let the guest, which is stopped, start with its host no more; returns a sentence on what became of that."""
        mark = f"{self.config}/apps/init/mark"
        script = f'[ ! -e "$1" ] || mv "$1" "$1.{_KEPT}"'
        try:
            done = self.there("sh", "-c", script, "sh", mark, check=False).code == 0
        except VsError:
            done = False
        if done:
            return f"on {self.words} it does not start by itself any more: its mark there is called mark.{_KEPT}"
        return f"on {self.words} it must not start again, and its mark could not be moved: rm {mark} there"

    def there(self, *argv: str, check: bool = True) -> run.Result:
        """Run a program on the old host."""
        if self.slave is None:
            raise VsError("no host is asked for a copy")
        line = shlex.join(ssh.remote(self.slave, *argv))
        result = run.bounded([*self.shell, self.slave.name, line], most=_LONGEST, timeout=_STOP_DEADLINE)
        if check and result.code:
            raise VsError(f"{self.words}: {shlex.join(argv)} failed", wire.clean(run.failure(result).hint))
        return result


def system_of(place: Place, folder: Path, what: str) -> System:
    """What a tree there runs; raises Refused where that cannot run here.

    An init that a link leads to elsewhere is not among what is looked at: then it is seen when it was copied.
    """
    place.programs_into(folder)
    with Inside(folder) as tree:
        system = oldsystem.examine(tree)
        if system.init or not tree.exists("sbin/init"):
            oldsystem.check(system, what)
    return system


def _at_most(folder: Path, size: int, count: int) -> Callable[[], None]:
    """What is called while a folder is filled: raises Refused where more comes than honest hosts have."""

    def check() -> None:
        taken = entries = 0
        folders = [str(folder)]
        while folders:
            with suppress(FileNotFoundError), os.scandir(folders.pop()) as found:
                for entry in found:
                    entries += 1
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        taken += entry.stat(follow_symlinks=False).st_blocks * 512
                    if taken > size or entries > count:
                        break
            if taken > size or entries > count:
                raise Refused(
                    "what comes of the guest's own files has no end", f"more than {size >> 20} MiB, or {count}"
                )

    return check


@contextmanager
def untouched() -> Iterator[None]:
    """Nothing is changed yet: what fails in here is refused."""
    try:
        yield
    except Refused:
        raise
    except VsError as error:
        raise Refused(error.message, error.hint) from error


@contextmanager
def begun() -> Iterator[None]:
    """Something is changed already: what is refused in here has failed."""
    try:
        yield
    except Refused as error:
        raise VsError(error.message, error.hint) from error


def check_ids(tree: Path, hint: str) -> None:
    """Raise Refused where a file belongs to an id that no guest has."""
    argv = ["find", str(tree), "-xdev", "(", "-uid", f"+{IDS - 1}", "-o", "-gid", f"+{IDS - 1}", ")", "-print", "-quit"]
    if path := run.run(argv, timeout=_FIND_DEADLINE).out.rstrip("\n"):
        raise Refused(f"{ascii(path.removeprefix(str(tree)))[1:-1][:500]} belongs to an id over {IDS - 1}", hint)


def parse(text: str) -> Slave | Path:
    """``ssh://[USER@]HOST[:PORT]``, or the path of a directory or an archive; raises ValueError with a sentence."""
    if not text.startswith("ssh://"):
        if "://" in text:
            raise ValueError(f"{text!r} is neither ssh://HOST, nor a directory, nor a tar archive")
        return Path(text).absolute()
    match = re.fullmatch(r"ssh://(?:([^@/]+)@)?(\[[0-9a-fA-F:]+\]|[^:/@\[\]]+)(?::([0-9]{1,5}))?/?", text)
    if match is None:
        raise ValueError(f"{text!r} is not ssh://[USER@]HOST[:PORT]")
    user = slaves.parse_user(match[1]) if match[1] else "root"
    place = slaves.parse_place(match[2])
    port = int(match[3] or 22)
    if not 0 < port < 65536:
        raise ValueError(f"{port} is no port")
    if re.search("[a-zA-Z]", place) and ":" not in place:
        return Slave(place, port=port, user=user)
    return Slave(re.sub("[.:]+", "-", place), address=place, port=port, user=user)


@contextmanager
def opened(paths: Paths, source: Slave | Path, name: str, tree: str | None, key: Path | None) -> Iterator[Place]:
    """The guest ``name`` at a source. ``tree``: where its tree is there, if not where its directory says."""
    check_name(name, imported=True)
    with ExitStack() as stack:
        if isinstance(source, Slave):
            yield _by_ssh(paths, source, name, tree, key)
        elif source.is_dir():
            yield _below(source, str(source), name, tree)
        elif source.is_file():
            yield _below(_unpacked(paths, source, stack), str(source), name, tree)
        else:
            raise Refused(f"{source} is neither a directory nor an archive", "or ssh://HOST")


@untouched()
def reached(paths: Paths, slave: Slave, key: Path | None) -> Place:
    """A host that lets this node in and has rsync, with no guest of it in mind yet; raises Refused."""
    known = ssh.folder(paths) / ssh.KNOWN_HOSTS
    shell = (*ssh.words_with(slave, known, key or ssh.folder(paths) / ssh.KEY), *_OLD_SSH)
    place = Place(f"host {slave.host}", "", "", slave, shell)
    said = place.there("rsync", "--version", check=False)
    if said.code == 255:
        raise Refused(
            f"host {slave.host} lets nobody in: {wire.clean(run.failure(said).hint)}",
            "it has to take the pool's key (/etc/vs-tools/pool/key.pub), or the one of --key",
        )
    if said.code:
        raise Refused(f"host {slave.host} has no rsync", "install it there")
    protocol = re.search(r"protocol version ([0-9]+)", said.out)
    old = protocol is not None and int(protocol[1]) < _NEW_PROTOCOL
    more = ("--no-acls", "--no-xattrs") if old else ()
    if slave.user != "root":
        more = (*more, "--rsync-path=sudo -n rsync")
    return replace(place, more=more)


@untouched()
def _by_ssh(paths: Paths, slave: Slave, name: str, tree: str | None, key: Path | None) -> Place:
    place = reached(paths, slave, key)
    config = "/" + _CONFIG.format(name=name)
    where = tree or place.there("readlink", "-f", f"{config}/vdir", check=False).out.strip()
    where = where or f"/vservers/{name}"
    if not where.startswith("/") or not where.isprintable() or len(where) > 1024:
        raise Refused(f"host {slave.host} says that the tree is at {wire.clean(where)!r}", "say where: --tree PATH")
    if place.there("test", "-d", f"{config}/.", check=False).code:
        raise Refused(f"host {slave.host} has no guest {name!r}", f"there is no {config}")
    if place.there("test", "-d", f"{where}/etc", check=False).code:
        raise Refused(f"host {slave.host} has no tree at {where}", "say where: --tree PATH")
    try:
        place.runs(name)
    except VsError as error:
        raise Refused(error.message, f"{error.hint}; it has to be on the path of {slave.user} there") from error
    return replace(place, config=config, tree=where)


def _below(root: Path, words: str, name: str, tree: str | None) -> Place:
    """The guest in a directory that is as an old host's root; links and mounts in it are the old host's."""
    config = _CONFIG.format(name=name)
    with Inside(root, mounts=True) as inside:
        there = inside.where(config)
        if there is None or not inside.is_directory(config):
            raise Refused(f"{words} has no guest {name!r}", f"there is no {config} in it")
        places = (tree,) if tree else (f"{config}/vdir", *(place.format(name=name) for place in _TREES))
        found = next((where for place in places if (where := inside.where(f"{place}/etc")) is not None), None)
    if found is None:
        raise Refused(f"{words} has no tree of {name!r}", "say where in it: --tree PATH")
    return Place(words, str(there), str(found.parent))


def _unpacked(paths: Paths, archive: Path, stack: ExitStack) -> Path:
    from vstools.lifecycle import templates
    from vstools.tree import unpack

    unpack.check_archive(archive)
    return stack.enter_context(templates.unpacked(paths, archive))

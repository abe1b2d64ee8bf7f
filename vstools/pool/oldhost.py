"""Where a guest of an old Linux-VServer host is read from: the host by ssh, a copy of its disks, or an archive of them.

An old host has no vs-tools: a few plain programs are run there (readlink, rsync, vserver). What it sends is data, and
is written by a program that can write in one directory alone.
"""

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vstools import run
from vstools.config import slaves
from vstools.config.slaves import Slave
from vstools.errors import Refused, VsError
from vstools.guest import check_name
from vstools.inside import Inside
from vstools.paths import Paths
from vstools.pool import rsync, ssh, wire
from vstools.pool.rsync import Passed

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
)  # fmt: skip
"""What tells which init a tree has."""
_NEW_PROTOCOL = 30
"""The first of rsync's protocols that carries ACLs and extended attributes (rsync 3.0, 2008)."""
_STOP_DEADLINE = 600.0


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
        self._draw(self.config, folder, ("--max-size=8m", "--no-devices", "--no-specials"), live=True)

    def programs_into(self, folder: Path) -> None:
        """Copy what tells which init the guest has."""
        wanted = [f"--include={path}" for path in _LOOKED_AT]
        self._draw(self.tree, folder, (*wanted, "--exclude=*", "--max-size=64m"), live=True)

    def tree_into(self, folder: Path, words: Sequence[str], *, live: bool, progress: Progress) -> Passed:
        """Copy the guest's tree, what changed of it since the last time."""
        return self._draw(self.tree, folder, words, live=live, progress=progress)

    def size(self, folder: Path, words: Sequence[str]) -> Passed:
        """What the tree holds; nothing is copied into the empty folder."""
        return self._draw(self.tree, folder, ("--dry-run", *words), live=True)

    def _draw(
        self, path: str, into: Path, words: Sequence[str], *, live: bool, progress: Progress = lambda _: None
    ) -> Passed:
        source = path if self.slave is None else f"{self.slave.name}:{path}"
        return rsync.draw(source, self.shell, into, into, words=(*self.more, *words), live=live, progress=progress)

    def runs(self, name: str) -> bool:
        """Whether the guest runs there; what is no host runs nothing."""
        return self.slave is not None and self.there("vserver", name, "running", check=False).code == 0

    def stop(self, name: str) -> None:
        """Stop the guest there; raises VsError where it runs on."""
        self.there("vserver", name, "stop", check=False)
        if self.runs(name):
            raise VsError(f"{self.words}: vserver {name} stop did not stop it", "stop it there by hand")

    def start(self, name: str) -> None:
        """Start the guest there again."""
        self.there("vserver", name, "start")

    def there(self, *argv: str, check: bool = True) -> run.Result:
        """Run a program on the old host."""
        if self.slave is None:
            raise VsError("no host is asked for a copy")
        line = shlex.join(ssh.remote(self.slave, *argv))
        return run.run([*self.shell, self.slave.name, line], timeout=_STOP_DEADLINE, check=check)


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
    return replace(place, config=config, tree=where)


def _below(root: Path, words: str, name: str, tree: str | None) -> Place:
    """The guest in a directory that is as an old host's root; links in it are the old host's."""
    config = _CONFIG.format(name=name)
    with Inside(root) as inside:
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

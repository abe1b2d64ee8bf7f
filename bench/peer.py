"""The peer: Debian's lxd (or incus, its successor), with a daemon of our own and a pool of directories or subvolumes.

The packages are unpacked, not installed, and the daemon is started by hand: no systemd, no network, nothing of
the host's own lxd. It sees an /etc/subuid of its own: it finds the range that install.sh writes there unusable.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from bench import watch
from bench.contestant import folder
from bench.place import NAME
from bench.programs import BenchError, Timed, run
from bench.software import Unpacked, are_available, unpack

ID_BASE = 45050 * 65536
_IMAGE = "tree"
_METADATA = "architecture: {machine}\ncreation_date: 1700000000\nproperties: {{description: bench}}\n"
_PRESEED = f"""\
storage_pools:
- {{name: {NAME}, driver: %(driver)s, config: {{source: %(source)s}}}}
profiles:
- name: default
  config: {{security.privileged: "%(privileged)s"}}
  devices:
    root: {{type: disk, path: /, pool: {NAME}}}
"""
_DAEMON = 'mount --bind "$1" /etc/subuid && mount --bind "$1" /etc/subgid && shift && exec "$@"'


@dataclass(frozen=True)
class Kind:
    """How one of the two is called; paths are below the unpacked packages, or ``/`` where it is installed."""

    packages: tuple[str, ...]
    daemon: str
    client: str
    admin: tuple[str, ...]
    variable: str


KINDS = {
    "incus": Kind(
        ("incus-base", "incus-client"),
        "usr/libexec/incus/incusd",
        "usr/bin/incus",
        ("usr/bin/incus", "admin"),
        "INCUS_DIR",
    ),
    "lxd": Kind(("lxd", "lxd-client"), "usr/bin/lxd", "usr/bin/lxc", ("usr/bin/lxd",), "LXD_DIR"),
}


def fetch() -> tuple[str, Unpacked]:
    """The first of KINDS that this host's Debian has, by name, and its software."""
    for attempt in ("now", "updated"):
        for name, kind in KINDS.items():
            if are_available(kind.packages):
                return name, unpack(kind.packages)
        if attempt == "now":
            run(["apt-get", "update"])
    raise BenchError("this host's apt has neither lxd nor incus")


class Peer:
    """A running daemon whose image is the tree."""

    def __init__(
        self, place: Path, template: Path, name: str, software: Unpacked, *, privileged: bool, driver: str = "dir"
    ) -> None:
        self._kind = KINDS[name]
        self.name = name
        self._version = software.version
        self._home = folder(place, "peer")
        self._state = folder(self._home, "state")
        self._folder = software.folder
        self._env = self._environment(software.folder)
        self._way = ""
        self._privileged = privileged
        self._daemon = self._start_daemon()
        source = self._home / "pool"
        if driver == "dir":
            source.mkdir()
        words = {"driver": driver, "source": source, "privileged": str(privileged).lower()}
        run([*self._admin, "init", "--preseed"], env=self._env, stdin=_PRESEED % words)
        self._import(template)

    def _environment(self, unpacked: Path) -> dict[str, str]:
        libraries = [path for path in unpacked.glob("usr/lib/*-linux-gnu*") if path.is_dir()]
        return {
            "PATH": ":".join(
                f"{root}{part}" for root in (unpacked, "") for part in ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
            ),
            "LD_LIBRARY_PATH": ":".join(str(path) for path in libraries),
            "HOME": str(self._home),
            self._kind.variable: str(self._state),
        }

    def _program(self, path: str) -> str:
        private = self._folder / path
        return str(private if private.exists() else Path("/", path))

    @property
    def _admin(self) -> list[str]:
        program, *words = self._kind.admin
        return [self._program(program), *words]

    def _client(self, *words: str | Path) -> list[str | Path]:
        return [self._program(self._kind.client), *words]

    def _start_daemon(self) -> Timed:
        ids = self._home / "subid"
        ids.write_text(f"root:{ID_BASE}:65536\n")
        daemon = [self._program(self._kind.daemon), "--logfile", str(self._home / "log")]
        unshare = ["unshare", "--mount", "--propagation", "private"]
        running = Timed([*unshare, "sh", "-c", _DAEMON, "sh", str(ids), *daemon], self._env)
        run([*self._admin, "waitready", "--timeout=60"], env=self._env)
        return running

    def _import(self, template: Path) -> None:
        """Import the image in two parts: its metadata, and the very tar that the others unpack."""
        (self._home / "metadata.yaml").write_text(_METADATA.format(machine=run(["uname", "-m"]).strip()))
        metadata = self._home / "metadata.tar"
        run(["tar", "-c", "-f", metadata, "-C", self._home, "metadata.yaml"])
        run(self._client("image", "import", metadata, template, "--alias", _IMAGE), env=self._env)

    def start(self, guest: str) -> watch.Started:
        return watch.time_start(self._client("launch", _IMAGE, guest), self._env)

    def stop(self, guest: str, pid: int) -> float:
        return watch.time_stop(self._client("stop", guest), pid, self._env)

    def remove(self, guest: str) -> None:
        if self._privileged:
            self._way = "privileged"
        else:
            shown = run(self._client("config", "show", guest), env=self._env)
            chowned = re.search(r"last_state\.idmap: .*Hostid", shown)
            self._way = "unprivileged, chowns the tree" if chowned else "unprivileged, idmaps the tree"
        run(self._client("delete", guest), env=self._env)

    def make(self, guest: str) -> None:
        """Make a container and do not start it."""
        run(self._client("init", _IMAGE, guest), env=self._env)

    def listing(self) -> tuple[list[str], dict[str, str]]:
        """The command that lists all containers, and its environment."""
        return [str(word) for word in self._client("list")], self._env

    def facts(self) -> dict[str, str]:
        return {self.name: f"{self._version} ({self._way})"}

    def close(self) -> None:
        run([*self._admin, "shutdown"], env=self._env, timeout=60)
        self._daemon.finish()

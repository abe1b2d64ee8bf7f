"""Every path that vs-tools reads or writes, in one place.

``VS_TOOLS_ROOT`` moves the files (not the kernel's) below another directory: a second installation beside the
first, or a test. Contexts, addresses and links still belong to the one kernel.
"""

import os
import zlib
from dataclasses import dataclass
from pathlib import Path

NAMESPACES = Path("/run/netns")
"""Where ``ip netns`` keeps the names of network namespaces."""
STAGED = ".new-"
"""Names of what is being made begin with this, in the directories of guests and of trees."""
DOOMED = ".old-"
"""Names of what is being removed begin with this."""


@dataclass(frozen=True)
class Paths:
    """The files of one installation; ``root`` is ``/`` but for tests."""

    root: Path = Path("/")

    @property
    def conf(self) -> Path:
        """Host-wide configuration: create.conf, networks.conf, firewall.conf."""
        return self.root / "etc/vs-tools"

    @property
    def guests(self) -> Path:
        """One directory a guest, in util-vserver's layout."""
        return self.root / "etc/vservers"

    @property
    def defaults(self) -> Path:
        """What all guests share: the context counter and the default hook scripts."""
        return self.guests / ".defaults"

    @property
    def trees(self) -> Path:
        """One file tree a guest; the directory is the barrier: root's, mode 0700."""
        return self.root / "var/lib/vservers"

    @property
    def templates(self) -> Path:
        """Archives to make guests from."""
        return self.trees / "TEMPLATES"

    @property
    def run(self) -> Path:
        """What lives no longer than the host's uptime."""
        return self.root / "run/vs-tools"

    @property
    def locks(self) -> Path:
        """Lock files; a lock is held by a process, never by the existence of the file."""
        return self.run / "lock"

    @property
    def snapshot(self) -> Path:
        """Where a snapshot is mounted, seen by nobody but those who read it. Below the barrier: root's, mode 0700."""
        return self.run / "snapshot"

    @property
    def runtime(self) -> Path:
        """LXC's path: one directory a started guest. Searchable by all: LXC enters it as the guest's root."""
        return self.run / "guests"

    @property
    def failures(self) -> Path:
        """Why the last start of a guest failed, for the command that asked systemd for it."""
        return self.run / "failed"

    @property
    def packages(self) -> Path:
        """What is open in guests' firewalls for their packages, a file a guest: root's, mode 0700."""
        return self.run / "packages"

    @property
    def refused(self) -> Path:
        """Why the last start of a guest was refused that is perhaps another host's, for vs-monitor."""
        return self.run / "refused"

    @property
    def ended(self) -> Path:
        """How each guest's last lives ended, a file a guest, written by its runner; kept after the guest is gone."""
        return self.run / "ended"

    @property
    def moves(self) -> Path:
        """What a master's moves have done so far, a file a guest."""
        return self.root / "var/lib/vs-tools/moves"

    @property
    def restores(self) -> Path:
        """What a master's restores have done so far, a file a guest."""
        return self.root / "var/lib/vs-tools/restores"

    @property
    def monitor(self) -> Path:
        """What vs-monitor remembers, and the mails that were not sent yet: root's, mode 0700."""
        return self.root / "var/lib/vs-tools/monitor"

    @property
    def source(self) -> Path:
        """Where install.sh ran from: the text of this file."""
        return self.root / "var/lib/vs-tools/source"

    @property
    def mails(self) -> Path:
        """A master's mails that were not sent yet: root's, mode 0700."""
        return self.root / "var/lib/vs-tools/mails"

    @property
    def store(self) -> Path:
        """Where a master keeps copies of guests, where create.conf says nothing else."""
        return self.root / "var/lib/vs-tools/store"

    @property
    def lxcfs(self) -> Path:
        """Where Debian's package lxcfs mounts it."""
        return self.root / "var/lib/lxcfs"

    @property
    def logs(self) -> Path:
        """One directory a guest: its console and what LXC said."""
        return self.root / "var/log/vs-tools"

    def config_of(self, name: str) -> Path:
        return self.guests / name

    def tree_of(self, name: str) -> Path:
        return self.trees / name

    def runtime_of(self, name: str) -> Path:
        return self.runtime / name

    def log_of(self, name: str) -> Path:
        return self.logs / name

    @property
    def cgroup(self) -> str:
        """The cgroup below which guests run where systemd does not place them."""
        if self.root == Path("/"):
            return "vs-tools"
        return f"vs-tools-{self.mark}"

    @property
    def mark(self) -> str:
        """8 hexadecimal digits that tell this installation's things from those of another on the same kernel."""
        return f"{zlib.crc32(os.fsencode(self.root)):08x}"

    @property
    def systemd(self) -> bool:
        """Whether systemd is PID 1 and guests of this installation are its units."""
        return self.root == Path("/") and Path("/run/systemd/system").is_dir()


def from_environment() -> Paths:
    """The installation that the environment names, the host's own by default."""
    return Paths(Path(os.environ.get("VS_TOOLS_ROOT") or "/").absolute())


def host_name() -> str:
    """This host's name up to its first dot."""
    return os.uname().nodename.partition(".")[0]


def command(name: str) -> str:
    """The absolute path of one of our own scripts, from the environment that runs now."""
    import sys

    return str(Path(sys.executable).parent / name)

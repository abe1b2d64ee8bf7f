"""A pool of nodes for benches: each has a network, a host name and an installation of its own, and a real sshd.

The first contact is not made with each: keys and slaves.conf are written as ``vs-hosts --add`` leaves them.
"""

import os
import shutil
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from bench.inside import BRIDGE, NETWORK, disk
from bench.place import NAME
from bench.programs import PATH, BenchError, Timed, run

_FIRST = 10
"""The first node's address in NETWORK."""
MOST = 200
_PATIENCE = 60.0  # seconds
_SETUP = """
hostname "$1"
mount --bind "$2/home" /root
mount --bind "$2/shadow" /etc/shadow
ip link set lo up
exec /usr/sbin/sshd -D -e -f "$2/sshd.conf"
"""
_SSHD = """ListenAddress {address}
HostKey {keys}/host
PidFile none
AuthorizedKeysFile /root/.ssh/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PermitRootLogin yes
SetEnv VS_TOOLS_ROOT={root} PATH={path}
LogLevel ERROR
"""


class Node:
    """One node; it ends with the bench's namespaces."""

    def __init__(self, work: Path, number: int, keys: Path, scripts: Path) -> None:
        self.name = f"{NAME}-{number}"
        self.address = str(NETWORK[_FIRST + number])
        self.root = disk(work) / self.name
        self._scripts = scripts
        for folder in ("etc/vs-tools", "etc/vservers/.defaults", "var/lib/vservers", "home/.ssh"):
            (self.root / folder).mkdir(parents=True)
        self._write(keys)
        self._link(number)
        argv = ["nsenter", f"--net=/run/netns/{self.name}", "unshare", "--uts", "--mount", "--propagation", "private"]
        self._sshd = Timed([*argv, "sh", "-euc", _SETUP, "sh", self.name, self.root])

    def _write(self, keys: Path) -> None:
        authorized = self.root / "home/.ssh/authorized_keys"
        shutil.copy(keys / "pool.pub", authorized)
        authorized.chmod(0o600)
        (self.root / "shadow").write_text("root:*:20000:0:99999:7:::\nsshd:!:20000::::::\n")
        path = f"{self._scripts}:{PATH}"
        config = _SSHD.format(address=self.address, keys=keys, root=self.root, path=path)
        (self.root / "sshd.conf").write_text(config)
        (self.root / "etc/vs-tools/networks.conf").write_text(f"0:{NETWORK}\n")
        (self.root / "etc/vs-tools/create.conf").write_text("DEFAULT_DEVICE=eth0\n")

    def _link(self, number: int) -> None:
        """A link to the bridge, the other end of which is the node's."""
        self.port = f"vsb{number}"
        run(["ip", "netns", "add", self.name])
        run(["ip", "link", "add", self.port, "type", "veth", "peer", "name", "eth0", "netns", self.name])
        run(["ip", "link", "set", self.port, "master", BRIDGE, "up"])
        run(["ip", "-n", self.name, "address", "add", f"{self.address}/{NETWORK.prefixlen}", "dev", "eth0"])
        run(["ip", "-n", self.name, "link", "set", "eth0", "up"])

    @property
    def environment(self) -> dict[str, str]:
        """For commands of ours on this node."""
        return {"VS_TOOLS_ROOT": str(self.root)}

    def words(self, *argv: str | Path) -> list[str]:
        """A program's words, to run on this node."""
        return ["nsenter", "-t", str(self._sshd.pid), "-n", "-u", "-m", "--", *map(str, argv)]

    def command(self, name: str, *options: str) -> list[str]:
        """A command of ours, to run on this node."""
        return self.words(self._scripts / name, *options)

    def wait(self) -> None:
        """Wait until its sshd answers; raises BenchError when it has ended, or does not."""
        deadline = time.monotonic() + _PATIENCE
        while not self._answers():
            if self._sshd.has_failed():
                self._sshd.finish()
            if time.monotonic() > deadline:
                raise BenchError(f"the sshd of {self.name} does not answer")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.address, 22), timeout=1) as wire:
                return wire.recv(4) == b"SSH-"
        except OSError:
            return False

    def cpu_seconds(self) -> float:
        """What its sshd and all its sessions that have ended used so far."""
        return cpu_seconds(self._sshd.pid)

    def wire_bytes(self) -> int:
        """What went over its link so far, both ways."""
        folder = Path(f"/sys/class/net/{self.port}/statistics")
        return sum(int((folder / f"{way}_bytes").read_text()) for way in ("rx", "tx"))


def cpu_seconds(pid: int) -> float:
    """What a process used so far, and what it waited for (``man 5 proc_pid_stat``, fields 14 to 17)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


class Pool:
    """A master and its hosts."""

    def __init__(self, work: Path, hosts: int, scripts: Path) -> None:
        keys = disk(work) / "keys"
        keys.mkdir(mode=0o700)
        for name in ("host", "pool"):
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", NAME, "-f", keys / name])
        Path("/run/sshd").mkdir(exist_ok=True)
        nodes = [Node(work, number, keys, scripts) for number in range(hosts + 1)]
        for node in nodes:
            node.wait()
        self.master, self.hosts = nodes[0], tuple(nodes[1:])
        self._pool = self.master.root / "etc/vs-tools/pool"
        self._pool.mkdir(mode=0o700)
        shutil.copy(keys / "pool", self._pool / "key")
        shutil.copy(keys / "pool.pub", self._pool / "key.pub")
        key = " ".join((keys / "host.pub").read_text().split()[:2])
        (self._pool / "known_hosts").write_text("".join(f"{node.name} {key}\n" for node in self.hosts))
        lines = "".join(f"{node.name}:address={node.address}\n" for node in self.hosts)
        (self.master.root / "etc/vs-tools/slaves.conf").write_text(lines)

    def ssh(self, host: Node) -> list[str]:
        """The system's ssh with the pool's key and known hosts; the host's address is to follow."""
        options: Mapping[str, object] = {
            "BatchMode": "yes", "IdentitiesOnly": "yes", "IdentityFile": self._pool / "key",
            "StrictHostKeyChecking": "yes", "UserKnownHostsFile": self._pool / "known_hosts",
            "GlobalKnownHostsFile": os.devnull, "HostKeyAlias": host.name, "LogLevel": "ERROR",
        }  # fmt: skip
        return ["ssh", "-F", os.devnull, "-T", *(f"-o{key}={value}" for key, value in options.items())]

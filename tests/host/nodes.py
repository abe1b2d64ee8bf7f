"""A pool on one kernel: each node has a name, a network and an installation of its own, and a real sshd.

The nodes are linked by a bridge. A node's guests are real, too; what is one kernel's (contexts, cgroups) they share.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from conftest import Host, drop_cgroups, wait

from tests.templates import BIN

TABLE = os.environ.get("VS_TOOLS_TESTS_SAFETY", "")
"""Where the table of all steps and faults goes; without it, a part of them is walked."""
BRIDGE, NET = "vspool0", "10.98.0"
SETUP = """
hostname "$1"
mount -t tmpfs tmpfs /run/netns
mkdir -p "$2/home/.ssh" /run/sshd
mount --bind "$2/home" /root
ip link set lo up
exec sleep infinity
"""
SSHD = """ListenAddress {address}:22
HostKey {root}/sshd/key
PidFile none
AuthorizedKeysFile /root/.ssh/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PermitRootLogin yes
MaxStartups 100
SetEnv VS_TOOLS_ROOT={root} PATH={root}/bin:{bin}:/usr/sbin:/usr/bin:/sbin:/bin
Subsystem sftp internal-sftp
LogLevel ERROR
"""


class Node(Host):
    """One node of the pool."""

    def __init__(self, name: str, number: int) -> None:
        root = Path(tempfile.mkdtemp(prefix=f"vs-test-{name}-", dir="/var/tmp"))
        super().__init__(root)
        self.name, self.address = name, f"{NET}.{number}"
        (root / "etc/vservers/.defaults/context.next").write_text(f"{60000 + 100 * number}\n")
        self._process = subprocess.Popen(
            ["unshare", "--net", "--uts", "--mount", "--propagation", "private", "sh", "-euc", SETUP, "sh", name, root],
            start_new_session=True,
        )
        self.proc = Path(f"/proc/{self._process.pid}")
        self._sshd: subprocess.Popen[bytes] | None = None
        own = os.readlink("/proc/self/ns/net")
        link = Path(f"/proc/{self._process.pid}/ns/net")
        wait(lambda: os.readlink(link) != own)
        self._link(number)
        (root / "sshd").mkdir(mode=0o700)
        self.inside_node(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{root}/sshd/key"])
        self.environment()

    def _link(self, number: int) -> None:
        here, there = f"vsp{number}", f"vsq{number}"
        pid = str(self._process.pid)
        for line in (
            f"ip link add {here} type veth peer name {there}", f"ip link set {there} netns {pid} name eth0",
            f"ip link set {here} master {BRIDGE} up",
            f"nsenter -t {pid} -n ip address add {self.address}/24 dev eth0",
            f"nsenter -t {pid} -n ip link set eth0 up",
        ):  # fmt: skip
            subprocess.run(line.split(), check=True)

    @property
    def key(self) -> str:
        """The fingerprint of its sshd's key."""
        said = self.inside_node(["ssh-keygen", "-l", "-f", f"{self.root}/sshd/key.pub"])
        return said.stdout.split()[1]

    def words(self, argv: list[str]) -> list[str]:
        """A program's words, to run on this node."""
        return ["nsenter", "-t", str(self._process.pid), "-n", "-u", "-m", "--", *map(str, argv)]

    def inside_node(self, argv: list[str], **more: object) -> "subprocess.CompletedProcess[str]":
        """Run a program on this node."""
        return subprocess.run(self.words(argv), check=True, capture_output=True, text=True, **more)  # type: ignore[call-overload, no-any-return]

    def start(self, *argv: str, **env: str) -> "subprocess.Popen[str]":
        """Start a command of ours on this node."""
        return subprocess.Popen(
            self.words([str(BIN / argv[0]), *argv[1:]]),
            env={**os.environ, "VS_TOOLS_ROOT": str(self.root), **env},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip

    def environment(self, **more: str) -> None:
        """What sessions of its sshd have in their environment besides, from now on."""
        text = SSHD.format(address=self.address, root=self.root, bin=BIN)
        words = "".join(f" {key}={value}" for key, value in more.items())
        (self.root / "sshd/config").write_text(text.replace("/sbin:/bin\n", f"/sbin:/bin{words}\n"))
        self.sshd("off")
        self.sshd("on")

    def sshd(self, what: str) -> None:
        """Start (``on``) or kill (``off``) its sshd, with all sessions."""
        if self._sshd is not None:
            os.killpg(self._sshd.pid, signal.SIGKILL)
            self._sshd.wait()
            self._sshd = None
            self.kill("sshd")  # the sessions
        if what == "on":
            self._sshd = subprocess.Popen(
                self.words(["/usr/sbin/sshd", "-D", "-e", "-f", f"{self.root}/sshd/config"]),
                stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            wait(self._answers)

    def agent(self, program: str = "", **env: str) -> None:
        """From now on the master's commands find another vs-slave here: in this environment, or a program of its own.

        Without words it is the usual one.
        """
        path = self.root / "bin/vs-slave"
        path.unlink(missing_ok=True)
        if not program and env:
            program = "#!/bin/sh\n" + "".join(f"export {key}={value}\n" for key, value in env.items())
            program += f'exec {BIN}/vs-slave "$@"\n'
        if program:
            path.parent.mkdir(exist_ok=True)
            path.write_text(program)
            path.chmod(0o755)

    def processes(self, program: str) -> list[int]:
        """The processes of a program on this node; its name may go on, as that of sshd's sessions does."""
        found, own = [], os.readlink(self.proc / "ns/net")
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (entry / "comm").read_bytes().startswith(program.encode()) and os.readlink(entry / "ns/net") == own:
                    found.append(int(entry.name))
        return found

    def kill(self, program: str) -> None:
        """SIGKILL for all processes of a program on this node."""
        for pid in self.processes(program):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def agents(self) -> list[int]:
        """The processes of the agents that run here."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")[:-1]
                env = (entry / "environ").read_bytes().split(b"\0")
                if words[-1:] == [os.fsencode(BIN / "vs-slave")] and f"VS_TOOLS_ROOT={self.root}".encode() in env:
                    found.append(int(entry.name))
        return found

    def _answers(self) -> bool:
        script = f"exec 3<>/dev/tcp/{self.address}/22 && head -c 4 <&3"
        done = subprocess.run(self.words(["bash", "-c", script]), capture_output=True, check=False)
        return done.stdout == b"SSH-"

    def leftovers(self) -> list[str]:
        """As of any installation; the node's own /root is no leftover."""
        return [what for what in super().leftovers() if what != "mount /root"]

    def cut(self, what: str) -> None:
        """Take the node's network away (``off``), and give it back."""
        state = {"off": "down", "on": "up"}[what]
        subprocess.run(["ip", "link", "set", f"vsp{self.address.rpartition('.')[2]}", state], check=True)

    def end(self) -> None:
        """Kill everything of this node, and remove it."""
        self.sshd("off")
        pid = self._process.pid
        os.killpg(pid, signal.SIGKILL)
        self._process.wait()
        deadline = time.monotonic() + 60
        while self.root.exists() and time.monotonic() < deadline:
            with suppress(OSError):
                shutil.rmtree(self.root)
                break
            time.sleep(0.1)
        drop_cgroups(self.root)
        assert not self.root.exists()


def told(step: str, fault: str, outcome: str) -> None:
    """A line of the table, when all that has to be true after a fault was."""
    if TABLE:
        with Path(TABLE).open("a") as table:
            table.write(f"| {step} | {fault} | {outcome} |\n")


@contextmanager
def pool(*names: str) -> Iterator[list[Node]]:
    """Nodes of these names, linked; they have not met."""
    subprocess.run(["ip", "link", "add", BRIDGE, "type", "bridge"], check=True)
    subprocess.run(["ip", "link", "set", BRIDGE, "up"], check=True)
    nodes: list[Node] = []
    try:
        for number, name in enumerate(names, 1):
            nodes.append(Node(name, number))
        yield nodes
        for node in nodes:
            node.vs("vs-control", "--all", "--stop")
            left = node.leftovers()
            assert not left, f"left behind on {node.name}: {left}"
    finally:
        for node in nodes:
            node.vs("vs-control", "--all", "--stop")
            node.end()
        subprocess.run(["ip", "link", "delete", BRIDGE], check=True)


def meet(master: Node, node: Node) -> str:
    """The first contact, where the admin's own key is let in."""
    admin = master.root / "home/.ssh/id_ed25519"
    if not admin.exists():
        master.inside_node(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(admin)])
    keys = node.root / "home/.ssh/authorized_keys"
    keys.write_text(admin.with_suffix(".pub").read_text())
    keys.chmod(0o600)
    return master.ok("vs-hosts", "--add", node.name, "--address", node.address, "--fingerprint", node.key)


@contextmanager
def met(*names: str) -> Iterator[list[Node]]:
    """A pool whose first node is the master and knows the others."""
    with pool(*names) as nodes:
        for node in nodes[1:]:
            meet(nodes[0], node)
        yield nodes

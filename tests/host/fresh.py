"""A fresh Debian to install vs-tools on: a tree from packages, entered as a machine of its own.

It has its own mounts, processes, network (a link to the real one, with NAT) and its own view of the cgroups. So what
is installed, started and named there meets nothing of the machine that runs the tests.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from conftest import Done

from tests.templates import REPO
from vstools.config.create import CreateConf
from vstools.tree import bootstrap

LINK, TABLE = "vsfresh0", "vs_tests_install"
OUTSIDE, INSIDE = "10.213.77.1", "10.213.77.2"
GLOBAL = ("fs.inotify.max_user_instances", "fs.inotify.max_user_watches", "kernel.keys.maxkeys", "kernel.keys.maxbytes")
"""Settings of etc/sysctl.conf that belong to the one kernel and not to a namespace."""
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
SETUP = """
mount --rbind $1 $1
cd $1
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p run/lock
{cgroups}
mkdir .old
pivot_root . .old
umount -l /.old
rmdir /.old
hostname fresh
exec sleep infinity
"""


@dataclass(frozen=True)
class Hierarchy:
    """A cgroup hierarchy of this machine: where it is mounted, as what, with which options."""

    where: Path
    kind: str
    options: str


def _hierarchies() -> list[Hierarchy]:
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            words = [word for word in options.split(",") if word not in ("rw", "ro") and "=" not in word]
            words += [f"none,{word}" for word in options.split(",") if word.startswith("name=")]
            found.append(Hierarchy(Path(before.split(" ")[4]), kind, ",".join(words) if kind == "cgroup" else ""))
    return found


class Machine:
    """The fresh machine; commands run there as root."""

    def __init__(self, root: Path, init: int, groups: list[Path]) -> None:
        self.root, self._init, self._groups = root, init, groups

    def sh(self, script: str, timeout: float = 1800) -> Done:
        """Run a script there, with nothing of this machine's environment but how packages are reached."""
        kept = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "http_proxy", "https_proxy", "no_proxy")
        env = {key: os.environ[key] for key in kept if key in os.environ}
        env |= {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "TERM": "dumb"}
        env["PIP_CERT"] = "/root/ca.crt"
        enter = ["nsenter", f"--target={self._init}", "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup"]
        join = "".join(f"echo $$ > {group}/cgroup.procs\n" for group in self._groups)
        done = subprocess.run(
            ["sh", "-c", f'{join}exec "$@"', "sh", *enter, "sh", "-c", f"cd /root/vs-tools\n{script}"],
            env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=timeout, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    def ok(self, script: str) -> str:
        """Run a script that must succeed; its output."""
        done = self.sh(script)
        assert done.code == 0, f"{script}: {done}"
        return done.out


def _outside(*argv: str, stdin: str = "") -> str:
    """Run a program in the machine's real network."""
    enter = ["nsenter", f"--net={os.environ['VS_TOOLS_TESTS_NET']}"]
    return subprocess.run([*enter, *argv], input=stdin, capture_output=True, text=True, check=True).stdout


@contextmanager
def machine(suite: str) -> Iterator[Machine]:
    """A fresh Debian of a suite with a checkout of vs-tools in /root/vs-tools; gone at the end with all it did."""
    with ExitStack() as stack:
        root = Path(tempfile.mkdtemp(prefix="vs-test-fresh-", dir="/var/tmp"))
        stack.callback(subprocess.run, ["rm", "-rf", "--one-file-system", root], check=True)
        root.chmod(0o755)
        stack.enter_context(_kept_settings())
        _build(root, suite)
        _furnish(root)
        groups = stack.enter_context(_cgroups())
        init = stack.enter_context(_init(root, groups))
        stack.enter_context(_connected(init))
        yield Machine(root, init, [group / "shell" for group, _ in groups])


def _build(root: Path, suite: str) -> None:
    """What a fresh minimal Debian has: no Python, no LXC, not even the time zones."""
    lines = bootstrap.sources(bootstrap.mirrors(CreateConf()), suite)
    options = [f"--aptopt={option}" for option in bootstrap._apt_options()]
    argv = [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
        "--quiet",
        *options,
        suite,
        str(root),
    ]
    _outside(*argv, *lines)


def _furnish(root: Path) -> None:
    """The checkout, and how this machine reaches its package indexes."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        target = root / "root/vs-tools" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (REPO / name).exists() or (REPO / name).is_symlink():
            shutil.copy2(REPO / name, target, follow_symlinks=False)
    for path in (Path("/etc/pip.conf"), Path("/root/.config/pip/pip.conf"), Path("/root/.pip/pip.conf")):
        if path.exists():
            target = root / str(path)[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    if BUNDLE.exists():
        shutil.copy(BUNDLE, root / "root/ca.crt")
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    shutil.copy("/etc/hosts", root / "etc/hosts")


@contextmanager
def _kept_settings() -> Iterator[None]:
    """Kernel settings that the installation changes are put back."""
    paths = [Path("/proc/sys", key.replace(".", "/")) for key in GLOBAL]
    before = {path: path.read_text() for path in paths}
    try:
        yield
    finally:
        for path, value in before.items():
            path.write_text(value)


@contextmanager
def _cgroups() -> Iterator[list[tuple[Path, Hierarchy]]]:
    """A cgroup in each hierarchy; its part ``shell`` holds the machine's own processes."""
    found = [(each.where / f"vs-test-fresh-{os.getpid()}", each) for each in _hierarchies()]
    try:
        for group, _ in found:
            for path in (group, group / "shell"):
                path.mkdir()
                for key in ("cpuset.cpus", "cpuset.mems"):  # version 1 takes no process without them
                    if (path / key).exists():
                        (path / key).write_text((path.parent / key).read_text())
        yield found
    finally:
        for group, _ in found:
            _remove(group)


def _remove(group: Path) -> None:
    deadline = time.monotonic() + 20
    while group.exists():
        for path in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
            with suppress(OSError):
                path.rmdir()
        with suppress(OSError):
            group.rmdir()
        assert time.monotonic() < deadline, f"{group} is still in use"
        time.sleep(0.1)


@contextmanager
def _init(root: Path, groups: list[tuple[Path, Hierarchy]]) -> Iterator[int]:
    """The machine's first process; everything there dies with it."""
    join = "".join(f"echo $$ > {group}/cgroup.procs\n" for group, _ in groups)
    leave = "".join(f"echo $$ > {group}/shell/cgroup.procs\n" for group, _ in groups)
    inner = SETUP.format(cgroups=_cgroup_mounts([each for _, each in groups]))
    unshare = [
        "unshare",
        "--mount",
        "--net",
        "--uts",
        "--ipc",
        "--pid",
        "--fork",
        "--kill-child",
        "--propagation",
        "private",
    ]
    script = f'{join}exec unshare --cgroup sh -ec \'{leave}exec "$@"\' sh "$@"'
    process = subprocess.Popen(["sh", "-ec", script, "sh", *unshare, "sh", "-ec", inner, "sh", str(root)])
    try:
        init = 0
        deadline = time.monotonic() + 30
        while not init:
            assert process.poll() is None, "the machine could not be made"
            assert time.monotonic() < deadline
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            if children and Path(f"/proc/{children[0]}/comm").read_text() == "sleep\n":
                init = int(children[0])
            time.sleep(0.05)
        yield init
    finally:
        process.kill()
        process.wait()


def _cgroup_mounts(hierarchies: list[Hierarchy]) -> str:
    """The commands that mount them as they are on this machine, seen from the machine's own cgroup."""
    top = Path("/sys/fs/cgroup")
    lines = [] if any(each.where == top for each in hierarchies) else ["mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup"]
    for each in sorted(hierarchies, key=lambda each: each.where):
        where = str(each.where)[1:]
        options = f"-o {each.options} " if each.options else ""
        lines.append(f"mkdir -p {where}; mount -t {each.kind} {options}{each.kind} {where}")
    return "\n".join(lines)


@contextmanager
def _connected(init: int) -> Iterator[None]:
    """A link to this machine's real network, with NAT, for packages."""
    forwarding = _outside("cat", "/proc/sys/net/ipv4/ip_forward")
    rules = f"""
    table ip {TABLE} {{
        chain postrouting {{
            type nat hook postrouting priority srcnat;
            ip saddr {INSIDE} oifname != "{LINK}" masquerade
        }}
    }}
    """
    inside = ["nsenter", f"--target={init}", "--net"]
    try:
        _outside("ip", "link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", str(init))
        _outside("ip", "address", "add", f"{OUTSIDE}/30", "dev", LINK)
        _outside("ip", "link", "set", LINK, "up")
        _outside("nft", "-f", "-", stdin=rules)
        _outside("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        for words in ("address add {}/30 dev eth0", "link set eth0 up", "link set lo up", "route add default via {}"):
            address = OUTSIDE if "via" in words else INSIDE
            subprocess.run([*inside, "ip", *words.format(address).split()], check=True)
        yield
    finally:
        with suppress(subprocess.CalledProcessError):
            _outside("nft", "delete", "table", "ip", TABLE)
        with suppress(subprocess.CalledProcessError):
            _outside("ip", "link", "delete", LINK)
        _outside("sh", "-c", f"echo {forwarding.strip()} > /proc/sys/net/ipv4/ip_forward")

"""A guest leaves: stock LXC starts it, without vs-tools, by the commands that stand in docs/leaving.md."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import Host, create

from tests.templates import BIN, REPO

BRIDGE = "vsleave0"
STAGE = """
mount --bind "$1/machine/lxc" /var/lib/lxc
mount --bind "$1/machine/root" /root
mount --bind "$1/machine/etc" /etc
mount --bind "$1/etc/vservers" /etc/vservers
mount --bind "$1/var/lib/vservers" /var/lib/vservers
mount --rbind /sys/fs/cgroup "$1/machine/cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$1/machine/cgroup" /sys/fs/cgroup
cd /
exec sh -euc "$2"
"""


def blocks() -> tuple[str, str]:
    """The two pieces of shell of the page: on the host that has the guest, and where it goes."""
    first, second = re.findall(r"^```sh\n(.*?)^```$", (REPO / "docs/leaving.md").read_text(), re.MULTILINE | re.DOTALL)
    return first, second


@pytest.fixture
def machine(host: Host) -> Iterator[Path]:
    """A machine with stock LXC: its own /var/lib/lxc, /root and a bridge; the one the guest leaves is the same."""
    folder = host.root / "machine"
    for name in ("lxc", "root", "etc", "cgroup"):
        (folder / name).mkdir(parents=True)
    subprocess.run(["cp", "-a", "/etc/.", folder / "etc"], check=True)
    (folder / "etc/vservers").mkdir(exist_ok=True)
    Path("/var/lib/vservers").mkdir(mode=0o700, exist_ok=True)
    subprocess.run(["ip", "link", "add", BRIDGE, "type", "bridge"], check=True)
    subprocess.run(["ip", "address", "add", "10.99.9.1/24", "dev", BRIDGE], check=True)
    subprocess.run(["ip", "link", "set", BRIDGE, "up"], check=True)
    pivots = set(Path("/sys/fs/cgroup").glob("*/lxc.pivot"))
    yield folder
    subprocess.run(["ip", "link", "delete", BRIDGE], check=True)
    for pivot in set(Path("/sys/fs/cgroup").glob("*/lxc.pivot")) - pivots:
        with suppress(OSError):  # stock LXC leaves it, and another one may be using it
            pivot.rmdir()


def run(host: Host, script: str, path: str) -> str:
    """Run a piece of the page there; what it printed."""
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-euc", STAGE, "sh", host.root, script],
        env={**os.environ, "VS_TOOLS_ROOT": str(host.root), "PATH": path},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done
    return done.stdout


@pytest.mark.parametrize("kind", ["small", "debian"])
def test_stock_lxc_starts_a_guest_that_left(
    host: Host, machine: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    template: Path = request.getfixturevalue(kind)
    assert create(host, "web", 10, template, "--enable", "--start", "--rss", "512").code == 0
    assert host.inside("web", "umask 077; echo kept > /root/kept; chown 33:33 /root/kept").code == 0
    leave, enter = blocks()
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    assert run(host, leave, f"{BIN}:{path}").endswith(":web:disabled:stopped\n")
    variables, rest = enter.split("\n", 1)
    assert variables.startswith("NAME=web ADDRESS="), "the line that an admin fills in"
    values = f"NAME=web ADDRESS=10.99.9.20/24 GATEWAY=10.99.9.1 BRIDGE={BRIDGE} BASE=655360000\n"
    ask = (
        "lxc-attach -n web -- sh -c 'cat /root/kept; ls -ln /root/kept; cat /proc/self/uid_map'\n"
        "ping -c1 -W10 -w30 10.99.9.20 > /dev/null\nlxc-stop -n web -k\n"
    )
    said = run(host, f"! command -v vs-control\n{values}{rest}{ask}", path)
    assert said.startswith("kept\n"), said
    assert re.search(r"^-rw------- +1 33 +33 ", said, re.MULTILINE), said
    assert re.search(r"^ +0 +655360000 +65536$", said, re.MULTILINE), said

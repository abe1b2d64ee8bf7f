"""Limits on cgroup v2 beneath systemd: changed while a guest runs; neither systemd nor an upgrade touches them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tests.templates import small_template

if TYPE_CHECKING:
    from conftest import Hosts

HOST = "vsh-00"
BOX = "/bin/busybox"
HOLD = f"({BOX} head -c 62914560 /dev/zero; {BOX} sleep 100000) | {BOX} tail -c 62914560"
FILES = ("memory.max", "memory.high", "memory.swap.max", "pids.max", "cpu.max", "cpu.max.burst")
SLICE = "/sys/fs/cgroup/vsguests.slice"
NEWER = """cd /root/vs-tools
sed -i 's/^version = .*/version = "9.9.9"/' pyproject.toml
sed -i 's/^Delegate=yes$/&\\nCPUWeight=77/' systemd/vs-guest@.service
sed -i '2i # newer' templates/vs-guest-run
"""
"""A later version: other units, and another text of the script that each running guest's shell reads from."""
RENEW = """./install.sh > /tmp/said 2>&1 & pid=$!
while kill -0 $pid 2> /dev/null; do
    ls /opt/vs-tools/bin/vs-guest-phase /opt/vs-tools/lib/python3*/*/vstools/templates/vs-guest-reboot 2>&1 > /dev/null
    sleep 0.2
done
wait $pid || { cat /tmp/said; exit 1; }
"""
"""Installs it; says when something was missing meanwhile that a guest needs to reboot itself or to end."""


def kernel(hosts: "Hosts", name: str) -> dict[str, str]:
    """What the kernel has for a guest."""
    folder = f"{SLICE}/vs-guest@{name}.service/payload"
    lines = hosts.ok(HOST, f"cd {folder} && cat {' '.join(FILES)}").splitlines()
    return dict(zip(FILES, lines, strict=True))


def lives(hosts: "Hosts") -> list[str]:
    """What tells one life of the two guests from another: the pid and the start time of each init."""
    show = "pid=$(vs-fonctions guest_init_pid $name) && echo $pid $(cut -d ' ' -f 22 /proc/$pid/stat)"
    return hosts.ok(HOST, f"for name in web bare; do {show} || exit; done").splitlines()


def upgrade(hosts: "Hosts", wanted: dict[str, str]) -> None:
    """vs-tools is renewed while both guests run: they live on with their limits, and one starts again by the new code.

    The other stays a guest that the old code started.
    """
    before = lives(hosts)
    assert hosts.ok(HOST, f"{NEWER}{RENEW}", 900) == ""
    assert hosts.ok(HOST, "cd /opt/vs-tools/lib/python3*/*/ && echo vs_tools-*") == "vs_tools-9.9.9.dist-info\n"
    assert lives(hosts) == before
    assert kernel(hosts, "web") == kernel(hosts, "bare") == wanted
    assert hosts.ok(HOST, "vs-control --name bare --restart") == f"{HOST}:bare:disabled:running\n"
    web, bare = lives(hosts)
    assert (web, bare != before[1]) == (before[0], True)
    # systemd has applied the new unit to both by now, and left alone what is below
    assert hosts.ok(HOST, f"cat {SLICE}/vs-guest@*.service/cpu.weight") == "77\n77\n"
    assert kernel(hosts, "web") == kernel(hosts, "bare") == wanted


def test_limits_change_while_guests_run_and_stay(hosts: "Hosts", tmp_path: Path) -> None:
    hosts.configure(HOST, "7:10.99.7.0/24\n")
    hosts.copy(HOST, small_template(tmp_path), "/root")
    make = "vs-create --template /root/small.tar --interface 10.99.7"
    hosts.ok(HOST, f"{make}.5 --name web --rss 128 --tmpfs 16 --proc 60 --cpu 1/2 --start")
    hosts.ok(HOST, f"{make}.6 --name bare --start")
    before = kernel(hosts, "web")
    assert (before["memory.max"], before["pids.max"]) == (str(128 << 20), "60")

    # a guest that had none gets them; controllers are there
    words = "--rss 200 --swap inf --proc 70 --cpu 1/4 --burst 10 --nofile 500"
    line = hosts.ok(HOST, f"vs-limit --name web --name bare {words}")
    assert line == f"{HOST}:web:200:inf:16:70:1/4\n{HOST}:bare:200:inf:inf:70:1/4\n"
    wanted = {
        "memory.max": str(200 << 20), "memory.high": str((200 << 20) - (200 << 20) // 32), "memory.swap.max": "max",
        "pids.max": "70", "cpu.max": "25000 100000", "cpu.max.burst": "10000",
    }  # fmt: skip
    assert kernel(hosts, "web") == kernel(hosts, "bare") == wanted
    assert hosts.inside(HOST, "web", "ulimit -n") == "500\n"
    hosts.ok(HOST, "vs-limit --name web --nofile 900")
    assert hosts.inside(HOST, "web", f"{BOX} grep 'open files' /proc/1/limits").split()[3:5] == ["900", "900"]
    hosts.ok(HOST, "systemctl daemon-reload")
    assert kernel(hosts, "web") == wanted
    upgrade(hosts, wanted)

    # memory in use: refused, then forced: the guest's process dies, nobody else, though it has used up its CPU share
    hosts.ok(HOST, "vs-limit --name web --swap 0")
    hosts.inside(HOST, "web", f"({HOLD}) > /dev/null 2>&1 < /dev/null &")
    payload = f"{SLICE}/vs-guest@web.service/payload"
    hosts.wait(HOST, f"test $(awk '/^anon /{{print $2}}' {payload}/memory.stat) -gt 62914560")
    code, said = hosts.call(HOST, "vs-limit --name web --rss 30 --proc 50")
    assert (code, "it would kill processes" in said) == (2, True), said
    assert kernel(hosts, "web") == {**wanted, "memory.swap.max": "0"}
    look = f"vs-fonctions guest_init_pid web && grep -w oom_kill {payload}/memory.events"
    lines = hosts.ok(HOST, f"{look} && vs-limit --name web --rss 30 --proc 50 --force 2>&1 && {look}").splitlines()
    assert lines[:2] == lines[-2:], "its init lives, the kernel killed nobody"
    assert ("killed process" in lines[2], lines[3:-2]) == (True, [f"{HOST}:web:30:inf:16:50:1/4"]), lines
    hosts.wait(HOST, f"test $(awk '/^anon /{{print $2}}' {payload}/memory.stat) -lt 31457280")
    assert hosts.inside(HOST, "bare", "echo lives") == "lives\n"

    # root of the guest cannot raise it, its own reboot keeps it
    hosts.inside(HOST, "web", "cd /sys/fs/cgroup; for f in memory.max pids.max cpu.max; do echo max > $f; done; true")
    pid = hosts.ok(HOST, "vs-fonctions guest_init_pid web").strip()
    hosts.call(HOST, f"vs-enter --name web -- {BOX} reboot -f")
    hosts.wait(HOST, f"new=$(vs-fonctions guest_init_pid web) && test $new -gt 0 && test $new != {pid}")
    found = kernel(hosts, "web")
    assert (found["memory.max"], found["pids.max"], found["cpu.max.burst"]) == (str(30 << 20), "50", "10000")
    (row,) = json.loads(hosts.ok(HOST, "vs-limit --name web --json"))
    assert all("applied" not in each for each in row["limits"].values()), row
    assert row["limits"]["rss"] == {"enforced": True}

    # inf lifts what it had
    hosts.ok(HOST, "vs-limit --name web --rss inf --proc inf --cpu inf --burst inf")
    lifted = kernel(hosts, "web")
    assert (lifted["memory.max"], lifted["pids.max"], lifted["cpu.max.burst"]) == ("max", "max", "0")
    assert lifted["cpu.max"].startswith("max ")

"""A move is hit at each of its steps: the power of source, target or master goes, or a disk is full.

The whole product of steps and faults is walked between namespaces (tests/host/test_move_kills.py). Here each step gets
one fault, by a seed that is printed: VS_TOOLS_TESTS_SEED repeats it. A small guest goes back and forth meanwhile and
numbers its records, each on the disk before the next.
"""

import os
import random
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.templates import small_template

if TYPE_CHECKING:
    from conftest import Hosts

MASTER, ONE, TWO = "vsh-00", "vsh-01", "vsh-02"
TREES = "/var/lib/vservers"
RECORDS = f"{TREES}/web/records"
WRITER = """
n=$(/bin/busybox wc -l < /records)
while n=$((n + 1)); do
    echo $n | /bin/busybox dd of=/records oflag=append conv=notrunc,fsync 2> /dev/null
    /bin/busybox usleep 500000
done
"""
STEPS = ("begun", "staged", "copied", "held", "registered", "released", "owned", "started")
BEHIND = ("released", "owned", "started")
"""Steps after which the guest is the target's."""
ROLES = ("source", "target", "master")
LEFT = """
vs-control --all
ls -A /etc/vservers /var/lib/vservers /run/vs-tools/asleep 2> /dev/null | grep web
lvs --noheadings -o lv_name vs | grep vs-snap
ip netns list
grep transfer /root/.ssh/authorized_keys
true
"""
"""What must not be on a host that has no guests."""
STOPPED = 'until grep -q "^State:.T" /proc/$(cat /root/pid)/status; do kill -0 $(cat /root/pid) || exit; sleep 1; done'
"""Succeeds when the move waits at its step; fails where it ended before."""
LINGER = "loginctl enable-linger root"
"""A session of ssh starts no systemd of its own each time: that takes an emulated host some seconds."""
ENDED = "until [ -s /root/status ]; do sleep 1; done; cat /root/status /root/said"
FILL = """
n=0
for size in 1G 100M 10M 1M 100K 4K; do
    while fallocate -l $size /var/lib/vservers/fill.$((n += 1)) 2> /dev/null; do true; done
done
"""
OVERFLOW = """#!/bin/sh
for n in 1 2 3 4 5 6 7 8; do
    dd if=/dev/zero of=/var/lib/vservers/big.$n bs=1M count=20 conv=fsync 2> /dev/null
done
"""
SPARE = "$(( $(vgs --noheadings -o vg_free_count vs) - 18 ))"
"""Extents of a volume that leaves a group 72 MiB."""


def prepare(hosts: "Hosts", folder: Path) -> None:
    """A small guest that writes runs on the first host, enabled; the master has met both hosts."""
    hosts.copy(ONE, small_template(folder), "/root")
    make = (
        "vs-create --template /root/small.tar --interface 10.99.7.5 --name web",
        f"printf %s {shlex.quote(WRITER)} > {TREES}/web/writer; touch {RECORDS}",
        f"echo '::respawn:/bin/sh /writer' >> {TREES}/web/etc/inittab",
        "vs-control --name web --enable --start",
    )
    for host in (ONE, TWO):
        hosts.configure(host, "7:10.99.7.0/24\n")
        hosts.ok(host, LINGER)
        key = hosts.ok(host, "ssh-keygen -l -f /etc/ssh/ssh_host_ed25519_key.pub").split()[1]
        hosts.ok(MASTER, f"vs-hosts --add {host} --fingerprint {key}")
    assert hosts.ok(ONE, " && ".join(make)).endswith(f"{ONE}:web:enabled:running\n")


def begin(hosts: "Hosts", target: str, step: str) -> None:
    """A move is begun, and waits at a step."""
    move = f"VS_TOOLS_FAULT=move:{step} VS_TOOLS_FAULT_SIGNAL=STOP vs-move --name web --dst-host {target}"
    script = f"{move} > /root/said 2>&1 & echo $! > /root/pid; wait $!; echo $? > /root/status"
    line = f"rm -f /root/status; setsid sh -c {shlex.quote(script)} > /dev/null 2>&1 < /dev/null & sleep 1; {STOPPED}"
    code, said = hosts.call(MASTER, line, 900)
    assert code == 0, said + hosts.call(MASTER, "cat /root/said")[1]


def records(hosts: "Hosts", host: str) -> int:
    """How many records a host has, none missing, torn or there twice; the last line may not be whole."""
    return int(hosts.ok(host, f"head -n -1 {RECORDS} | awk '$1 != NR {{ exit 1 }} END {{ print NR }}'"))


def goes_on(hosts: "Hosts", host: str, other: str, before: int) -> None:
    """The guest runs there and nowhere else, has all its records, and writes on; the other host has nothing of it."""
    assert hosts.ok(MASTER, "vs-scan --timeout 120") == f"{host}:web:enabled:running\n"
    hosts.wait(host, f"test $(wc -l < {RECORDS}) -gt {before + 2}")
    assert records(hosts, host) > before
    assert hosts.ok(other, LEFT) == ""
    assert hosts.ok(MASTER, "vs-move --status; ls /run/vs-tools | grep transfer; true") == ""


def is_hit(hosts: "Hosts", step: str, role: str, source: str, target: str, *, back: bool) -> str:
    """The power of one host goes at a step; with it again, one command is enough. Where the guest is then."""
    begin(hosts, target, step)
    holds = target if step == "started" else source
    before = records(hosts, holds)
    victim = {"source": source, "target": target, "master": MASTER}[role]
    hosts.power(victim, "cut")
    if role != "master":
        hosts.ok(MASTER, "kill -CONT $(cat /root/pid)")
        said = hosts.ok(MASTER, ENDED, 900)
        assert said.startswith("1\n"), (step, role, said)
    hosts.power(victim, "on")
    if step not in BEHIND:
        hosts.wait(source, "vs-control --name web | grep -q :enabled:running", 300)
    back = back and step not in BEHIND
    code, said = hosts.call(MASTER, f"vs-move --status; vs-move --name web --{'rollback' if back else 'resume'}", 900)
    ended = "no move of web was begun" in said
    assert code == 0 or ended, (step, role, said)
    at = source if (back or (ended and step not in BEHIND)) else target
    goes_on(hosts, at, target if at == source else source, before)
    return at


@pytest.mark.thorough
@pytest.mark.hosts(3)
def test_the_power_goes_at_each_step_of_a_move(hosts: "Hosts", tmp_path: Path) -> None:
    seed = os.environ.get("VS_TOOLS_TESTS_SEED") or str(time.time_ns())
    chance = random.Random(seed)  # noqa: S311 - nobody is kept from guessing it
    print(f"VS_TOOLS_TESTS_SEED={seed}")
    prepare(hosts, tmp_path)
    roles = [*ROLES, *ROLES, *ROLES][: len(STEPS)]
    chance.shuffle(roles)
    at = ONE
    for step, role in zip(STEPS, roles, strict=True):
        back = chance.random() < 0.5
        print(f"{step}: the power of the {role} goes, then {'back' if back else 'on'}")
        at = is_hit(hosts, step, role, at, TWO if at == ONE else ONE, back=back)


@pytest.mark.thorough
@pytest.mark.hosts(3)
def test_a_full_disk_and_a_full_snapshot_cost_a_copy_and_nothing_else(hosts: "Hosts", tmp_path: Path) -> None:
    prepare(hosts, tmp_path)
    init = hosts.ok(ONE, "vs-fonctions guest_init_pid web")
    the_targets_disk_is_full(hosts)
    a_snapshot_overflows(hosts)
    assert hosts.ok(ONE, "vs-fonctions guest_init_pid web") == init


def the_targets_disk_is_full(hosts: "Hosts") -> None:
    """It was not when the target was asked; the guest stays where it is and nothing stays where it is not."""
    before = records(hosts, ONE)
    begin(hosts, TWO, "staged")
    hosts.ok(TWO, FILL)
    hosts.ok(MASTER, "kill -CONT $(cat /root/pid)")
    said = hosts.ok(MASTER, ENDED, 900)
    assert (said.startswith("1\n"), "No space left on device" in said) == (True, True), said
    hosts.ok(TWO, f"rm {TREES}/fill.*")
    goes_on(hosts, ONE, TWO, before)


def a_snapshot_overflows(hosts: "Hosts") -> None:
    """What was copied from it counts for nothing; the next copy is whole."""
    hook = "/etc/vservers/web/scripts/post-snapshot"
    hosts.ok(ONE, f"lvcreate -qy -l {SPARE} -n fill vs; mkdir -p {hook.rpartition('/')[0]}")
    hosts.ok(ONE, f"printf %s {shlex.quote(OVERFLOW)} > {hook}; chmod 755 {hook}")
    code, said = hosts.call(MASTER, "vs-get --name web --accept-config; ls /var/lib/vs-tools/store/web", 900)
    assert ("overflowed" in said, "Z\n" in said) == (True, False), (code, said)
    left = "lvs --noheadings -o lv_name vs | grep vs-snap"
    hosts.ok(ONE, f"rm {hook} {TREES}/big.*; lvremove -qy vs/fill; ! {left}")
    before = records(hosts, ONE)
    time_of = hosts.ok(MASTER, "vs-get --name web --accept-config", 900).strip().split(":")[2]
    copy = f"/var/lib/vs-tools/store/web/{time_of}/tree/records"
    assert int(hosts.ok(MASTER, f"head -n -1 {copy} | awk '$1 != NR {{ exit 1 }} END {{ print NR }}'")) >= before
    hosts.ok(MASTER, "vs-backup --verify")
    hosts.ok(ONE, f"! {left}")

"""Snapshots of guests on LVM: ext4, XFS and thin volumes; overflown, killed and cut off on purpose."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.templates import small_template

if TYPE_CHECKING:
    from conftest import Hosts

HOST = "vsh-00"
TREES = "/var/lib/vservers"
KINDS = {
    "ext4": "true",
    "xfs": f"lvcreate -qy -L 640M -n second vs && mkfs.xfs -q /dev/vs/second && mount /dev/vs/second {TREES}",
    "thin": "lvcreate -qy --type thin-pool -L 600M -n pool vs && lvcreate -qy -V 500M --thin -n second vs/pool"
    f" && mkfs.ext4 -q /dev/vs/second && mount /dev/vs/second {TREES}",
}
"""What the trees are put on; the lab's own are on ext4."""
WRITER = """
while :; do
    echo line >> /root/log
    /bin/busybox sync /root/log
    echo line >> /root/synced
    sleep 0.1
done
"""
"""A guest that never stops to write: ``synced`` has never more lines than were synced in ``log``."""
IN_SNAPSHOT = f"""
lines() {{ wc -l < "$1"; }}
live={TREES}/web/root/log
held=$(lines root/log)
there=$(lines $live)
until [ $(lines $live) -gt $there ]; do sleep 0.1; done
echo $1 $held $there $(lines root/log)
touch root/new 2>&1 | grep -o 'Read-only file system'
[ "$PWD" = "$VS_SNAPSHOT" ] && grep -c "vs--snap" /proc/self/mountinfo
cat /proc/1/mountinfo /proc/$2/mountinfo | grep -c "vs--snap"
grep -c "vs--snap" /proc/mounts
lvs --noheadings -o lv_name vs | grep -c vs-snap
"""
LEFT = (
    "lvs --noheadings -o lv_name vs | grep vs-snap; ls /run/vs-tools/lock | grep '^_snapshot[.]';"
    " grep -hs vs--snap /proc/[0-9]*/mountinfo; dmsetup ls | grep -e vs--snap; true"
)
"""All that a snapshot could leave."""
STEPS = [f"snapshot:{step}" for step in ("locked", "made", "mounted", "used", "unmounted", "removed")]


def prepare(hosts: "Hosts", tmp_path: Path) -> str:
    """A small guest ``web`` that writes; its init as the host sees it."""
    hosts.configure(HOST, "7:10.99.7.0/24\n")
    hosts.copy(HOST, small_template(tmp_path), "/root")
    script, tree = tmp_path / "writer", f"{TREES}/web/root"
    script.write_text(WRITER)
    hosts.copy(HOST, script, "/root")
    for_init = "echo '::respawn:/bin/sh /root/writer' >> /var/lib/vservers/web/etc/inittab"
    make = "vs-create --template /root/small.tar --interface 10.99.7.5 --name web"
    hosts.ok(HOST, f"{make} && cp /root/writer {tree} && {for_init} && vs-control --name web --start")
    hosts.wait(HOST, f"test -s {tree}/synced")
    return hosts.ok(HOST, "vs-fonctions guest_init_pid web").strip()


def snapshot(hosts: "Hosts", script: str, *words: str) -> tuple[int, str]:
    """A shell script in a snapshot of the guest, with its words: the status of vs-fonctions, and all that was said."""
    return hosts.call(HOST, f"{reads(script)} sh {' '.join(words)}")


def reads(script: str) -> str:
    """A shell line that runs a script in a snapshot of the guest."""
    return f"vs-fonctions guest_snapshot web sh -c {shlex.quote(script)}"


@pytest.mark.parametrize(
    "kind", ["ext4", *(pytest.param(kind, marks=pytest.mark.thorough) for kind in ("thin", "xfs"))]
)
def test_a_snapshot_holds_what_was_synced_and_nothing_later(hosts: "Hosts", tmp_path: Path, kind: str) -> None:
    hosts.ok(HOST, KINDS[kind])
    init = prepare(hosts, tmp_path)
    code, said = snapshot(hosts, IN_SNAPSHOT, f"$(wc -l < {TREES}/web/root/synced)", init)
    assert code == 0, said
    numbers, *lines = said.splitlines()
    synced, held, live, still = map(int, numbers.split())
    assert (synced <= held <= live, held == still) == (True, True), said
    assert lines == ["Read-only file system", "1", "0", "1", "1"], said
    assert hosts.ok(HOST, LEFT) == ""
    is_killed_anywhere(hosts, STEPS if kind == "ext4" else STEPS[2:3])
    is_ended_by_a_signal(hosts)
    says_what_it_is(hosts, kind)


def is_killed_anywhere(hosts: "Hosts", steps: list[str]) -> None:
    """The next one removes what it left, and leaves nothing itself; two live side by side."""
    kills = f"for step in {' '.join(steps)}; do VS_TOOLS_FAULT=$step vs-fonctions guest_snapshot web true; echo $?"
    said = hosts.ok(HOST, f"{{ {kills}; lvs --noheadings -o lv_name vs | grep -c vs-snap; done; true; }} 2>/dev/null")
    volumes = {"snapshot:locked": "0", "snapshot:removed": "0"}
    assert said.split() == [word for step in steps for word in ("137", volumes.get(step, "1"))]
    first = "touch /run/first; until [ -e /run/second ]; do sleep 0.1; done; test -s root/log && echo one"
    second = (
        "touch /run/second; lvs --noheadings -o lv_name vs | grep -c vs-snap; sleep 1; test -s root/log && echo two"
    )
    said = hosts.ok(HOST, f"{reads(first)} & until [ -e /run/first ]; do sleep 0.1; done; {reads(second)}; wait")
    assert sorted(said.split()) == ["2", "one", "two"]
    assert hosts.ok(HOST, LEFT) == ""


def is_ended_by_a_signal(hosts: "Hosts") -> None:
    """SIGTERM ends what reads, and the snapshot with it."""
    reading = f"{reads('touch /run/third; exec sleep 1000')} & until [ -e /run/third ]; do sleep 0.1; done"
    code, said = hosts.call(HOST, f"{reading}; kill -TERM $!; wait $!; echo status $?; {LEFT}")
    assert (code, said) == (0, "status 143\n")


def says_what_it_is(hosts: "Hosts", kind: str) -> None:
    """vs-stats knows the storage and its group."""
    words = hosts.ok(HOST, "vs-stats --storage").strip().split(":")
    assert (words[1], words[-6], words[-3]) == ("lvm", "yes", "vs"), (kind, words)


def fill(free: int) -> str:
    """A shell line that leaves so many MiB free in the group."""
    spare = f"$(( $(vgs --noheadings -o vg_free_count vs) - {free // 4} ))"
    return f"lvremove -qy vs/fill; lvcreate -qy -l {spare} -n fill vs"


def written(mib: int, step: int = 20) -> str:
    """A shell line that writes so much to the guests' disk, beside the snapshot."""
    one = f"dd if=/dev/zero of={TREES}/big.$n bs=1M count={step} conv=fsync 2>/dev/null"
    return f"for n in $(seq {mib // step}); do {one}; done"


@pytest.mark.thorough
def test_a_snapshot_that_fills_up_is_extended_or_found_out(hosts: "Hosts", tmp_path: Path) -> None:
    prepare(hosts, tmp_path)
    hosts.ok(HOST, fill(60))
    code, said = snapshot(hosts, "true")
    assert (code, "has 60 MiB free, and a snapshot of vs/vservers needs 64" in said) == (2, True), said

    hosts.ok(HOST, fill(72))
    code, said = snapshot(hosts, f"{written(120)}; dmsetup status | grep -c Invalid")
    assert (code, said.splitlines()[0], "has overflowed, more was written" in said) == (1, "1", True), said
    assert hosts.ok(HOST, LEFT) == ""

    hosts.ok(HOST, fill(800))
    code, said = snapshot(
        hosts, f"{written(560)}; test -s root/log && lvs --noheadings -o lv_size --units m -S origin=vservers"
    )
    assert (code, float(said.strip().rstrip("m")) > 560) == (0, True), said
    assert hosts.ok(HOST, f"rm {TREES}/big.*; {LEFT}") == ""
    is_cut_off(hosts)


def is_cut_off(hosts: "Hosts") -> None:
    """The next one after a power cut removes what lies there: of a thick volume, and of a thin one."""
    mark = hosts.ok(HOST, "/opt/vs-tools/bin/python -c 'from vstools.paths import Paths; print(Paths().mark)'").strip()
    thin = (
        "lvremove -qy vs/fill; lvcreate -qy --type thin-pool -L 64M -n pool vs; lvcreate -qy -V 64M --thin -n t vs/pool"
    )
    name, tags = f"vs-snap-{mark}-feed", f"--addtag vs-tools --addtag vs-tools.owner={mark}-feed"
    reading = f"setsid {reads('touch /run/cut; sleep 1000')} > /dev/null 2>&1 < /dev/null &"
    hosts.ok(HOST, f"{thin}; {reading} until [ -e /run/cut ]; do sleep 0.1; done")
    hosts.ok(HOST, f"lvcreate -qy -s -n {name} {tags} vs/t && sync")
    hosts.power(HOST, "cut")
    hosts.power(HOST, "on")
    assert hosts.ok(HOST, "lvs --noheadings -o lv_name vs | grep -c vs-snap") == "2\n"
    code, said = snapshot(hosts, "test -s root/log && echo held")
    assert (code, said) == (0, "held\n")
    assert hosts.ok(HOST, LEFT) == ""

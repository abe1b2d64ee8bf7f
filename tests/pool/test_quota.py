"""Disk limits by project quotas, on ext4 and XFS: what a guest can write, what it is shown, and who counts it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.templates import small_template

if TYPE_CHECKING:
    from conftest import Hosts

HOST = "vsh-00"
BOX = "/bin/busybox"
TREES = "/var/lib/vservers"
MIB = 1 << 20
XFS = f"lvcreate -qy -L 640M -n second vs && mkfs.xfs -q /dev/vs/second && mount -o prjquota /dev/vs/second {TREES}"
ESCAPE = """
import fcntl, os, struct, sys
file = os.open(sys.argv[1], os.O_RDONLY)
flags, extent, extents, project, copied = struct.unpack("=5I8x", fcntl.ioctl(file, 0x801c581f, bytes(28)))
for flags, project in ((flags, 0), (flags, 10001), (flags & ~0x200, project)):
    try:
        fcntl.ioctl(file, 0x401c5820, struct.pack("=5I8x", flags, extent, extents, project, copied))
    except OSError as error:
        print(error.errno)
    else:
        print("changed")
"""
"""What root of a guest would do to a directory to be counted no more: all of it is refused (EINVAL, 22)."""


@dataclass(frozen=True)
class Disk:
    """After a guest has written: the file's size in bytes, what was said, and / in MiB as its df shows it."""

    written: int
    said: str
    size: int
    free: int


def write(hosts: "Hosts", guest: str, name: str, mib: int) -> Disk:
    """Let a guest write so many MiB to a file."""
    dd = f"{BOX} dd if=/dev/zero of={name} bs=1M count={mib} 2>&1; {BOX} sync"
    script = f"{dd}; {BOX} stat -c =%s= {name} || echo =0=; {BOX} df -P -m / | {BOX} tail -n 1"
    said, written, shown = hosts.inside(HOST, guest, script).rsplit("=", 2)
    words = shown.split()
    return Disk(int(written), said, int(words[1]), int(words[3]))


def used(hosts: "Hosts", guest: str) -> tuple[float, float | None]:
    """Use and limit in bytes, as vs-stats shows them; None: no limit."""
    (row,) = json.loads(hosts.ok(HOST, f"vs-stats --name {guest} --json"))
    return row["disk_bytes"], row["disk_limit_bytes"]


def counted(hosts: "Hosts", *contexts: int) -> list[str]:
    """What the kernel knows of contexts: use and limit in bytes."""
    ask = f"from pathlib import Path; from vstools.storage import quota; trees = Path('{TREES}')"
    told = f"found = [quota.read(trees, each) for each in {contexts}]; [print(each.used, each.limit) for each in found]"
    return hosts.ok(HOST, f'/opt/vs-tools/bin/python -c "{ask}; {told}"').splitlines()


@pytest.mark.parametrize("kind", ["ext4", pytest.param("xfs", marks=pytest.mark.thorough)])
def test_a_disk_limit_is_enforced_shown_and_kept(hosts: "Hosts", tmp_path: Path, kind: str) -> None:
    if kind == "xfs":
        hosts.ok(HOST, XFS)
    assert hosts.ok(HOST, f"stat -f -c %T {TREES}") == {"ext4": "ext2/ext3\n", "xfs": "xfs\n"}[kind]
    hosts.configure(HOST, "7:10.99.7.0/24\n")
    hosts.copy(HOST, small_template(tmp_path), "/root")
    make = "vs-create --template /root/small.tar --interface 10.99.7"
    hosts.ok(HOST, f"{make}.5 --name web --disk 40 --start && {make}.6 --name bare --start")
    context = int(hosts.ok(HOST, "cat /etc/vservers/web/context"))
    fills_its_limit_and_nobody_elses(hosts)
    cannot_get_out(hosts)
    changes_while_it_runs(hosts)
    comes_by_hand(hosts, context)
    leaves_no_limit(hosts, context, make)


def fills_its_limit_and_nobody_elses(hosts: "Hosts") -> None:
    """Up to the limit, and the neighbour writes on."""
    disk = write(hosts, "web", "/root/big", 100)
    assert 30 * MIB < disk.written < 40 * MIB
    assert "No space left" in disk.said or "quota exceeded" in disk.said
    assert (disk.size, disk.free <= 1) == (40, True)
    empty = f"{BOX} rm big; {BOX} mkdir n; {BOX} seq 11000 | (cd n; {BOX} xargs touch 2>&1) | {BOX} tail -n 1"
    said = hosts.inside(HOST, "web", f"cd /root; {empty}; {BOX} rm -r n")
    assert "No space left" in said or "quota exceeded" in said
    write(hosts, "web", "/root/big", 100)
    use, limit = used(hosts, "web")
    assert (use > 38 * MIB, limit) == (True, 40 * MIB)
    code, said = hosts.call(HOST, "/usr/local/share/vs-tools/nagios/check_vs_guest --name web")
    assert (code, "disk" in said) == (2, True), said
    assert write(hosts, "bare", "/root/big", 60).written == 60 * MIB
    use, limit = used(hosts, "bare")
    assert (use > 60 * MIB, limit) == (True, None)


def cannot_get_out(hosts: "Hosts") -> None:
    """Its root changes no project and nothing that hands one on."""
    init = hosts.ok(HOST, "vs-fonctions guest_init_pid web").strip()
    enter = f"nsenter -t {init} -U -S 0 -G 0 python3 - /proc/{init}/root/root"
    assert hosts.ok(HOST, f"{enter} <<'END'\n{ESCAPE}\nEND\n").split() == ["22"] * 3
    assert hosts.ok(HOST, f"{enter}/big <<'END'\n{ESCAPE}\nEND\n").split()[:2] == ["22"] * 2


def changes_while_it_runs(hosts: "Hosts") -> None:
    """More at once; less than is in use is refused, and forced if need be; its own reboot keeps it."""
    assert hosts.ok(HOST, "vs-limit --name web --disk 80") == f"{HOST}:web:inf:80:inf:inf:inf\n"
    disk = write(hosts, "web", "/root/more", 30)
    assert (disk.written, disk.size) == (30 * MIB, 80)
    code, said = hosts.call(HOST, "vs-limit --name web --disk 20")
    assert (code, "disk 20: " in said, "MiB are in use" in said) == (2, True, True), said
    hosts.ok(HOST, "vs-limit --name web --disk 20 --force")
    disk = write(hosts, "web", "/root/none", 1)
    assert (disk.written, disk.size) == (0, 20)
    hosts.ok(HOST, "vs-limit --name web --disk inf")
    disk = write(hosts, "web", "/root/again", 60)
    assert (disk.written, disk.size > 400) == (60 * MIB, True)
    hosts.ok(HOST, "vs-limit --name web --disk 200")
    pid = hosts.ok(HOST, "vs-fonctions guest_init_pid web").strip()
    hosts.call(HOST, f"vs-enter --name web -- {BOX} reboot -f")
    hosts.wait(HOST, f"new=$(vs-fonctions guest_init_pid web) && test $new -gt 0 && test $new != {pid}")
    assert write(hosts, "web", "/root/again", 1).size == 200


def comes_by_hand(hosts: "Hosts", context: int) -> None:
    """A copy of the tree bears no number; the next start marks it, and nothing that its links lead to."""
    made = f"{BOX} mkdir -p a/b; echo x > a/b/c; {BOX} mkfifo p; {BOX} ln -s /etc l; {BOX} rm -f more again none"
    hosts.inside(HOST, "web", f"cd /root; {made}")
    copy = f"cp -a {TREES}/web /root/web && rm -rf {TREES}/web && cp -a /root/web {TREES}/web"
    marks = f"lsattr -pd {TREES}/web {TREES}/web/root/big {TREES}/web/root/a/b/c /etc"
    hosts.ok(HOST, f"vs-control --name web --stop && {copy} && vs-limit --name web --disk 50")
    assert [line.split()[0] for line in hosts.ok(HOST, marks).splitlines()] == ["0"] * 4
    hosts.ok(HOST, "vs-control --name web --start")
    assert [line.split()[0] for line in hosts.ok(HOST, marks).splitlines()] == [str(context)] * 3 + ["0"]
    disk = write(hosts, "web", "/root/a/b/d", 60)
    assert (5 * MIB < disk.written < 15 * MIB, disk.size) == (True, 50)
    assert used(hosts, "web")[0] > 45 * MIB
    hosts.ok(HOST, "vs-control --name web --restart")  # also where it is full: the host writes into its tree
    disk = write(hosts, "web", "/root/last", 20)
    assert (disk.written < MIB, disk.size) == (True, 50)


def leaves_no_limit(hosts: "Hosts", context: int, make: str) -> None:
    """A tree larger than its limit is not made; neither it nor what is killed or removed leaves a limit."""
    code, said = hosts.call(HOST, f"{make}.9 --name small --disk 1")
    assert (code, "takes 2 MiB, and --disk allows 1" in said) == (1, True), said
    hosts.ok(HOST, f"VS_TOOLS_FAULT=create:limited {make}.9 --name small --disk 30; test $? = 137")
    assert counted(hosts, context + 2)[0].endswith(" 31457280")
    hosts.ok(HOST, "vs-control --name web --stop && vs-remove --name web --yes")
    found = counted(hosts, context, context + 2)
    assert [each.split()[1] for each in found] == ["None"] * 2  # XFS frees what was removed a little later
    assert sorted(hosts.ok(HOST, f"ls -A {TREES} | grep -E 'web|small|bare'").split()) == ["bare"]

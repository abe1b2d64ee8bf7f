"""Root in a guest is nobody on the host: what it tries there fails, and what it leaves in its tree harms nobody."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import NET, Host, attempts, busybox, create, installation, wait

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--", "sh", "-c", 'exec "$0" "$@"')


@pytest.fixture(scope="module")
def machine(debian: Path) -> Iterator[Host]:
    """A host with one Debian guest, which has busybox too."""
    with installation() as host:
        limits = ("--rss", "512", "--proc", "500", "--cpu", "1/2", "--tmpfs", "16")
        assert create(host, "deb", 10, debian, *limits).code == 0
        busybox(host, "deb")
        yield host


@pytest.fixture
def deb(machine: Host) -> Host:
    """The host, its guest running."""
    machine.ok("vs-control", "--name", "deb", "--start")
    assert machine.inside("deb", "systemctl is-system-running --wait").out == "running\n"
    return machine


def _network(context: int) -> str:
    """All that a guest's network namespace holds, as the host sees it."""
    script = "ip -o link; ip -o address; ip route show table all; ip -6 route show table all"
    argv = ["nsenter", f"--net=/run/netns/vs{context}", "sh", "-c", script]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


NETWORK = {
    "link down": "ip link set eth0 down",
    "link address": "ip link set eth0 address 02:00:00:00:00:01",
    "link name": "ip link set eth0 name eth9",
    "new link": "ip link add dummy9 type dummy",
    "link away": "ip link delete eth0",
    "link to another namespace": "ip link set eth0 netns $$",
    "new address": f"ip address add {NET}.99/24 dev eth0",
    "address away": f"ip address delete {NET}.10/24 dev eth0",
    "new route": "ip route add 10.200.0.0/16 dev eth0",
    "default route": "ip route replace default dev lo",
    "rule": "ip rule add from all lookup 7",
    "neighbour": f"ip neighbour replace {NET}.1 lladdr 02:00:00:00:00:02 dev eth0",
    "promiscuous": "ip link set eth0 promisc on",
    "packets of its own making": f"busybox arping -c 1 -w 1 -I eth0 {NET}.1",
    "forwarding": "echo 1 > /proc/sys/net/ipv4/ip_forward",
    "low ports": "echo 1024 > /proc/sys/net/ipv4/ip_unprivileged_port_start",
    "router advertisements": "echo 2 > /proc/sys/net/ipv6/conf/all/accept_ra",
    "MTU by sysfs": "echo 900 > /sys/class/net/eth0/mtu",
}


def test_network_is_the_hosts(deb: Host) -> None:
    before = _network(60000)
    codes = attempts(deb, "deb", NETWORK)
    assert [what for what, code in codes.items() if not code] == []
    assert _network(60000) == before


KERNEL = {
    "panic": "mount -o remount,rw /proc/sys; echo 1 > /proc/sys/kernel/panic",
    "core pattern": "mount -o remount,rw /proc/sys; echo '|/bin/sh' > /proc/sys/kernel/core_pattern",
    "modprobe path": "mount -o remount,rw /proc/sys; echo /tmp/x > /proc/sys/kernel/modprobe",
    "caches": "mount -o remount,rw /proc/sys; echo 3 > /proc/sys/vm/drop_caches",
    "sysrq": "echo h > /proc/sysrq-trigger",
    "sysfs": "echo 1 > /sys/kernel/mm/ksm/run",
    "uevents": "echo change > /sys/class/net/eth0/uevent",
    "sysfs writable": "mount -o remount,rw /sys",
    "sysfs of its own": "mount -t sysfs sysfs /mnt",
    "module": "echo x > /root/x.ko && busybox insmod /root/x.ko",
    "module away": "busybox rmmod bridge",
    "kernel log": "dmesg",
    "kernel log by proc": "cat /proc/kmsg",
    "kernel log by device": "busybox timeout 2 cat /dev/kmsg",
    "kernel memory": "head -c 1 /proc/kcore || head -c 1 /dev/mem",
    "clock": "date -s 2001-01-01",
    "swap": "head -c 1M /dev/zero > /root/swap && busybox mkswap /root/swap && busybox swapon /root/swap",
    "score below zero": "echo -1000 > /proc/self/oom_score_adj",
    "priority": "[ $(nice -n -20 nice) = -20 ]",
    "host's namespaces": "busybox nsenter -t 1 -n ip link set lo down",
    "device node": "mknod /root/disk b 8 0",
    "character device": "mknod /root/mem c 1 1",
    "device in dev": "mknod /dev/kmsg c 1 11",
    "disk image": "mount -o loop /root/x.ko /mnt",
    "tmpfs larger": "mount -o remount,size=1g /tmp",
    "debugfs": "mount -t debugfs debugfs /mnt",
    "tracefs": "mount -t tracefs tracefs /mnt",
    "devtmpfs": "mount -t devtmpfs devtmpfs /mnt",
}


def test_kernel_and_devices_are_the_hosts(deb: Host) -> None:
    codes = attempts(deb, "deb", KERNEL)
    assert [what for what, code in codes.items() if not code] == []


def test_disks_of_the_host_cannot_be_reached(deb: Host) -> None:
    """Not by mounting, not by a node that the host's root left in the tree."""
    source = subprocess.run(
        ["findmnt", "--noheadings", "--output", "SOURCE,MAJ:MIN", "--target", "/var/tmp"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    major, minor = source[1].split(":")
    node = deb.trees / "deb/root/disk"
    os.mknod(node, 0o60666, os.makedev(int(major), int(minor)))
    scripts = {
        "by its name": f"mount {source[0].partition('[')[0]} /mnt",
        "by a node": "mount -t ext4 /root/disk /mnt",
        "reading the node": "head -c 1 /root/disk",
        "writing the node": ": > /root/disk",
    }
    codes = attempts(deb, "deb", scripts)
    assert [what for what, code in codes.items() if not code] == []


def test_guest_sees_its_own_mounts_processes_and_links_alone(deb: Host, small: Path) -> None:
    assert create(deb, "other", 11, small, "--start").code == 0
    deb.inside("other", "sleep 98765 > /dev/null 2>&1 &")
    see = lambda script: deb.inside("deb", script).out  # noqa: E731
    assert "98765" not in see("ps -ef")
    assert str(deb.root) not in see("cat /proc/mounts /proc/*/environ | tr '\\0' '\\n'")
    told = [line.split()[4] for line in see("cat /proc/self/mountinfo").splitlines() if str(deb.root) in line]
    assert told == ["/"], "the kernel tells where the tree lies; nothing else does"
    assert see("ls /sys/class/net").split() == ["eth0", "lo"]
    assert see("ls /sys/devices/virtual/net").split() == ["eth0", "lo"]
    assert "vsbr0" not in see("ip link")
    assert see("readlink /proc/1/root; cat /proc/1/comm").split() == ["/", "systemd"]
    assert see("cat /proc/1/cgroup; cat /proc/self/cgroup").count("..") == 0
    deb.ok("vs-control", "--name", "other", "--stop")


def test_mounts_of_the_guest_stay_in_the_guest(deb: Host) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    assert deb.inside("deb", "mount -t tmpfs own /mnt && mount --make-rshared / && mkdir /mnt/x").code == 0
    assert Path("/proc/self/mountinfo").read_text() == before
    assert list((deb.trees / "deb/mnt").iterdir()) == []


def _groups(host: Host, name: str) -> list[Path]:
    """The guest's payload, where its limits are, in every hierarchy of the host."""
    group = next(
        iter((host.run / "guests" / name).joinpath("config").read_text().split("lxc.cgroup.dir.container = ")[1:])
    )
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup" in line]
    return [path for words in mounts if (path := Path(words[4], group.split("\n")[0])).is_dir()]


LIMITS = (
    "memory.max",
    "memory.limit_in_bytes",
    "pids.max",
    "cpu.max",
    "cpu.cfs_quota_us",
    "cgroup.freeze",
    "cgroup.subtree_control",
)
"""Of both versions; a host has those of its own."""
RAISE = """
everywhere() {
    find $1 -type f | while read -r file; do
        case $file in
            *.max | *limit_in_bytes | *quota_us | *shares | *weight) (echo max > $file; echo -1 > $file) ;;
            *cgroup.procs | */tasks) (echo $$ > $file) ;;
        esac
    done
}
everywhere /sys/fs/cgroup
for kind in memory pids cpu devices freezer name=systemd; do
    if mount -t cgroup -o $kind cgroup /mnt; then
        echo a > /mnt/devices.allow
        everywhere /mnt
        umount /mnt
    fi
done
mount -t cgroup2 cgroup2 /mnt && everywhere /mnt
echo $$ > /sys/fs/cgroup/../cgroup.procs
true
"""


def test_limits_cannot_be_raised_nor_left(deb: Host) -> None:
    groups = _groups(deb, "deb")
    held = {path: path.read_text() for group in groups for key in LIMITS if (path := group / key).exists()}
    assert any("536870912" in value for value in held.values()), held
    assert deb.inside("deb", f"({RAISE}) 2> /dev/null; sleep 98764 > /dev/null 2>&1 &").code == 0
    assert {path: path.read_text() for path in held} == held
    mine = _processes(deb.ok("vs-fonctions", "guest_init_pid", "deb").strip())
    assert len(mine) > 3
    for path in groups:
        inside = {pid for member in path.rglob("cgroup.procs") for pid in member.read_text().split()}
        assert mine <= inside, f"a process of the guest left {path}"


def _processes(init: str) -> set[str]:
    """The host's pids of all that lives in the pid namespace of ``init``."""
    namespace = Path(f"/proc/{init}/ns/pid").readlink()
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (entry / "ns/pid").readlink() == namespace:
                found.add(entry.name)
    return found


def test_ordinary_servers_run_unchanged(deb: Host) -> None:
    """Low ports and ping need no capability; the user here has none at all."""
    with _connect(22) as ssh:
        assert ssh.recv(8) == b"SSH-2.0-"
    server = (
        "setpriv --reuid=nobody --regid=nogroup --clear-groups --bounding-set=-all busybox nc -l -p 80 -e echo served"
    )
    deb.inside("deb", f"{server} > /dev/null 2>&1 &")
    wait(lambda: ":80 " in deb.inside("deb", "ss -Hltn").out)
    with _connect(80) as web:
        assert web.recv(16) == b"served\n"
    ping = f"setpriv --reuid=nobody --regid=nogroup --clear-groups --bounding-set=-all ping -c 1 -W 5 {NET}.1"
    assert deb.inside("deb", ping).code == 0


def _connect(port: int) -> socket.socket:
    return socket.create_connection((f"{NET}.10", port), timeout=10)


HOSTILE = r"\033]0;title\007\033[31mred\033[0m \302\233 2J \342\200\256 back\r\b\b hidden \377\376 end"


def test_escape_sequences_of_a_guest_never_reach_the_terminal(deb: Host) -> None:
    deb.inside("deb", f"printf '{HOSTILE}\\n' > /dev/console; printf '{HOSTILE}\\n' | logger -t evil")
    follower = deb.start("vs-log", "--name", "deb", "--follow")
    wait(lambda: deb.inside("deb", "pidof journalctl").code == 0)
    deb.inside("deb", f"printf 'later {HOSTILE}\\n' > /dev/console; printf 'later {HOSTILE}\\n' | logger -t evil")
    running = deb.ok("vs-log", "--name", "deb")
    deb.ok("vs-control", "--name", "deb", "--stop")
    followed = follower.communicate(timeout=60)[0]
    stopped = deb.ok("vs-log", "--name", "deb")
    for text in (running, stopped):
        assert text.count("]0;title") >= 2, "of the console and of the journal"
    assert "later" in followed
    for text in (running, followed, stopped):
        assert not [char for char in text if not char.isprintable() and char not in "\n\t"]


def test_setuid_file_of_a_guest_is_behind_the_barrier(deb: Host) -> None:
    shutil.copy("/usr/bin/id", deb.trees / "deb/usr/local/bin/id")  # one that the host's libraries can run
    assert deb.inside("deb", "cp /usr/local/bin/id /usr/bin/rootid && chmod 4755 /usr/bin/rootid").code == 0
    program = deb.trees / "deb/usr/bin/rootid"
    state = program.stat()
    assert (state.st_uid, state.st_mode & 0o7777) == (0, 0o4755), "setuid root on the host's disk"
    assert subprocess.run([*NOBODY, program], capture_output=True, check=False).returncode != 0
    deb.ok("vs-control", "--name", "deb", "--stop")
    deb.trees.chmod(0o755)
    harm = subprocess.run([*NOBODY, program, "-u"], capture_output=True, text=True, check=False)
    assert harm.stdout == "0\n", "what the barrier is for"
    done = deb.vs("vs-control", "--name", "deb", "--start")
    assert (done.code, "was open to others (mode 0755): set to 0700" in done.err) == (0, True), done
    assert deb.trees.stat().st_mode & 0o7777 == 0o700
    assert subprocess.run([*NOBODY, program], capture_output=True, check=False).returncode != 0

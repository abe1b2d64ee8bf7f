"""Rates on Debian's own kernel beneath systemd: io.max on a logical volume, tbf and ifb on links in a VLAN."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tests.templates import small_template

if TYPE_CHECKING:
    from conftest import Hosts

HOST = "vsh-00"
BOX = "/bin/busybox"
WRITE = f"{BOX} dd if=/dev/zero of=/root/big bs=1M count=6 oflag=direct"
READ = f"{BOX} dd if=/root/big of=/dev/null bs=1M iflag=direct"
BUFFERED = f"{BOX} dd if=/dev/zero of=/root/big bs=1M count=6 conv=fsync"
SEND = f"{BOX} head -c 3145728 /dev/zero | {BOX} nc 10.99.7"


def seconds(hosts: "Hosts", guest: str, words: str) -> float:
    """How long a command takes in a guest, by its own clock."""
    now = f"{BOX} cut -d ' ' -f 1 /proc/uptime"
    begun, ended = hosts.inside(HOST, guest, f"s=$({now}); {words} > /dev/null || exit 1; echo $s $({now})").split()
    return float(ended) - float(begun)


def traffic(hosts: "Hosts", source: str, target: str, address: int) -> float:
    """Seconds for 3 MiB by TCP from one guest to another."""
    hosts.inside(HOST, target, f"{BOX} nc -l -p 5000 < /dev/null > /dev/null 2>&1 &")
    listens = f"{BOX} netstat -ltn | {BOX} grep -q :5000"
    hosts.wait(HOST, f"vs-enter --name {target} -- sh -c '{listens}'")
    return seconds(hosts, source, f"{SEND}.{address} 5000")


def test_rates_hold_on_a_host_with_systemd_and_cgroup_v2(hosts: "Hosts", tmp_path: Path) -> None:
    hosts.configure(HOST, "7:10.99.7.0/24\n")
    hosts.ok(HOST, "echo 'allow from any to tcp:5000' >> /etc/vs-tools/firewall.conf")
    hosts.copy(HOST, small_template(tmp_path), "/root")
    make = "vs-create --template /root/small.tar --interface 10.99.7"
    hosts.ok(HOST, f"{make}.5 --name web --net-rate 8/6 --io-rate 3/2 --start")
    hosts.ok(HOST, f"{make}.6 --name peer --start")
    disk = hosts.ok(HOST, "lsblk -dno MAJ:MIN $(findmnt -no SOURCE /var/lib/vservers)").strip()
    file = "/sys/fs/cgroup/vsguests.slice/vs-guest@web.service/payload/io.max"
    wanted = f"{disk} rbps={3 << 20} wbps={2 << 20} riops=max wiops=max\n"
    assert hosts.ok(HOST, f"cat {file}") == wanted
    (row,) = json.loads(hosts.ok(HOST, "vs-limit --name web --json"))
    assert row["limits"] == {"net_rate": {"enforced": True}, "io_rate": {"enforced": True}}

    # 6 MiB of the disk, 3 MiB of the network: about 3 s each, and what goes through the page cache as well
    assert 2 < seconds(hosts, "web", WRITE) < 20
    assert 2 < seconds(hosts, "web", BUFFERED) < 20
    assert 1.3 < seconds(hosts, "web", READ) < 20
    sent, received = traffic(hosts, "web", "peer", 6), traffic(hosts, "peer", "web", 5)
    assert 2.1 < sent < 30, sent
    assert 2.8 < received < 30, received

    # root in the guest cannot lift them, systemd leaves them alone
    script = f"""echo '{disk} wbps=max' > /sys/fs/cgroup/io.max; {BOX} tc qdisc del dev eth0 root;
    {BOX} tc qdisc del dev eth0 ingress; {BOX} ip link set in-eth0 down; true"""
    hosts.inside(HOST, "web", script)
    hosts.ok(HOST, "systemctl daemon-reload")
    assert hosts.ok(HOST, f"cat {file}; vs-net --name web --check") == wanted

    # hot: what is lifted is fast, what was wiped away comes back with --repair
    hosts.ok(HOST, "vs-limit --name web --net-rate inf/6 --io-rate 30/inf")
    assert hosts.ok(HOST, f"cat {file}") == f"{disk} rbps={30 << 20} wbps=max riops=max wiops=max\n"
    assert traffic(hosts, "web", "peer", 6) < sent / 1.5
    code, said = hosts.call(HOST, "tc -n vs10000 qdisc del dev eth0 ingress; vs-net --name web --check")
    assert (code, "eth0 receives without limit and not at most 6 Mbit/s" in said) == (1, True), said
    hosts.ok(HOST, "vs-net --name web --repair && vs-net --name web --check && vs-limit --name web --net-rate inf")
    assert hosts.ok(HOST, "tc -n vs10000 qdisc show | grep -c tbf || true") == "0\n"
    hosts.ok(HOST, "vs-limit --name web --io-rate inf")
    assert hosts.ok(HOST, f"cat {file}").strip() in ("", f"{disk} rbps=max wbps=max riops=max wiops=max")

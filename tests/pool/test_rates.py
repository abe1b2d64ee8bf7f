"""Rates on Debian's own kernel beneath systemd: io.max on a logical volume, tbf and ifb on links in a VLAN."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from tests.templates import small_template

if TYPE_CHECKING:
    from conftest import Hosts

HOST = "vsh-00"
BOX = "/bin/busybox"
NOW = f"{BOX} cut -d ' ' -f 1 /proc/uptime"
WRITE = f"{BOX} dd if=/dev/zero of=/root/big bs=1M count=6 oflag=direct"
BUFFERED = f"{BOX} dd if=/dev/zero of=/root/big bs=1M count=6 conv=fsync"
READ = f"{BOX} dd if=/root/big of=/dev/null bs=1M iflag=direct"
TAKE = f"({BOX} sleep 1000 | {BOX} nc -l -p 5000) < /dev/null > /dev/null 2>&1 &"
"""Takes what one sender has; nc would end with its own input, which therefore does not."""


def enter(guest: str, script: str) -> str:
    return f"vs-enter --name {guest} -- sh -c {shlex.quote(script)}"


def copies(hosts: "Hosts", guest: str, *words: str) -> list[float]:
    """Seconds that each of these takes in a guest, by its own clock."""
    script = "; ".join(f"s=$({NOW}); {each} || exit 1; echo $s $({NOW})" for each in words)
    lines = hosts.ok(HOST, enter(guest, script)).splitlines()
    return [float(line.split()[1]) - float(line.split()[0]) for line in lines]


def traffic(hosts: "Hosts", source: str, target: str, address: str) -> float:
    """Seconds for 3 MiB by TCP from one guest to another."""
    send = f"{BOX} head -c 3145728 /dev/zero | {BOX} nc {address} 5000"
    script = f"s=$({NOW}); until {send}; do {BOX} sleep 0.2; s=$({NOW}); done; echo $s $({NOW})"
    begun, ended = hosts.ok(HOST, f"{enter(target, TAKE)}; {enter(source, script)}").split()
    return float(ended) - float(begun)


def test_rates_hold_on_a_host_with_systemd_and_cgroup_v2(hosts: "Hosts", tmp_path: Path) -> None:
    hosts.configure(HOST, "7:10.99.7.0/24\n")
    hosts.copy(HOST, small_template(tmp_path), "/root")
    make = "vs-create --template /root/small.tar --interface 10.99.7"
    hosts.ok(
        HOST,
        f"""echo 'allow from any to tcp:5000' >> /etc/vs-tools/firewall.conf
    {make}.5 --name web --net-rate 8/6 --io-rate 3/2 --start && {make}.6 --name peer --start""",
    )
    disk = hosts.ok(HOST, "lsblk -dno MAJ:MIN $(findmnt -no SOURCE /var/lib/vservers)").strip()
    file = "/sys/fs/cgroup/vsguests.slice/vs-guest@web.service/payload/io.max"
    wanted = f"{disk} rbps={3 << 20} wbps={2 << 20} riops=max wiops=max\n"
    assert hosts.ok(HOST, f"cat {file}") == wanted
    (row,) = json.loads(hosts.ok(HOST, "vs-limit --name web --json"))
    assert row["limits"] == {"net_rate": {"enforced": True}, "io_rate": {"enforced": True}}

    # 6 MiB of the disk, 3 MiB of the network: about 3 s each, and what goes through the page cache as well
    write, buffered, read = copies(hosts, "web", WRITE, BUFFERED, READ)
    assert 2 < write < 30, write
    assert 2 < buffered < 30, buffered
    assert 1.3 < read < 30, read
    sent, received = traffic(hosts, "web", "peer", "10.99.7.6"), traffic(hosts, "peer", "web", "10.99.7.5")
    assert 2.1 < sent < 30, sent
    assert 2.8 < received < 30, received

    # root in the guest cannot lift them, systemd leaves them alone
    script = f"""echo '{disk} wbps=max' > /sys/fs/cgroup/io.max; {BOX} tc qdisc del dev eth0 root;
    {BOX} tc qdisc del dev eth0 ingress; {BOX} ip link set in-eth0 down; true"""
    line = f"{enter('web', script)}; systemctl daemon-reload; cat {file}; vs-net --name web --check"
    assert hosts.ok(HOST, line) == wanted

    # hot: what is lifted is fast, what was wiped away comes back with --repair
    hosts.ok(HOST, "vs-limit --name web --net-rate inf/6 --io-rate 30/inf")
    assert hosts.ok(HOST, f"cat {file}") == f"{disk} rbps={30 << 20} wbps=max riops=max wiops=max\n"
    assert traffic(hosts, "web", "peer", "10.99.7.6") < sent / 1.5
    code, said = hosts.call(HOST, "tc -n vs10000 qdisc del dev eth0 ingress; vs-net --name web --check")
    assert (code, "eth0 receives without limit and not at most 6 Mbit/s" in said) == (1, True), said
    hosts.ok(HOST, "vs-net --name web --repair && vs-net --name web --check && vs-limit --name web --net-rate inf")
    hosts.ok(HOST, "vs-limit --name web --io-rate inf")
    left = hosts.ok(HOST, f"cat {file}; tc -n vs10000 qdisc show | grep tbf || true").strip()
    assert left in ("", f"{disk} rbps=max wbps=max riops=max wiops=max")

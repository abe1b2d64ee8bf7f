"""vs-limit --net-rate and --io-rate: bytes are counted on real links and a real disk, with the rate and without."""

import json
import os
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import NET, Host, attempts, create
from wire import Machine, bridge, machine, sh

from vstools.libc import network_namespace
from vstools.network import rates
from vstools.storage import disks

GUEST = Path("/run/netns/vs60000")
BOX = "/bin/busybox"
MIB = 1 << 20
needs_tbf = pytest.mark.skipif("tbf" in rates.lacking(), reason="this kernel has no tbf")


@pytest.fixture
def peer(host: Host) -> Iterator[Machine]:
    """A bridge, a cable to it for macvlans, and a machine on it that the guest talks to."""
    with bridge("vst0") as name, machine("vspeer", name, f"{NET}.2/24") as other:
        sh(f"ip link add vscard0 type veth peer name vscard1; ip link set vscard1 master {name} up")
        yield other
        host.ok("vs-control", "--all", "--stop")
        sh("ip link delete vscard0")


def seconds(source: Path, target: Path, address: str, size: int) -> float:
    """How long that many bytes take by TCP from one namespace to another, from the first to the last that arrives."""
    with network_namespace(target):
        server = socket.create_server((address, 0))
    with network_namespace(source):
        client = socket.create_connection(server.getsockname(), timeout=60)
    with server, client, server.accept()[0] as taken:
        taken.settimeout(60)
        sender = threading.Thread(target=client.sendall, args=(bytes(size),))
        sender.start()
        left, begun = size, time.monotonic()
        while left:
            got = len(taken.recv(MIB))
            assert got, "the connection ended early"
            left -= got
        sender.join()
        return time.monotonic() - begun


def both(peer: Machine, sent: int, received: int) -> tuple[float, float]:
    """Seconds for that many bytes out of the guest and into it."""
    return seconds(GUEST, peer.path, f"{NET}.2", sent), seconds(peer.path, GUEST, f"{NET}.10", received)


def qdiscs(*devices: str) -> str:
    """The buckets of the guest's own links, and of devices of the host."""
    mine = sh("ip netns exec vs60000 tc qdisc show")
    return mine + "".join(sh(f"tc qdisc show dev {device}") for device in devices)


@needs_tbf
@pytest.mark.parametrize(("kind", "device"), [("veth", "vst0"), ("macvlan", "vscard0")])
def test_a_guest_sends_and_receives_no_more_than_its_rate(
    host: Host, peer: Machine, small: Path, kind: str, device: str
) -> None:
    if kind == "macvlan" and "ifb" in rates.lacking():
        pytest.skip("this kernel has no ifb")
    host.configure(DEFAULT_DEVICE=device)
    assert create(host, "web", 10, small, "--net-rate", "16/24", "--start").code == 0
    assert f"{kind} " in sh("ip -n vs60000 -d link show eth0")
    sent, received = both(peer, 6 * MIB, 9 * MIB)  # 3.1 s each at 2 and 3 MB/s
    assert 2.1 < sent < 12, sent
    assert 2.1 < received < 12, received

    # root in the guest changes nothing of it
    held = qdiscs()
    tried = attempts(host, "web", {
        "delete": f"{BOX} tc qdisc del dev eth0 root",
        "replace": f"{BOX} tc qdisc replace dev eth0 root pfifo",
        "ingress": f"{BOX} tc qdisc del dev eth0 ingress",
        "collector": f"{BOX} ip link set in-eth0 down",
        "queue": f"{BOX} ip link set eth0 txqueuelen 1",
    })  # fmt: skip
    assert 0 not in tried.values(), tried
    assert qdiscs() == held

    # one direction alone, while it runs
    assert host.ok("vs-limit", "--name", "web", "--net-rate", "inf/24").endswith(":inf:inf:inf:inf:inf\n")
    free, received = both(peer, 6 * MIB, 9 * MIB)
    assert free < sent / 2, (free, sent)
    assert 2.1 < received < 12, received
    host.ok("vs-limit", "--name", "web", "--net-rate", "inf")
    assert both(peer, 6 * MIB, 9 * MIB)[1] < received / 2
    assert not list((host.guests / "web/rates").iterdir())
    assert "tbf" not in qdiscs()
    assert "ingress" not in qdiscs()
    assert "in-eth0" not in sh("ip -n vs60000 link show")


@needs_tbf
@pytest.mark.parametrize("device", ["vst0", "vscard0"])
def test_check_names_a_rate_that_is_not_held_and_repair_brings_it_back(
    host: Host, peer: Machine, small: Path, device: str
) -> None:
    if device == "vscard0" and "ifb" in rates.lacking():
        pytest.skip("this kernel has no ifb")
    host.configure(DEFAULT_DEVICE=device)
    assert create(host, "web", 10, small, "--start").code == 0
    host.ok("vs-limit", "--name", "web", "--net-rate", "10/20")
    assert host.ok("vs-net", "--name", "web", "--check") == ""
    (row,) = json.loads(host.ok("vs-limit", "--name", "web", "--json"))
    assert (row["net_rate"], row["limits"]["net_rate"]) == ({"sent": 10, "received": 20}, {"enforced": True})

    incoming = "tc qdisc delete dev vs60000.0 root"
    if device == "vscard0":
        incoming = "ip netns exec vs60000 tc qdisc delete dev eth0 ingress"
    sh(f"ip netns exec vs60000 tc qdisc change dev eth0 root tbf rate 30mbit burst 64k limit 128k; {incoming}")
    (row,) = json.loads(host.ok("vs-limit", "--name", "web", "--json"))
    assert row["limits"]["net_rate"] == {"enforced": True, "applied": {"sent": 30, "received": None}}
    done = host.vs("vs-net", "--name", "web", "--check")
    assert (done.code, [line.partition(" ")[2] for line in done.out.splitlines()]) == (
        1, ["eth0 sends at most 30 Mbit/s and not at most 10 Mbit/s",
            "eth0 receives without limit and not at most 20 Mbit/s"]
    ), done  # fmt: skip
    host.ok("vs-net", "--name", "web", "--repair")
    assert host.ok("vs-net", "--name", "web", "--check") == ""

    # links that are made anew have it, and a guest's own reboot keeps it
    sh("ip -n vs60000 link delete eth0")
    host.ok("vs-net", "--name", "web", "--repair")
    assert host.ok("vs-net", "--name", "web", "--check") == ""
    host.ok("vs-net", "--name", "web", "--add", f"{NET}.11")
    host.ok("vs-net", "--name", "web", "--set", f"0={NET}.12")
    assert host.ok("vs-net", "--name", "web", "--check") == ""
    assert "rate 10Mbit" in qdiscs()
    assert "rate 20Mbit" in qdiscs(*(["vs60000.0"] if device == "vst0" else []))


@needs_tbf
def test_a_change_of_rates_is_made_whole_or_not_at_all(host: Host, peer: Machine, small: Path) -> None:
    host.configure(DEFAULT_DEVICE="vst0")
    assert create(host, "web", 10, small, "--net-rate", "50", "--start").code == 0
    before = qdiscs("vs60000.0")
    assert before.count("rate 50Mbit") == 2
    (host.guests / "web/rates").rename(host.guests / "web/kept")
    (host.guests / "web/rates").write_text("in the way\n")
    changed = host.vs("vs-limit", "--name", "web", "--net-rate", "60")
    (host.guests / "web/rates").unlink()
    (host.guests / "web/kept").rename(host.guests / "web/rates")
    assert changed.code == 1, changed
    assert "rate 60Mbit" not in qdiscs("vs60000.0")
    for step in ("limit:rates", "limit:saved"):
        assert host.vs("vs-limit", "--name", "web", "--net-rate", "70", VS_TOOLS_FAULT=step).code == -9
        host.ok("vs-limit", "--name", "web", "--net-rate", "70")
        assert host.ok("vs-net", "--name", "web", "--check") == ""
        host.ok("vs-limit", "--name", "web", "--net-rate", "50")
        assert qdiscs("vs60000.0") == before
    host.ok("vs-control", "--name", "web", "--stop")
    host.ok("vs-limit", "--name", "web", "--net-rate", "80/90")
    files = {path.name: path.read_text() for path in (host.guests / "web/rates").iterdir()}
    assert files == {"net-sent": "80\n", "net-received": "90\n"}
    host.ok("vs-control", "--name", "web", "--start")
    assert "rate 80Mbit" in qdiscs()
    assert "rate 90Mbit" in sh("tc qdisc show dev vs60000.0")


BLKIO = Path("/sys/fs/cgroup/blkio")
needs_blkio = pytest.mark.skipif(
    not (BLKIO / "blkio.throttle.read_bps_device").exists(), reason="this kernel throttles no disks by cgroup version 1"
)


def copy(host: Host, words: str) -> float:
    """Seconds that a copy of 6 MiB past the page cache takes in the guest, by the guest's own clock."""
    script = f"cd /root; s=$({BOX} cut -d ' ' -f 1 /proc/uptime); {BOX} dd bs=1M count=6 {words} || exit 1"
    done = host.inside("web", f"{script}; echo $s; {BOX} cut -d ' ' -f 1 /proc/uptime")
    assert done.code == 0, done
    begun, ended = done.out.split()
    return float(ended) - float(begun)


WRITE, READ = "if=/dev/zero of=big oflag=direct", "if=big of=/dev/null iflag=direct"


@needs_blkio
def test_a_disk_is_read_and_written_no_faster_than_its_rate(host: Host, small: Path) -> None:
    disk = disks.number(host.trees)
    if disk is None:
        pytest.skip("the guests' trees lie on no single disk here")
    assert create(host, "web", 10, small, "--io-rate", "3/2", "--start").code == 0
    assert 2 < copy(host, WRITE) < 12  # 3 s at 2 MiB/s
    assert 1.3 < copy(host, READ) < 8
    (row,) = json.loads(host.ok("vs-limit", "--name", "web", "--json"))
    assert row["limits"]["io_rate"] == {"enforced": True}

    # the guest's root mounts the tree of cgroups, and gains nothing
    tried = attempts(host, "web", {
        "own": f"{BOX} mkdir -p /root/c; {BOX} mount -t cgroup -o blkio none /root/c && {BOX} mkdir /root/c/own",
        "lift": f"echo '{disk} 0' > /root/c/blkio.throttle.write_bps_device",
    })  # fmt: skip
    assert 0 not in tried.values(), tried
    assert 2 < copy(host, WRITE) < 12

    # lifted for reading while it runs, again after its own reboot; a stopped guest has it with its next start
    host.ok("vs-limit", "--name", "web", "--io-rate", "inf/2")
    assert copy(host, READ) < 1.3
    host.ok("vs-limit", "--name", "web", "--io-rate", "inf")
    assert copy(host, WRITE) < 2
    host.ok("vs-limit", "--name", "web", "--io-rate", "3")
    (file,) = BLKIO.glob(f"vs-tools-{zlib.crc32(os.fsencode(host.root)):08x}/web/payload/guest/*read_bps_device")
    file.write_text(f"{disk} {7 << 20}")
    (row,) = json.loads(host.ok("vs-limit", "--name", "web", "--json"))
    assert row["limits"]["io_rate"] == {"enforced": True, "applied": {"read": 7, "written": 3}}
    host.ok("vs-control", "--name", "web", "--stop")
    host.ok("vs-control", "--name", "web", "--start")
    assert file.read_text() == f"{disk} {3 << 20}\n"

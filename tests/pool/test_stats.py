"""vs-stats and vs-ps on a host with systemd and cgroup version 2 alone, about a guest with a systemd of its own."""

import json
from typing import TYPE_CHECKING

from test_main_path import HOST, NETWORKS

if TYPE_CHECKING:
    from conftest import Hosts

MIB = 1 << 20
UNKNOWN = {"disk_limit_bytes", *(f"{key}_bytes_per_second" for key in ("read", "written", "received", "sent"))}


def stats(hosts: "Hosts", *options: str) -> dict[str, float]:
    """The guest's values."""
    return json.loads(hosts.ok(HOST, f"vs-stats --name web --json {' '.join(options)}"))[0]


def test_version_2_tells_everything_and_the_numbers_move(hosts: "Hosts") -> None:
    hosts.configure(HOST, NETWORKS)
    limits = "--rss 192 --proc 200 --tmpfs 32 --cpu 9/10"
    hosts.ok(HOST, f"vs-create --name web --interface 10.99.7.5 {limits} --start")
    hosts.wait(HOST, "vs-enter --name web -- systemctl is-system-running | grep -E 'running|degraded'")
    before = stats(hosts)
    assert {key for key, value in before.items() if value is None} == UNKNOWN
    assert (before["memory_limit_bytes"], before["tmpfs_limit_bytes"]) == (192 * MIB, 32 * MIB)
    assert (before["processes_limit"], before["cpu_limit_percent"]) == (200, 90)
    assert 0 < before["memory_unreclaimable_bytes"] <= before["memory_bytes"] <= 192 * MIB
    assert (before["oom_kills"], before["processes_limit_hits"]) == (0, 0)
    processes = json.loads(hosts.ok(HOST, "vs-ps --json"))
    assert {row["guest"] for row in processes} == {"web"}
    assert before["processes"] > 5
    assert [row["name"] for row in processes if row["guest_pid"] == 1] == ["systemd"]

    hosts.inside(
        HOST,
        "web",
        "dd if=/dev/zero of=/tmp/kept bs=1M count=20; dd if=/dev/zero of=/root/file bs=1M count=8 conv=fsync",
    )
    after = stats(hosts)
    assert after["memory_unreclaimable_bytes"] > before["memory_unreclaimable_bytes"] + 15 * MIB
    assert after["tmpfs_bytes"] >= before["tmpfs_bytes"] + 20 * MIB
    assert after["written_bytes"] >= before["written_bytes"] + 8 * MIB
    assert after["cpu_seconds"] > before["cpu_seconds"]
    hosts.call(HOST, "vs-enter --name web -- sh -c 'tail /dev/zero'")
    assert stats(hosts)["oom_kills"] >= 1
    assert stats(hosts)["memory_high_hits"] + stats(hosts)["memory_limit_hits"] >= 1
    hosts.call(HOST, "vs-enter --name web -- sh -c 'for i in $(seq 300); do sleep 30 & done 2> /dev/null'")
    assert stats(hosts)["processes_limit_hits"] >= 1
    hosts.ok(HOST, "vs-control --name web --stop")
    assert stats(hosts)["running"] is False
    assert hosts.ok(HOST, "/usr/local/share/vs-tools/munin/vs_ autoconf") == "yes\n"
    assert hosts.call(HOST, "/usr/local/share/vs-tools/nagios/check_vs_guest --name web")[0] == 2

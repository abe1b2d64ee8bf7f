"""What guests use is read from real guests: numbers move with what they do, and nothing they do confuses the reader."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import NET, Host, create, wait
from prometheus_client.parser import text_string_to_metric_families

from tests.templates import BIN, REPO

MIB = 1 << 20
HOST_NAME = os.uname().nodename.partition(".")[0]
QUIET = "< /dev/null > /dev/null 2>&1"
BURN = f"sh -c 'while :; do :; done' {QUIET} & echo $!"


def has(controller: str) -> bool:
    """Whether this kernel counts with that controller, in either version."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup ") and controller in after.split(" ")[2].split(","):
            return True
        if after.startswith("cgroup2 "):
            known = Path(before.split(" ")[4], "cgroup.controllers")
            if known.exists() and controller in known.read_text().split():
                return True
    return False


needs_memory = pytest.mark.skipif(not has("memory"), reason="this kernel has no memory controller")
needs_pids = pytest.mark.skipif(not has("pids"), reason="this kernel has no pids controller")
needs_cpu = pytest.mark.skipif(not has("cpu"), reason="this kernel has no cpu controller")


def stats(host: Host, name: str = "web", *options: str) -> dict[str, object]:
    """A guest's values."""
    (row,) = json.loads(host.ok("vs-stats", "--name", name, "--json", *options))
    return row


def becomes(host: Host, key: str, holds: Callable[[float], bool], *options: str) -> None:
    """Wait until a value of the guest is as it should be; the last one is in the error."""
    deadline = time.monotonic() + 60
    while True:
        value = stats(host, "web", *options)[key]
        if value is not None and holds(value):
            return
        assert time.monotonic() < deadline, f"{key} is {value}"
        time.sleep(0.05)


@pytest.fixture
def web(host: Host, small: Path) -> Iterator[Host]:
    """A host on which the guest web runs: 64 MiB, 40 processes, 32 MiB of /tmp, half of the CPUs."""
    limits = ("--rss", "64", "--proc", "40", "--tmpfs", "32", "--cpu", "1/2", "--start")
    assert create(host, "web", 20, small, *limits).code == 0
    yield host
    host.vs("vs-control", "--name", "web", "--stop")


def test_a_running_guest_has_numbers_and_its_limits(web: Host) -> None:
    row = stats(web)
    assert (row["host"], row["guest"], row["running"]) == (HOST_NAME, "web", True)
    assert row["tmpfs_limit_bytes"] == 32 * MIB
    for key in ("uptime_seconds", "cpu_seconds", "cpu_percent", "received_bytes", "sent_bytes", "tmpfs_bytes"):
        assert isinstance(row[key], int | float), key
    assert 0 <= row["uptime_seconds"] < 300
    if has("memory"):
        assert row["memory_limit_bytes"] == 64 * MIB
        assert 0 < row["memory_unreclaimable_bytes"] <= row["memory_bytes"] <= 64 * MIB
    if has("pids"):
        assert row["processes_limit"] == 40
        assert 1 <= row["processes"] < 40
    if has("cpu"):
        assert row["cpu_limit_percent"] == 50
    words = web.ok("vs-stats", "--name", "web").rstrip("\n").split(":")
    assert words[:3] == [HOST_NAME, "web", "running"]
    assert len(words) == 27
    assert "web" in web.ok("vs-stats", "--all", "--table")


def test_a_stopped_guest_is_told_without_numbers(host: Host, small: Path) -> None:
    create(host, "web", 20, small)
    row = stats(host)
    assert row["running"] is False
    assert {value for key, value in row.items() if key not in ("host", "guest", "running")} == {None}
    assert host.ok("vs-stats", "--all") == f"{HOST_NAME}:web:stopped" + ":-" * 24 + "\n"
    assert stats(host, "web", "--disk")["disk_bytes"] > 100_000, "the tree of a stopped guest is there"
    assert host.ok("vs-ps", "--name", "web", "--json") == "[]\n"
    assert host.vs("vs-stats", "--name", "nobody").code == 2


@needs_memory
def test_what_a_guest_keeps_in_tmp_is_memory_that_cannot_be_reclaimed_and_cached_files_are_not(web: Host) -> None:
    before = stats(web)
    web.inside("web", "busybox dd if=/dev/zero of=/tmp/kept bs=1M count=20")
    becomes(web, "memory_unreclaimable_bytes", lambda now: now >= before["memory_unreclaimable_bytes"] + 19 * MIB)
    becomes(web, "tmpfs_bytes", lambda now: 20 * MIB <= now < 21 * MIB)
    web.inside("web", "busybox rm /tmp/kept; busybox dd if=/dev/zero of=/root/cached bs=1M count=20")
    becomes(web, "memory_unreclaimable_bytes", lambda now: now < before["memory_unreclaimable_bytes"] + 10 * MIB)
    assert stats(web)["memory_bytes"] >= before["memory_bytes"] + 10 * MIB
    assert stats(web, "web", "--disk")["disk_bytes"] >= 20 * MIB


@needs_pids
def test_processes_are_counted_and_refused_forks_too(web: Host) -> None:
    before = stats(web)["processes"]
    web.inside("web", f"for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 {QUIET} & done")
    becomes(web, "processes", lambda now: now == before + 10)
    assert stats(web)["processes_limit_hits"] == 0
    web.inside("web", f"i=0; while [ $i -lt 60 ]; do i=$((i+1)); sleep 1000 {QUIET} & done")
    becomes(web, "processes_limit_hits", lambda now: now > 0)
    assert stats(web)["processes"] <= 40


@needs_memory
def test_what_is_killed_for_want_of_memory_is_counted(web: Host) -> None:
    assert stats(web)["oom_kills"] == 0
    web.inside("web", "busybox tail /dev/zero > /dev/null")
    becomes(web, "oom_kills", lambda now: now >= 1)
    becomes(web, "memory_limit_hits", lambda now: now >= 1)
    assert stats(web)["running"] is True


def test_cpu_time_and_share_move_when_the_guest_works(web: Host) -> None:
    idle = stats(web, "web", "--interval", "0.5")
    assert idle["cpu_percent"] < 25
    pid = web.inside("web", BURN).out.strip()
    becomes(web, "cpu_percent", lambda now: 5 < now < 75, "--interval", "0.5")  # at most half of the CPUs
    becomes(web, "cpu_seconds", lambda now: now > idle["cpu_seconds"] + 0.5)
    web.inside("web", f"kill {pid}")
    becomes(web, "cpu_percent", lambda now: now < 5, "--interval", "0.5")


@needs_cpu
def test_a_guest_that_wants_more_cpu_than_it_may_have_is_throttled(host: Host, small: Path) -> None:
    assert create(host, "web", 20, small, "--cpu", "1/50", "--start").code == 0
    before = stats(host)["cpu_throttled_seconds"]
    host.inside("web", BURN)
    becomes(host, "cpu_throttled_seconds", lambda now: now > before + 0.1)
    host.ok("vs-control", "--name", "web", "--stop")


def test_bytes_of_the_network_are_those_of_the_guests_links(web: Host) -> None:
    before = stats(web)
    with socket.create_server((f"{NET}.1", 0)) as server:
        script = f"busybox dd if=/dev/zero bs=1000 count=300 | nc {NET}.1 {server.getsockname()[1]} > /dev/null"
        guest = web.start("vs-enter", "--name", "web", "--", "sh", "-c", script)
        server.settimeout(60)
        wire, _ = server.accept()
        with wire:
            wire.settimeout(60)
            got = 0
            while got < 300_000:
                part = wire.recv(65536)
                assert part, "the guest ended too early"
                got += len(part)
            wire.sendall(bytes(100_000))
        assert guest.wait(60) == 0, guest.communicate()
        guest.communicate()
    after = stats(web)
    assert before["sent_bytes"] + 300_000 < after["sent_bytes"] < before["sent_bytes"] + 400_000
    assert before["received_bytes"] + 50_000 < after["received_bytes"] < before["received_bytes"] + 200_000
    assert stats(web, "web", "--interval", "0.2")["sent_bytes_per_second"] >= 0


def counts_io() -> bool:
    """Whether a cgroup of this kernel counts bytes of disks: version 2 does, version 1 only where it throttles."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            known = Path(before.split(" ")[4], "cgroup.controllers")
            return known.exists() and "io" in known.read_text().split()
    return False


@pytest.mark.skipif(not counts_io(), reason="this kernel's cgroups count no bytes of disks")
def test_bytes_written_to_disks_are_counted(web: Host) -> None:
    before = stats(web)["written_bytes"]
    web.inside("web", "busybox dd if=/dev/zero of=/root/file bs=1M count=8 conv=fsync")
    becomes(web, "written_bytes", lambda now: now >= before + 8 * MIB)


def test_a_guest_that_starts_and_ends_while_it_is_read_never_makes_an_error(web: Host) -> None:
    for _ in range(3):
        change = web.start("vs-control", "--name", "web", "--restart")
        while change.poll() is None:
            for command in (("vs-stats", "--all"), ("vs-ps", "--full"), ("vs-stats", "--prometheus")):
                done = web.vs(*command)
                assert (done.code, done.err) == (0, ""), (command, done)
        assert change.wait() == 0, change.communicate()
        change.communicate()


def processes(host: Host, *options: str) -> list[dict[str, object]]:
    """What vs-ps tells."""
    return json.loads(host.ok("vs-ps", "--json", *options))


def test_every_process_of_a_guest_is_told_with_its_guest(web: Host, small: Path) -> None:
    assert create(web, "other", 21, small, "--start").code == 0
    rows = processes(web)
    assert {row["guest"] for row in rows} == {"web", "other"}
    (init,) = [row for row in rows if row["guest"] == "web" and row["guest_pid"] == 1]
    assert (init["uid"], init["name"]) == (0, "init")
    assert {row["guest"] for row in processes(web, "--name", "other")} == {"other"}
    asked = ("--pid", str(init["pid"]), str(os.getpid()))
    assert [(row["guest"], row["pid"]) for row in processes(web, *asked)] == [("web", init["pid"]), (None, os.getpid())]
    lines = web.ok("vs-ps", *asked).splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["GUEST", "PID", "GPID"],
        ["web", str(init["pid"]), "1"],
        ["-", str(os.getpid()), "-"],
    ]
    web.ok("vs-control", "--name", "other", "--stop")


def test_a_process_cannot_play_with_the_terminal_nor_hide_in_another_guest(web: Host) -> None:
    script = (
        "cd /root; name=$(printf 'a)\\033[2J\\nroot'); printf '#!/bin/sh\\n/bin/sleep 1000\\nexit\\n' > \"$name\"; "
        f'busybox chmod 755 "$name"; "./$name" $(printf "\\033]0;owned\\007") {QUIET} &'
    )
    web.inside("web", script)

    def hostile() -> list[dict[str, object]]:
        return [row for row in processes(web) if str(row["name"]).startswith("a)")]

    wait(lambda: bool(hostile()))
    (row,) = hostile()
    assert row["name"] == r"a)\x1b[2J\nroot"
    assert (row["guest"], row["state"] in "SRD") == ("web", True)
    (whole,) = [each for each in processes(web, "--full") if each["pid"] == row["pid"]]
    assert r"\x1b]0;owned\x07" in whole["command"]
    for text in (web.ok("vs-ps"), web.ok("vs-ps", "--full"), web.ok("vs-stats", "--all")):
        assert text.isascii()
        assert "\x1b" not in text
    assert len(web.ok("vs-ps").splitlines()) == len(processes(web)) + 1


def test_a_guest_that_makes_cgroups_of_its_own_is_counted_whole(web: Host) -> None:
    """Where the guest has a tree of cgroups to write in, it may make as many as it likes."""
    web.inside(
        "web",
        "cd /sys/fs/cgroup && i=0; while [ $i -lt 300 ]; do i=$((i+1)); busybox mkdir -p a$i; done; "
        f"busybox mkdir -p deep/er; sleep 1000 {QUIET} & echo $! > /sys/fs/cgroup/deep/er/cgroup.procs",
    )
    rows = processes(web, "--name", "web")
    assert any(row["name"] == "sleep" for row in rows)
    row = stats(web)
    if has("pids"):
        assert row["processes"] == sum(each["threads"] for each in rows)
        assert row["processes_limit_hits"] == 0


def test_the_host_tells_what_it_has_and_what_it_has_promised(web: Host, small: Path) -> None:
    create(web, "idle", 21, small, "--rss", "100", "--disk", "1000")
    create(web, "free", 22, small, "--rss", "inf")
    (row,) = json.loads(web.ok("vs-stats", "--json"))
    assert (row["guests"], row["guests_running"], row["guests_without_memory_limit"]) == (3, 1, 1)
    assert (row["promised_memory_bytes"], row["promised_disk_bytes"]) == (164 * MIB, 1000 * MIB)
    assert row["promised_cpu_percent"] == 50
    assert 0 < row["memory_bytes"] < row["memory_total_bytes"]
    assert 0 < row["trees_free_bytes"] <= row["trees_total_bytes"]
    assert row["cpus"] == os.cpu_count()
    assert web.ok("vs-stats").startswith(f"{HOST_NAME}:")
    assert len(web.ok("vs-stats", "--table").splitlines()) == 2
    (row,) = json.loads(web.ok("vs-stats", "--json", "--interval", "0.2"))
    assert 0 <= row["cpu_percent"] <= 100


def test_prometheus_takes_what_is_written_for_it(web: Host, small: Path, tmp_path: Path) -> None:
    create(web, "idle", 21, small)
    target = tmp_path / "vs.prom"
    target.write_text("old\n")
    assert web.ok("vs-stats", "--prometheus", "--output", str(target)) == ""
    families = {family.name: family for family in text_string_to_metric_families(target.read_text())}
    running = {each.labels["guest"]: each.value for each in families["vs_guest_running"].samples}
    assert running == {"web": 1, "idle": 0}
    assert families["vs_guest_cpu_seconds"].type == "counter"
    assert [each.labels for each in families["vs_guest_cpu_seconds"].samples] == [{"guest": "web"}]
    assert families["vs_host_guests"].samples[0].value == 2
    assert [path.name for path in tmp_path.iterdir()] == ["vs.prom"]
    assert web.vs("vs-stats", "--prometheus", "--output", str(tmp_path / "no/vs.prom")).code == 2
    assert web.ok("vs-stats", "--prometheus").count("# TYPE") == len(families)


def test_munin_and_nagios_ask_about_real_guests(web: Host, small: Path, tmp_path: Path) -> None:
    """The plugin as a node calls it: by the name of a link, with and without ``config``."""
    create(web, "idle-1", 21, small)
    plugin = tmp_path / "vs_"
    plugin.write_text((REPO / "share/munin/vs_").read_text().replace("@BIN@", str(BIN)))
    plugin.chmod(0o755)
    environment = {**os.environ, "VS_TOOLS_ROOT": str(web.root)}

    def asked(name: str, *words: str) -> list[str]:
        link = tmp_path / f"vs_{name}"
        if name:
            link.symlink_to(plugin)
        done = subprocess.run([link, *words], env=environment, capture_output=True, text=True, check=True)
        if name:
            link.unlink()
        return done.stdout.splitlines()

    assert asked("", "autoconf") == ["yes"]
    for graph in asked("", "suggest"):
        configured = {line.partition(".label")[0] for line in asked(graph, "config") if ".label" in line}
        fetched = dict(line.split(".value ") for line in asked(graph))
        assert fetched.keys() == configured
        if graph in ("network", "cpu"):
            assert fetched["g_web"].isdigit()
        assert fetched["g_idle_2d1"] == "U"
    done = web.vs("check_vs_guest", "--name", "web", "--pressure", "101,101")
    assert (done.code, done.out[:17]) == (0, "VS OK - web runs,"), done
    assert web.vs("check_vs_guest", "--name", "idle-1").code == 2
    if has("pids"):
        web.inside("web", f"for i in 1 2 3 4 5; do sleep 1000 {QUIET} & done")
        done = web.vs("check_vs_guest", "--name", "web", "--processes", "1,2", "--pressure", "101,101")
        assert (done.code, done.out[:11]) == (2, "VS CRITICAL")

"""vs-limit: each limit is reached from inside a real guest, in both directions, while it runs."""

import json
import os
import time
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from conftest import Host, attempts, create, wait

from vstools.limits import cgroups, victims

SELF = os.uname().nodename.partition(".")[0]
HIERARCHIES = {
    name: Path(line.split(" ")[4])
    for line in Path("/proc/self/mountinfo").read_text().splitlines()
    if " - cgroup" in line
    for name in ([*line.rpartition(" - ")[2].split(" ")[2].split(","), line.rpartition(" - ")[2].split(" ")[0]])
}
V1 = "memory" in HIERARCHIES
BOX = "/bin/busybox"
HOLD = f"({BOX} head -c 62914560 /dev/zero; sleep 100000) | {BOX} tail -c 62914560"
"""A process that holds 60 MiB."""


CAPABILITIES = int(Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0], 16)
needs_sys_resource = pytest.mark.skipif(
    not CAPABILITIES >> 24 & 1, reason="root has no CAP_SYS_RESOURCE here: it cannot raise hard limits"
)


def group(host: Host, controller: str, name: str = "web") -> Path:
    """The cgroup that holds a guest's limits."""
    root = HIERARCHIES[controller if controller in HIERARCHIES else "cgroup2"]
    return root / f"vs-tools-{zlib.crc32(os.fsencode(host.root)):08x}" / name / "payload"


def kernel(host: Host, controller: str, v1: str, v2: str, name: str = "web") -> str:
    """The content of a file of that cgroup."""
    return (group(host, controller, name) / (v1 if controller in HIERARCHIES else v2)).read_text().strip()


def limits(host: Host, *words: str, name: str = "web") -> str:
    """The line of vs-limit without host and name."""
    return host.ok("vs-limit", "--name", name, *words).strip().removeprefix(f"{SELF}:{name}:")


def everything(host: Host) -> dict[str, str]:
    """What the kernel has for the guest, and its files."""
    found = {
        "rss": kernel(host, "memory", "memory.limit_in_bytes", "memory.max"),
        "proc": kernel(host, "pids", "pids.max", "pids.max"),
        "cpu": kernel(host, "cpu", "cpu.cfs_quota_us", "cpu.max"),
        "burst": kernel(host, "cpu", "cpu.cfs_burst_us", "cpu.max.burst"),
        "tmp": str(os.statvfs(host.run / "guests/web/tmp").f_blocks),
        "init": Path(f"/proc/{init(host)}/limits").read_text(),
    }
    files = sorted(path for path in (host.guests / "web").rglob("*") if path.is_file())
    return found | {str(path): path.read_text() for path in files}


def init(host: Host) -> int:
    return int(host.ok("vs-fonctions", "guest_init_pid", "web"))


def processes(host: Host) -> int:
    return int((group(host, "pids") / "pids.current").read_text())


def held(host: Host) -> int:
    """Bytes of anonymous memory."""
    lines = (group(host, "memory") / "memory.stat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.split()[0] in ("total_rss", "anon"))


@pytest.fixture
def web(host: Host, small: Path) -> Iterator[Host]:
    """A running guest with every limit, beside a neighbour."""
    words = ["--rss", "128", "--disk", "1024", "--tmpfs", "16", "--proc", "60", "--cpu", "9/10"]
    assert create(host, "web", 10, small, *words, "--start").code == 0
    yield host
    host.ok("vs-control", "--all", "--stop")


def background(host: Host, script: str) -> None:
    """Begin something in the guest that goes on."""
    assert host.inside("web", f"({script}) > /dev/null 2>&1 < /dev/null &").code == 0


def allocates(host: Host, mib: int) -> bool:
    """Whether a process of the guest gets that much memory; the other ending is being killed for it."""
    done = host.inside("web", f"{BOX} dd if=/dev/zero of=/dev/null bs={mib}M count=1")
    assert done.code in (0, 137), done
    return done.code == 0


def test_memory_is_raised_and_lowered_and_the_neighbour_lives(web: Host, small: Path) -> None:
    assert create(web, "next", 11, small, "--start").code == 0
    neighbour = web.ok("vs-fonctions", "guest_init_pid", "next")
    assert limits(web) == "128:1024:16:60:9/10"
    assert not allocates(web, 200)
    assert limits(web, "--rss", "300") == "300:1024:16:60:9/10"
    assert allocates(web, 200)
    assert limits(web, "--rss", "64") == "64:1024:16:60:9/10"
    assert not allocates(web, 100)
    assert limits(web, "--rss", "inf") == "inf:1024:16:60:9/10"
    assert allocates(web, 200)
    assert web.ok("vs-fonctions", "guest_init_pid", "next") == neighbour
    assert web.inside("next", "echo lives").out == "lives\n"


def test_memory_in_use_is_not_taken_away_without_force(web: Host) -> None:
    background(web, HOLD)
    wait(lambda: held(web) > 60 << 20)
    before = everything(web)
    done = web.vs("vs-limit", "--name", "web", "--rss", "30", "--proc", "50", "--tmpfs", "8")
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1), done
    assert "MiB are in use" in done.err
    assert "--force" in done.err
    assert everything(web) == before
    forced = web.vs("vs-limit", "--name", "web", "--rss", "30", "--proc", "50", "--tmpfs", "8", "--force")
    if V1:
        assert (forced.code, forced.out) == (1, ""), forced
        assert "cannot be reclaimed" in forced.err
        assert everything(web) == before, "all or nothing"
    else:
        assert forced.code == 0, forced
        wait(lambda: held(web) < 30 << 20)


def gives(pid: int) -> bool:
    """Whether a process is the one that gives HOLD its bytes: it ends by itself."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(f"{BOX}\0head\0".encode())
    except OSError:
        return False


def test_the_largest_process_ends_first_and_init_never(web: Host, capsys: pytest.CaptureFixture[str]) -> None:
    cgroup = str(group(web, "memory").relative_to(HIERARCHIES["memory" if V1 else "cgroup2"]))
    members, own = partial(cgroups.members, cgroup), init(web)
    background(web, HOLD)
    wait(lambda: held(web) > 60 << 20)
    background(web, HOLD.replace("62914560", str(20 << 20)))
    wait(lambda: held(web) > 80 << 20 and not any(map(gives, members())))
    there = members()
    stranger = victims.Victims("web", "somewhere/else", own, members)
    assert not stranger.end_one(1 << 30), "who is not of the guest is left alone"
    guest = victims.Victims("web", cgroup, own, members)
    assert guest.end_one(30 << 20)
    wait(lambda: held(web) < 40 << 20)
    assert len(there - members()) == 1
    assert guest.end_one(30 << 20)
    wait(lambda: held(web) < 20 << 20)
    while guest.end_one(30 << 20):
        pass
    assert init(web) == own
    wait(lambda: members() == {own})
    said = [line.split() for line in capsys.readouterr().err.splitlines()]
    assert said[0][2:6] == ["guest", "web:", "killed", "process"]
    assert (60 <= int(said[0][-2]) < 70, 20 <= int(said[1][-2]) < 30) == (True, True), said


def test_cached_files_are_not_in_use(web: Host) -> None:
    assert (
        web.inside("web", f"{BOX} dd if=/dev/zero of=/root/big bs=1M count=80 && cat /root/big > /dev/null").code == 0
    )
    assert limits(web, "--rss", "30") == "30:1024:16:60:9/10"
    assert kernel(web, "memory", "memory.limit_in_bytes", "memory.max") == str(30 << 20)


FORKS = f"n=0; while [ $n -lt 100 ]; do {BOX} sleep 100000 > /dev/null 2>&1 & n=$((n + 1)); done"


def test_processes_are_bounded_in_both_directions(web: Host) -> None:
    assert web.inside("web", FORKS).code != 0
    assert processes(web) <= 60
    assert limits(web, "--proc", "200") == "128:1024:16:200:9/10"
    web.inside("web", FORKS)
    running = processes(web)
    assert 100 <= running <= 200
    done = web.vs("vs-limit", "--name", "web", "--proc", "20")
    assert (done.code, f"{running} run" in done.err) == (2, True), done
    assert kernel(web, "pids", "pids.max", "pids.max") == "200"
    assert limits(web, "--proc", "20", "--force") == "128:1024:16:20:9/10"
    assert processes(web) == running, "none is ended"
    assert web.vs("vs-enter", "--name", "web", "--rescue", "--", "sh", "-c", "(sleep 0)").code == 0
    assert limits(web, "--proc", "inf") == "128:1024:16:inf:9/10"
    assert web.inside("web", "(sleep 0)").code == 0


def cpu_share(host: Host, seconds: float) -> float:
    """CPU time that the guest took of each second."""

    def usage() -> float:
        folder = group(host, "cpuacct")
        if V1:
            return int((folder / "cpuacct.usage").read_text()) / 1e9
        return int((folder / "cpu.stat").read_text().split()[1]) / 1e6

    begun, before = time.monotonic(), usage()
    time.sleep(seconds)
    return (usage() - before) / (time.monotonic() - begun)


def takes(host: Host, wanted: float) -> None:
    """The guest takes that share within a tenth: the machine is shared, so that it has many tries."""
    found = []
    for _ in range(60):
        found.append(cpu_share(host, 3))
        assert found[-1] < wanted * 1.1, found
        if found[-1] > wanted * 0.9:
            return
    raise AssertionError(f"{found} instead of {wanted}")


def test_cpu_time_is_the_share_of_all_cpus_with_and_without_burst(web: Host) -> None:
    cpus = os.cpu_count() or 1
    limits(web, "--cpu", "1/10")
    for _ in range(cpus):
        background(web, "while :; do :; done")
    takes(web, cpus / 10)
    limits(web, "--cpu", "3/10", "--burst", "20")
    assert kernel(web, "cpu", "cpu.cfs_burst_us", "cpu.max.burst") == "20000"
    takes(web, cpus * 3 / 10)
    limits(web, "--cpu", "1/20", "--burst", "inf")
    assert kernel(web, "cpu", "cpu.cfs_burst_us", "cpu.max.burst") == "0"
    takes(web, cpus / 20)
    limits(web, "--cpu", "inf")
    wait(lambda: cpu_share(web, 1) > cpus / 5)


def stat(host: Host, key: str) -> int:
    lines = (group(host, "cpu") / "cpu.stat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.split()[0] == key)


def test_what_was_saved_up_is_spent_in_a_burst(web: Host) -> None:
    limits(web, "--cpu", "1/10", "--burst", "15")

    def spends() -> bool:
        before = stat(web, "nr_bursts")
        web.inside("web", "n=0; while [ $n -lt 20000 ]; do n=$((n + 1)); done")
        return stat(web, "nr_bursts") > before

    wait(spends)
    limits(web, "--burst", "inf")
    assert not spends()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("1/20 5", "9/10 150"),
        ("9/10 150", "1/20 5"),
        ("1/2 90", "inf inf"),
        ("9/10 20", "1/2 90"),
        ("1/2 90", "9/10 1"),
    ],
)
def test_share_and_burst_change_together_in_an_order_that_the_kernel_takes(web: Host, before: str, after: str) -> None:
    for pair in (before, after):
        share, burst = pair.split()
        limits(web, "--cpu", share, "--burst", burst)
        wanted = "0" if burst == "inf" else str(int(burst) * 1000)
        assert kernel(web, "cpu", "cpu.cfs_burst_us", "cpu.max.burst") == wanted
    assert json.loads(web.ok("vs-limit", "--name", "web", "--json"))[0]["limits"]["rss"] == {"enforced": True}


def fills(host: Host, mib: int) -> bool:
    return host.inside("web", f"{BOX} dd if=/dev/zero of=/tmp/x bs=1M count={mib}").code == 0


def test_tmp_grows_and_shrinks_and_never_below_what_it_holds(web: Host) -> None:
    assert not fills(web, 20)
    assert limits(web, "--tmpfs", "32") == "128:1024:32:60:9/10"
    assert fills(web, 20)
    before = everything(web)
    for force in ((), ("--force",)):
        done = web.vs("vs-limit", "--name", "web", "--tmpfs", "8", "--proc", "30", *force)
        assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1), done
        assert "its /tmp holds 20 MiB" in done.err
    assert everything(web) == before
    assert web.inside("web", "rm /tmp/x || /bin/busybox rm /tmp/x").code == 0
    assert limits(web, "--tmpfs", "8") == "128:1024:8:60:9/10"
    assert not fills(web, 20)
    assert limits(web, "--tmpfs", "inf") == "128:1024:inf:60:9/10"
    assert fills(web, 40)
    flags = web.inside("web", "cat /proc/mounts").out
    assert any(" /tmp tmpfs rw,nosuid,nodev" in line for line in flags.splitlines()), flags
    assert web.inside("web", "mount -o remount,size=900m /tmp").code != 0


def test_tmp_of_a_guest_that_has_none_begins_with_its_next_start(host: Host, small: Path) -> None:
    assert create(host, "web", 10, small, "--start").code == 0
    done = host.vs("vs-limit", "--name", "web", "--tmpfs", "16")
    assert (done.code, done.out) == (0, f"{SELF}:web:inf:inf:16:inf:inf\n"), done
    assert "begins with its next start" in done.err
    assert json.loads(host.ok("vs-limit", "--name", "web", "--json"))[0]["limits"]["tmpfs"]["applied"] is None
    host.ok("vs-control", "--name", "web", "--restart")
    assert not fills(host, 20)


def test_limits_of_a_guest_that_had_none_come_and_go_while_it_runs(host: Host, small: Path) -> None:
    assert create(host, "web", 10, small, "--start").code == 0
    assert limits(host) == "inf:inf:inf:inf:inf"
    assert limits(host, "--rss", "64", "--proc", "30", "--cpu", "1/2") == "64:inf:inf:30:1/2"
    assert not allocates(host, 100)
    assert host.inside("web", FORKS).code != 0
    assert limits(host, "--rss", "inf", "--proc", "inf", "--cpu", "inf") == "inf:inf:inf:inf:inf"
    assert allocates(host, 100)


def test_limits_stay_over_the_guests_own_reboot_and_over_a_restart(web: Host) -> None:
    limits(web, "--rss", "64", "--proc", "40", "--tmpfs", "8", "--nofile", "500", "--cpu", "1/2", "--burst", "10")
    first = everything(web)
    before = init(web)
    web.inside("web", f"{BOX} reboot -f")
    wait(lambda: web.ok("vs-fonctions", "guest_init_pid", "web").strip() not in ("null", "", str(before)))
    wait(lambda: (group(web, "pids") / "pids.max").exists())
    wait(lambda: everything(web) == first)
    web.ok("vs-control", "--name", "web", "--restart")
    assert everything(web) == first


def test_limits_changed_while_the_guest_reboots_itself_are_those_of_its_next_life(web: Host) -> None:
    """LXC reads the guest's configuration early in a start and sets the limits late."""
    for number in (202, 201, 200):  # its runner waits longer each time
        background(web, f"{BOX} reboot -f")
        assert limits(web, "--rss", str(number), "--nofile", str(number)) == f"{number}:1024:16:60:9/10"
        wait(lambda: web.inside("web", "true").code == 0)
        wait(lambda number=number: kernel(web, "memory", "memory.limit_in_bytes", "memory.max") == str(number << 20))  # type: ignore[misc]
        assert rlimit(init(web), "Max open files")[0] == str(number)


DEEP = f"cd /sys/fs/cgroup; n=0; while [ $n -lt 1500 ] && {BOX} mkdir x && cd x; do n=$((n + 1)); done; echo $n"


def test_cgroups_in_each_other_without_end_keep_nobody_from_the_guest(web: Host) -> None:
    """On cgroup v2 the kernel ends it; here the guest's tree has no controllers, and no bound."""
    depth = int(web.inside("web", DEEP).out)
    assert depth == 1500 if V1 else depth <= 14
    limits(web, "--nofile", "300")
    assert rlimit(init(web), "Max open files")[0] == "300"
    web.ok("vs-control", "--name", "web", "--restart")
    assert web.inside("web", "ulimit -n").out == "300\n"


def test_open_files_are_limited_for_every_process_at_once_and_for_who_enters(web: Host) -> None:
    background(web, "sleep 100000")
    assert limits(web, "--nofile", "400", "--rlimit", "core=0:inf") == "128:1024:16:60:9/10"
    assert (web.guests / "web/rlimits/nofile").read_text() == "400\n"
    assert (web.guests / "web/rlimits/core.soft").read_text() == "0\n"
    assert web.inside("web", "ulimit -n; ulimit -Hn; ulimit -c; ulimit -Hc").out == "400\n400\n0\nunlimited\n"
    for pid in members(web):
        assert rlimit(pid, "Max open files") == ("400", "400")
    assert web.inside("web", "ulimit -n 401").code != 0, "root of a guest cannot raise it"
    limits(web, "--rlimit", "nofile=300:350")
    assert rlimit(init(web), "Max open files") == ("300", "350")


@needs_sys_resource
def test_limits_of_processes_are_raised_as_well(web: Host) -> None:
    limits(web, "--nofile", "400", "--rlimit", "core=0:inf")
    limits(web, "--nofile", "inf")
    most = Path("/proc/sys/fs/nr_open").read_text().strip()
    assert rlimit(init(web), "Max open files") == (most, most)
    row = json.loads(web.ok("vs-limit", "--name", "web", "--json"))[0]
    assert row["rlimits"] == {"core": {"soft": 0, "hard": None}, "nofile": {"soft": None, "hard": None}}


def members(host: Host) -> set[int]:
    folder = group(host, "pids")
    return {int(pid) for path in folder.rglob("cgroup.procs") for pid in path.read_text().split()}


def rlimit(pid: int, what: str) -> tuple[str, str]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    soft, hard = next(line for line in lines if line.startswith(what)).removeprefix(what).split()[:2]
    return soft, hard


def test_a_guest_that_forks_all_the_time_does_not_escape_its_limits(web: Host) -> None:
    script = f"while :; do ({BOX} sleep 0.05; {BOX} true) & {BOX} sleep 0.01; done"
    for _ in range(3):
        background(web, script)
    for number in (900, 700, 300):
        limits(web, "--nofile", str(number))
        found = set()
        for pid in members(web):
            try:
                found.add(rlimit(pid, "Max open files"))
            except (FileNotFoundError, ProcessLookupError):
                continue
        assert found == {(str(number), str(number))}


@pytest.mark.skipif(bool(CAPABILITIES >> 24 & 1), reason="root has CAP_SYS_RESOURCE here")
def test_without_the_capability_a_limit_that_would_be_raised_is_refused_and_nothing_changes(web: Host) -> None:
    limits(web, "--nofile", "400")
    before = everything(web)
    done = web.vs("vs-limit", "--name", "web", "--proc", "50", "--nofile", "500")
    assert (done.code, done.out, len(done.err.splitlines())) == (1, "", 1), done
    assert "CAP_SYS_RESOURCE" in done.err
    assert everything(web) == before


STEPS = ("limit:cgroup", "limit:tmpfs", "limit:rlimits", "limit:rates", "limit:saved", "limit:done")
WORDS = ("--rss", "64", "--proc", "40", "--tmpfs", "8", "--cpu", "1/2", "--burst", "20", "--nofile", "500")


@pytest.mark.parametrize("step", STEPS)
def test_after_a_kill_the_same_command_does_the_rest(web: Host, step: str) -> None:
    done = web.vs("vs-limit", "--name", "web", *WORDS, VS_TOOLS_FAULT=step)
    assert done.code == -9, done
    assert limits(web) in ("128:1024:16:60:9/10", "64:1024:8:40:1/2")
    assert limits(web, *WORDS) == "64:1024:8:40:1/2"
    assert json.loads(web.ok("vs-limit", "--name", "web", "--json"))[0]["limits"]["cpu"] == {"enforced": True}
    assert everything(web)["rss"] == str(64 << 20)
    assert rlimit(init(web), "Max open files") == ("500", "500")
    assert os.statvfs(web.run / "guests/web/tmp").f_blocks * 4096 == 8 << 20
    assert web.inside("web", "ulimit -n").out == "500\n"


def test_where_the_files_cannot_be_written_the_kernel_is_as_before(web: Host) -> None:
    before = everything(web)
    (web.guests / "web/sched").rename(web.guests / "web/kept")
    (web.guests / "web/sched").write_text("in the way\n")
    changed = web.vs("vs-limit", "--name", "web", *WORDS[: None if CAPABILITIES >> 24 & 1 else -2])
    (web.guests / "web/sched").unlink()
    (web.guests / "web/kept").rename(web.guests / "web/sched")
    assert changed.code == 1, changed
    assert everything(web) == before


def test_a_stopped_guests_limits_are_saved_and_begin_with_its_start(web: Host) -> None:
    web.ok("vs-control", "--name", "web", "--stop")
    assert limits(web, *WORDS) == "64:1024:8:40:1/2"
    web.ok("vs-control", "--name", "web", "--start")
    assert kernel(web, "pids", "pids.max", "pids.max") == "40"
    assert kernel(web, "cpu", "cpu.cfs_burst_us", "cpu.max.burst") == "20000"
    assert rlimit(init(web), "Max open files") == ("500", "500")


def test_what_somebody_wrote_by_hand_is_told_and_the_line_is_what_is_saved(web: Host) -> None:
    (group(web, "pids") / "pids.max").write_text("7")
    assert limits(web) == "128:1024:16:60:9/10"
    row = json.loads(web.ok("vs-limit", "--name", "web", "--json"))[0]
    assert row["limits"]["proc"] == {"enforced": True, "applied": 7}
    assert row["limits"]["disk"]["enforced"] is False
    assert "quota" in row["limits"]["disk"]["reason"]
    assert (row["enforced"], row["rss"], row["cpu"], row["burst"]) == (False, 128, "9/10", None)
    limits(web, "--proc", "61")
    assert kernel(web, "pids", "pids.max", "pids.max") == "61"


def test_disk_is_saved_and_said_to_be_not_enforced(web: Host) -> None:
    done = web.vs("vs-limit", "--name", "web", "--disk", "2048")
    assert (done.code, done.out, len(done.err.splitlines())) == (0, f"{SELF}:web:128:2048:16:60:9/10\n", 1), done
    assert "disk is not enforced" in done.err


def test_root_of_a_guest_raises_none_of_its_limits(web: Host) -> None:
    before = {key: value for key, value in everything(web).items() if key != "init"}
    controllers = ("memory", "pids", "cpu") if V1 else ()
    tries = {
        name: f"mkdir -p /root/{name} && {BOX} mount -t cgroup -o {name} none /root/{name}; cd /root/{name} && "
        f"for f in memory.limit_in_bytes pids.max cpu.cfs_quota_us; do echo -1 > $f; echo max > $f; done; "
        f"echo 1 > ../{name}/cgroup.procs"
        for name in controllers
    }
    tries["cgroup2"] = "cd /sys/fs/cgroup; for f in memory.max pids.max cpu.max; do echo max > $f; done; echo 1 > ../x"
    tries["tmp"] = "mount -o remount,size=1g /tmp"
    tries["nofile"] = "ulimit -n 99999999"
    web.inside("web", "\n".join(tries.values()))
    attempts(web, "web", tries)
    assert {key: value for key, value in everything(web).items() if key != "init"} == before
    assert not allocates(web, 200)
    assert web.inside("web", FORKS).code != 0
    assert not fills(web, 20)


def test_one_guest_that_fails_does_not_stop_the_others(web: Host, small: Path) -> None:
    for number, name in ((11, "bad"), (12, "good")):
        assert create(web, name, number, small).code == 0
    (web.guests / "bad/context").write_text("no number\n")
    done = web.vs("vs-limit", "--all", "--proc", "77")
    assert (done.code, done.out) == (1, f"{SELF}:good:inf:inf:inf:77:inf\n{SELF}:web:128:1024:16:77:9/10\n"), done
    assert "bad/context:1:1" in done.err
    assert kernel(web, "pids", "pids.max", "pids.max") == "77"
    (web.guests / "bad/context").write_text("60001\n")


def test_what_would_be_done_is_said_and_not_done(web: Host) -> None:
    before = everything(web)
    lines = web.ok("vs-limit", "--name", "web", "--rss", "64", "--proc", "60", "--dry-run").splitlines()
    assert lines[0] == "web: rss 128 -> 64"
    assert any(line.endswith(f"<- {64 << 20}") for line in lines)
    assert not any("proc" in line or "pids" in line for line in lines)
    assert everything(web) == before

"""Start, stop, reboot, poweroff: by command and by the guest itself; and everything that can go wrong on the way."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import NET, Host, create

NODE = os.uname().nodename.partition(".")[0]


def wait(condition: Callable[[], bool], patience: float = 60) -> None:
    """Wait until the condition holds; fail when it never does."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def running(host: Host, name: str) -> bool:
    """The command's word for it."""
    return host.ok("vs-control", "--name", name).strip().endswith(":running")


def reachable(number: int) -> bool:
    """Whether the host's ping gets an answer."""
    return not subprocess.run(
        ["ping", "-c1", "-W2", f"{NET}.{number}"], stdout=subprocess.DEVNULL, check=False
    ).returncode


@pytest.fixture
def web(host: Host, small: Path) -> Host:
    """A host with one small guest, stopped."""
    assert create(host, "web", 10, small).code == 0
    return host


def test_start_and_stop(web: Host) -> None:
    assert web.ok("vs-control", "--name", "web", "--start") == f"{NODE}:web:disabled:running\n"
    assert web.ok("vs-control", "--name", "web", "--start") == f"{NODE}:web:disabled:running\n", "already there"
    assert reachable(10)
    assert "small is up" in web.ok("vs-log", "--name", "web")
    assert web.ok("vs-control", "--name", "web", "--stop") == f"{NODE}:web:disabled:stopped\n"
    assert web.ok("vs-control", "--name", "web", "--stop") == f"{NODE}:web:disabled:stopped\n", "already there"
    assert web.leftovers() == []


def test_enable_is_the_mark_in_util_vservers_layout(web: Host) -> None:
    mark = web.guests / "web/apps/init/mark"
    assert web.ok("vs-control", "--name", "web", "--enable") == f"{NODE}:web:enabled:stopped\n"
    assert mark.read_text() == "default\n"
    web.ok("vs-control", "--all", "--boot")
    assert running(web, "web")
    assert web.ok("vs-control", "--name", "web", "--disable", "--stop") == f"{NODE}:web:disabled:stopped\n"
    assert not mark.exists()


def test_json_and_table(web: Host) -> None:
    text = web.ok("vs-control", "--all", "--json")
    assert json.loads(text) == [{"host": NODE, "guest": "web", "enabled": False, "running": False}]
    assert text.splitlines()[1].startswith("{")
    assert web.ok("vs-control", "--all", "--table").splitlines()[0].split() == ["HOST", "GUEST", "ENABLED", "RUNNING"]


@pytest.mark.parametrize(
    "words",
    [(), ("--name", "web", "--all"), ("--name", "nobody"), ("--name", "web", "--start", "--stop"),
     ("--name", "web", "--enable", "--disable"), ("--name", "../../tmp", "--start"), ("--all", "--frob")],
    ids=" ".join,
)  # fmt: skip
def test_usage_errors_change_nothing(web: Host, words: tuple[str, ...]) -> None:
    before = web.state()
    done = web.vs("vs-control", *words)
    assert (done.code, len(done.err.strip().splitlines())) == (2, 1), done
    assert web.state() == before


def test_guests_own_poweroff_cleans_up(web: Host) -> None:
    web.ok("vs-control", "--name", "web", "--start")
    web.inside("web", "poweroff")
    wait(lambda: not running(web, "web"))
    wait(lambda: web.leftovers() == [])


def test_guests_own_reboot_keeps_its_network(web: Host) -> None:
    web.ok("vs-control", "--name", "web", "--start")
    link = Path("/sys/class/net")
    index = subprocess.run(["ip", "-o", "link", "show", "vs60000.0"], capture_output=True, text=True, check=True).stdout
    assert link.exists()
    web.inside("web", "touch /tmp/mark /run/mark; reboot")
    log = web.root / "var/log/vs-tools/web/console"
    wait(lambda: log.read_text(errors="replace").count("small is up") >= 2)
    wait(lambda: web.inside("web", "true").code == 0)
    again = subprocess.run(["ip", "-o", "link", "show", "vs60000.0"], capture_output=True, text=True, check=True).stdout
    assert index.split(":")[0] == again.split(":")[0]
    assert reachable(10)
    web.ok("vs-control", "--name", "web", "--stop")


def test_tmpfs_is_the_hosts_and_new_after_a_reboot(host: Host, small: Path) -> None:
    assert create(host, "web", 10, small, "--tmpfs", "16").code == 0
    host.ok("vs-control", "--name", "web", "--start")
    assert "16384" in host.inside("web", "df -k /tmp").out
    assert host.inside("web", "touch /tmp/mark && mount -o remount,size=1g /tmp").code != 0
    host.inside("web", "reboot")
    wait(lambda: host.inside("web", "test ! -e /tmp/mark").code == 0)
    assert "16384" in host.inside("web", "df -k /tmp").out
    host.ok("vs-control", "--name", "web", "--stop")


def test_limits_are_the_kernels(host: Host, small: Path) -> None:
    assert create(host, "web", 10, small, "--rss", "64", "--proc", "20", "--cpu", "1/2").code == 0
    host.ok("vs-control", "--name", "web", "--start")
    assert host.inside(
        "web", "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22; do sleep 9 & done"
    ).code
    eater = "x=0123456789abcdef; while :; do x=$x$x; done"
    assert host.inside("web", eater).code != 0, "a process past the memory limit is killed"
    assert host.vs("vs-enter", "--name", "web", "--rescue", "--", "sh", "-c", "exit 0").code == 0
    host.ok("vs-control", "--name", "web", "--stop")


def test_rescue_works_where_the_process_limit_is_used_up(host: Host, small: Path) -> None:
    assert create(host, "web", 10, small, "--proc", "8").code == 0
    host.ok("vs-control", "--name", "web", "--start")
    one_more = "sleep 1000 </dev/null >/dev/null 2>&1 & sleep 0; sleep 0"
    wait(lambda: host.inside("web", one_more).code != 0)
    rescue = host.vs("vs-enter", "--name", "web", "--rescue", "--", "sh", "-c", "id -u; exit 3")
    assert (rescue.code, rescue.out) == (3, "0\n")
    host.ok("vs-control", "--name", "web", "--stop")


def test_start_that_fails_leaves_nothing_behind_and_says_why(web: Host) -> None:
    (web.trees / "web/sbin/init").unlink()
    done = web.vs("vs-control", "--name", "web", "--start")
    assert done.code == 1
    assert "did not start" in done.err
    assert "init" in done.err, "LXC's last words are shown"
    assert web.leftovers() == []


@pytest.mark.parametrize("what", ["no tree", "broken file", "unknown device", "shared context"])
def test_start_that_cannot_work_is_refused(web: Host, small: Path, what: str) -> None:
    if what == "no tree":
        (web.trees / "web").rename(web.trees / "elsewhere")
    elif what == "broken file":
        (web.guests / "web/interfaces/0/ip").write_text("10.0.0.999\n")
    elif what == "unknown device":
        (web.guests / "web/interfaces/0/dev").write_text("nodev0\n")
    else:
        create(web, "other", 11, small)
        (web.guests / "other/context").write_text("60000\n")
    done = web.vs("vs-control", "--name", "web", "--start")
    assert (done.code, len(done.err.strip().splitlines())) == (2, 1), done
    assert web.leftovers() == []


def _hook(host: Host, phase: str, text: str, name: str = "web") -> None:
    path = host.guests / name / "scripts" / phase
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_hooks_run_in_util_vservers_order(web: Host, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for phase in (
        "prepre-start",
        "pre-start",
        "post-start.d/10-a",
        "post-start.d/20-b",
        "pre-stop",
        "post-stop",
        "postpost-stop",
    ):
        _hook(web, phase, f'echo "$1 $2 {phase.rpartition("/")[2]}" >> {trace}')
    web.ok("vs-control", "--name", "web", "--start")
    web.ok("vs-control", "--name", "web", "--stop")
    assert trace.read_text().split("\n")[:-1] == [
        "prepre-start web prepre-start", "pre-start web pre-start", "post-start web 10-a", "post-start web 20-b",
        "pre-stop web pre-stop", "post-stop web post-stop", "postpost-stop web postpost-stop",
    ]  # fmt: skip


@pytest.mark.parametrize("phase", ["prepre-start", "pre-start"])
def test_failing_hook_aborts_the_start(web: Host, phase: str) -> None:
    _hook(web, phase, "echo no licence >&2; exit 9")
    done = web.vs("vs-control", "--name", "web", "--start")
    assert (done.code, "no licence" in done.err) == (1, True)
    assert web.leftovers() == []


def test_default_hooks_are_for_guests_without_their_own(web: Host, tmp_path: Path) -> None:
    _hook(web, "pre-start", f"echo default >> {tmp_path}/trace", name=".defaults")
    web.ok("vs-control", "--name", "web", "--start")
    web.ok("vs-control", "--name", "web", "--stop")
    _hook(web, "pre-start", f"echo own >> {tmp_path}/trace")
    web.ok("vs-control", "--name", "web", "--restart")
    web.ok("vs-control", "--name", "web", "--stop")
    assert (tmp_path / "trace").read_text() == "default\nown\n"


def test_hook_that_others_can_write_is_refused(web: Host) -> None:
    _hook(web, "pre-start", "true")
    (web.guests / "web/scripts/pre-start").chmod(0o777)
    done = web.vs("vs-control", "--name", "web", "--start")
    assert (done.code, "written by others" in done.err) == (2, True)


def test_all_follows_depends_and_one_failure_stops_no_other(host: Host, small: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("app", "broken", "db"), 10):
        assert create(host, name, number, small).code == 0
        _hook(host, "post-start", f"echo start {name} >> {tmp_path}/trace", name)
        _hook(host, "pre-stop", f"echo stop {name} >> {tmp_path}/trace", name)
    (host.guests / "app/apps/init").mkdir(parents=True)
    (host.guests / "app/apps/init/depends").write_text("db\nbroken\n")
    _hook(host, "pre-start", "exit 1", "broken")
    done = host.vs("vs-control", "--all", "--start")
    assert done.code == 1
    assert "pre-start" in done.err
    assert done.out == f"{NODE}:app:disabled:running\n{NODE}:broken:disabled:stopped\n{NODE}:db:disabled:running\n"
    assert host.vs("vs-control", "--all", "--stop").code == 0
    assert (tmp_path / "trace").read_text().splitlines() == ["start db", "start app", "stop app", "stop db"]


def test_guests_that_depend_on_each_other_are_started_all_the_same(host: Host, small: Path) -> None:
    for number, (name, other) in enumerate((("a", "b"), ("b", "a")), 10):
        create(host, name, number, small)
        (host.guests / name / "apps/init").mkdir(parents=True)
        (host.guests / name / "apps/init/depends").write_text(f"{other}\n")
    done = host.vs("vs-control", "--all", "--start")
    assert (done.code, "circle" in done.err) == (0, True)
    assert running(host, "a")
    assert running(host, "b")


def test_start_killed_at_any_step_is_cleared_by_the_next(web: Host, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    web.ok("vs-control", "--name", "web", "--start", VS_TOOLS_FAULT_TRACE=str(trace))
    web.ok("vs-control", "--name", "web", "--stop")
    steps = [step for step in dict.fromkeys(trace.read_text().split()) if step.startswith("start:")]
    assert len(steps) >= 8
    for step in steps:
        killed = web.start("vs-control", "--name", "web", "--start", VS_TOOLS_FAULT=step)
        killed.communicate(timeout=120)
        assert killed.returncode == -9, step
        assert web.ok("vs-control", "--name", "web", "--start").strip().endswith(":running"), step
        assert reachable(10), step
        web.ok("vs-control", "--name", "web", "--stop")
        assert web.leftovers() == [], step


def test_stop_killed_at_any_step_is_finished_by_the_next(web: Host, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    web.ok("vs-control", "--name", "web", "--start")
    web.ok("vs-control", "--name", "web", "--stop", VS_TOOLS_FAULT_TRACE=str(trace))
    steps = [step for step in dict.fromkeys(trace.read_text().split()) if step.startswith("stop:")]
    assert steps
    for step in steps:
        web.ok("vs-control", "--name", "web", "--start")
        web.vs("vs-control", "--name", "web", "--stop", VS_TOOLS_FAULT=step)
        web.ok("vs-control", "--name", "web", "--stop")
        assert web.leftovers() == [], step


def _pids(pattern: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if pattern in words:
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("victim", ["lxc-start", "vs-guest-run", "both"])
def test_killed_monitor_or_runner_leaves_nothing_that_stop_does_not_clear(web: Host, victim: str) -> None:
    web.ok("vs-control", "--name", "web", "--start")
    path = str(web.run / "guests")
    for word in ("vs-guest-run", "lxc-start") if victim == "both" else (victim,):
        victims = [pid for pid in _pids(path) if word in Path(f"/proc/{pid}/cmdline").read_text()]
        assert victims
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
    web.ok("vs-control", "--name", "web", "--stop")
    wait(lambda: web.leftovers() == [])
    web.ok("vs-control", "--name", "web", "--start")
    assert reachable(10)
    web.ok("vs-control", "--name", "web", "--stop")


def test_guest_that_does_not_shut_down_is_killed_after_its_time(host: Host, small: Path) -> None:
    host.configure(STOP_TIMEOUT="2")
    create(host, "web", 10, small)
    (host.trees / "web/sbin/poweroff").unlink()
    (host.trees / "web/etc/inittab").write_text("::sysinit:/bin/sh -c 'echo small is up'\n::shutdown:/bin/sleep 1000\n")
    host.ok("vs-control", "--name", "web", "--start")
    done = host.vs("vs-control", "--name", "web", "--stop")
    assert (done.code, "killed" in done.err) == (0, True), done


def test_start_and_stop_at_once_end_in_order(web: Host) -> None:
    both = [web.start("vs-control", "--name", "web", verb) for verb in ("--start", "--stop", "--start", "--stop")]
    for process in both:
        process.communicate(timeout=180)
        assert process.returncode == 0
    web.ok("vs-control", "--name", "web", "--stop")
    assert web.leftovers() == []


def test_debian_with_systemd_comes_up_clean(host: Host, debian: Path) -> None:
    assert create(host, "deb", 10, debian, "--start", "--rss", "512", "--tmpfs", "32").code == 0
    done = host.inside("deb", "systemctl is-system-running --wait; systemctl --failed --no-legend")
    assert done.out == "running\n", done
    assert host.inside("deb", "ss -Hltn sport = :22").out.strip(), "sshd has port 22"
    assert reachable(10)
    host.inside("deb", "systemctl reboot")
    wait(lambda: "running" in host.inside("deb", "systemctl is-system-running --wait").out)
    host.ok("vs-control", "--name", "deb", "--stop")
    assert "Reached target poweroff" in host.ok("vs-log", "--name", "deb", "--boot") or "halt" in host.ok(
        "vs-log", "--name", "deb", "--boot"
    )

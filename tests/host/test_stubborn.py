"""What an attacker in a guest, or a user of the host, tries against start and stop; and hosts with something broken."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import BIN, NET, Host, create

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
V1_FREEZER = any(
    line.endswith("freezer") and " - cgroup " in line for line in Path("/proc/self/mountinfo").read_text().splitlines()
)


def as_nobody(*argv: str) -> "subprocess.CompletedProcess[str]":
    """A program run by an ordinary user of the host."""
    return subprocess.run([*NOBODY, *argv], capture_output=True, text=True, check=False)


@pytest.mark.skipif(not V1_FREEZER, reason="this kernel has no v1 freezer mounted: a guest cannot freeze itself by it")
def test_guest_that_freezes_itself_ends_all_the_same(host: Host, small: Path) -> None:
    host.configure(STOP_TIMEOUT="2")
    assert create(host, "ice", 10, small, "--start").code == 0
    host.inside(
        "ice", "mkdir /run/f; mount -t cgroup -o freezer none /run/f && mkdir /run/f/x && echo 1 > /run/f/x/tasks"
    )
    host.inside("ice", "echo FROZEN > /run/f/x/freezer.state")
    host.ok("vs-control", "--name", "ice", "--stop")
    assert host.leftovers() == []
    host.ok("vs-control", "--name", "ice", "--start")
    host.ok("vs-control", "--name", "ice", "--stop")


def test_users_of_the_host_reach_nothing_of_a_started_guest(host: Host, small: Path) -> None:
    assert create(host, "web", 10, small, "--tmpfs", "16", "--start").code == 0
    assert host.inside("web", "echo secret > /tmp/key").code == 0
    folder = host.run / "guests/web"
    assert "secret" not in as_nobody("cat", str(folder / "tmp/key")).stdout
    assert as_nobody("touch", str(folder / "tmp/new")).returncode
    assert as_nobody("flock", "-n", str(folder / "runner"), "true").returncode not in (0, 1)
    assert not as_nobody("ls", str(host.run)).returncode, (
        "the way there is open to LXC, which comes as the guest's root"
    )
    host.ok("vs-control", "--name", "web", "--stop")


def test_socket_of_another_user_makes_no_guest_running(host: Host, small: Path) -> None:
    assert create(host, "web", 10, small).code == 0
    listen = f"import socket, time\ns = socket.socket(socket.AF_UNIX)\ns.bind('\\0{host.run}/guests/web/command')\n"
    process = subprocess.Popen(
        [*NOBODY, "/usr/bin/python3", "-c", f"{listen}s.listen()\nprint('ready', flush=True)\ntime.sleep(1000)"],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert host.ok("vs-control", "--name", "web").strip().endswith(":stopped")
    finally:
        process.kill()
        process.communicate()


def test_one_broken_leftover_stops_no_other_guest(host: Host, small: Path) -> None:
    assert create(host, "web", 10, small).code == 0
    junk = host.run / "guests/junk/folder"
    junk.mkdir(parents=True)
    done = host.vs("vs-control", "--name", "web", "--start")
    assert (done.code, "junk" in done.err) == (0, True), done
    host.ok("vs-control", "--name", "web", "--stop")
    junk.rmdir()


def test_one_guest_that_cannot_be_linked_stops_no_other(host: Host, small: Path) -> None:
    for number, name in ((10, "wide"), (11, "web")):
        assert create(host, name, number, small).code == 0
    subprocess.run(
        ["sh", "-ec", "ip link add up0 type veth peer name up1; ip link set up0 up; ip link set up1 up"], check=True
    )
    try:
        (host.guests / "wide/interfaces/0/dev").write_text("up0\n")
        host.configure(MTU="9000")
        done = host.vs("vs-control", "--all", "--start")
        assert done.code == 1
        assert ":web:disabled:running" in done.out
        assert "Traceback" not in done.err
        host.ok("vs-control", "--all", "--stop")
    finally:
        subprocess.run(["ip", "link", "delete", "up0"], check=True)


@pytest.mark.parametrize("name", ["web-", "a.-b", "x_y", "0.1"])
def test_every_name_that_is_accepted_can_be_started(host: Host, small: Path, name: str) -> None:
    assert create(host, name, 10, small, "--start").code == 0
    host.ok("vs-control", "--name", name, "--stop")


def test_interrupted_stop_leaves_the_guest_able_to_reboot(host: Host, small: Path) -> None:
    assert create(host, "web", 10, small).code == 0
    (host.trees / "web/sbin/poweroff").unlink()
    host.ok("vs-control", "--name", "web", "--start")
    stop = host.start("vs-control", "--name", "web", "--stop")
    mark = host.run / "guests/web/stopping"
    while not mark.exists():
        assert stop.poll() is None
        time.sleep(0.01)
    stop.send_signal(signal.SIGINT)
    stop.communicate(timeout=60)
    assert not mark.exists()
    host.vs("vs-control", "--name", "web", "--stop")


def test_guest_whose_poweroff_hangs_is_killed_in_time(host: Host, small: Path) -> None:
    host.configure(STOP_TIMEOUT="2")
    assert create(host, "web", 10, small).code == 0
    poweroff = host.trees / "web/sbin/poweroff"
    poweroff.unlink()
    poweroff.write_text("#!/bin/sh\nwhile :; do echo flood; done\n")
    poweroff.chmod(0o755)
    host.ok("vs-control", "--name", "web", "--start")
    done = host.vs("vs-control", "--name", "web", "--stop")
    assert (done.code, "killed" in done.err) == (0, True), done


def test_flooding_journal_is_not_gathered_in_memory(host: Host, small: Path) -> None:
    assert create(host, "web", 10, small).code == 0
    flood = host.trees / "web/bin/journalctl"
    flood.write_text("#!/bin/sh\nwhile :; do cat /bin/busybox; done\n")
    flood.chmod(0o755)
    host.ok("vs-control", "--name", "web", "--start")
    process = host.start("vs-log", "--name", "web")
    try:
        assert process.stdout is not None
        for _ in range(1000):
            process.stdout.readline()
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0])
        assert peak < 200_000, f"{peak} KiB"
    finally:
        process.kill()
        process.communicate()
        host.ok("vs-control", "--name", "web", "--stop")


def test_killed_bootstrap_writes_no_further(host: Host) -> None:
    """Everything that the killed command had started is gone with it."""
    outside = ["nsenter", f"--net={os.environ['VS_TOOLS_TESTS_NET']}"]
    binary = BIN / "vs-create"
    process = subprocess.Popen(
        [*outside, binary, "--name", "web", "--interface", f"{NET}.10", "--debootstrap", "trixie"],
        env={**os.environ, "VS_TOOLS_ROOT": str(host.root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    tree = host.trees / ".new-web"
    while not (tree / "var/lib/dpkg").exists():
        assert process.poll() is None, "it ended too early"
        time.sleep(0.05)
    process.kill()
    process.wait()
    mark = str(tree)
    deadline = time.monotonic() + 30
    while any(mark in _command_line(pid) for pid in os.listdir("/proc") if pid.isdigit()):
        assert time.monotonic() < deadline, "something of it lives on"
        time.sleep(0.05)
    host.ok("vs-create", "--name", "web", "--interface", f"{NET}.10", "--skeleton")
    assert host.leftovers() == []


def _command_line(pid: str) -> str:
    try:
        return Path("/proc", pid, "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""

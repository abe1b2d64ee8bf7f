"""vs-monitor on real guests: memory that is really used, a socket that really listens, a guest that is really killed.

The mails are read as the relay got them.
"""

import email
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from conftest import Host, create, wait

from tests.host.test_stats import needs_memory, needs_pids
from vstools import alive, lxc
from vstools.paths import Paths

HOST_NAME = os.uname().nodename.partition(".")[0]
QUIET = "< /dev/null > /dev/null 2>&1"
ALL = "MONITOR_MAILTO=ops@example.org,root\nMONITOR_POOLING=1\n"


class Mailbox:
    """A relay that keeps what it is given; ``refusing`` is what it says instead."""

    def __init__(self) -> None:
        self.mails: list[Message] = []
        self.envelopes: list[tuple[str, list[str]]] = []
        self.refusing = ""

    async def handle_DATA(self, server: object, session: object, envelope: object) -> str:  # noqa: N802
        if self.refusing:
            return self.refusing
        self.mails.append(email.message_from_bytes(envelope.content))  # type: ignore[attr-defined]
        self.envelopes.append((envelope.mail_from, envelope.rcpt_tos))  # type: ignore[attr-defined]
        return "250 kept"

    def subjects(self) -> list[str]:
        """What an admin sees first."""
        return [mail["Subject"] for mail in self.mails]


class Relay(Controller):
    """On a port that the kernel chose."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@pytest.fixture
def mailbox(host: Host) -> Iterator[Mailbox]:
    """A mail relay that the host's create.conf names."""
    found = Mailbox()
    relay = Relay(found, hostname="127.0.0.1", port=0)
    relay.start()
    try:
        host.configure(MONITOR_SMTP=f"127.0.0.1:{relay.port}")
        yield found
    finally:
        relay.stop()


@pytest.fixture
def web(host: Host, small: Path, mailbox: Mailbox) -> Host:
    """A host on which the guest web runs: 64 MiB, 40 processes, 16 MiB of /tmp; it is watched, and was looked at."""
    (host.conf / "monitor.conf").write_text(ALL)
    limits = ("--rss", "64", "--proc", "40", "--tmpfs", "16", "--start")
    assert create(host, "web", 20, small, *limits).code == 0
    assert once(host) == []
    return host


def once(host: Host) -> list[str]:
    """One round, the sockets looked at from the guest's start; what began and what is over."""
    return host.ok("vs-monitor", "--once", "--settle", "0").splitlines()


def conf(host: Host) -> Path:
    return host.guests / "web/monitor.conf"


def body(mail: Message) -> str:
    return str(mail.get_payload())


def init(host: Host) -> int:
    found = lxc.init_pid(Paths(host.root), "web")
    assert found is not None
    return found


def is_gone(host: Host) -> bool:
    return not (host.run / "guests/web").exists()


def test_a_new_guest_has_the_hosts_monitor_conf(web: Host) -> None:
    assert conf(web).read_text() == ALL


def test_a_listening_socket_is_told_with_process_user_protocol_and_address(web: Host, mailbox: Mailbox) -> None:
    web.inside("web", f"nc -ll -p 4444 -e cat {QUIET} &")
    wait(lambda: "4444" in web.inside("web", "busybox netstat -ltn").out)
    (line,) = once(web)
    assert line == f"{HOST_NAME}:web:began:socket:new socket tcp [::]:4444 by /bin/busybox, uid 0"
    (mail,) = mailbox.mails
    assert mail["Subject"] == f"{HOST_NAME}: web: new socket tcp [::]:4444 by /bin/busybox, uid 0"
    assert (mail["To"], mail["Auto-Submitted"]) == ("ops@example.org, root", "auto-generated")
    assert mailbox.envelopes == [(f"root@{os.uname().nodename}", ["ops@example.org", "root"])]
    text = body(mail)
    pid = next(line for line in text.splitlines() if "pid" in line).split("pid ")[1].split()[0]
    assert Path(f"/proc/{pid}/comm").read_text() == "nc\n", "the host's number, to be looked at"
    for word in ("protocol tcp", "address [::]:4444", "process /bin/busybox", "user 0", str(conf(web))):
        assert word in text, text
    assert once(web) == [], "it begins once"
    web.inside("web", f"kill {web.inside('web', 'busybox pidof nc').out.strip()}")
    wait(lambda: not Path(f"/proc/{pid}").exists())
    (line,) = once(web)
    assert line.startswith(f"{HOST_NAME}:web:over:socket:new socket tcp [::]:4444")
    assert once(web) == []


def test_what_matches_the_filter_is_not_told_and_a_unix_socket_is(web: Host, mailbox: Mailbox) -> None:
    conf(web).write_text(ALL + 'SOCKETS_FILTER="nothing :4444$"\n')
    web.inside("web", f"nc -ll -p 4444 -e cat {QUIET} &")
    wait(lambda: "4444" in web.inside("web", "busybox netstat -ltn").out)
    assert once(web) == []
    conf(web).write_text(ALL)
    (line,) = once(web)
    assert ":4444 by /bin/busybox" in line
    with _sockets_in(
        web, "[socket.socket(socket.AF_UNIX) for _ in '1']; all[0].bind('\\0back\\ndoor'); all[0].listen()"
    ):
        (line,) = once(web)
    assert line.endswith(r":began:socket:new socket unix @back\x0adoor by ?, uid not known") or line.endswith(
        r":began:socket:new socket unix @back\x0adoor by ?, uid host's 0"
    )


@needs_memory
def test_memory_over_its_threshold_is_told_once_and_its_end_once(web: Host, mailbox: Mailbox) -> None:
    conf(web).write_text(ALL + "RSS_THRESHOLD=20\nMONITOR_RSS_HITS=no\nTMPFS_THRESHOLD=inf\n")
    web.inside("web", "busybox dd if=/dev/zero of=/tmp/kept bs=1M count=15")
    (line,) = once(web)
    assert line.startswith(f"{HOST_NAME}:web:began:memory:memory ")
    assert line.endswith("of 64M), threshold 20%")
    assert once(web) == []
    web.inside("web", "busybox rm /tmp/kept")
    (line,) = once(web)
    assert line.startswith(f"{HOST_NAME}:web:over:memory:")
    assert [subject.split(" ")[2] for subject in mailbox.subjects()] == ["memory", "over:"]


def test_tmp_over_its_threshold_is_told(web: Host) -> None:
    web.inside("web", "busybox dd if=/dev/zero of=/tmp/kept bs=1M count=15")
    assert any(":began:/tmp:/tmp 94% (15M of 16M), threshold 90%" in line for line in once(web))


@needs_memory
@needs_pids
def test_hits_of_limits_and_killed_processes_are_told(web: Host, mailbox: Mailbox) -> None:
    web.inside("web", "busybox tail /dev/zero > /dev/null")
    lines = once(web)
    assert any(":began:oom-kills:out of memory, a process was killed once" in line for line in lines), lines
    web.inside("web", f"i=0; while [ $i -lt 60 ]; do i=$((i+1)); sleep 1000 {QUIET} & done")
    lines = once(web)
    assert any(":began:process-hits:process limit reached" in line for line in lines), lines
    assert any(":began:processes:processes " in line for line in lines), lines


def test_a_tree_over_its_disk_limit_is_told(host: Host, small: Path, mailbox: Mailbox) -> None:
    assert create(host, "web", 20, small, "--disk", "1", "--start").code == 0
    (line,) = once(host)
    assert f"{HOST_NAME}:web:began:disk:disk " in line
    assert line.endswith(" of 1M), threshold 90%")


def test_load_follows_what_the_guest_runs(web: Host) -> None:
    conf(web).write_text(ALL + "LOADAVG_15_THRESHOLD=0.001\nPROC_THRESHOLD=inf\n")
    for _ in range(3):
        web.inside("web", f"sh -c 'while :; do :; done' {QUIET} &")
    deadline = time.monotonic() + 60
    lines: list[str] = []
    while not lines and time.monotonic() < deadline:
        lines = once(web)
    assert lines[0].startswith(f"{HOST_NAME}:web:began:load:load 0.0")


def test_a_guest_that_was_killed_is_told_and_so_is_its_return(web: Host, mailbox: Mailbox) -> None:
    os.kill(init(web), signal.SIGKILL)
    wait(lambda: is_gone(web))
    died = "died: its init was ended by signal 9 (SIGKILL)"
    assert once(web) == [f"{HOST_NAME}:web:began:down:{died}"]
    assert once(web) == []
    assert mailbox.subjects() == [f"{HOST_NAME}: web: {died}"]
    web.ok("vs-control", "--name", "web", "--start")
    assert once(web) == [f"{HOST_NAME}:web:over:down:the guest runs again"]


def test_what_lxc_left_no_word_of_is_said_to_be_not_known(web: Host) -> None:
    monitor = alive.monitor_pid(Paths(web.root), "web")
    assert monitor is not None
    os.kill(monitor, signal.SIGKILL)
    wait(lambda: is_gone(web))
    died = "died: how is not known, LXC's own process ended first (lxc 137)"
    assert once(web) == [f"{HOST_NAME}:web:began:down:{died}"]


def test_a_guest_that_was_removed_and_made_anew_between_two_looks_is_not_dead(web: Host, small: Path) -> None:
    web.ok("vs-control", "--name", "web", "--stop")
    web.ok("vs-remove", "--name", "web", "--yes")
    assert create(web, "web", 20, small).code == 0
    assert once(web) == []


def test_a_guest_that_was_killed_and_started_between_two_looks_is_told_all_the_same(web: Host) -> None:
    os.kill(init(web), signal.SIGKILL)
    wait(lambda: is_gone(web))
    web.ok("vs-control", "--name", "web", "--start")
    assert [line.split(":")[2:4] for line in once(web)] == [["began", "down"], ["over", "down"]]


@pytest.mark.parametrize("how", ["stop", "restart", "poweroff", "reboot"])
def test_a_stop_a_poweroff_and_a_reboot_are_no_death(web: Host, mailbox: Mailbox, how: str) -> None:
    before = init(web)
    if how in ("stop", "restart"):
        web.ok("vs-control", "--name", "web", f"--{how}")
    else:
        web.inside("web", f"{how}")
        wait(lambda: is_gone(web) if how == "poweroff" else lxc.init_pid(Paths(web.root), "web") not in (None, before))
    assert once(web) == []
    assert mailbox.mails == []


def test_a_broken_file_is_told_once_and_the_last_good_one_counts(web: Host, mailbox: Mailbox) -> None:
    conf(web).write_text(ALL + "TMPFS_THRESHOLD=50\n")
    state = web.root / "var/lib/vs-tools/monitor/state.json"
    before = state.stat().st_mtime_ns
    daemon = web.start("vs-monitor", "--settle", "0")
    try:
        wait(lambda: state.stat().st_mtime_ns != before)
        conf(web).write_text("TMPFS_THRESHOLD=1000\nNONSENSE=1\n")
        wait(lambda: len(mailbox.mails) == 1)
        assert "monitor.conf has faults" in mailbox.subjects()[0]
        assert f"{conf(web)}:1:17: '1000' is not a whole number" in body(mailbox.mails[0])
        assert f"{conf(web)}:2:1: NONSENSE is not a key of this file" in body(mailbox.mails[0])
        assert mailbox.mails[0]["To"] == "ops@example.org, root"
        web.inside("web", "busybox dd if=/dev/zero of=/tmp/kept bs=1M count=10")
        wait(lambda: len(mailbox.mails) == 2)
        assert "/tmp 62% (10M of 16M), threshold 50%" in mailbox.subjects()[1]
    finally:
        daemon.send_signal(signal.SIGTERM)
        out, err = daemon.communicate(timeout=30)
    assert (daemon.returncode, out) == (0, ""), err
    assert once(web) == [], "also by a monitor that never saw the good one"


def test_there_is_one_monitor_on_a_host_and_no_alert_is_told_again_by_the_next(web: Host, mailbox: Mailbox) -> None:
    web.inside("web", "busybox dd if=/dev/zero of=/tmp/kept bs=1M count=15")
    assert len(once(web)) >= 1
    daemon = web.start("vs-monitor")
    try:
        state = web.root / "var/lib/vs-tools/monitor/state.json"
        before = state.stat().st_mtime_ns
        wait(lambda: state.stat().st_mtime_ns != before)
        done = web.vs("vs-monitor", "--once")
        assert (done.code, done.err) == (
            2,
            "vs-monitor: vs-monitor runs already on this host: one looks at all guests\n",
        )
    finally:
        daemon.kill()
        daemon.communicate()
    assert once(web) == []
    assert len(mailbox.mails) == 1


def test_a_mail_that_cannot_be_sent_is_kept_and_sent_later(web: Host, mailbox: Mailbox) -> None:
    spool = web.root / "var/lib/vs-tools/monitor/spool"
    mailbox.refusing = "451 try later"
    web.inside("web", "busybox dd if=/dev/zero of=/tmp/kept bs=1M count=15")
    done = web.vs("vs-monitor", "--once", "--settle", "0")
    assert done.code == 0
    assert "1 mails wait to be sent" in done.err
    (kept,) = spool.iterdir()
    assert (spool.stat().st_mode & 0o7777, kept.stat().st_mode & 0o7777) == (0o700, 0o600)
    mailbox.refusing = ""
    assert once(web) == []
    assert mailbox.mails == [], "not before its time"
    os.utime(kept, (0, 0))
    assert once(web) == []
    assert len(mailbox.mails) == 1
    assert list(spool.iterdir()) == []


def test_a_guest_with_a_thousand_sockets_is_bounded(web: Host) -> None:
    conf(web).write_text(ALL + "MONITOR_RSS_HITS=no\nMONITOR_PROC_HITS=no\nRSS_THRESHOLD=inf\nPROC_THRESHOLD=inf\n")
    with _sockets_in(web, "[socket.create_server(('127.0.0.1', 10000 + n)) for n in range(700)]"):
        begun = time.monotonic()
        lines = once(web)
        assert time.monotonic() - begun < 10
        assert len(lines) == 22, lines[-3:]
        assert any("further new listening sockets" in line for line in lines)
        assert any("more than 512 listening sockets" in line for line in lines)
        assert (web.root / "var/lib/vs-tools/monitor/state.json").stat().st_size < 100_000
    assert once(web)[0].startswith(f"{HOST_NAME}:web:over:socket")


def test_a_thousand_udp_sockets_hide_no_listener_and_end_no_alert(web: Host) -> None:
    with _sockets_in(web, "[socket.create_server(('::', 4444), family=socket.AF_INET6)]"):
        assert "began:socket:new socket tcp [::]:4444" in once(web)[0]
        bound = "[socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(800)]"
        with _sockets_in(web, f"{bound}; [each.bind(('', 10000 + n)) for n, each in enumerate(all)]"):
            lines = once(web)
            assert any("more than 512 listening sockets" in line for line in lines)
            assert not any(":over:" in line for line in lines), lines
            with _sockets_in(web, "[socket.create_server(('::', 4445), family=socket.AF_INET6)]"):
                (line,) = once(web)
                assert ":began:socket:new socket tcp [::]:4445" in line
            assert once(web) == [], "not everything is seen: nothing is known to be closed"
        lines = once(web)
        assert any(":over:socket:new socket tcp [::]:4445" in line for line in lines)
        assert not any("[::]:4444" in line for line in lines), "it listens still"
    (line,) = once(web)
    assert "over:socket:new socket tcp [::]:4444" in line
    assert line.endswith(": closed")


def _has_udplite() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_udplite(), reason="this kernel has no UDP-Lite")
def test_a_udplite_socket_is_told(web: Host) -> None:
    made = "[socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136)]; all[0].bind(('', 5000))"
    with _sockets_in(web, made):
        (line,) = once(web)
    assert ":began:socket:new socket udplite 0.0.0.0:5000" in line


class _sockets_in:  # noqa: N801 - a context manager
    """Sockets in the guest's network namespace, of a process of the host's."""

    def __init__(self, host: Host, made: str) -> None:
        record = json.loads((host.run / "guests/web/record").read_text())
        script = f"import socket, sys\nall = {made}\nprint('up', flush=True)\nsys.stdin.read()\n"
        self._process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{record['netns']}", "/usr/bin/python3", "-c", script],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"up\n"

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

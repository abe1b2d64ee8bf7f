"""A shell, a command, the login console; and what a guest said, while it runs and after."""

import os
import pty
import re
import select
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
from conftest import BIN, Host, create, wait


@pytest.fixture
def web(host: Host, small: Path) -> Host:
    """A host with one small guest, running."""
    assert create(host, "web", 10, small, "--start").code == 0
    return host


def test_exit_status_of_the_command_is_kept(web: Host) -> None:
    for script, code in (("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137), ("kill -15 $$", 143)):
        for more in ((), ("--rescue",)):
            done = web.vs("vs-enter", "--name", "web", *more, "--", "sh", "-c", script)
            assert (done.code, done.out, done.err) == (code, "", ""), script
    done = web.vs("vs-enter", "--name", "web", "--", "frobnicate")
    assert (done.code, "frobnicate" in done.err) == (127, True), done


def test_words_of_the_command_come_as_they_are(web: Host) -> None:
    words = ("a b", "$HOME", "*", "'", "--name", "-h", "ü", "")
    done = web.vs("vs-enter", "--name", "web", "--", "sh", "-c", 'for word; do echo "<$word>"; done', "sh", *words)
    assert done.out == "".join(f"<{word}>\n" for word in words)


def test_bytes_go_through_both_ways(web: Host) -> None:
    sent = os.urandom(1 << 20)
    done = subprocess.run(
        [BIN / "vs-enter", "--name", "web", "--", "sh", "-c", "cat; echo apart >&2"],
        input=sent, capture_output=True, env={**os.environ, "VS_TOOLS_ROOT": str(web.root)}, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == sent
    assert done.stderr == b"apart\n"


def test_environment_of_the_host_stays_there(web: Host) -> None:
    out = web.ok(
        "vs-enter", "--name", "web", "--", "sh", "-c", "env", FOO="secret", SSH_AUTH_SOCK="/run/agent", TERM="vt100"
    )
    assert {line.partition("=")[0] for line in out.splitlines()} <= {
        "HOME", "USER", "PATH", "LANG", "TERM", "PWD", "SHLVL", "container",
    }  # fmt: skip
    assert "TERM=vt100" in out
    assert "PATH=/usr/local/sbin:" in out
    assert web.inside("web", "pwd; ls /proc/self/fd").out.split() == ["/", "0", "1", "2", "3"], "3 is ls's own"


def test_network_is_not_needed(web: Host) -> None:
    subprocess.run(["ip", "link", "delete", "vs60000.0"], check=True)
    assert web.inside("web", "ls /sys/class/net").out == "lo\n"


def test_stopped_guest_is_refused(host: Host, small: Path) -> None:
    assert create(host, "web", 10, small).code == 0
    for words in ((), ("--console",), ("--rescue",), ("--", "true")):
        done = host.vs("vs-enter", "--name", "web", *words)
        assert (done.code, "is not running" in done.err) == (2, True), done
        assert len(done.err.splitlines()) == 1


class Terminal:
    """A command of ours with a terminal of its own."""

    def __init__(self, host: Host, *argv: str) -> None:
        self.seen = b""
        self.pid, self.side = pty.fork()
        if not self.pid:
            os.environ.update({"VS_TOOLS_ROOT": str(host.root), "TERM": "vt100"})
            os.execv(BIN / argv[0], argv)  # noqa: S606 - that is what a terminal does

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self.side, keys)

    def expect(self, words: bytes, patience: float = 30) -> None:
        """Read until ``words`` are on the screen."""
        deadline = time.monotonic() + patience
        while words not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self.side], [], [], 0.2)[0]:
                self.seen += os.read(self.side, 4096)

    def end(self) -> int:
        """Wait for the command's end; its exit status."""
        deadline = time.monotonic() + 30
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.side)
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < deadline, self.seen
            if select.select([self.side], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.side, 4096)
                except OSError:  # the other side is closed
                    time.sleep(0.05)


def test_shell_has_the_terminal(web: Host) -> None:
    terminal = Terminal(web, "vs-enter", "--name", "web")
    terminal.expect(b"# ")
    terminal.type(b"tty -s || echo none; id -u; exit 5\r")
    assert terminal.end() == 5
    assert not re.search(rb"[\r\n]none", terminal.seen)
    assert re.search(rb"[\r\n]0\r*\n", terminal.seen)


def test_debian_on_the_console_and_in_the_logs(host: Host, debian: Path, tmp_path: Path) -> None:
    """One guest's life: its login console, its console and journal running, followed, and after its end."""
    assert create(host, "deb", 10, debian, "--start").code == 0
    host.inside("deb", "systemctl is-system-running --wait")
    terminal = Terminal(host, "vs-enter", "--name", "deb", "--console")
    terminal.expect(b"Ctrl+a q")
    terminal.type(b"\r")
    terminal.expect(b"deb login: ")
    terminal.type(b"\x01q")
    assert terminal.end() == 0

    host.inside("deb", "logger -t tale first life")
    follower = host.start("vs-log", "--name", "deb", "--follow")
    wait(lambda: host.inside("deb", "pidof journalctl").code == 0)
    time.sleep(0.5)  # it looks for the journal's end
    followed: list[str] = []
    reader = threading.Thread(target=lambda: [followed.append(line) for line in follower.stdout or ()])
    reader.start()
    host.inside("deb", "logger -t tale while watched; echo on the console > /dev/console")
    wait(lambda: all(mark in "".join(followed) for mark in ("while watched", "on the console")))
    host.ok("vs-control", "--name", "deb", "--stop")
    assert follower.wait(timeout=30) == 0, "it ends with the guest"
    reader.join()
    assert "first life" not in "".join(followed)

    journal = host.ok("vs-log", "--name", "deb", "--boot")
    assert "tale[" in journal
    assert "Welcome to Debian" in journal

    host.ok("vs-control", "--name", "deb", "--start")
    host.inside("deb", "systemctl is-system-running --wait; logger -t tale second life; journalctl --sync")
    _both_lives(host)
    host.ok("vs-control", "--name", "deb", "--stop")
    _both_lives(host)
    _nothing_of_a_journal_outside(host, tmp_path)


def _both_lives(host: Host) -> None:
    both, last = host.ok("vs-log", "--name", "deb"), host.ok("vs-log", "--name", "deb", "--boot")
    assert (both.count("first life"), both.count("second life"), both.count("Welcome to Debian")) == (1, 1, 2)
    assert (last.count("first life"), last.count("second life"), last.count("Welcome to Debian")) == (0, 1, 1)


def _nothing_of_a_journal_outside(host: Host, tmp_path: Path) -> None:
    """A real journal of the host's, to which the guest's root left links, is not read."""
    folder = host.trees / "deb/var/log/journal"
    machine = next(folder.iterdir())
    shutil.move(machine, tmp_path / "journal")
    machine.symlink_to(tmp_path / "journal")
    assert "second life" not in host.ok("vs-log", "--name", "deb")
    machine.unlink()
    machine.mkdir()
    (machine / "system.journal").symlink_to(tmp_path / "journal/system.journal")
    assert "second life" not in host.ok("vs-log", "--name", "deb")


def test_console_of_the_start_before_is_kept(web: Host) -> None:
    web.inside("web", "echo one > /dev/console")
    web.ok("vs-control", "--name", "web", "--restart")
    web.inside("web", "echo two > /dev/console")
    wait(lambda: "two" in web.ok("vs-log", "--name", "web"))
    both, last = web.ok("vs-log", "--name", "web"), web.ok("vs-log", "--name", "web", "--boot")
    told = lambda text: [line for line in text.splitlines() if line in ("small is up", "one", "two")]  # noqa: E731
    assert told(both) == ["small is up", "one", "small is up", "two"]
    assert told(last) == ["small is up", "two"]


def test_journalctl_of_a_hostile_guest_may_say_what_it_likes_without_end(web: Host) -> None:
    program = web.trees / "web/usr/bin/journalctl"
    program.write_text("#!/bin/sh\nexec cat /dev/zero\n")
    program.chmod(0o755)
    for more in ((), ("--follow",)):
        reader = web.start("vs-log", "--name", "web", *more)
        time.sleep(3)
        memory = int(Path(f"/proc/{reader.pid}/status").read_text().split("VmRSS:")[1].split()[0])
        reader.terminate()
        reader.communicate(timeout=30)
        assert memory < 200_000, "KiB: nothing is gathered"


def test_console_is_bounded(web: Host) -> None:
    web.inside("web", "yes 0123456789abcdef0123456789abcdef0123456789abcdef | head -c 8000000 > /dev/console")
    logs = sum(path.stat().st_size for path in (web.root / "var/log/vs-tools/web").iterdir())
    assert 100_000 < logs < 5_000_000


def test_log_of_an_unknown_guest_is_refused(host: Host) -> None:
    done = host.vs("vs-log", "--name", "nobody")
    assert (done.code, len(done.err.splitlines())) == (2, 1)

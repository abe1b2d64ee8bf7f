"""A real lxcfs under real guests: what they see of themselves, and that none of them needs it to live."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Host, create, wait

from tests.host.test_stats import needs_memory
from tests.packages import unpacked

pytestmark = pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="this machine has no /dev/fuse")


class Lxcfs:
    """An lxcfs as a process of the test's, where Debian's would be mounted if the installation were the host's."""

    def __init__(self, root: Path) -> None:
        self.where = root / "var/lib/lxcfs"
        self.where.mkdir()
        self._files = unpacked("lxcfs", "libfuse3-3|libfuse3-4")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        libraries = [str(path.parent) for path in self._files.rglob("lib*fuse*.so*")]
        libraries += [str(path.parent) for path in self._files.rglob("liblxcfs.so")]
        self._process = subprocess.Popen(
            [self._files / "usr/bin/lxcfs", "-f", "--pidfile", self.where.parent / "lxcfs.pid", self.where],
            env={**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait(self.answers)

    def answers(self) -> bool:
        done = subprocess.run(["head", "-c1", self.where / "proc/meminfo"], capture_output=True, check=False)
        return done.returncode == 0 and os.path.ismount(self.where)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def die(self) -> None:
        """Killed: what it had mounted stays, and fails."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", self.where], check=False, capture_output=True)

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.die()
        self.unmount()


@pytest.fixture
def lxcfs(host: Host) -> Iterator[Lxcfs]:
    """A running lxcfs."""
    (host.root / "var/lib").mkdir(exist_ok=True)
    found = Lxcfs(host.root)
    try:
        found.start()
        yield found
    finally:
        host.vs("vs-control", "--all", "--stop")
        found.end()


def total(host: Host, name: str) -> int:
    """MiB of memory that a guest is shown."""
    words = host.inside(name, "cat /proc/meminfo").out.split()
    return int(words[words.index("MemTotal:") + 1]) // 1024


def of_the_host() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20


@needs_memory
def test_a_guest_sees_its_own_memory_and_age(host: Host, small: Path, lxcfs: Lxcfs) -> None:
    assert create(host, "web", 10, small, "--rss", "96", "--start").code == 0
    assert total(host, "web") == 96
    host.ok("vs-limit", "--name", "web", "--rss", "128")
    assert total(host, "web") == 128
    assert float(host.inside("web", "cat /proc/uptime").out.split()[0]) < float(
        Path("/proc/uptime").read_text().split()[0]
    )
    refused = host.inside("web", "echo 1 > /proc/uptime")
    assert refused.code != 0
    assert "Read-only" in refused.err
    shown = host.inside("web", "cat /proc/mounts").out
    for path in ("/proc/cpuinfo", "/proc/stat", "/proc/swaps", "/proc/loadavg", "/proc/diskstats"):
        assert f"lxcfs {path} fuse.lxcfs ro," in shown
    assert "lxcfs /sys/devices/system/cpu/online fuse.lxcfs ro," in shown
    host.inside("web", "reboot")
    wait(lambda: "MemTotal" in host.inside("web", "cat /proc/meminfo").out)
    assert total(host, "web") == 128, "also after its own reboot"


@needs_memory
def test_an_lxcfs_that_ended_is_told_and_exchanged_in_the_running_guest(host: Host, small: Path, lxcfs: Lxcfs) -> None:
    assert create(host, "web", 10, small, "--rss", "96", "--start").code == 0
    assert host.ok("vs-monitor", "--once") == ""
    lxcfs.die()
    assert "not connected" in host.inside("web", "cat /proc/meminfo").err
    assert ":web:began:lxcfs:" in host.ok("vs-monitor", "--once")
    done = host.vs("vs-fonctions", "guest_lxcfs", "web")
    assert (done.code, "no lxcfs answers" in done.err) == (2, True)
    lxcfs.unmount()
    lxcfs.start()
    assert "not connected" in host.inside("web", "cat /proc/meminfo").err, "the new one is not the guest's yet"
    host.ok("vs-fonctions", "guest_lxcfs", "web")
    host.ok("vs-fonctions", "guest_lxcfs", "web")
    assert total(host, "web") == 96
    assert host.inside("web", "cat /proc/mounts").out.count("fuse.lxcfs") == 9, "none of the old ones is left"
    assert ":web:over:lxcfs:" in host.ok("vs-monitor", "--once")
    host.inside("web", "umount /proc/meminfo")
    assert total(host, "web") == of_the_host(), "a guest's root may look past it"


def test_a_guest_that_put_something_else_on_its_proc_harms_itself_alone(host: Host, small: Path, lxcfs: Lxcfs) -> None:
    assert create(host, "web", 10, small, "--start").code == 0
    host.inside("web", "mkdir /root/own && ln -s /etc/passwd /root/own/cpuinfo && mount --bind /root/own /proc")
    assert host.inside("web", "ls /proc").out == "cpuinfo\n"
    before = Path("/proc/self/mountinfo").read_text()
    done = host.vs("vs-fonctions", "guest_lxcfs", "web")
    assert (done.code, "could not be mounted" in done.err) == (1, True)
    assert Path("/proc/self/mountinfo").read_text() == before
    assert lxcfs.answers()


def test_a_dead_or_hanging_lxcfs_keeps_no_guest_from_starting(host: Host, small: Path, lxcfs: Lxcfs) -> None:
    assert create(host, "web", 10, small).code == 0
    for wound, cure in (
        (lambda: lxcfs.signal(signal.SIGSTOP), lambda: lxcfs.signal(signal.SIGCONT)),
        (lxcfs.die, None),
    ):
        wound()
        done = host.vs("vs-control", "--name", "web", "--start")
        assert done.code == 0
        assert "lxcfs does not answer" in done.err
        assert total(host, "web") == of_the_host()
        if cure is not None:
            cure()
            host.ok("vs-fonctions", "guest_lxcfs", "web")
            assert "fuse.lxcfs" in host.inside("web", "cat /proc/mounts").out
        host.ok("vs-control", "--name", "web", "--stop")
    lxcfs.unmount()
    assert "lxcfs" not in host.vs("vs-control", "--name", "web", "--start").err, "a host without it is no fault"

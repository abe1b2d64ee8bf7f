"""What a hostile guest can use up of what all guests share in the kernel, and that its neighbour goes on."""

import os
import platform
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import NET, Host, create, wait

from tests.templates import REPO

INOTIFY = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
def take(most):
    count = 0
    while count < most and libc.inotify_init() >= 0:
        count += 1
    return count
"""
GREEDY = """
import time
for _ in range(8):
    if os.fork() == 0:
        take(1 << 30)
        time.sleep(1000)
time.sleep(1000)
"""


@pytest.fixture
def pair(host: Host, small: Path) -> Iterator[Host]:
    """A hostile guest, web, and its neighbour; both have the limits of an ordinary guest."""
    for number, name in ((10, "web"), (11, "next")):
        assert create(host, name, number, small, "--rss", "96", "--proc", "60", "--start").code == 0
    yield host
    host.ok("vs-control", "--all", "--stop")


def groups(host: Host, name: str) -> list[Path]:
    """The cgroups of a guest, in every tree."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    own = f"vs-tools-{zlib.crc32(os.fsencode(host.root)):08x}/{name}/payload"
    found = (Path(line.split(" ")[4], own) for line in mounts if " - cgroup" in line)
    return [path for path in found if path.is_dir()]


def inside(host: Host, name: str, script: str) -> "subprocess.Popen[str]":
    """Run Python of this machine as the guest's root, in its user namespace and its cgroups."""
    join = "".join(f"echo $$ > {group}/cgroup.procs\n" for group in groups(host, name))
    pid = host.ok("vs-fonctions", "guest_init_pid", name).strip()
    enter = ["nsenter", f"--target={pid}", "--user", "--setuid=0", "--setgid=0", "/usr/bin/python3", "-c", script]
    return subprocess.Popen(["sh", "-ec", f'{join}exec "$@"', "sh", *enter], stdout=subprocess.PIPE, text=True)


@contextmanager
def installed_settings() -> Iterator[None]:
    """The kernel's settings for inotify as install.sh makes them; put back at the end."""
    lines = (REPO / "etc/sysctl.conf").read_text().splitlines()
    wanted = dict(line.split(" = ") for line in lines if line.startswith("fs.inotify."))
    before = {key: Path("/proc/sys", key.replace(".", "/")).read_text() for key in wanted}
    try:
        for key, value in wanted.items():
            Path("/proc/sys", key.replace(".", "/")).write_text(value)
        yield
    finally:
        for key, value in before.items():
            Path("/proc/sys", key.replace(".", "/")).write_text(value)


def test_a_guest_that_takes_all_inotify_instances_it_can_get_starves_nobody(pair: Host) -> None:
    """They are kernel memory of the guest's: its own memory limit ends it."""
    with installed_settings():
        greedy = inside(pair, "web", INOTIFY + GREEDY)
        try:
            memory = next(path for path in groups(pair, "web") if (path / "memory.stat").exists())

            def is_full() -> bool:
                v2 = memory / "memory.events"
                text = (v2 if v2.exists() else memory / "memory.oom_control").read_text()
                return int(text.rpartition("oom_kill ")[2].split()[0]) > 0

            wait(is_full, patience=120)
            neighbour = inside(pair, "next", INOTIFY + "print(take(1000))")
            assert neighbour.communicate(timeout=60)[0] == "1000\n"
            assert pair.inside("next", "echo lives").out == "lives\n"
        finally:
            pair.ok("vs-control", "--name", "web", "--stop")
            greedy.wait(timeout=60)


def program(number: int, *arguments: int) -> bytes:
    """An x86-64 program (``man 5 elf``) that makes one system call and exits with its error number."""
    code = b"".join(
        opcode + struct.pack("<i", value)
        for opcode, value in zip((b"\xbf", b"\xbe", b"\xba"), arguments, strict=True)  # mov edi, esi, edx
    )
    code += b"\xb8" + struct.pack("<i", number) + b"\x0f\x05"  # mov eax; syscall
    code += b"\xf7\xd8\x89\xc7\xb8\x3c\x00\x00\x00\x0f\x05"  # neg eax; mov edi, eax; exit
    base, size = 0x400000, 120 + len(code)
    head = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    return head + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 4096) + code


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the test's program is for x86-64")
def test_guests_have_no_key_rings_of_the_kernels(pair: Host) -> None:
    for name, number, arguments in (
        ("keyctl", 250, (0, -3, 1)),  # KEYCTL_GET_KEYRING_ID, the session's, make one
        ("add_key", 248, (0, 0, 0)),
        ("request_key", 249, (0, 0, 0)),
        ("getpid", 39, (0, 0, 0)),
    ):
        path = pair.trees / "web/bin" / name
        path.write_bytes(program(number, *arguments))
        path.chmod(0o755)
    codes = pair.inside("web", "for n in keyctl add_key request_key getpid; do /bin/$n; echo $?; done").out.split()
    assert codes[:3] == ["38", "38", "38"], "ENOSYS"
    assert codes[3] not in ("38", "126", "127"), "other calls work"


FLOOD = f"""
import socket
for source in range(20000, 20010):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
        flood.bind(("", source))
        for port in range(1, 65535):
            try:
                flood.sendto(b"", ("{NET}.1", port))
            except OSError:
                pass
"""


def test_a_guest_that_fills_its_conntrack_table_fills_only_its_own(pair: Host) -> None:
    def count(context: int) -> int:
        argv = ["nsenter", f"--net=/run/netns/vs{context}", "cat", "/proc/sys/net/netfilter/nf_conntrack_count"]
        return int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)

    most = int(Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text())
    assert subprocess.run(["ping", "-c1", "-W5", f"{NET}.11"], capture_output=True, check=False).returncode == 0
    flood = ["nsenter", "--net=/run/netns/vs60000", sys.executable, "-c", FLOOD]
    subprocess.run(flood, check=True, timeout=300)
    assert count(60000) > most // 4, "it was filled"
    assert count(60001) < 1000
    for _ in range(5):
        assert subprocess.run(["ping", "-c1", "-W5", f"{NET}.11"], capture_output=True, check=False).returncode == 0

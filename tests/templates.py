"""Templates for guests in tests: Debian, made by vs-template once and kept, and one that starts in an instant."""

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path

BIN = Path(sys.executable).parent
REPO = Path(__file__).parents[1]
CACHE = Path("/var/cache/vs-tools/tests")


def debian_template(distro: str, *packages: str) -> Path:
    """The cached template of a suite, with more packages; of tests that run side by side, one makes it."""
    recipe = zlib.crc32((REPO / "vstools/tree/bootstrap.py").read_bytes())
    kind = "-".join((distro, *packages))
    archive = CACHE / f"{kind}-{recipe:08x}.tar.zst"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            for old in CACHE.glob(f"{kind}-????????.tar.zst"):
                old.unlink()
            _make_template(distro, packages, archive)
    return archive


def _make_template(distro: str, packages: tuple[str, ...], archive: Path) -> None:
    more = [word for package in packages for word in ("--include", package)]
    with tempfile.TemporaryDirectory(prefix="vs-test-", dir="/var/tmp") as root:
        outside = ["nsenter", f"--net={os.environ['VS_TOOLS_TESTS_NET']}"]  # packages come over the real network
        subprocess.run(
            [*outside, BIN / "vs-template", "--debootstrap", distro, *more, "--file", archive],
            env={**os.environ, "VS_TOOLS_ROOT": root}, check=True, timeout=1200,
        )  # fmt: skip


def small_template(folder: Path) -> Path:
    """An archive in ``folder`` of one program: busybox is its init, its shell and its poweroff."""
    tree = folder / "tree"
    for name in ("bin", "sbin", "etc", "dev", "proc", "sys", "tmp", "run", "root", "var/log", "usr/bin"):
        (tree / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    for name in ("sh", "ip", "cat", "ls", "mount", "id", "ps", "ping", "nc", "sleep", "mknod", "kill", "touch", "df"):
        (tree / f"bin/{name}").symlink_to("busybox")
    (tree / "sbin/init").symlink_to("../bin/busybox")
    for name in ("poweroff", "reboot"):  # at once: busybox's init would take two seconds to say goodbye
        (tree / f"sbin/{name}").write_text(f"#!/bin/sh\nexec /bin/busybox {name} -f\n")
        (tree / f"sbin/{name}").chmod(0o755)
    (tree / "etc/inittab").write_text("::sysinit:/bin/sh -c 'echo small is up'\n::respawn:/bin/sleep 100000\n")
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tree / "etc/group").write_text("root:x:0:\n")
    (tree / "etc/shadow").write_text("root:$y$stolen:19000:0:99999:7:::\n")
    archive = folder / "small.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(tree, ".", filter=_owned_by_root)
    return archive


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    return member

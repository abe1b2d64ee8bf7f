"""A template of one program, for guests that only have to run: busybox is their init and their poweroff."""

import shutil
import tarfile
from pathlib import Path

from bench.programs import BenchError
from bench.software import unpack

_FOLDERS = ("bin", "sbin", "etc", "dev", "proc", "sys", "tmp", "run", "root", "var/log", "usr/bin")
_POWEROFF = "#!/bin/sh\nexec /bin/busybox poweroff -f\n"


def busybox() -> Path:
    """Debian's busybox without libraries: the host's, or one that is unpacked and not installed."""
    for path in (Path("/bin/busybox"), unpack(("busybox-static",)).folder / "bin/busybox"):
        if path.exists() and b"/ld-linux" not in path.read_bytes():
            return path
    raise BenchError("there is no static busybox: install busybox-static")


def template(folder: Path, program: Path) -> Path:
    """An archive in ``folder`` of a tree whose only program is ``program``."""
    tree = folder / "small"
    for name in _FOLDERS:
        (tree / name).mkdir(parents=True)
    shutil.copy(program, tree / "bin/busybox")
    (tree / "bin/sh").symlink_to("busybox")
    (tree / "sbin/init").symlink_to("../bin/busybox")
    (tree / "sbin/poweroff").write_text(_POWEROFF)
    (tree / "sbin/poweroff").chmod(0o755)
    (tree / "etc/inittab").write_text("::respawn:/bin/busybox sleep 100000\n")
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tree / "etc/group").write_text("root:x:0:\n")
    archive = folder / "small.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(tree, ".", filter=_owned_by_root)
    return archive


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    return member

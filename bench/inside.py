"""The inner side of place.py: a bench in its own namespaces, with a file system and a bridge made for it.

The file system is a fresh one on a loop device, the same for all contestants: times on a host's own disk depend
on what was written and deleted there before, and ``sync`` would wait for the data of others.
"""

import ipaddress
import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.place import ANSWER, QUESTION
from bench.programs import BenchError, run

BRIDGE = "vsbench0"
NETWORK = ipaddress.ip_network("198.18.77.0/24")
"""From the range that RFC 2544 reserves for benches."""
GATEWAY = NETWORK[1]
_RUNTIME = (Path("/run/netns"), Path("/run/lxc"))  # names of namespaces, LXC's lock files
_DISK_SIZE = 8 << 30  # bytes, sparse
_MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
}
STORAGES = tuple(_MAKE)


def disk(work: Path) -> Path:
    """Where the contestants' file system is mounted."""
    return work / "disk"


def prepare(work: Path, storage: str) -> None:
    """Give these namespaces their own /sys, file system (one of STORAGES) and bridge."""
    _mount_sys(work)
    for folder in _RUNTIME:
        folder.mkdir(parents=True, exist_ok=True)
        run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder])
    _mount_ids(work)
    _mount_disk(work, storage)
    run(["ip", "link", "set", "lo", "up"])
    run(["ip", "link", "add", BRIDGE, "type", "bridge"])
    run(["ip", "address", "add", f"{GATEWAY}/{NETWORK.prefixlen}", "dev", BRIDGE])
    run(["ip", "link", "set", BRIDGE, "up"])


def _mount_sys(work: Path) -> None:
    """Mount this network namespace's /sys; the cgroups and the security modules' files stay what they were."""
    old = work / "sys"
    old.mkdir()
    run(["mount", "--rbind", "/sys", old])
    run(["mount", "-t", "sysfs", "sysfs", "/sys"])
    for name in ("fs/cgroup", "kernel/security"):
        if (old / name).is_mount():
            run(["mount", "--rbind", old / name, Path("/sys", name)])
    run(["umount", "--recursive", "--lazy", old])


def _mount_ids(work: Path) -> None:
    """Let newuidmap allow the ranges that install.sh makes it allow, whatever this host's files say."""
    ids = work / "subid"
    ids.write_text("root:131072:4294836224\n")
    for path in ("/etc/subuid", "/etc/subgid"):
        run(["mount", "--bind", ids, path])


def _mount_disk(work: Path, storage: str) -> None:
    image = work / "disk.img"
    with image.open("wb") as handle:
        handle.truncate(_DISK_SIZE)
    run([*_MAKE[storage], image])
    disk(work).mkdir()
    run(["mount", "-o", "loop", image, disk(work)])
    disk(work).chmod(0o711)


def main() -> int:
    """Answer the question that lies in the working directory."""
    bench, folder = sys.argv[1:]
    work = Path(folder)
    answer: dict[str, Any]
    try:
        question = json.loads((work / QUESTION).read_text())
        prepare(work, question.get("storage", STORAGES[0]))
        rounds: Callable[[Path, dict[str, Any]], dict[str, Any]] = import_module(f"bench.{bench}").rounds
        answer = rounds(work, question)
    except BenchError as error:
        answer = {"error": str(error)}
    (work / ANSWER).write_text(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A host that would fill the master's disk: the copy ends at the reserve, leaves nothing, and others are made."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from nodes import Node, met

MASTER, ONE, TWO = "vsm", "vsh-00", "vsh-01"
SIZE, RESERVE = 160, 40
"""MiB of the store's file system, and of its reserve."""


@pytest.fixture
def nodes(small: Path) -> Iterator[tuple[Node, Node, Node]]:
    """A master with a small store, a host whose guest is larger than that, and one with a small guest."""
    with met(MASTER, ONE, TWO) as (master, one, two):
        for number, (node, name) in enumerate(((one, "flood"), (one, "late"), (two, "fine")), 5):
            node.ok("vs-create", "--name", name, "--interface", f"10.99.7.{number}", "--template", str(small))
        with (one.trees / "flood/flood").open("wb") as handle:
            for _ in range(SIZE):
                handle.write(os.urandom(1 << 20))
        image = master.root / "image"
        with image.open("wb") as handle:
            handle.truncate(SIZE << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
        (master.root / "disk").mkdir()
        master.inside_node(["mount", "-o", "loop", str(image), str(master.root / "disk")])
        conf = master.conf / "create.conf"
        conf.write_text(f"STORE={master.root}/disk/store\nSTORE_RESERVE={RESERVE}\n")
        (master.conf / "backup.conf").write_text("flood:hot\nlate:hot\nfine:hot\n")
        slaves = master.conf / "slaves.conf"
        lines = slaves.read_text().splitlines()
        slaves.write_text("".join(f"{line},bwlimit=30000\n" for line in lines))
        yield master, one, two
        master.inside_node(["umount", str(master.root / "disk")])


def free(master: Node) -> int:
    """MiB that are left of the store's file system."""
    state = os.statvfs(f"{master.proc}/root{master.root}/disk")
    return int(state.f_bavail * state.f_frsize) >> 20


def below(master: Node, guest: str) -> list[str]:
    done = master.inside_node(["ls", "-A", f"{master.root}/disk/store/{guest}"])
    return [name for name in done.stdout.split() if name != ".lock"]


def test_a_copy_without_an_end_stops_at_the_reserve(nodes: tuple[Node, Node, Node]) -> None:
    master, _, _ = nodes
    least, ended = [free(master)], threading.Event()

    def look() -> None:
        while not ended.wait(0.05):
            least.append(free(master))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        backup = master.vs("vs-backup", timeout=300)
        get = master.vs("vs-get", "--name", "flood", timeout=300)
    finally:
        ended.set()
        watcher.join()
    assert backup.code == 1, backup
    assert sorted(line.split(":")[1] for line in backup.out.splitlines()) == ["fine", "late"], backup
    (line,) = [line for line in backup.err.splitlines() if "flood" in line]
    assert "is full but for its reserve" in line
    assert "what came of it was removed" in line
    assert (get.code, "STORE_RESERVE" in get.err, get.err.count("\n")) == (1, True, 1), get
    assert min(least) > RESERVE / 2, "it ended too late"
    assert min(least) < RESERVE, "nothing came near the reserve"
    assert below(master, "flood") == []
    assert master.processes("rsync") == []
    rows = json.loads(master.ok("vs-backup", "--list", "--json"))
    assert sorted(row["guest"] for row in rows) == ["fine", "late"]
    assert master.ok("vs-backup", "--verify", "--name", "fine").endswith(":whole\n")

    # copies that backup.conf does not keep any more make room, where there is none for another one
    for _ in range(2):
        time.sleep(1)
        master.ok("vs-get", "--name", "fine")
    (master.conf / "backup.conf").write_text("fine:hot,keep-last=1\n")
    conf = master.conf / "create.conf"
    conf.write_text(conf.read_text().replace(f"STORE_RESERVE={RESERVE}", "STORE_RESERVE=99%"))
    assert len(below(master, "fine")) == 3
    done = master.vs("vs-backup")
    assert (done.code, done.err.count("is full but for its reserve")) == (1, 1), done
    assert len(below(master, "fine")) == 1
    conf.write_text(conf.read_text().replace("STORE_RESERVE=99%", f"STORE_RESERVE={RESERVE}"))

    # where the reserve is reached before, nothing begins, whatever came earlier; where it is smaller, there is room
    conf.write_text(conf.read_text().replace(f"STORE_RESERVE={RESERVE}", "STORE_RESERVE=99%"))
    done = master.vs("vs-get", "--name", "fine")
    assert (done.code, "is full but for its reserve" in done.err) == (1, True), done
    conf.write_text(conf.read_text().replace("STORE_RESERVE=99%", "STORE_RESERVE=0"))
    assert master.ok("vs-get", "--name", "fine").startswith(f"{TWO}:fine:")


def test_many_names_and_long_ones_stop_at_the_reserve(nodes: tuple[Node, Node, Node]) -> None:
    """Inodes have a reserve, too."""
    master, one, _ = nodes
    tree = one.trees / "flood"
    (tree / "flood").unlink()
    state = os.statvfs(f"{master.proc}/root{master.root}/disk")
    (tree / "srv").mkdir()
    for number in range(state.f_files):
        (tree / f"srv/{number}").symlink_to("x")
    done = master.vs("vs-get", "--name", "flood", timeout=300)
    assert (done.code, "is full but for its reserve" in done.err) == (1, True), done
    assert below(master, "flood") == []

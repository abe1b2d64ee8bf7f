"""vs-unify on real file systems: identical files share blocks, running guests go on, hostile trees harm nothing."""

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Host, create, installation, wait

from vstools.storage import extents

MIB = 1 << 20


@pytest.fixture(params=["btrfs", "xfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    """An installation whose trees lie on a file system that can share blocks."""
    with installation() as host, mounted(host, request.param, tmp_path / "disk"):
        yield host


@pytest.fixture
def btrfs(tmp_path: Path) -> Iterator[Host]:
    """The same on btrfs alone."""
    with installation() as host, mounted(host, "btrfs", tmp_path / "disk"):
        yield host


@contextmanager
def mounted(host: Host, kind: str, image: Path) -> Iterator[None]:
    """A file system of its own on a loop device below the trees; the device goes with the mount."""
    if kind not in Path("/proc/filesystems").read_text():
        pytest.skip(f"this kernel has no {kind}")
    with image.open("wb") as handle:
        handle.truncate(512 * MIB)
    subprocess.run([f"mkfs.{kind}", "-q", image], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", image, host.trees], check=True)
    try:
        host.trees.chmod(0o700)
        (host.trees / "TEMPLATES").mkdir(mode=0o700)
        yield
        host.ok("vs-control", "--all", "--stop")
    finally:
        host.vs("vs-control", "--all", "--stop")
        subprocess.run(["umount", host.trees], check=True)


def used(host: Host) -> int:
    """Bytes that the file system has given out."""
    subprocess.run(["sync", "--file-system", host.trees], check=True)
    state = os.statvfs(host.trees)
    return (state.f_blocks - state.f_bfree) * state.f_frsize


def places(path: Path) -> list[tuple[int, int, int]]:
    """Where the blocks of a file lie."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        found = extents.extents(descriptor)
        assert found, f"{path} is not on the disk"
        return [extent[:3] for extent in found]
    finally:
        os.close(descriptor)


def plain(host: Host, *names: str) -> list[Path]:
    """Trees of guests that are not made to be started."""
    for name in names:
        (host.guests / name).mkdir()
        (host.trees / name).mkdir()
    return [host.trees / name for name in names]


def rows(host: Host, *words: str) -> dict[str | None, tuple[int, int]]:
    """guest -> (files, bytes) of vs-unify; None is all of them together."""
    return {row["guest"]: (row["files"], row["bytes"]) for row in json.loads(host.ok("vs-unify", *words, "--json"))}


def tree(folder: Path) -> dict[str, tuple[object, ...]]:
    """All that is in a tree: what it is, whose, its times, its content."""
    found: dict[str, tuple[object, ...]] = {}
    for path in folder.rglob("*"):
        state = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(state.st_mode) and state.st_size < 1 << 30 else b""
        times = state.st_mtime_ns, state.st_ctime_ns
        found[str(path.relative_to(folder))] = state.st_mode, state.st_uid, state.st_ino, state.st_size, times, content
    return found


def test_guests_of_one_template_share_and_stay_what_they_were(disk: Host, small: Path) -> None:
    for number, name in enumerate(("web", "db", "dns"), start=10):
        assert create(disk, name, number, small).code == 0
        with (disk.trees / name / "root/data").open("wb") as handle:
            handle.write(b"the same data\n" * (3 * MIB) + b"in a last block that is not full")
    subprocess.run(["sync", "--file-system", disk.trees], check=True)
    before, space = {name: tree(disk.trees / name) for name in ("web", "db", "dns")}, used(disk)
    places_before = [places(disk.trees / name / "root/data") for name in before]
    would = rows(disk, "--all", "--dry-run")
    assert [places(disk.trees / name / "root/data") for name in before] == places_before, "a dry run changes nothing"
    host = os.uname().nodename.partition(".")[0]
    lines = disk.ok("vs-unify", "--all").splitlines()
    assert {name: tree(disk.trees / name) for name in before} == before
    saved = space - used(disk)
    told = {line.split(":")[1]: tuple(map(int, line.split(":")[2:])) for line in lines}
    assert [line.split(":")[0] for line in lines] == [host] * 3
    assert {name: row for name, row in would.items() if name} == told
    assert sum(size for _, size in told.values()) == pytest.approx(saved, abs=MIB)
    assert saved > 2 * 42 * MIB
    assert len({tuple(places(disk.trees / name / "root/data")) for name in before}) == 1
    assert rows(disk, "--all") == dict.fromkeys(("db", "dns", "web", None), (0, 0)), "a second run finds nothing"
    (disk.trees / "web/root/data").write_bytes(b"written anew")
    for name in ("db", "dns"):
        assert tree(disk.trees / name) == before[name], "who writes writes for itself"


def test_guest_that_runs_writes_while_its_files_are_shared(btrfs: Host, small: Path) -> None:
    for number, name in enumerate(("quiet", "busy"), start=10):
        assert create(btrfs, name, number, small).code == 0
        for each in range(40):
            (btrfs.trees / name / f"root/{each}").write_bytes(b"%d" % each * MIB)
    before = tree(btrfs.trees / "quiet")
    btrfs.ok("vs-control", "--name", "busy", "--start")
    script = """while [ ! -e /root/end ]; do for i in 0 1 2 3 4 5 6 7 8 9; do
        printf written | busybox dd of=/root/$i bs=1 seek=70000 conv=notrunc 2>/dev/null
        printf $i$i$i$i$i$i$i | busybox dd of=/root/$i bs=1 seek=70000 conv=notrunc 2>/dev/null
        printf longer >> /root/1$i; done; touch /root/begun; done
        for i in 0 1 2 3 4 5 6 7 8 9; do
        printf written | busybox dd of=/root/$i bs=1 seek=70000 conv=notrunc 2>/dev/null; done"""
    writer = btrfs.start("vs-enter", "--name", "busy", "--", "sh", "-c", script)
    wait((btrfs.trees / "busy/root/begun").exists)
    assert rows(btrfs, "--all")[None][0] >= 20, "the files that nobody writes to"
    for _ in range(3):
        rows(btrfs, "--all")
    (btrfs.trees / "busy/root/end").touch()
    assert writer.wait(60) == 0
    assert tree(btrfs.trees / "quiet") == before
    for each in range(40):
        content, first = (btrfs.trees / f"busy/root/{each}").read_bytes(), b"%d" % each * MIB
        if each < 10:
            first = first[:70000] + b"written" + first[70007:]
        assert content[: len(first)] == first
        assert set(content[len(first) :].split(b"longer")) <= {b""}
        assert (len(content) > len(first)) == (10 <= each < 20)


def _link_and_special(folder: Path) -> None:
    (folder / "link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe")
    os.mknod(folder / "device", stat.S_IFCHR | 0o666, os.makedev(1, 8))
    os.mknod(folder / "socket", stat.S_IFSOCK | 0o666)


def _sparse(folder: Path) -> None:
    with (folder / "sparse").open("wb") as handle:
        handle.write(b"x" * 70000)
        handle.seek(1 << 46)
        handle.write(b"the end" * 9000)


def _deep(folder: Path) -> None:
    here = os.open(folder, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d" * 200, dir_fd=here)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    handle = os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here)
    os.write(handle, b"deep" * 5000)
    os.close(handle)
    os.close(here)


def _names(folder: Path) -> None:
    (folder / "one").write_bytes(b"names" * 5000)
    os.link(folder / "one", folder / "two")
    (folder / os.fsdecode(b"\xff\n")).write_bytes(b"bytes" * 5000)


def _small(folder: Path) -> None:
    for size in (0, 1, 4095):
        (folder / f"{size}").write_bytes(b"s" * size)


ODD: dict[str, tuple[Callable[[Path], None], int]] = {
    "links and what is no file": (_link_and_special, 0),
    "a file with a huge hole": (_sparse, 1),
    "a tree deeper than a path is long": (_deep, 1),
    "several names, and odd ones": (_names, 2),
    "files without a block": (_small, 0),
}


def test_odd_files_are_shared_once_or_left_alone(btrfs: Host) -> None:
    first, second = plain(btrfs, "a", "b")
    for folder in (first, second):
        for make, _ in ODD.values():
            make(folder)
    assert rows(btrfs, "--all")["b"][0] == sum(files for _, files in ODD.values())
    assert places(first / "sparse") == places(second / "sparse")
    assert places(first / "two") == places(second / "one")
    assert rows(btrfs, "--all")[None] == (0, 0)


CHANGING = """
import os, shutil, socket, sys
tree, outside = sys.argv[1:]
os.chdir(tree)
while True:
    for number in range(20):
        for name in (f"{number}", f"d/e/{number}"):
            for make in (lambda: open(".new", "wb").write(b"changing" * 5000), lambda: os.mkfifo(".new"),
                         lambda: os.symlink(outside + "/kept", ".new"), lambda: os.mknod(".new", 0o140666)):
                make()
                os.rename(".new", name)
        os.rename("d/e", "e")
        os.rename("e", "f/e")
        os.rename("d", "f/e/d")
        os.symlink(outside, "d")
        os.unlink("d")
        os.rename("f/e/d", "d")
        os.rename("f/e", "d/e")
"""


def test_tree_that_changes_all_the_time_harms_nothing(btrfs: Host, outside: Path) -> None:
    first, second = plain(btrfs, "a", "b")
    for folder in (first, second):
        for name in ("d/e", "f"):
            (folder / name).mkdir(parents=True)
        (folder / "still").write_bytes(b"still" * MIB)
        (folder / "kept").write_bytes(b"secret of the host in kept\n" * 1000)
    changing = subprocess.Popen([sys.executable, "-c", CHANGING, second, outside])
    try:
        wait(lambda: os.path.lexists(second / "19"))
        assert sum(rows(btrfs, "--all")[None][0] for _ in range(4)) >= 2
        assert changing.poll() is None
    finally:
        changing.kill()
        changing.wait()
    for name in ("still", "kept"):
        assert places(first / name) == places(second / name)


def test_what_cannot_be_changed_is_left_alone_and_the_others_share(btrfs: Host) -> None:
    folders = plain(btrfs, "a", "b", "c")
    flags = {"immutable": "", "no-copy-on-write": "+C", "packed": "+c", "reserved": ""}
    for folder in folders:
        for name, flag in flags.items():
            (folder / name).touch(0o600)
            if flag and folder.name == "b":
                subprocess.run(["chattr", flag, folder / name], check=True)
            (folder / name).write_bytes(name.encode() * (1 << 17))
    subprocess.run(["fallocate", "--keep-size", "--length", str(8 * MIB), folders[1] / "reserved"], check=True)
    subprocess.run(["chattr", "+i", folders[1] / "immutable"], check=True)
    for folder in folders:
        os.utime(folder / "reserved", (1, 2))  # any reading would set the first to now
    try:
        assert rows(btrfs, "--all")[None][0] == 6
        assert [(folder / "reserved").stat().st_atime for folder in folders] == [1] * 3
    finally:
        subprocess.run(["chattr", "-i", folders[1] / "immutable"], check=True)
    found = {name: [places(folder / name) for folder in folders] for name in flags}
    assert {name for name, (first, second, _) in found.items() if first == second} == {"packed", "reserved"}
    assert all(first == third for first, _, third in found.values())
    for folder in folders:
        assert all((folder / name).read_bytes() == name.encode() * (1 << 17) for name in flags)


def test_leased_file_is_left_alone(btrfs: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = plain(btrfs, "a", "b", "c")
    for folder in folders:
        (folder / "file").write_bytes(b"leased" * MIB)
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # what who holds a lease is told by
    try:
        with (folders[1] / "file").open("rb+") as handle:
            fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            assert rows(btrfs, "--all")[None] == (1, 6 * MIB)
            fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    finally:
        signal.signal(signal.SIGIO, before)
    assert rows(btrfs, "--all")["b"] == (1, 6 * MIB)


def test_what_was_not_in_memory_is_not_kept_there(disk: Host) -> None:
    first, second = plain(disk, "a", "b")
    for folder in (first, second):  # what lies first on the disk stays
        for name, size in {"kept": 1, "dropped": 2}.items():
            (folder / name).write_bytes(name.encode() * size * MIB)
        subprocess.run(["sync", "--file-system", folder], check=True)

    def with_memory(act: Callable[[int], object]) -> dict[str, object]:
        found = {}
        for name in ("kept", "dropped"):
            descriptor = os.open(first / name, os.O_RDONLY)
            found[name] = act(descriptor)
            os.close(descriptor)
        return found

    with_memory(extents.forget)
    (first / "kept").read_bytes()
    assert rows(disk, "--all")["b"][0] == 2
    assert with_memory(extents.is_cached) == {"kept": True, "dropped": False}


def test_subvolumes_share_across_and_what_was_shared_before_is_no_saving(btrfs: Host) -> None:
    plain(btrfs)
    (btrfs.guests / "a").mkdir()
    subprocess.run(["btrfs", "subvolume", "create", btrfs.trees / "a"], check=True, capture_output=True)
    (btrfs.trees / "a/data").write_bytes(b"data" * MIB)
    (btrfs.guests / "b").mkdir()
    argv = ["btrfs", "subvolume", "snapshot", btrfs.trees / "a", btrfs.trees / "b"]
    subprocess.run(argv, check=True, capture_output=True)
    assert rows(btrfs, "--all")[None] == (0, 0)
    (other,) = plain(btrfs, "c")
    (other / "one").write_bytes(b"data" * MIB)
    subprocess.run(["cp", "--reflink=always", other / "one", other / "two"], check=True)
    assert rows(btrfs, "--all", "--dry-run") == {"a": (0, 0), "b": (0, 0), "c": (2, 4 * MIB), None: (2, 4 * MIB)}
    assert rows(btrfs, "--name", "c", "--name", "c") == {"c": (0, 0), None: (0, 0)}
    assert rows(btrfs, "--all")["c"] == (2, 4 * MIB), "the last of them frees the blocks"
    assert places(other / "two") == places(btrfs.trees / "b/data")


NUMBERS = range(600)


def numbered(*folders: Path) -> None:
    """So many files, on the disk."""
    for folder in folders:
        for number in NUMBERS:
            (folder / f"{number}").write_bytes(b"%d" % number * 40000)
        subprocess.run(["sync", "--file-system", folder], check=True)


def together(first: Path, second: Path, numbers: range = NUMBERS) -> int:
    """How many of these files share their blocks."""
    return sum(places(first / f"{number}") == places(second / f"{number}") for number in numbers)


def in_the_middle(host: Host, first: Path, second: Path) -> "subprocess.Popen[str]":
    """vs-unify, stopped when more of the numbered files share than did before."""
    some = NUMBERS[::10]
    before = together(first, second, some)
    process = host.start("vs-unify", "--all")
    while together(first, second, some) == before:
        assert process.poll() is None, "it has ended"
    process.send_signal(signal.SIGSTOP)
    assert together(first, second) < len(NUMBERS), "it has done all"
    return process


def test_killed_at_any_moment_nothing_is_left_and_the_next_run_goes_on(btrfs: Host) -> None:
    folders = plain(btrfs, "a", "b")
    numbered(*folders)
    before = [tree(folder) for folder in folders]
    for signals in (signal.SIGKILL, signal.SIGINT):
        process = in_the_middle(btrfs, *folders)
        process.send_signal(signals)
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=60)
        assert "Traceback" not in err
        assert process.returncode in (-signal.SIGKILL, 130)
        assert [tree(folder) for folder in folders] == before
    assert rows(btrfs, "--all")[None][0] < len(NUMBERS), "some were done"
    assert rows(btrfs, "--all")[None] == (0, 0)
    assert together(*folders) == len(NUMBERS)


def test_meanwhile_a_guest_starts_stops_and_is_removed(btrfs: Host, small: Path) -> None:
    for number, name in enumerate(("db", "web"), start=10):
        assert create(btrfs, name, number, small).code == 0
    numbered(btrfs.trees / "db/root", btrfs.trees / "web/root")
    process = in_the_middle(btrfs, btrfs.trees / "db/root", btrfs.trees / "web/root")
    try:
        done = btrfs.vs("vs-unify", "--all")
        assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1), "one at a time"
        btrfs.ok("vs-control", "--name", "db", "--start")
        btrfs.ok("vs-control", "--name", "db", "--stop")
        btrfs.ok("vs-remove", "--name", "web", "--yes")
    finally:
        process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err, len(out.splitlines())) == (0, "", 2)
    assert [(btrfs.trees / name).exists() for name in ("db", "web")] == [True, False]
    assert all((btrfs.trees / f"db/root/{number}").read_bytes() == b"%d" % number * 40000 for number in NUMBERS)


def test_a_file_system_that_cannot_is_said_and_nothing_is_changed(host: Host, small: Path) -> None:
    assert create(host, "web", 10, small).code == 0
    with (host.trees / "web/root/data").open("wb") as handle:
        handle.write(b"twice" * MIB)
    before, contents = host.state(), tree(host.trees / "web")
    for words in (("--all",), ("--name", "web"), ("--all", "--dry-run")):
        done = host.vs("vs-unify", *words)
        assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1), done
        assert "cannot share blocks: btrfs and XFS can" in done.err
    done = host.vs("vs-unify", "--name", "nobody")
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert (host.state(), tree(host.trees / "web")) == (before, contents)

"""The same storage tests over every kind that this kernel has: directories on ext4, subvolumes of btrfs."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import NET, Host, create, installation, wait

MAKE = {
    "plain": ["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
    "btrfs": ["mkfs.btrfs", "-q"],
}
MIB = 1 << 20
SUBVOLUME = (
    "sysopen(D, '/root', 0) or die; $x = pack('q x{skip} a{name}', 0, 'mine'); ioctl(D, {code}, $x) and die; print $!"
)
"""What root of a guest would do to make a subvolume (linux/btrfs.h: vol_args, and vol_args_v2 with a longer head)."""


class Stored(Host):
    """An installation whose trees lie on a file system of their own."""

    kind: str
    image: Path

    @property
    def snapshots(self) -> bool:
        return self.kind == "btrfs"

    def leftovers(self) -> list[str]:
        return [each for each in super().leftovers() if each != f"mount {self.trees}"]

    def visible(self) -> list[str]:
        """The names among the trees that are no guest's, but for what is kept."""
        return sorted(set(os.listdir(self.trees)) - {"TEMPLATES", ".templates", "lost+found"})

    def kept(self) -> list[Path]:
        """The trees of templates that are kept."""
        return [path for path in (self.trees / ".templates").glob("*") if path.is_dir()]

    def run_in_snapshot(self, name: str, script: str, **env: str) -> "subprocess.Popen[str]":
        """A shell script in a snapshot of a guest's tree."""
        return self.start("vs-fonctions", "guest_snapshot", name, "sh", "-c", script, **env)

    def in_snapshot(self, name: str, script: str) -> str:
        """What a shell script says in a snapshot."""
        return self.ok("vs-fonctions", "guest_snapshot", name, "sh", "-c", script)


def mounted(kind: str, size: int) -> Iterator[Stored]:
    """An installation on a new file system of ``size`` MiB."""
    with installation() as host:
        host.__class__, host.kind = Stored, kind
        host.image = host.root / "image"
        with host.image.open("wb") as handle:
            handle.truncate(size * MIB)
        subprocess.run([*MAKE[kind], host.image], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", host.image, host.trees], check=True)
        host.trees.chmod(0o700)
        try:
            yield host
            host.vs("vs-control", "--all", "--stop")
            found = [path.name for path in host.trees.glob(".snap-*")]
            assert not found, found
        finally:
            host.vs("vs-control", "--all", "--stop")
            subprocess.run(["umount", "--lazy", host.trees], check=True)


@pytest.fixture(params=["plain", "btrfs"])
def stored(request: pytest.FixtureRequest) -> Iterator[Stored]:
    """Each kind of storage."""
    yield from mounted(request.param, 600)


@pytest.fixture(params=["plain", "btrfs"])
def narrow(request: pytest.FixtureRequest) -> Iterator[Stored]:
    """Each kind of storage, too narrow for a Debian."""
    yield from mounted(request.param, 160)


@pytest.fixture
def btrfs() -> Iterator[Stored]:
    """btrfs alone."""
    yield from mounted("btrfs", 1200)


def test_a_guest_lives_on_it(stored: Stored, small: Path, tmp_path: Path) -> None:
    assert create(stored, "web", 10, small, "--start").code == 0
    assert create(stored, "db", 11, small, "--start").code == 0
    tree = stored.trees / "web"
    assert (tree / "etc/hostname").read_text() == "web\n"
    (tree / "root/by-hand").write_text("the admin's\n")
    assert stored.inside("web", "cat /root/by-hand; echo mine > /root/by-guest").out == "the admin's\n"
    assert (tree / "root/by-guest").read_text() == "mine\n"
    stored.ok("vs-control", "--all", "--stop")
    archive = tmp_path / "t.tar"
    stored.ok("vs-template", "--name", "web", "--file", str(archive))
    assert create(stored, "copy", 12, archive, "--start").code == 0
    assert stored.inside("copy", "cat /root/by-guest").out == "mine\n"
    stored.ok("vs-control", "--name", "copy", "--stop")
    stored.ok("vs-remove", "--name", "web", "--name", "db", "--name", "copy", "--yes")
    assert stored.visible() == []


def test_it_says_what_it_is(stored: Stored) -> None:
    (row,) = json.loads(stored.ok("vs-stats", "--storage", "--json"))
    assert (row["kind"], row["snapshots"], row["clones"]) == (stored.kind, stored.snapshots, stored.snapshots)
    assert (row["path"], row["limits"], row["group"]) == (str(stored.trees), False, None)
    state = os.statvfs(stored.trees)
    assert row["size"] == state.f_blocks * state.f_frsize
    assert 0 < row["free"] <= row["size"] - row["used"]
    words = stored.ok("vs-stats", "--storage").strip().split(":")
    assert words[1] == stored.kind
    assert words[-6:] == (["yes", "yes"] if stored.snapshots else ["no", "no"]) + ["no", "-", "-", "-"]
    assert stored.kind in stored.ok("vs-stats", "--storage", "--table")
    assert stored.vs("vs-stats", "--storage", "--all").code == 2


def test_a_running_guest_is_read_as_it_was_at_one_moment(stored: Stored, small: Path) -> None:
    assert create(stored, "web", 10, small, "--start").code == 0
    stored.inside("web", "echo before > /root/state; echo old > /root/gone")
    if not stored.snapshots:
        done = stored.vs("vs-fonctions", "guest_snapshot", "web", "true")
        assert (done.code, "cannot snapshot" in done.err, "--stop" in done.err) == (2, True, True), done
        stored.ok("vs-control", "--name", "web", "--stop")
        assert stored.in_snapshot("web", "cat root/state") == "before\n"
        return
    go, ready = stored.root / "go", stored.root / "ready"
    script = f"touch {ready}; while [ ! -e {go} ]; do sleep 0.05; done; cat root/state root/gone; touch x; pwd"
    reading = stored.run_in_snapshot("web", script)
    wait(ready.exists)
    stored.inside("web", "echo after > /root/state; rm /root/gone; echo new > /root/new")
    stored.ok("vs-control", "--name", "web", "--restart")  # who reads holds nobody up
    go.touch()
    out, err = reading.communicate(timeout=60)
    lines = out.splitlines()
    assert lines[:2] == ["before", "old"]
    assert Path(lines[2]).parent == stored.trees  # below the barrier
    assert "Read-only" in err
    assert stored.inside("web", "cat /root/state /root/new").out == "after\nnew\n"
    assert stored.visible() == ["web"]


def test_a_stopped_guest_that_is_read_does_not_start_meanwhile(stored: Stored, small: Path) -> None:
    assert create(stored, "web", 10, small).code == 0
    go, ready = stored.root / "go", stored.root / "ready"
    reading = stored.run_in_snapshot(
        "web", f"touch {ready}; while [ ! -e {go} ]; do sleep 0.05; done; cat etc/hostname"
    )
    wait(ready.exists)
    starting = stored.start("vs-control", "--name", "web", "--start")
    if stored.snapshots:
        assert starting.wait(60) == 0
        go.touch()
    else:
        wait(lambda: (stored.run / "lock/web.command").exists())
        assert starting.poll() is None
        go.touch()
        assert starting.wait(60) == 0
    assert reading.communicate(timeout=60)[0] == "web\n"


def test_a_program_that_fails_in_a_snapshot_is_told(stored: Stored, small: Path) -> None:
    assert create(stored, "web", 10, small).code == 0
    done = stored.vs("vs-fonctions", "guest_snapshot", "web", "sh", "-c", "exit 7")
    assert (done.code, "sh ended with status 7" in done.err) == (1, True), done
    for words, sentence in ((["nobody", "true"], "no guest"), (["web"], "takes NAME COMMAND")):
        done = stored.vs("vs-fonctions", "guest_snapshot", *words)
        assert (done.code, sentence in done.err) == (2, True), done
    subprocess.run(["mount", "--bind", "/etc", stored.trees / "web/root"], check=True)
    try:
        done = stored.vs("vs-fonctions", "guest_snapshot", "web", "true")
    finally:
        subprocess.run(["umount", stored.trees / "web/root"], check=True)
    assert (done.code, "is mounted in the tree" in done.err) == (2, True), done


def test_who_is_killed_leaves_no_snapshot_to_the_next(stored: Stored, small: Path) -> None:
    assert create(stored, "web", 10, small).code == 0
    trace = stored.root / "trace"
    stored.ok("vs-fonctions", "guest_snapshot", "web", "true", VS_TOOLS_FAULT_TRACE=str(trace))
    steps = trace.read_text().split()
    assert steps == (["snapshot:locked", "snapshot:made", "snapshot:used", "snapshot:removed"] if stored.snapshots
                     else ["snapshot:held"])  # fmt: skip
    for step in steps:
        killed = stored.vs("vs-fonctions", "guest_snapshot", "web", "true", VS_TOOLS_FAULT=step)
        assert killed.code == -9, (step, killed)
        assert stored.in_snapshot("web", "cat etc/hostname") == "web\n"
        assert stored.visible() == ["web"], step
        assert not list((stored.run / "lock").glob("_snapshot*")), step


def test_two_read_at_once_and_the_dead_ones_go(stored: Stored, small: Path) -> None:
    if not stored.snapshots:
        pytest.skip("plain directories have no snapshots")
    assert create(stored, "web", 10, small, "--start").code == 0
    ready = [stored.root / f"ready{number}" for number in range(3)]
    readers = [
        stored.run_in_snapshot("web", f"touch {path}; while [ ! -e {path}.go ]; do sleep 0.05; done; cat etc/hostname")
        for path in ready
    ]
    wait(lambda: all(path.exists() for path in ready))
    assert len(list(stored.trees.glob(".snap-*"))) == 3
    readers[0].send_signal(signal.SIGKILL)
    readers[0].communicate()
    assert stored.in_snapshot("web", "cat etc/hostname") == "web\n"
    assert len(list(stored.trees.glob(".snap-*"))) == 2, "those of the living stay"
    for path in ready:
        path.with_name(path.name + ".go").touch()
    assert [reader.communicate(timeout=60)[0] for reader in readers[1:]] == ["web\n"] * 2
    assert stored.visible() == ["web"]


def test_a_creation_that_is_killed_leaves_nothing(stored: Stored, small: Path) -> None:
    words = ("vs-create", "--name", "web", "--interface", f"{NET}.10", "--template", str(small))
    trace = stored.root / "trace"
    stored.ok(*words, VS_TOOLS_FAULT_TRACE=str(trace))
    stored.ok("vs-remove", "--name", "web", "--yes", VS_TOOLS_FAULT_TRACE=str(trace))
    steps = list(dict.fromkeys(trace.read_text().split()))
    assert ("create:kept" in steps) == stored.snapshots
    for step in steps:
        for path in (stored.trees / ".templates").glob("*"):  # each time as if it were the first
            subprocess.run(["rm", "-rf", path], check=False) if path.is_file() else stored_delete(path)
        if step.startswith("remove"):
            stored.ok(*words)
            killed = stored.vs("vs-remove", "--name", "web", "--yes", VS_TOOLS_FAULT=step)
        else:
            killed = stored.vs(*words, VS_TOOLS_FAULT=step)
        assert killed.code == -9, (step, killed)
        if not (stored.guests / "web").exists():
            stored.ok(*words)
        assert (stored.trees / "web/bin/busybox").exists(), step
        assert len(stored.kept()) == (1 if stored.snapshots else 0) or step == "create:cloned", step
        stored.ok("vs-remove", "--name", "web", "--yes")
        assert (stored.leftovers(), stored.visible()) == ([], []), step


def stored_delete(path: Path) -> None:
    """Delete a kept tree."""
    subprocess.run(["btrfs", "subvolume", "delete", path], check=True, capture_output=True)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(narrow: Stored, small: Path, debian: Path) -> None:
    done = create(narrow, "big", 10, debian)
    assert (done.code, "no space left" in done.err.lower()) == (1, True), done
    assert (narrow.visible(), narrow.kept(), narrow.leftovers()) == ([], [], [])
    wait(lambda: create(narrow, "web", 11, small, "--start").code == 0)  # btrfs frees what was removed a little later
    fill = narrow.inside("web", "busybox dd if=/dev/zero of=/root/big bs=1M 2>&1")
    assert "No space left" in fill.out, fill
    narrow.ok("vs-control", "--name", "web", "--stop")
    if narrow.snapshots:
        assert narrow.in_snapshot("web", "cat etc/hostname") == "web\n"
    done = create(narrow, "other", 12, small)
    assert done.code in (0, 1), done
    narrow.ok("vs-remove", "--name", "web", "--yes")
    if done.code == 0:
        narrow.ok("vs-remove", "--name", "other", "--yes")
    assert (narrow.visible(), narrow.leftovers()) == ([], [])
    wait(lambda: create(narrow, "last", 13, small).code == 0)


def test_an_archive_is_unpacked_once(btrfs: Stored, debian: Path, tmp_path: Path) -> None:
    template = tmp_path / debian.name
    shutil.copy(debian, template)
    make = lambda name, number: create(btrfs, name, number, template, VS_TOOLS_DEBUG="1")  # noqa: E731
    unpacked = [" tar -x " in make(name, number).err for number, name in enumerate(("one", "two"), 10)]
    assert unpacked == [True, False]
    differences = subprocess.run(
        ["diff", "-rq", "--no-dereference", btrfs.trees / "one", btrfs.trees / "two"], capture_output=True, text=True
    ).stdout.splitlines()
    differ = {line.split(" and ")[0].rpartition("/")[2] for line in differences}
    assert {"hostname", "hosts", "ssh_host_ed25519_key"} <= differ
    assert all(name.startswith(("host", "ssh_host", "ldconfig")) for name in differ), differences
    btrfs.ok("vs-control", "--name", "two", "--start")
    assert btrfs.inside("two", "systemctl is-system-running --wait").out == "running\n"
    (kept,) = btrfs.kept()

    # content decides, not the name: the same elsewhere is known, another in its place is not
    other = tmp_path / "other.tar.zst"
    shutil.copy(debian, other)
    assert " tar -x " not in create(btrfs, "three", 12, other, VS_TOOLS_DEBUG="1").err
    small_one = tmp_path / "tree.tar"
    subprocess.run(["tar", "-cf", small_one, "-C", btrfs.trees / "one", "etc", "usr/lib/os-release"], check=True)
    small_one.replace(other)
    assert " tar -x " in create(btrfs, "four", 13, other, VS_TOOLS_DEBUG="1").err
    assert not (btrfs.trees / "four/usr/bin").exists()

    # what somebody changed there reaches no guest
    subprocess.run(["btrfs", "property", "set", kept, "ro", "false"], check=True)
    (kept / "etc/evil").write_text("root::0:0\n")
    subprocess.run(["btrfs", "property", "set", kept, "ro", "true"], check=True)
    done = create(btrfs, "five", 14, template, VS_TOOLS_DEBUG="1")
    assert (" tar -x " in done.err, "was changed since" in done.err, done.code) == (True, True, 0), done.err
    assert not (btrfs.trees / "five/etc/evil").exists()
    assert not (kept / "etc/evil").exists()

    # nobody needs it for long: it goes when another is kept
    os.utime(kept.with_name(kept.name + ".json"), (0, 0))
    small_one = tmp_path / "another.tar"
    subprocess.run(["tar", "-cf", small_one, "-C", btrfs.trees / "one", "etc"], check=True)
    assert create(btrfs, "six", 15, small_one).code == 0
    assert kept not in btrfs.kept()
    assert len(btrfs.kept()) == 2


def test_a_guest_makes_no_subvolumes(btrfs: Stored, debian: Path) -> None:
    """They would be missing in its snapshots."""
    assert create(btrfs, "web", 10, debian, "--start").code == 0
    for code, skip, name in ((0x5000940E, 0, 4088), (0x50009418, 48, 4040)):
        script = SUBVOLUME.format(code=code, skip=skip, name=name)
        done = btrfs.vs("vs-enter", "--name", "web", "--", "perl", "-e", script)
        assert done.out == "Inappropriate ioctl for device", done
    assert btrfs.inside("web", "ls /root").out == ""


def test_what_somebody_put_there_by_hand_is_a_tree_as_well(btrfs: Stored, small: Path) -> None:
    """A plain directory among subvolumes is read in a snapshot and removed; one with a subvolume in it is refused."""
    assert create(btrfs, "web", 10, small).code == 0
    tree = btrfs.trees / "web"
    subprocess.run(["cp", "-a", tree, btrfs.root / "copy"], check=True)
    subprocess.run(["btrfs", "subvolume", "delete", tree], check=True, capture_output=True)
    subprocess.run(["cp", "-a", btrfs.root / "copy", tree], check=True)
    btrfs.ok("vs-control", "--name", "web", "--start")
    assert btrfs.in_snapshot("web", "cat etc/hostname; basename $PWD") == "web\nweb\n"
    for where in (tree / "root/sub", tree):
        inner = where / "inner"
        inner.parent.mkdir(exist_ok=True)
        subprocess.run(["btrfs", "subvolume", "create", inner], check=True, capture_output=True)
        done = btrfs.vs("vs-fonctions", "guest_snapshot", "web", "true")
        assert (done.code, "a subvolume of its own" in done.err, "inner" in done.err) == (2, True, True), done
        if where != tree:
            subprocess.run(["btrfs", "subvolume", "delete", inner], check=True, capture_output=True)
    btrfs.ok("vs-control", "--name", "web", "--stop")
    btrfs.ok("vs-remove", "--name", "web", "--yes")
    assert btrfs.visible() == []


def test_a_quota_group_bounds_a_subvolume(btrfs: Stored, small: Path) -> None:
    """Where the admin has enabled quotas; before that the limit is kept, and said to be not enforced."""
    done = create(btrfs, "early", 9, small, "--disk", "50", "--start")
    assert (done.code, "btrfs quota enable" in done.err) == (0, True), done
    btrfs.ok("vs-control", "--name", "early", "--stop")
    subprocess.run(["btrfs", "quota", "enable", btrfs.trees], check=True, capture_output=True)
    subprocess.run(["btrfs", "quota", "rescan", "-w", btrfs.trees], check=True, capture_output=True)
    (row,) = json.loads(btrfs.ok("vs-stats", "--storage", "--json"))
    assert row["limits"] is True
    assert create(btrfs, "web", 10, small, "--disk", "40", "--start").code == 0
    assert create(btrfs, "bare", 11, small, "--start").code == 0
    btrfs.ok("vs-control", "--name", "early", "--start")
    write = (
        "rm -f /root/big; busybox dd if=/dev/zero of=/root/big bs=1M count={} 2>&1; sync; busybox stat -c =%s /root/big"
    )
    for name, mib in (("web", 40), ("early", 50)):
        said = btrfs.inside(name, write.format(100)).out
        assert "quota exceeded" in said, said
        assert (mib - 10) << 20 < int(said.rpartition("=")[2]) <= mib << 20, said
    assert int(btrfs.inside("bare", write.format(100)).out.rpartition("=")[2]) == 100 << 20
    (row,) = json.loads(btrfs.ok("vs-stats", "--name", "web", "--json"))
    assert row["disk_limit_bytes"] == 40 << 20
    assert row["disk_bytes"] > 30 << 20

    done = btrfs.vs("vs-limit", "--name", "web", "--disk", "20")
    assert (done.code, "MiB are in use" in done.err) == (2, True), done
    assert btrfs.ok("vs-limit", "--name", "web", "--disk", "80").split(":")[3] == "80"
    assert int(btrfs.inside("web", write.format(60)).out.rpartition("=")[2]) == 60 << 20
    btrfs.ok("vs-limit", "--name", "web", "--disk", "20", "--force")
    btrfs.ok("vs-control", "--name", "web", "--restart")  # also where it is full: the host writes into its tree
    assert "quota exceeded" in btrfs.inside("web", "busybox dd if=/dev/zero of=/root/more bs=1M count=9 2>&1").out
    btrfs.ok("vs-limit", "--name", "web", "--disk", "inf")
    assert int(btrfs.inside("web", write.format(90)).out.rpartition("=")[2]) == 90 << 20

    done = create(btrfs, "tight", 12, small, "--disk", "1")
    assert (done.code, "--disk allows 1" in done.err) == (1, True), done
    assert btrfs.visible() == ["bare", "early", "web"]

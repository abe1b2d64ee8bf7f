"""The master's store on a real disk: generations, their manifests, and what is left after kills and a full disk."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.templates import BIN
from vstools.config.backup import Keep
from vstools.config.create import Reserve
from vstools.errors import Busy, Refused, VsError
from vstools.pool import manifest
from vstools.pool.store import Full, Generation, Store

NIGHT = datetime(2026, 11, 20, 3, 15, tzinfo=UTC)
PROGRAM = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)
"""cap_net_raw, permitted and effective: ``struct vfs_cap_data``."""
NASTY = (
    b"a b", b"new\nline", b"tab\t", b"back\\slash", b"\\040", b"#mtree", b"k=v", b"*?[x]", b"\xff\xfe", b"-n", b'"',
    b"\x1b[2J", "é".encode(), b"x" * 255, b" tags=xattrs:00", b" sha256digest=00", b".", b"..x",
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def fill(source: Path) -> Path:
    """A guest's tree with everything that can be in one."""
    for folder in ("bin", "etc", "var/empty", "odd"):
        (source / folder).mkdir(parents=True)
    (source / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (source / "bin/su").write_bytes(b"\x7fELF su")
    (source / "bin/su").chmod(0o4755)
    (source / "bin/ping").write_bytes(b"\x7fELF ping")
    os.setxattr(source / "bin/ping", "security.capability", PROGRAM)
    os.link(source / "bin/ping", source / "bin/ping6")
    (source / "etc/passwd").symlink_to("/etc/shadow")
    (source / "out").symlink_to("/")
    (source / "odd/link").symlink_to("to\na place\\040")
    for name in NASTY[:-2]:
        Path(os.fsdecode(bytes(source / "odd") + b"/" + name)).write_bytes(name)
    os.mkfifo(source / "odd/pipe")
    os.mknod(source / "odd/null", 0o20666, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(source / "odd/socket"))
    for name, time in (("early", -5.5), ("old", 315532800.25), ("late", 2.0**34)):
        (source / "odd" / name).touch()
        os.utime(source / "odd" / name, (time, time))
    return source


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return fill(tmp_path / "source")


def rsync(source: Path, target: Path, links: Sequence[Path] = ()) -> None:
    words = [f"--link-dest={link}" for link in links]
    subprocess.run(
        ["rsync", "-aHAX", "--numeric-ids", "--delete", *words, f"{source}/", target], check=True, timeout=60
    )


def get(store: Store, source: Path, time: datetime = NIGHT, name: str = "web") -> tuple[Generation, manifest.Written]:
    """What vs-get does, without a host."""
    with store.partial(name) as partial:
        (partial.path / "config").mkdir()
        (partial.path / "config/context").write_text("10000\n")
        rsync(source, partial.path / "tree", partial.links)
        written = manifest.write(partial.path, partial.newest and partial.newest.path)
        return partial.commit(time), written


def said(generation: Generation) -> dict[bytes, dict[str, str]]:
    """Name -> the fields of its line."""
    lines = manifest.lines_of(generation.path / "manifest")
    return {manifest.unquoted(name): manifest.fields_of(words) for name, words in lines}


def left(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name != ".lock")


def test_a_manifest_says_every_name_and_what_it_is(store: Store, source: Path) -> None:
    generation, written = get(store, source)
    found = said(generation)
    names = {b"./tree/" + os.path.relpath(os.fsencode(path), os.fsencode(source)) for path in source.rglob("*")}
    assert set(found) == names | {b"./tree", b"./config", b"./config/context"}
    assert written.names == len(found)
    for name, fields in found.items():
        state = os.lstat(generation.path / os.fsdecode(name))
        assert int(fields["mode"], 8) == state.st_mode & 0o7777
        assert (int(fields["uid"]), int(fields["gid"])) == (state.st_uid, state.st_gid)
        assert int(fields["inode"]) == state.st_ino
        seconds, _, rest = fields["time"].partition(".")
        assert len(rest) == 9
        if not seconds.startswith("-"):
            assert int(seconds) * 10**9 + int(rest) == state.st_mtime_ns
        if fields["type"] == "file":
            assert int(fields["size"]) == state.st_size
    assert found[b"./tree/out"]["link"] == "/"
    assert found[b"./tree/odd/link"]["link"] == r"to\012a\040place\134040"
    assert found[b"./tree/odd/null"]["device"] == "native,1,3"
    assert f",capability:{PROGRAM.hex()}" in found[b"./tree/bin/ping6"]["tags"]
    assert "tags" not in found[b"./tree/bin/su"]
    kinds = {fields["type"] for fields in found.values()}
    assert kinds == {"file", "dir", "link", "fifo", "socket", "char"}


def test_bsdtar_reads_it_and_finds_the_same(store: Store, source: Path) -> None:
    if not shutil.which("bsdtar"):
        pytest.skip("bsdtar is not installed")
    (source / "odd/socket").unlink()  # it knows no sockets
    generation, _ = get(store, source)
    done = subprocess.run(
        ["bsdtar", "--format=mtree", "--options=!all,sha256,type,link", "-cf", "-", "@manifest"],
        cwd=generation.path, capture_output=True, check=True,
    )  # fmt: skip
    assert done.stderr == b""
    found = {}
    for line in done.stdout.splitlines():
        if not line.startswith(b"#"):
            name, _, words = line.partition(b" ")
            found[manifest.unquoted(name)] = manifest.fields_of(words)
    keys = ("type", "sha256digest")
    assert {name: [fields.get(key) for key in keys] for name, fields in found.items()} == {
        name: [fields.get(key) for key in keys] for name, fields in said(generation).items()
    }


def test_an_unchanged_file_is_not_read_again_and_a_changed_one_is(store: Store, source: Path) -> None:
    first, written = get(store, source)
    assert written.read == len({os.lstat(first.path / os.fsdecode(name)).st_ino
                                for name, fields in said(first).items() if fields["type"] == "file"})  # fmt: skip
    (source / "etc/hosts").write_text("127.0.0.1 other\n")
    (source / "bin/su").chmod(0o755)
    (source / "etc/new").write_text("new")
    os.link(source / "etc/new", source / "etc/new.too")
    second, written = get(store, source, NIGHT + timedelta(days=1))
    assert written.read == 4, "hosts, su, new and the context"
    before, after = said(first), said(second)
    assert before[b"./tree/bin/ping"] == after[b"./tree/bin/ping"]
    assert before[b"./tree/etc/hosts"]["sha256digest"] != after[b"./tree/etc/hosts"]["sha256digest"]
    assert after[b"./tree/bin/su"]["mode"] == "0755"
    assert after[b"./tree/etc/new"] == after[b"./tree/etc/new.too"]
    assert manifest.verify(first.path) == manifest.verify(second.path) == []


def test_verify_finds_every_kind_of_damage(store: Store, source: Path) -> None:
    generation, _ = get(store, source)
    tree = generation.tree
    state = (tree / "etc/hosts").stat()
    with (tree / "etc/hosts").open("r+b") as handle:
        handle.write(b"X")
    os.utime(tree / "etc/hosts", ns=(state.st_atime_ns, state.st_mtime_ns))
    (tree / "bin/su").chmod(0o755)
    os.setxattr(tree / "bin/ping", "user.note", b"x")
    folder = (tree / "odd").stat()
    Path(os.fsdecode(bytes(tree / "odd") + b"/new\nline")).unlink()
    (tree / "odd/extra").touch()
    os.utime(tree / "odd", ns=(folder.st_atime_ns, folder.st_mtime_ns))
    assert [(each.name, each.what) for each in manifest.verify(generation.path)] == [
        (b"./tree/bin/ping", "tags"),
        (b"./tree/bin/ping6", "tags"),
        (b"./tree/bin/su", "mode"),
        (b"./tree/etc/hosts", "sha256digest"),
        (b"./tree/odd/extra", "extra"),
        (b"./tree/odd/new\nline", "missing"),
    ]


def test_a_link_in_the_place_of_a_directory_leads_nowhere(store: Store, source: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("key")
    with store.partial("web") as partial:
        (partial.path / "tree").mkdir()
        (partial.path / "tree/way").symlink_to(tmp_path / "secret")
        (partial.path / "config").symlink_to(tmp_path / "secret")
        (partial.path / "manifest").symlink_to(tmp_path / "secret/new")
        manifest.write(partial.path)
        generation = partial.commit(NIGHT)
    assert {name for name, fields in said(generation).items() if fields["type"] == "link"} == {
        b"./config", b"./tree/way"
    }  # fmt: skip
    assert not any(b"key" in name for name in said(generation))
    assert left(tmp_path / "secret") == ["key"]


def test_a_tree_that_is_too_deep_is_said_in_a_sentence_and_removed(store: Store, source: Path) -> None:
    get(store, source)
    with suppress(InterruptedError), store.partial("web") as partial:
        (partial.path / "tree").mkdir()
        folder = os.open(partial.path / "tree", os.O_RDONLY)
        for _ in range(3000):
            os.mkdir("deep", dir_fd=folder)
            inner = os.open("deep", os.O_RDONLY, dir_fd=folder)
            os.close(folder)
            folder = inner
        os.close(folder)
        with pytest.raises(VsError, match=r"^\./tree/deep/deep.{180,200}\.\.\. cannot be read: File name too long$"):
            manifest.write(partial.path)
        raise InterruptedError
    assert store.forget("web")
    assert left(store.root / "web") == ["20261120T031500Z"]


def test_a_manifest_that_is_cut_off_is_told(store: Store, source: Path) -> None:
    generation, _ = get(store, source)
    path = generation.path / "manifest"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(VsError, match="is cut off"):
        manifest.verify(generation.path)
    path.write_bytes(b"")
    with pytest.raises(VsError, match="is not a manifest"):
        manifest.verify(generation.path)


def test_a_generation_is_closed_to_all_others(store: Store, source: Path) -> None:
    generation, _ = get(store, source)
    for path in (store.root, store.root / "web", generation.path):
        assert path.stat().st_mode & 0o7777 == 0o700, path
    assert store.names() == ("web",)
    assert store.newest("web") == generation
    assert generation.name == "20261120T031500Z"
    assert store.generation("web", "20261120") == generation


def test_generations_are_told_apart_by_their_beginning(store: Store, source: Path) -> None:
    for hours in (0, 1, 48):
        get(store, source, NIGHT + timedelta(hours=hours))
    assert store.generation("web", "20261122").time == NIGHT + timedelta(hours=48)
    for text, words in (("20261120", "is the beginning of several copies"), ("2027", "is no copy"), ("", "is no copy")):
        with pytest.raises(Refused, match=words):
            store.generation("web", text)
    with pytest.raises(Refused, match="there is no copy of db"):
        store.generation("db", "2026")


def test_a_copy_that_is_older_than_the_newest_one_is_not_added(store: Store, source: Path) -> None:
    get(store, source)
    for time in (NIGHT, NIGHT - timedelta(days=1)):
        with pytest.raises(VsError, match="clock"):
            get(store, source, time)
    assert left(store.root / "web") == [".partial", ".rest-000000001", "20261120T031500Z"]


def test_what_came_before_a_failure_is_not_fetched_again_and_harms_no_generation(store: Store, source: Path) -> None:
    first, _ = get(store, source)
    (source / "etc/new").write_text("new")
    fetched = set()
    for _ in range(10):
        with suppress(InterruptedError), store.partial("web") as partial:
            rsync(source, partial.path / "tree", partial.links)
            fetched.add((partial.path / "tree/etc/new").stat().st_ino)
            raise InterruptedError
    assert len(fetched) == 1
    (source / "etc/hosts").chmod(0o600)  # the copies of it are one file with the first generation's
    second, _ = get(store, source, NIGHT + timedelta(days=1))
    assert manifest.verify(first.path) == manifest.verify(second.path) == []
    assert [stat.S_IMODE((each.tree / "etc/hosts").stat().st_mode) for each in (first, second)] == [0o644, 0o600]
    assert (second.tree / "etc/new").stat().st_ino in fetched
    assert left(store.root / "web") == [first.name, second.name]


def test_one_command_at_a_time_has_a_guests_store(store: Store, source: Path) -> None:
    get(store, source)
    words = [
        sys.executable, "-c",
        "import sys; from pathlib import Path; from vstools.pool.store import Store\n"
        "with Store(Path(sys.argv[1])).partial('web'): print(1, flush=True); sys.stdin.read()",
        str(store.root),
    ]  # fmt: skip
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"1\n"
        with pytest.raises(Busy, match="the store of web"), store._alone("web", patience=0):
            pass
        (store.root / "web/.old-x").mkdir()
        store.sweep()
        assert (store.root / "web/.old-x").exists(), "its owner may be removing it"
        store.hold(store.generations("web")[0])
        other.communicate()
    store.sweep()
    assert left(store.root / "web") == [".partial", "20261120T031500Z"]
    assert store.forget("web")
    assert not store.forget("web")
    assert left(store.root / "web") == ["20261120T031500Z"]


def test_retention_removes_the_rest_and_leaves_what_is_held(store: Store, source: Path) -> None:
    made = [get(store, source, NIGHT + timedelta(days=day))[0] for day in range(4)]
    store.hold(made[0])
    assert store.prune("web", Keep(last=1)) == tuple(made[1:3])
    assert store.generations("web") == (made[0], made[3])
    assert manifest.verify(made[3].path) == []
    store.unhold(made[0])
    assert store.prune("web", Keep(last=1)) == (made[0],)
    with pytest.raises(Refused, match="is gone"):
        store.hold(made[0])
    store.remove("web", made[3])
    assert store.names() == ()
    assert left(store.root / "web") == []


DRIVER = """
import sys
import json
from datetime import datetime, timedelta
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_store import NIGHT, get
from vstools.config.backup import Keep
from vstools.config.create import Reserve
from vstools.pool.store import Store
store, source, day = Store(Path(sys.argv[2])), Path(sys.argv[3]), int(sys.argv[4])
generation, _ = get(store, source, NIGHT + timedelta(days=day))
store.hold(generation)
store.unhold(generation)
store.prune("web", Keep(last=1))
"""


def drive(store: Store, source: Path, day: int, **env: str) -> int:
    here = Path(__file__).parent
    words = [sys.executable, "-c", DRIVER, str(here), str(store.root), str(source), str(day)]
    folder = str(here.parents[1])
    return subprocess.run(words, env={**os.environ, "PYTHONPATH": folder, **env}, check=False, timeout=120).returncode


def test_a_kill_anywhere_loses_nothing_and_the_next_command_clears_it(store: Store, source: Path) -> None:
    trace = store.root.parent / "trace"
    for day in range(2):
        assert drive(store, source, day, VS_TOOLS_FAULT_TRACE=str(trace)) == 0
    steps = list(dict.fromkeys(trace.read_text().split()))
    assert {"manifest:begun", "store:filled", "store:renamed", "store:held", "store:doomed", "store:removed"} <= set(
        steps
    )
    for day, step in enumerate(steps, 2):
        before = store.newest("web")
        assert before is not None
        assert drive(store, source, 2 * day, VS_TOOLS_FAULT=step) == -signal.SIGKILL, step
        newest = store.newest("web")
        assert newest is not None
        assert newest.time >= before.time
        for generation in store.generations("web"):
            assert manifest.verify(generation.path) == [], step
            store.unhold(generation)  # the one step that is asked for and not finished by others
        assert drive(store, source, 2 * day + 1) == 0, step
        assert len(left(store.root / "web")) == 1, step
        (only,) = store.generations("web")
        assert only.time == NIGHT + timedelta(days=2 * day + 1)
        assert manifest.verify(only.path) == []


def test_kills_one_after_another_lose_nothing(store: Store, source: Path) -> None:
    assert drive(store, source, 0) == 0
    (source / "etc/new").write_text("new")
    for step in ("store:filled", "store:aside", "store:synced", "store:aside", "store:partial", "manifest:begun"):
        assert drive(store, source, 1, VS_TOOLS_FAULT=step) == -signal.SIGKILL, step
        assert [manifest.verify(each.path) for each in store.generations("web")] == [[]], step
    came = {path.stat().st_ino for path in (store.root / "web").glob(".*/tree/etc/new")}
    assert len(came) == 1
    assert drive(store, source, 1) == 0
    (only,) = store.generations("web")
    assert left(store.root / "web") == [only.name]
    assert (only.tree / "etc/new").stat().st_ino in came
    assert manifest.verify(only.path) == []


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 4 MiB, for 500 names."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=500", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_said_and_the_next_one_goes_on(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as folder:
        store = Store(folder / "store")
        ballast = folder / "ballast"
        ballast.write_bytes(bytes(3 << 20))
        full = pytest.raises(VsError, match=r"is full \([0-9] MiB free\): the copy of web is not whole")
        with full, store.partial("web") as partial:
            (partial.path / "tree").mkdir()
            (partial.path / "tree/first").write_text("first")
            (partial.path / "tree/second").write_bytes(bytes(2 << 20))
        assert store.generations("web") == ()
        ballast.unlink()
        with store.partial("web") as partial:
            (rest,) = partial.links
            assert (rest / "first").read_text() == "first"


def test_a_disk_without_a_single_inode_is_cleared_of_what_came_before(tmp_path: Path) -> None:
    """The next copy could not even make its directory: what came of the last one has to go before."""
    with small_disk(tmp_path / "disk") as folder:
        first = Store(folder / "store")
        full = pytest.raises(VsError, match=r"is full .* the copy of web is not whole")
        with full, first.partial("web") as partial:
            (partial.path / "tree").mkdir()
            for number in range(500):
                (partial.path / f"tree/{number}").touch()
        assert os.statvfs(folder).f_favail == 0
        store = Store(folder / "store", Reserve(5, percent=True))
        with pytest.raises(Full, match="what came of it was removed"), store.partial("web"):
            pass
        assert left(folder / "store/web") == []
        with store.partial("web") as partial:
            assert partial.links == ()


def test_vs_diff_names_what_changed_the_most_alarming_first(tmp_path: Path, source: Path) -> None:
    store = Store(tmp_path / "var/lib/vs-tools/store")
    (source / "etc/passwd").unlink()
    (source / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    get(store, source)
    with (source / "etc/passwd").open("a") as handle:
        handle.write("eve:x:0:0::/:/bin/sh\n")
    (source / "bin/ls").write_text("#!/bin/sh\n")
    (source / "odd/late").unlink()
    (source / "etc/group").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("secret:x:1:\n")
    os.setxattr(source / "bin/su", "security.capability", PROGRAM)
    get(store, source, NIGHT + timedelta(days=1))

    def diff(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [BIN / "vs-diff", "--name", "web", *words], env={**os.environ, "VS_TOOLS_ROOT": str(tmp_path)},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    done = diff("20261120", "20261121")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "web:privilege:changed:/bin/su:capabilities",
        "web:program:added:/bin/ls:file 0644 0:0",
        "web:user:added:/etc/group:link 0777 0:0 to " + str(tmp_path / "secret"),
        "web:user:changed:/etc/passwd:content: new eve (uid 0)",
        "web:other:several:/odd/:1 removed",
    ]
    assert json.loads(diff("20261120", "20261121", "--json", "--full").stdout)[-1] == {
        "guest": "web", "kind": "other", "change": "removed", "path": "/odd/late", "details": "file 0644 0:0"
    }  # fmt: skip
    assert "removed:/bin/ls" in diff("20261121", "20261120").stdout
    for words, sentence in (
        (("20261121", "2026112101"), "is no copy"),
        (("20261121", "20261121"), "is compared with itself"),
        (("20261121",), "this node is no master"),
        (("20261120", "20261121", "--quick"), "without asking a host"),
    ):
        done = diff(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert sentence in done.stderr
    (tmp_path / "etc/vs-tools").mkdir(parents=True)
    (tmp_path / "etc/vs-tools/create.conf").write_text(f"STORE={tmp_path}/elsewhere\n")
    done = diff()
    assert (done.returncode, done.stderr) == (
        2,
        f"vs-diff: there is no copy of web in {tmp_path}/elsewhere: vs-get makes one\n",
    )

"""What changed in a guest since its copy: the guest is read on its host, and neither of the two is believed much."""

import json
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Done, wait
from nodes import Node, met

from tests.templates import BIN

MASTER, ONE = "vsm", "vsh-00"
PROGRAM = bytes.fromhex("0100000200200000000000000000000000000000")
"""cap_net_raw=ep, as ``setcap`` writes it (linux/capability.h, VFS_CAP_REVISION_2)."""
LIAR = """#!/bin/sh
if [ "$1" = list ]; then
    {first}
    cat {answer}
    {last}
fi
exec {bin}/vs-slave "$@"
"""


@pytest.fixture(scope="module")
def nodes(small: Path) -> Iterator[tuple[Node, Node]]:
    """A master with a copy of a guest that runs on a host, whose trees are plain directories."""
    with met(MASTER, ONE) as (master, one):
        one.ok("vs-create", "--name", "web", "--interface", "10.99.7.5", "--template", str(small))
        tree = one.trees / "web"
        (tree / "srv").mkdir()
        (tree / "srv/odd\nname \u00e9\\").write_text("one\n")
        (tree / "srv/link").symlink_to("/a: b\n")
        os.mkfifo(tree / "srv/pipe")
        (tree / "srv/none").write_text("x")
        (tree / "srv/none").chmod(0)
        (tree / "srv/none").with_suffix(".b").hardlink_to(tree / "srv/none")
        os.utime(tree / "srv/none", ns=(1, 1))
        (tree / "usr/sbin").mkdir(exist_ok=True, parents=True)
        (tree / "usr/sbin/sshd").write_bytes(b"honest" * 100)
        os.setxattr(tree / "usr/sbin/sshd", "user.note", b"four")
        os.setxattr(tree / "usr/sbin/sshd", "security.capability", PROGRAM)
        master.ok("vs-get", "--name", "web")
        one.ok("vs-control", "--name", "web", "--start")
        yield master, one
        one.agent()


def diff(master: Node, *words: str) -> Done:
    return master.vs("vs-diff", "--name", "web", *words, VS_TOOLS_FAULT_PATIENCE="9")


def quiet(nodes: tuple[Node, Node]) -> set[str]:
    """What a start changed in the guest, and the wait for its end."""
    master, _ = nodes
    done = diff(master)
    assert done.code == 0, done
    return set(done.out.splitlines())


def test_a_guest_is_compared_with_its_copy_as_it_runs(nodes: tuple[Node, Node]) -> None:
    master, one = nodes
    wait(lambda: quiet(nodes) == quiet(nodes))
    before = quiet(nodes)
    assert not [line for line in before if "/srv" in line or "sshd" in line or "privilege" in line], before
    tree = one.trees / "web"
    program, times = tree / "usr/sbin/sshd", (tree / "usr/sbin/sshd").stat()
    program.write_bytes(b"hacked" * 100)
    os.setxattr(program, "security.capability", PROGRAM)
    os.utime(program, ns=(times.st_atime_ns, times.st_mtime_ns))
    with (tree / "etc/passwd").open("a") as handle:
        handle.write("eve:x:0:0::/:/bin/sh\n")
    (tree / "srv/odd\nname \u00e9\\").rename(tree / "srv/x")
    (tree / "srv/x").chmod(0o4755)
    (one.guests / "web/scripts").mkdir()
    (one.guests / "web/scripts/pre-start").write_text("#!/bin/sh\n")
    done = diff(master)
    assert (done.code, "may have changed while it was read" in done.err) == (0, True), done
    now = [line for line in done.out.splitlines() if line not in before]
    assert now == [
        "web:privilege:added:/srv/x:file 04755 0:0",
        "web:privilege:changed:/usr/sbin/sshd:content",
        "web:user:changed:/etc/passwd:content: new eve (uid 0)",
        "web:config:added:config/scripts:dir 0755 0:0",
        "web:config:added:config/scripts/pre-start:file 0644 0:0",
        "web:other:several:/srv/:1 removed",
    ]
    (copy,) = (path.name for path in (master.root / "var/lib/vs-tools/store/web").iterdir() if path.name[0] == "2")
    assert diff(master, copy[:8], "--host", ONE).out == done.out
    quick = diff(master, "--quick")
    assert (quick.code, "sshd" in quick.out, "/srv/x" in quick.out) == (0, False, True), quick
    rows = json.loads(diff(master, "--full", "--json").out)
    assert {"path": "/srv/odd\nname \u00e9\\", "change": "removed"}.items() <= next(
        row for row in rows if "odd" in row["path"]
    ).items()

    # a copy is made as rsync makes it, by size and time: the two copies do not tell
    one.ok("vs-control", "--name", "web", "--stop")
    later = master.ok("vs-get", "--name", "web", "--accept-config").strip().split(":")[2]
    done = diff(master, copy, later)
    assert (done.code, "sshd" in done.out, "new eve" in done.out) == (0, False, True), done
    assert diff(master).out == "web:privilege:changed:/usr/sbin/sshd:content\n"
    one.ok("vs-control", "--name", "web", "--start")


def test_a_hostile_tree_is_read_to_an_end_and_not_followed(nodes: tuple[Node, Node]) -> None:
    """Links put where directories were, names without an end, holes that are large, a lease."""
    master, one = nodes
    tree = one.trees / "web"
    (tree / "srv/etc").symlink_to("/etc")
    (tree / "srv/up").symlink_to("../../../..")
    with (tree / "srv/hole").open("wb") as handle:
        handle.truncate(1 << 43)
    folder = os.open(tree / "srv", os.O_RDONLY)
    for _ in range(60):
        os.mkdir("d" * 200, dir_fd=folder)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    churn = "import os\nwhile True:\n os.mkdir('y'); os.rmdir('y'); os.symlink('/etc', 'y'); os.unlink('y')\n"
    process = subprocess.Popen(["/usr/bin/python3", "-c", churn], cwd=tree / "srv")
    try:
        done = diff(master)
    finally:
        process.kill()
        process.wait()
    assert (done.code, "could not be read" in done.err) == (1, True), done
    assert "web:other:several:/srv/:" in done.out
    assert "passwd" not in done.out
    for name in ("etc", "up", "hole"):
        (tree / "srv" / name).unlink()
    subprocess.run(["rm", "-rf", tree / "srv" / ("d" * 200)], check=True)


GOOD = b"./tree type=dir mode=0755 uid=0 gid=0 time=1.000000000 inode=1\n"
FILE = b"./tree/x type=file mode=0644 uid=0 gid=0 size=1 time=1.000000000 inode=2"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "says nothing"),
        (b"x" * (3 << 20), "too long"),
        (b"#list live\n" + GOOD, "cut off"),
        (b"#list live\n" + GOOD + b"#end 0\nmore\n", "says too much"),
        (b"#list live\n" + FILE.replace(b"tree/x", b"tree/../x") + b"\n#end 0\n", "what cannot be"),
        (b"#list live\n" + FILE.replace(b"tree/x", b"tree/\x1b[2J") + b"\n#end 0\n", "what cannot be"),
        (b"#list live\n" + FILE.replace(b"0644", b"9999") + b"\n#end 0\n", "what cannot be"),
        (b"#list live\n" + FILE + b" link=\xff\n#end 0\n", "what cannot be"),
        (b"#list live\n" + FILE.replace(b" size=1", b"") + b"\n#end 0\n", "what cannot be"),
        (b"#list live\n#file ../passwd eA==\n#end 0\n", "what cannot be"),
        (b"#list live\n#file passwd eA=\n#end 0\n", "what cannot be"),
    ],
    ids=lambda value: str(value[:60]),
)
def test_a_host_that_lies_about_a_guest(nodes: tuple[Node, Node], answer: bytes, said: str) -> None:
    master, one = nodes
    path = one.root / "answer"
    path.write_bytes(answer)
    one.agent(LIAR.format(answer=path, bin=BIN, first=":", last="exit 0"))
    before = master.state()
    done = diff(master)
    assert (done.code, done.out, said in done.err) == (1, "", True), done
    assert done.err.replace("\n", "").isprintable(), done
    assert len(done.err) < 2000
    assert master.state() == before
    one.agent()


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        ("yes no >&2", "exit 0", "complains without an end"),
        ("exec sleep 40", "exit 0", "says nothing for too long"),
        (":", "echo evil >&2; exit 1", "does not say what is in guest web: evil"),
        (":", "kill -9 $$", "does not say what is in guest web"),
    ],
)
def test_a_host_that_does_not_end_or_not_well(nodes: tuple[Node, Node], first: str, last: str, said: str) -> None:
    master, one = nodes
    path = one.root / "answer"
    path.write_bytes(b"#list snapshot\n" + GOOD + b"#end 0\n")
    one.agent(LIAR.format(answer=path, bin=BIN, first=first, last=last))
    done = diff(master)
    assert (done.code, done.out, said in done.err) == (1, "", True), done
    one.agent()


def test_a_comparison_that_is_killed_leaves_nothing(nodes: tuple[Node, Node]) -> None:
    master, one = nodes
    large = one.trees / "web/srv/large"
    with large.open("wb") as handle:
        handle.truncate(2 << 30)
    one.ok("vs-control", "--name", "web", "--stop")
    master.ok("vs-get", "--name", "web", "--accept-config")
    before = master.leftovers()
    process = master.start("vs-diff", "--name", "web")
    wait(lambda: bool(one.processes("vs-slave")) or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait(lambda: not one.processes("vs-slave"))
    master.ok("vs-diff", "--name", "web")
    assert master.leftovers() == before
    assert stat.S_ISREG(large.lstat().st_mode)
    large.unlink()

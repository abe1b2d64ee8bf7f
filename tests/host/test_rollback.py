"""vs-pkg --snapshot and --rollback: a guest's tree is kept before its packages change, and put back, whole or not."""

import subprocess
from pathlib import Path

from conftest import create
from test_storage import Stored, btrfs, mounted  # noqa: F401 - the fixture

STATUS = "P:{}\nV:1\n\n"
APK = """#!/bin/sh
[ "$(cat /root/broken)" != yes ] || exit 100
: > /lib/apk/db/installed
"""
"""A manager that removes everything."""


def furnish(stored: Stored, small: Path, name: str = "web", number: int = 10) -> Path:
    """A small guest that has packages, and a program that goes by the name of apk; its tree."""
    assert create(stored, name, number, small).code == 0
    tree = stored.trees / name
    (tree / "etc/os-release").write_text("ID=alpine\n")
    (tree / "lib/apk/db").mkdir(parents=True)
    (tree / "lib/apk/db/installed").write_text(STATUS.format("a") + STATUS.format("b"))
    (tree / "root/broken").write_text("no\n")
    (tree / "usr/bin/apk").write_text(APK)
    (tree / "usr/bin/apk").chmod(0o755)
    (tree / "usr/bin/env").symlink_to("/bin/busybox")
    return tree


def packages(stored: Stored, name: str = "web") -> list[str]:
    lines = stored.ok("vs-pkg", "--name", name, "--inventory").splitlines()
    return [line.split(":")[2] for line in lines]


REMOVE = ("vs-pkg", "--name", "web", "--remove", "a", "--snapshot")
BACK = ("vs-pkg", "--name", "web", "--rollback", "--yes")


def test_a_running_guest_goes_back_to_what_was_kept(btrfs: Stored, small: Path) -> None:  # noqa: F811
    tree = furnish(btrfs, small)
    done = btrfs.vs(*BACK)
    assert (done.code, "nothing is kept of guest web" in done.err) == (2, True), done
    btrfs.ok("vs-control", "--name", "web", "--start")
    said = btrfs.ok(*REMOVE).splitlines()
    assert [line.split(":")[2:4] for line in said] == [["removed", "a"], ["removed", "b"]]
    btrfs.inside("web", "echo later > /root/later")
    assert btrfs.vs("vs-pkg", "--name", "web", "--rollback").code == 2, "nobody is there to answer"
    assert btrfs.ok("vs-pkg", "--name", "web", "--rollback", "--dry-run").startswith("would give guest web")
    assert packages(btrfs) == []
    for _ in range(2):
        assert btrfs.ok(*BACK).endswith(":web:disabled:running\n")
        assert packages(btrfs) == ["a", "b"]
        assert not (tree / "root/later").exists()
        assert btrfs.inside("web", "echo later > /root/later").code == 0
    (tree / "root/broken").write_text("yes\n")
    failed = btrfs.vs(*REMOVE)
    assert failed.code == 1, "what fails keeps its tree, too: that is when it is needed"
    (tree / "root/broken").write_text("no\n")
    assert btrfs.ok(*BACK).endswith(":web:disabled:running\n")
    assert btrfs.inside("web", "cat /root/broken /root/later").out == "yes\nlater\n"
    assert btrfs.visible() == [".kept-web", "web"]
    btrfs.ok("vs-control", "--name", "web", "--stop")
    tree.rename(tree.with_name("elsewhere"))
    for words in (REMOVE, BACK):
        done = btrfs.vs(*words)
        assert (done.code, "guest web has no tree" in done.err) == (2, True), done
    tree.with_name("elsewhere").rename(tree)
    btrfs.ok("vs-remove", "--name", "web", "--yes")
    assert btrfs.visible() == []


def test_another_guest_is_never_given_what_was_kept(btrfs: Stored, small: Path) -> None:  # noqa: F811
    tree = furnish(btrfs, small)
    btrfs.ok(*REMOVE)
    kept = tree.with_name(".kept-web")
    subprocess.run(["btrfs", "subvolume", "snapshot", "-r", kept, btrfs.trees / "aside"], check=True)
    btrfs.ok("vs-remove", "--name", "web", "--yes")
    (btrfs.trees / "aside").rename(kept)
    furnish(btrfs, small)
    done = btrfs.vs(*BACK)
    assert (done.code, "nothing is kept of guest web" in done.err) == (2, True), done
    btrfs.ok(*REMOVE)
    btrfs.ok(*BACK)
    assert packages(btrfs) == ["a", "b"]
    btrfs.ok("vs-remove", "--name", "web", "--yes")
    assert btrfs.visible() == []


def test_a_kill_leaves_one_tree_or_the_other(btrfs: Stored, small: Path) -> None:  # noqa: F811
    furnish(btrfs, small)
    trace = btrfs.root / "trace"
    for words in (REMOVE, REMOVE, BACK):
        btrfs.ok(*words, VS_TOOLS_FAULT_TRACE=str(trace))
    steps = [step for step in dict.fromkeys(trace.read_text().split()) if step.startswith("kept:")]
    assert {"kept:made", "kept:noted", "kept:there", "kept:cloned", "kept:back"} <= set(steps)
    assert packages(btrfs) == []  # of the second REMOVE
    for step in steps:
        (btrfs.trees / "web/lib/apk/db/installed").write_text(STATUS.format("a"))
        btrfs.ok(*REMOVE)
        kept = packages(btrfs)
        words = BACK if step in ("kept:cloned", "kept:back", "kept:counted") else REMOVE
        assert btrfs.vs(*words, VS_TOOLS_FAULT=step).code == -9, step
        assert packages(btrfs) == (["a"] if step in ("kept:back", "kept:counted") else kept), step
        assert btrfs.ok(*BACK).endswith(":web:disabled:stopped\n"), step
        later = step == "kept:there"  # then what is kept is what that command began with
        assert packages(btrfs) == ([] if later else ["a"]), step
        assert btrfs.visible() == [".kept-web", "web"], step


def test_a_storage_that_keeps_nothing_is_refused_before_anything(small: Path) -> None:
    for stored in mounted("plain", 300):
        tree = furnish(stored, small)
        done = stored.vs(*REMOVE)
        assert (done.code, "cannot be kept beside itself" in done.err) == (2, True), done
        assert (tree / "lib/apk/db/installed").read_text().startswith("P:a")

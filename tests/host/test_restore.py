"""A copy takes the place of a suspect guest, or of a file in it, over real sshd and rsync; with kills at the steps."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from nodes import TABLE, Node, met, told

MASTER, ONE, TWO = "vsm", "vsh-00", "vsh-01"
KILLS = (
    "restore:begun", "depart:stopped", "aside:marked", "aside:renamed", "aside:context", "aside:tree", "restore:aside",
    "register:cleaned", "restore:registered",
)  # fmt: skip
"""Of the master's command, and of the agent (SIGKILL)."""

UNDO_KILLS = (
    "restore:begun", "aside:renamed", "aside:tree", "restore:aside", "back:context", "back:reserved", "back:renamed",
    "back:tree", "back:counted", "back:owned", "restore:registered",
)  # fmt: skip
SOME_UNDO_KILLS = ("back:context", "back:renamed", "back:tree", "back:owned", "restore:registered")


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[str, Node]]:
    """A master that knows two hosts."""
    with met(MASTER, ONE, TWO) as found:
        yield {node.name: node for node in found}


def suspects(node: Node, name: str) -> list[str]:
    """The guests that were set aside, with that name before."""
    return sorted(path.name for path in node.guests.glob(f"{name}.suspect-*"))


def mac(node: Node, name: str) -> str:
    """The MAC address of a running guest's link."""
    return node.inside(name, "cat /sys/class/net/eth0/address").out


def test_a_copy_takes_the_place_of_a_suspect_guest(nodes: dict[str, Node], small: Path) -> None:
    master, one, two = (nodes[name] for name in (MASTER, ONE, TWO))
    made = one.vs("vs-create", "--name", "web", "--interface", "10.99.7.5", "--template", str(small))
    assert made.code == 0, made
    one.ok("vs-control", "--name", "web", "--enable")
    (one.trees / "web/srv").mkdir()
    (one.trees / "web/srv/page").write_text("good\n")
    master.ok("vs-get", "--name", "web")
    context = (one.guests / "web/context").read_text()
    one.ok("vs-control", "--name", "web", "--start")
    before = mac(one, "web")
    one.inside("web", "echo bad > /srv/page")
    assert "would set web on vsh-00 aside" in master.ok("vs-restore", "--name", "web", "--dry-run")

    done = master.vs("vs-restore", "--name", "web")
    assert (done.code, done.out) == (0, f"{ONE}:web:enabled:running\n"), done
    assert one.inside("web", "cat /srv/page").out == "good\n"
    assert (mac(one, "web"), (one.guests / "web/context").read_text()) == (before, context)
    assert (one.guests / "web/owner").read_text() == f"{ONE} 1\n"
    (suspect,) = suspects(one, "web")
    assert suspect in done.err
    assert (one.trees / suspect / "srv/page").read_text() == "bad\n"
    assert (one.guests / suspect / "context").read_text() != context
    assert (one.guests / suspect / "interfaces.suspect/0/ip").read_text() == "10.99.7.5\n"
    done = one.vs("vs-control", "--name", suspect, "--start")
    assert (done.code, "set aside" in done.err) == (2, True), done
    done = master.vs("vs-scan")
    assert (done.code, done.err) == (0, ""), done
    assert done.out.splitlines() == [f"{ONE}:web:enabled:running", f"{ONE}:{suspect}:disabled:stopped"]

    # a stopped guest stays stopped, unless that is asked for; the suspect goes
    one.ok("vs-remove", "--name", suspect, "--yes")
    assert not (one.trees / suspect).exists()
    one.ok("vs-control", "--name", "web", "--stop", "--disable")
    (one.guests / "web/rlimits").mkdir(exist_ok=True)
    (one.guests / "web/rlimits/nproc").write_text("many\n")  # files that cannot be read keep nobody from it
    assert master.ok("vs-restore", "--name", "web") == f"{ONE}:web:disabled:stopped\n"
    assert master.ok("vs-restore", "--name", "web", "--start") == f"{ONE}:web:disabled:running\n"
    assert len(suspects(one, "web")) == 2

    # nobody has it any more
    one.ok("vs-control", "--name", "web", "--stop")
    for name in ("web", *suspects(one, "web")):
        one.ok("vs-remove", "--name", name, "--yes")
    done = master.vs("vs-restore", "--name", "web")
    assert (done.code, "--host" in done.err) == (2, True), done
    assert master.ok("vs-restore", "--name", "web", "--host", TWO) == f"{TWO}:web:disabled:running\n"
    two.ok("vs-control", "--name", "web", "--stop")
    two.ok("vs-remove", "--name", "web", "--yes")


def test_a_restore_that_is_killed_goes_on(nodes: dict[str, Node], small: Path) -> None:
    master, one = nodes[MASTER], nodes[ONE]
    made = one.vs("vs-create", "--name", "kill", "--interface", "10.99.7.6", "--template", str(small))
    assert made.code == 0, made
    one.ok("vs-control", "--name", "kill", "--enable", "--start")
    one.inside("kill", "mkdir /srv; echo good > /srv/page")
    one.ok("vs-control", "--name", "kill", "--stop")
    master.ok("vs-get", "--name", "kill")
    one.ok("vs-control", "--name", "kill", "--start")
    for number, place in enumerate(KILLS):
        one.inside("kill", f"echo {number} > /srv/page")
        there = not place.startswith("restore:")
        if there:
            one.environment(VS_TOOLS_FAULT=place)
        done = master.vs("vs-restore", "--name", "kill", **({} if there else {"VS_TOOLS_FAULT": place}))
        assert done.code == (1 if there else -signal.SIGKILL), (place, done)
        one.environment()
        assert len(suspects(one, "kill")) + (one.guests / "kill").exists() >= 1, place
        done = master.vs("vs-restore", "--name", "kill")
        assert (done.code, done.out) == (0, f"{ONE}:kill:enabled:running\n"), (place, done)
        assert one.inside("kill", "cat /srv/page").out == "good\n", place
        (suspect,) = suspects(one, "kill")
        assert (one.trees / suspect / "srv/page").read_text() == f"{number}\n", place
        one.ok("vs-remove", "--name", suspect, "--yes")
        assert sorted(path.name for path in one.guests.glob("[!.]*")) == ["kill"], place
        assert sorted(path.name for path in one.trees.glob("[!T]*")) == ["kill"], place
    assert list((master.root / "var/lib/vs-tools/restores").glob("*.json")) == []
    one.ok("vs-control", "--name", "kill", "--stop", "--disable")
    one.ok("vs-remove", "--name", "kill", "--yes")


def test_a_guest_that_was_set_aside_comes_back_whatever_is_killed(nodes: dict[str, Node], small: Path) -> None:
    master, one = nodes[MASTER], nodes[ONE]
    made = one.vs("vs-create", "--name", "undo", "--interface", "10.99.7.8", "--template", str(small))
    assert made.code == 0, made
    one.ok("vs-control", "--name", "undo", "--enable", "--start")
    one.inside("undo", "mkdir /srv; echo good > /srv/page")
    one.ok("vs-control", "--name", "undo", "--stop")
    master.ok("vs-get", "--name", "undo")
    one.ok("vs-control", "--name", "undo", "--start")
    done = master.vs("vs-restore", "--name", "undo", "--undo")
    assert (done.code, "nothing of guest undo was set aside" in done.err) == (2, True), done
    before, context = mac(one, "undo"), (one.guests / "undo/context").read_text()
    for number, place in enumerate(("", *(UNDO_KILLS if TABLE else SOME_UNDO_KILLS))):
        one.inside("undo", f"echo {number} > /srv/page")
        master.ok("vs-restore", "--name", "undo")
        (suspect,) = suspects(one, "undo")
        one.inside("undo", f"echo later {number} > /srv/page")
        assert f"would bring {suspect} on {ONE} back" in master.ok(
            "vs-restore", "--name", "undo", "--undo", "--dry-run"
        )
        if place:
            there = not place.startswith("restore:")
            if there:
                one.environment(VS_TOOLS_FAULT=place)
            done = master.vs("vs-restore", "--name", "undo", "--undo", **({} if there else {"VS_TOOLS_FAULT": place}))
            assert done.code == (1 if there else -signal.SIGKILL), (place, done)
            one.environment()
            trees = {(tree / "srv/page").read_text() for tree in one.trees.glob("undo*")}
            assert trees == {f"{number}\n", f"later {number}\n"}, place
            refused = master.vs("vs-restore", "--name", "undo")
            assert (refused.code, "--undo" in refused.err) == (2, True), (place, refused)
        done = master.vs("vs-restore", "--name", "undo", "--undo")
        assert (done.code, done.out) == (0, f"{ONE}:undo:enabled:running\n"), (place, done)
        assert one.inside("undo", "cat /srv/page").out == f"{number}\n", place
        assert (mac(one, "undo"), (one.guests / "undo/context").read_text()) == (before, context), place
        left = {path.name for path in (one.guests / "undo").iterdir()} & {".back", ".aside", "suspect"}
        assert (left, (one.guests / "undo/name").read_text()) == (set(), "undo\n"), place
        (other,) = suspects(one, "undo")
        assert other != suspect
        assert (one.trees / other / "srv/page").read_text() == f"later {number}\n", place
        one.ok("vs-remove", "--name", other, "--yes")
        assert sorted(path.name for path in one.trees.glob("[!T]*")) == ["undo"], place
        who = "the master's command" if place.startswith("restore:") else "agent of the host"
        told(f"restore --undo: {place or '-'}", who if place else "nothing", "the same command ends it")
    assert list((master.root / "var/lib/vs-tools/restores").glob("*.json")) == []

    # what was to come back, or was set aside, is removed before that is done
    master.ok("vs-restore", "--name", "undo")
    (suspect,) = suspects(one, "undo")
    done = master.vs("vs-restore", "--name", "undo", "--undo", VS_TOOLS_FAULT="restore:begun")
    assert done.code == -signal.SIGKILL, done
    done = master.vs("vs-restore", "--name", "undo", "--undo", "--host", TWO)
    assert (done.code, "was coming back" in done.err) == (2, True), done
    one.ok("vs-remove", "--name", suspect, "--yes")
    done = master.vs("vs-restore", "--name", "undo", "--undo")
    assert (done.code, f"{suspect} is gone from {ONE}" in done.err) == (2, True), done
    done = master.vs("vs-restore", "--name", "undo", VS_TOOLS_FAULT="restore:aside")
    assert done.code == -signal.SIGKILL, done
    one.ok("vs-remove", "--name", *suspects(one, "undo"), "--yes")
    assert master.ok("vs-restore", "--name", "undo") == f"{ONE}:undo:enabled:running\n"
    assert (mac(one, "undo"), suspects(one, "undo")) == (before, [])

    # its addresses are another's by then, or its name is: nothing is stopped
    master.ok("vs-restore", "--name", "undo")
    (suspect,) = suspects(one, "undo")
    one.ok("vs-control", "--name", "undo", "--stop", "--disable")
    one.ok("vs-remove", "--name", "undo", "--yes")
    one.ok("vs-create", "--name", "heir", "--interface", "10.99.7.8", "--template", str(small))
    done = master.vs("vs-restore", "--name", "undo", "--undo")
    assert (done.code, "address of guest heir" in done.err) == (2, True), done
    one.ok("vs-remove", "--name", "heir", "--yes")
    time = suspect.rpartition("-")[2]
    for words, sentence in (
        (("--generation", "2020"), "was set aside at 2020"), (("--host", TWO), "was set aside"),
        (("--file", "/etc"), "leave --file out"),
    ):  # fmt: skip
        done = master.vs("vs-restore", "--name", "undo", "--undo", *words)
        assert (done.code, sentence in done.err) == (2, True), done
    line = master.ok("vs-restore", "--name", "undo", "--undo", "--generation", time[:13], "--host", ONE)
    assert line == f"{ONE}:undo:disabled:stopped\n"
    assert one.ok("vs-control", "--name", "undo", "--start") == f"{ONE}:undo:disabled:running\n"
    one.ok("vs-control", "--name", "undo", "--stop")
    one.ok("vs-remove", "--name", "undo", "--yes")


def test_one_file_comes_back_and_what_it_replaces_is_kept(nodes: dict[str, Node], small: Path, tmp_path: Path) -> None:
    master, one = nodes[MASTER], nodes[ONE]
    made = one.vs("vs-create", "--name", "mail", "--interface", "10.99.7.7", "--template", str(small))
    assert made.code == 0, made
    tree = one.trees / "mail"
    (tree / "etc/exim4/conf.d").mkdir(parents=True)
    (tree / "etc/exim4/conf.d/main").write_text("good\n")
    os.chown(tree / "etc/exim4/conf.d/main", 1000, 1001)
    (tree / "etc/tool").write_text("root's of the guest\n")
    (tree / "etc/tool").chmod(0o4755)
    (tree / "etc/out").symlink_to("/etc/passwd")
    (tree / "abs").symlink_to("/etc")
    master.ok("vs-get", "--name", "mail")
    for running in (False, True):
        (tree / "etc/exim4/conf.d/main").write_text("bad\n")
        done = master.vs("vs-restore", "--name", "mail", "--file", "/etc/exim4")
        assert (done.code, done.out) == (0, f"{ONE}:mail:disabled:{'running' if running else 'stopped'}\n"), done
        assert (tree / "etc/exim4/conf.d/main").read_text() == "good\n"
        assert (tree / "etc/exim4/conf.d/main").stat().st_uid == 1000
        (kept,) = (tree / "etc").glob("exim4.before-*")
        assert (kept / "conf.d/main").read_text() == "bad\n"
        assert f"/etc/{kept.name}" in done.err
        assert not (tree / ".vs-restore").exists()
        kept.rename(tree / f"kept{running}")
        one.ok("vs-control", "--name", "mail", "--start")

    # a hostile tree: /etc leads out of it now; what comes back stays inside
    (tree / "etc").rename(tree / "real")
    outside = tmp_path / "outside"
    outside.mkdir()
    (tree / "etc").symlink_to(outside)
    done = master.vs("vs-restore", "--name", "mail", "--file", "/etc/tool")
    assert list(outside.iterdir()) == []
    assert done.code in (0, 1, 2), done
    assert "internal" not in done.err
    (tree / "etc").unlink()
    (tree / "real").rename(tree / "etc")

    # onto the master: nothing is followed, and nothing is root's any more by being started
    target = master.root / "found"
    target.mkdir()
    assert master.ok("vs-restore", "--name", "mail", "--file", "/etc/tool", "--to", str(target)) == f"{target}/tool\n"
    assert (target / "tool").stat().st_mode & 0o7777 == 0o755
    master.ok("vs-restore", "--name", "mail", "--file", "/abs", "--to", str(target))
    assert os.readlink(target / "abs") == "/etc"
    master.ok("vs-restore", "--name", "mail", "--file", "/abs/out", "--to", str(target))
    assert os.readlink(target / "out") == "/etc/passwd"
    for words in (("/etc/none",), ("etc/tool",), ("/",), ("/etc/../etc/tool",), ("/etc/tool", "--to", str(target))):
        done = master.vs("vs-restore", "--name", "mail", "--file", *words)
        assert done.code == 2, (words, done)
    one.ok("vs-control", "--name", "mail", "--stop")
    one.ok("vs-remove", "--name", "mail", "--yes")

"""A copy takes the place of a suspect guest, or of a file in it, over real sshd and rsync; with kills at the steps."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from nodes import Node, met

MASTER, ONE, TWO = "vsm", "vsh-00", "vsh-01"
KILLS = (
    "restore:begun", "depart:stopped", "aside:marked", "aside:renamed", "aside:context", "aside:tree", "restore:aside",
    "register:cleaned", "restore:registered",
)  # fmt: skip
"""Of the master's command, and of the agent (SIGKILL)."""


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

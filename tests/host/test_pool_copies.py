"""Copies of guests in the master's store, and guests from copies, over real sshd and rsync."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import wait
from nodes import Node, met

MASTER, ONE, TWO = "vsm", "vsh-00", "vsh-01"


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[str, Node]]:
    """A master that knows two hosts."""
    with met(MASTER, ONE, TWO) as found:
        yield {node.name: node for node in found}


def guest(node: Node, name: str, number: int, small: Path) -> Path:
    """A guest with something in it; its tree."""
    made = node.vs("vs-create", "--name", name, "--interface", f"10.99.7.{number}", "--template", str(small))
    assert made.code == 0, made
    tree = node.trees / name
    (tree / "srv").mkdir()
    (tree / "srv/page").write_text("one\n")
    (tree / "srv/odd\nname \u00e9").write_text("two\n")
    os.link(tree / "srv/page", tree / "srv/same")
    (tree / "srv/link").symlink_to("/etc/passwd")
    os.chown(tree / "srv/page", 1000, 1000)
    (tree / "srv/secret").write_text("three\n")
    (tree / "srv/secret").chmod(0o4750)
    os.setxattr(tree / "srv/page", "user.note", b"four")
    return tree


def test_a_guest_is_copied_and_put_elsewhere(nodes: dict[str, Node], small: Path) -> None:
    master, one, two = (nodes[name] for name in (MASTER, ONE, TWO))
    tree = guest(one, "web", 5, small)
    first = master.ok("vs-get", "--name", "web").strip().split(":")
    assert first[:2] == [ONE, "web"]
    store = master.root / "var/lib/vs-tools/store/web"
    copy = store / first[2]
    assert (copy / "tree/srv/odd\nname \u00e9").read_text() == "two\n"
    assert (copy / "tree/srv/page").stat().st_uid == 1000
    assert (copy / "tree/srv/secret").stat().st_mode & 0o7777 == 0o4750
    assert (copy / "tree/srv/page").stat().st_ino == (copy / "tree/srv/same").stat().st_ino
    assert os.getxattr(copy / "tree/srv/page", "user.note") == b"four"
    assert os.readlink(copy / "tree/srv/link") == "/etc/passwd"
    assert store.stat().st_mode & 0o7777 == 0o700
    assert "sha256digest=" in (copy / "manifest").read_text()
    assert master.ok("vs-backup", "--verify") == f"web:{first[2]}:whole\n"

    # the next one shares what is the same; the first one stays as it was
    (tree / "srv/new").write_text("five\n")
    (tree / "srv/secret").chmod(0o700)
    wait(lambda: master.ok("vs-get", "--name", "web", "--dry-run") != "")
    second = master.ok("vs-get", "--name", "web").strip().split(":")
    again = store / second[2]
    assert (again / "tree/srv/page").stat().st_ino == (copy / "tree/srv/page").stat().st_ino
    assert (copy / "tree/srv/secret").stat().st_mode & 0o7777 == 0o4750
    assert (again / "tree/srv/new").exists()
    assert master.ok("vs-backup", "--verify").count("whole") == 2
    (copy / "tree/srv/page").write_text("bad\n")
    done = master.vs("vs-backup", "--verify")
    assert (done.code, done.out.count("damaged")) == (1, 2), done
    (copy / "tree/srv/page").write_text("one\n")

    # to another host: there it belongs to the first one, so it does not start
    assert master.ok("vs-put", "--name", "web", "--host", TWO) == f"{TWO}:web:disabled:stopped\n"
    assert (two.trees / "web/srv/new").read_text() == "five\n"
    assert (two.guests / "web/owner").read_text() == f"{ONE} 1\n"
    done = two.vs("vs-control", "--name", "web", "--start")
    assert (done.code, f"belongs to host {ONE}" in done.err) == (2, True), done
    done = master.vs("vs-put", "--name", "web", "--host", TWO)
    assert (done.code, "already" in done.err) == (2, True), done
    done = master.vs("vs-remove", "--name", "web", "--host", TWO, "--yes")
    assert done.code == 0, done
    assert master.ok("vs-scan") == f"{ONE}:web:disabled:stopped\n"

    # nobody has it any more: a copy becomes the guest
    done = master.vs("vs-remove", "--name", "web", "--host", ONE, "--yes")
    assert (done.code, "--last-copy" in done.err) == (2, True), done
    master.ok("vs-remove", "--name", "web", "--host", ONE, "--yes", "--last-copy")
    assert master.ok("vs-put", "--name", "web", "--host", TWO, "--start") == f"{TWO}:web:disabled:running\n"
    assert two.inside("web", "cat /srv/new").out == "five\n"
    done = master.vs("vs-remove", "--name", "web", "--host", TWO, "--yes", "--last-copy")
    assert (done.code, "is running" in done.err) == (2, True), done
    two.ok("vs-control", "--name", "web", "--stop")
    master.ok("vs-remove", "--name", "web", "--host", TWO, "--yes", "--last-copy")


def test_backup_copies_what_its_file_lists_and_names_what_fails(nodes: dict[str, Node], small: Path) -> None:
    master, one, two = (nodes[name] for name in (MASTER, ONE, TWO))
    guest(one, "mail", 6, small)
    guest(two, "crit", 7, small)
    two.ok("vs-control", "--name", "crit", "--start")
    done = master.vs("vs-get", "--name", "crit")
    assert (done.code, "guest crit is running, and its storage cannot snapshot" in done.err) == (2, True), done
    assert [path.name for path in (master.root / "var/lib/vs-tools/store/crit").iterdir()] == [".lock"]
    (master.conf / "backup.conf").write_text("# all\nmail:hot,keep-last=1\ncrit:cool\nnone:hot\n")
    (master.conf / "create.conf").open("a").write("MONITOR_SMTP=127.0.0.1:1\nBACKUP_MAILTO=one@example.org\n")
    done = master.vs("vs-backup", "--mail")
    assert (done.code, sorted(line.rsplit(":", 1)[0] for line in done.out.splitlines())) == (
        1, [f"{ONE}:mail", f"{TWO}:crit"],
    ), done  # fmt: skip
    assert "there is no guest 'none'" in done.err
    assert two.ok("vs-control", "--name", "crit").strip() == f"{TWO}:crit:disabled:running"
    rows = json.loads(master.ok("vs-backup", "--list", "--name", "mail", "--name", "crit", "--json"))
    assert {(row["guest"], row["mode"]) for row in rows} == {("mail", "hot"), ("crit", "cool")}
    assert all(row["verified"] is None and row["age"] < 600 for row in rows)
    (mail,) = (master.root / "var/lib/vs-tools/mails").iterdir()  # no relay answers there
    assert "To: one@example.org\nSubject: vsm: backup: 1 FAILED: none" in mail.read_text()
    done = master.vs("check_vs_backup")
    assert (done.code, done.out.partition(" | ")[0]) == (2, "VS CRITICAL - none has no copy\n".strip()), done
    assert master.ok("vs-backup", "--verify", "--name", "crit").endswith(":whole\n")
    (line,) = master.ok("vs-backup", "--list", "--name", "crit").splitlines()
    assert line.split(":")[7].startswith("20")
    done = master.vs("check_vs_backup", "--name", "crit", "-w", "0", "-c", "9")
    assert (done.code, "crit is 0 h old" in done.out) == (1, True), done
    master.ok("vs-backup", "--name", "mail")
    rows = json.loads(master.ok("vs-backup", "--list", "--name", "mail", "--json"))
    assert len(rows) == 1
    two.ok("vs-control", "--name", "crit", "--stop")
    for node, name in ((one, "mail"), (two, "crit")):
        node.ok("vs-remove", "--name", name, "--yes")


def test_what_could_harm_a_host_is_held_until_it_is_accepted(nodes: dict[str, Node], small: Path) -> None:
    master, one = nodes[MASTER], nodes[ONE]
    guest(one, "odd", 8, small)
    hook = one.guests / "odd/scripts/pre-start"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o755)
    done = master.vs("vs-get", "--name", "odd")
    assert (done.code, "scripts/pre-start" in done.err, "--accept-config" in done.err) == (2, True, True), done
    assert master.ok("vs-backup", "--list", "--name", "odd") == ""
    master.ok("vs-get", "--name", "odd", "--accept-config")
    hook.write_text("#!/bin/sh\nexit 0\n")
    assert master.vs("vs-get", "--name", "odd").code == 2
    one.ok("vs-remove", "--name", "odd", "--yes")


def test_a_drill_starts_a_copy_that_is_linked_to_nothing(nodes: dict[str, Node], small: Path) -> None:
    master, one = nodes[MASTER], nodes[ONE]
    guest(one, "trial", 9, small)
    master.ok("vs-get", "--name", "trial")
    copy = next((master.root / "var/lib/vs-tools/store/trial").glob("2*"))
    before = (copy / "manifest").read_bytes()
    done = master.vs("vs-backup", "--drill", "--name", "trial", VS_TOOLS_FAULT="drill:started")
    assert done.code == -9, done
    links = master.inside("drill-trial", "ls /sys/class/net; echo drilled > /srv/page")
    assert links.out == "lo\n", links
    assert master.ok("vs-backup", "--drill", "--name", "trial") == f"trial:{copy.name}:up\n"
    assert list(master.guests.glob("[!.]*")) == []
    assert master.ok("vs-backup", "--verify", "--name", "trial") == f"trial:{copy.name}:whole\n"
    assert (copy / "manifest").read_bytes() == before
    (row,) = json.loads(master.ok("vs-backup", "--list", "--name", "trial", "--json"))
    assert row["drilled"].startswith("20")

    # one whose init does nothing but end
    (one.trees / "trial/sbin/init").unlink()
    (one.trees / "trial/sbin/init").symlink_to("/bin/true")
    name = master.ok("vs-get", "--name", "trial").strip().split(":")[2]
    done = master.vs("vs-backup", "--drill", "--name", "trial")
    assert (done.code, done.out) == (1, f"trial:{name}:failed\n"), done
    assert list(master.guests.glob("[!.]*")) == []
    one.ok("vs-remove", "--name", "trial", "--yes")


def test_a_drill_of_a_debian_waits_for_its_systemd(nodes: dict[str, Node], debian: Path) -> None:
    master, one = nodes[MASTER], nodes[ONE]
    made = one.vs("vs-create", "--name", "deb", "--interface", "10.99.7.10", "--template", str(debian))
    assert made.code == 0, made
    name = master.ok("vs-get", "--name", "deb").strip().split(":")[2]
    assert master.ok("vs-backup", "--drill", "--name", "deb") == f"deb:{name}:up\n"
    one.ok("vs-remove", "--name", "deb", "--yes")

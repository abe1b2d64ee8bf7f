"""Guests of old Linux-VServer hosts come over from a directory, an archive and a host by ssh; what cannot, says why."""

import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import NETWORKS, Host, wait
from nodes import Node, pool

from tests import oldguests
from tests.templates import debian_template

OLD_NET = "0:10.1.1.0/24,10.1.1.1,example.org,10.1.1.53\n"
NODE = os.uname().nodename.partition(".")[0]
VSERVER = """#!/bin/sh
cd {root}
echo "$*" >> said
case $2 in
    running)
        test ! -e silent || exit 127
        test ! -e endless || exec yes
        test ! -e restarted || {{ rm restarted; touch running; exit 1; }}
        test -e running ;;
    stop)
        rm -f running
        echo end >> vservers/vs/root/log
        test ! -e spoiling || chown 16777216 vservers/vs/root/log
        test ! -e restarting || mv restarting restarted
        test ! -e silencing || mv silencing silent ;;
    start) touch running ;;
esac
"""
"""What the files beside it say goes wrong at the old host."""


def plant(tree: Path, small: Path) -> None:
    """The tree of an old guest: the small system, with what the years have left in it."""
    tree.mkdir(parents=True)
    subprocess.run(["tar", "-xf", small, "-C", tree], check=True)
    (tree / "root/kept").write_text("kept\n")
    os.chown(tree / "root/kept", 33, 33)
    os.mknod(tree / "root/disk", stat.S_IFBLK | 0o666, os.makedev(8, 0))
    (tree / "etc/network").mkdir()
    (tree / "etc/network/interfaces").write_text("iface eth0 inet dhcp\n")
    (tree / "etc/init.d").mkdir()
    (tree / "proc/left").write_text("x")


@pytest.fixture
def machine(host: Host, small: Path, tmp_path: Path) -> Path:
    """The disk of an old host, mounted here; this host knows its network."""
    host.configure(networks=NETWORKS + OLD_NET)
    root = tmp_path / "disk"
    plant(root / "vservers/vs", small)
    oldguests.write(root / "etc/vservers", "/vservers")
    return root


def test_the_old_guest_runs_here_as_it_did_there(host: Host, machine: Path) -> None:
    before = host.state()
    done = host.vs("vs-import", "--name", "vs", "--from", str(machine))
    assert done.code == 2, done
    assert "fstab, scripts/post-stop.d/10-x, scripts/pre-start: look at them on" in done.err
    said = host.vs("vs-import", "--name", "vs", "--from", str(machine), "--dry-run")
    assert said.out.splitlines()[1:] == [
        f"would need --accept-config for {path}" for path in ("fstab", "scripts/post-stop.d/10-x", "scripts/pre-start")
    ], said
    assert host.state() == before
    done = host.vs("vs-import", "--name", "vs", "--from", str(machine), "--accept-config")
    assert (done.code, done.out) == (0, f"{NODE}:vs:disabled:stopped\n"), done
    assert (host.guests / "vs/context").read_text() == "33\n"
    assert host.ok("vs-limit", "--name", "vs") == f"{NODE}:vs:128:1024:16:150:9/10\n"
    report = (host.root / "var/log/vs-tools/vs/import").read_text()
    for words in (
        "bcapabilities: NET_ADMIN: no guest has it",
        "secret plan: vs-tools knows no such file: not taken over",
    ):
        assert words in report
        assert words in done.err
    tree = host.trees / "vs"
    assert not (tree / "root/disk").exists()
    assert not (tree / "proc/left").exists()
    assert "dhcp" not in (tree / "etc/network/interfaces").read_text()
    assert (tree / "root/kept").stat().st_uid == 33
    hook = host.guests / "vs/scripts/pre-start"
    hook.write_text(f'#!/bin/sh\necho "$1 $2" > {host.root}/hooked\n')
    (host.guests / "vs/scripts/post-stop.d/10-x").unlink()
    (host.guests / "vs/apps/init/depends").unlink()
    host.ok("vs-control", "--name", "vs", "--start")
    assert (host.root / "hooked").read_text() == "pre-start vs\n"
    assert not subprocess.run(["ping", "-c1", "-W5", "10.1.1.2"], stdout=subprocess.DEVNULL, check=False).returncode
    assert host.inside("vs", "cat /root/kept; hostname").out == "kept\nvs.example.org\n"
    assert host.inside("vs", "ls /data").out.split() == sorted(os.listdir("/usr/share/misc")), "fstab's bind"
    done = host.vs("vs-import", "--name", "vs", "--from", str(machine))
    assert (done.code, "there is a guest 'vs' here already" in done.err) == (2, True)


def test_an_archive_of_capitals_and_a_tree_elsewhere(host: Host, small: Path, tmp_path: Path) -> None:
    host.configure(networks=NETWORKS + OLD_NET)
    root = tmp_path / "disk"
    plant(root / "data/Trees/Web01", small)
    nothing = {path: None for path in oldguests.FILES if path.startswith(("scripts", "fstab", "context"))}
    oldguests.write(root / "etc/vservers", "/nowhere", "Web01", **nothing)
    archive = tmp_path / "old.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root, ".")
    done = host.vs("vs-import", "--name", "Web01", "--from", str(archive))
    assert (done.code, "has no tree of 'Web01': say where in it: --tree PATH" in done.err) == (2, True), done
    done = host.vs("vs-import", "--name", "Web01", "--from", str(archive), "--tree", "/data/Trees/Web01")
    assert (done.code, done.out) == (0, f"{NODE}:Web01:disabled:stopped\n"), done
    assert (host.guests / "Web01/context").read_text() == "60000\n"
    assert not list((host.trees / ".imports").iterdir())
    host.ok("vs-control", "--name", "Web01", "--start")
    assert host.inside("Web01", "cat /root/kept").out == "kept\n"


@pytest.mark.slow
def test_a_guest_with_sysvinit_boots_its_runlevel_and_ends_by_itself(host: Host, tmp_path: Path) -> None:
    host.configure(networks=NETWORKS + OLD_NET)
    root = tmp_path / "disk"
    tree = root / "vservers/vs"
    tree.mkdir(parents=True)
    subprocess.run(["tar", "-xf", debian_template("bookworm", "sysvinit-core"), "-C", tree], check=True)
    subprocess.run(["ssh-keygen", "-A", "-f", tree], check=True, stdout=subprocess.DEVNULL)
    (tree / "etc/init.d/halt").write_text("#!/bin/sh\nexit 0\n")
    (tree / "etc/rc0.d/S90halt").unlink(missing_ok=True)
    (tree / "etc/inittab").write_text((tree / "etc/inittab").read_text().replace("id:2:", "id:5:"))
    scripts = {path: None for path in oldguests.FILES if path.startswith(("scripts", "fstab", "apps/init/depends"))}
    oldguests.write(root / "etc/vservers", "/vservers", **scripts)
    done = host.vs("vs-import", "--name", "vs", "--from", str(root))
    assert (done.code, "/etc/init.d/halt ends the guest now" in done.err) == (0, True), done
    host.ok("vs-control", "--name", "vs", "--start")
    wait(lambda: host.inside("vs", "runlevel").out == "N 2\n", 120)
    wait(lambda: host.inside("vs", "kill -0 $(cat /run/sshd.pid)").code == 0, 120)
    assert host.vs("vs-enter", "--name", "vs", "--", "poweroff").code == 0
    wait(lambda: host.ok("vs-control", "--name", "vs").endswith(":stopped\n"), 120)
    wait(lambda: host.leftovers() == [])


def hostile(tree: Path, what: str) -> None:
    """Make the old guest one that cannot come."""
    init = tree / "sbin/init"
    if what == "no init":
        init.unlink()
    elif what == "an old systemd":
        init_of_2014 = (tree / "bin/busybox").read_bytes()[:64] + b"\0systemd 215 running in %ssystem mode\0"
        init.unlink()
        (tree / "lib/systemd").mkdir(parents=True)
        (tree / "lib/systemd/systemd").write_bytes(init_of_2014)
        init.symlink_to("/lib/systemd/systemd")
    elif what == "another machine":
        content = bytearray((tree / "bin/busybox").read_bytes())
        content[18:20] = (8).to_bytes(2, "little")
        (tree / "bin/busybox").write_bytes(content)


REFUSALS = {
    "no init": "has no /sbin/init: install one in it",
    "an old systemd": "has systemd 215, which knows no cgroup v2 (systemd 226 is the first): upgrade it where it is",
    "another machine": "has programs for machine 8, this host is",
}


@pytest.mark.parametrize("what", REFUSALS)
def test_what_cannot_run_here_is_refused_with_what_to_do(host: Host, machine: Path, what: str) -> None:
    hostile(machine / "vservers/vs", what)
    done = host.vs("vs-import", "--name", "vs", "--from", str(machine), "--accept-config")
    assert (done.code, REFUSALS[what] in done.err) == (2, True), done
    assert host.leftovers() == []
    assert host.ok("vs-control", "--all") == ""


def test_an_init_that_a_link_leads_to_is_seen_when_it_was_copied(host: Host, machine: Path) -> None:
    tree = machine / "vservers/vs"
    (tree / "opt").mkdir()
    (tree / "sbin/init").unlink()
    (tree / "sbin/init").symlink_to("/opt/init")
    words = ("vs-import", "--name", "vs", "--from", str(machine), "--accept-config")
    done = host.vs(*words)
    assert (done.code, "guest vs has no /sbin/init" in done.err) == (1, True), done
    (tree / "bin/busybox").rename(tree / "opt/init")
    host.ok(*words)
    assert (host.trees / "vs/opt/init").exists()


def test_ids_of_its_context_make_no_guest(host: Host, machine: Path) -> None:
    os.chown(machine / "vservers/vs/root/kept", 33 << 24, 0)
    done = host.vs("vs-import", "--name", "vs", "--from", str(machine), "--accept-config")
    sentence = "/root/kept belongs to an id over 65535: is that disk mounted without the option tagxid?"
    assert (done.code, sentence in done.err) == (1, True), done
    host.ok("vs-import", "--name", "vs", "--abandon")
    assert host.leftovers() == []
    assert host.ok("vs-control", "--all") == ""


def test_what_is_mounted_below_an_old_disk_belongs_to_it(host: Host, machine: Path, small: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "trees", machine / "vservers"], check=True)
    try:
        plant(machine / "vservers/vs", small)
        host.ok("vs-import", "--name", "vs", "--from", str(machine), "--accept-config")
    finally:
        subprocess.run(["umount", machine / "vservers"], check=True)
    assert (host.trees / "vs/root/kept").exists()


@pytest.mark.parametrize("kind", ["large", "many"])
def test_files_without_an_end_are_not_taken(host: Host, machine: Path, kind: str) -> None:
    config = machine / "etc/vservers/vs/scripts/more"
    config.mkdir()
    if kind == "large":
        for number in range(40):
            (config / str(number)).write_bytes(os.urandom(1 << 20))
    else:
        for number in range(9000):
            (config / str(number)).touch()
    before = host.state()
    done = host.vs("vs-import", "--name", "vs", "--from", str(machine), "--accept-config")
    assert (done.code, "has no end" in done.err or "it has too much in it" in done.err) == (2, True), done
    assert host.state() == before


def test_what_another_host_sends_is_not_given_up(host: Host) -> None:
    staged = host.guests / ".new-web"
    staged.mkdir(parents=True)
    (staged / ".arriving").write_text('["move-1", false]\n')
    done = host.vs("vs-import", "--name", "web", "--abandon")
    assert (done.code, "comes from another host of the pool" in done.err) == (2, True), done
    (staged / ".arriving").unlink()
    staged.rmdir()


def test_links_of_a_hostile_disk_lead_nowhere(host: Host, machine: Path, outside: Path) -> None:
    config = machine / "etc/vservers/vs"
    (config / "domain").symlink_to(outside / "shadow")
    (config / "vdir").unlink()
    (config / "vdir").symlink_to(outside)
    done = host.vs("vs-import", "--name", "vs", "--from", str(machine), "--accept-config")
    assert done.code == 0, done
    assert "domain: a symbolic link, which is not followed" in done.err
    assert (host.trees / "vs/root/kept").exists(), "the link was the old host's: its tree is at the usual place"
    assert not (host.guests / "vs/domain").exists()


BAD = {
    "no source": ([], "say where it is"),
    "an unknown kind": (["--from", "http://x"], "neither ssh://HOST"),
    "no host": (["--from", "ssh://"], "is not ssh://"),
    "nothing there": (["--from", "/no/where"], "neither a directory nor an archive"),
    "no such guest": (["--from", "/var/tmp"], "has no guest 'vs'"),
    "a name": (["--name", "../vs", "--from", "/var/tmp"], "cannot name a guest"),
    "a name that is given up": (["--name", "../vs", "--abandon"], "cannot name a guest"),
    "two things": (["--final", "--abandon"], "contradict each other"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_changes_nothing(host: Host, case: str) -> None:
    before = host.state()
    words, sentence = BAD[case]
    done = host.vs("vs-import", *([] if "--name" in words else ["--name", "vs"]), *words)
    assert (done.code, sentence in done.err, done.err.count("\n")) == (2, True, 1), done
    assert host.state() == before


@pytest.fixture
def hosts(small: Path) -> Iterator[tuple[Node, Node]]:
    """This host, and an old one with the guest vs, which runs: it has sshd, rsync and vserver, no vs-tools."""
    with pool("vsh-a", "old") as (here, there):
        here.configure(networks=NETWORKS + OLD_NET)
        root = there.root
        plant(root / "vservers/vs", small)
        subprocess.run(["cp", "-a", "/etc/.", root / "oldetc"], check=True)
        oldguests.write(root / "oldetc/vservers", f"{root}/vservers")
        there.inside_node(["mount", "--bind", f"{root}/oldetc", "/etc"])
        (root / "bin").mkdir(exist_ok=True)
        (root / "bin/vserver").write_text(VSERVER.format(root=root))
        (root / "bin/vserver").chmod(0o755)
        (root / "running").touch()
        yield here, there
        there.inside_node(["umount", "-l", "/etc"])


def bring(here: Node, there: Node, *words: str, **env: str) -> "tuple[int, str, str]":
    """vs-import from the old host."""
    source = ("--from", f"ssh://{there.address}", "--fingerprint", there.key)
    done = here.vs("vs-import", "--name", "vs", *source, "--accept-config", *words, **env)
    return done.code, done.out, done.err


def let_in(here: Node, there: Node) -> None:
    """The old host's admin lets the pool's key in."""
    code, _, err = bring(here, there)
    assert (code, "lets nobody in" in err, "has to take the pool's key" in err) == (2, True, True), err
    keys = there.root / "home/.ssh/authorized_keys"
    keys.write_text((here.root / "etc/vs-tools/pool/key.pub").read_text())
    keys.chmod(0o600)


def test_a_running_guest_of_an_old_host_is_copied_and_switched_over(hosts: tuple[Node, Node]) -> None:
    here, there = hosts
    done = here.vs("vs-import", "--name", "vs", "--from", f"ssh://{there.address}", "--fingerprint", "SHA256:other")
    assert (done.code, "not SHA256:other" in done.err) == (2, True), done
    let_in(here, there)
    code, out, err = bring(here, there)
    assert (code, out) == (0, ""), err
    assert "copied and no guest yet: --final stops it" in err
    assert here.ok("vs-control", "--all") == ""
    assert (there.root / "running").exists()
    assert bring(here, there, "--dry-run")[1].split()[6] == "0", "only what is missing needs room"
    limit = there.root / "oldetc/vservers/vs/rlimits/rss"
    limit.write_text("65536\n")
    code, _, err = bring(here, there, "--final")
    assert (code, "was begun from another place, or with other files" in err) == (2, True), err
    limit.write_text("32768\n")
    kept = here.trees / ".new-vs/root/kept"
    inode = kept.stat().st_ino
    (there.root / "vservers/vs/root/new").write_text("new\n")
    code, out, err = bring(here, there, "--final")
    assert (code, out) == (0, "vsh-a:vs:disabled:stopped\n"), err
    assert "its mark there is called mark.before-import" in err
    assert [file.name for file in (there.root / "oldetc/vservers/vs/apps/init").glob("mark*")] == ["mark.before-import"]
    assert not (there.root / "running").exists()
    assert (here.trees / "vs/root/kept").stat().st_ino == inode, "what was there was not brought again"
    assert (here.trees / "vs/root/log").read_text() == "end\n", "what it wrote at its stop came as well"
    assert (here.trees / "vs/root/new").exists()
    assert (here.guests / "vs/owner").read_text() == "vsh-a 1\n"
    said = (there.root / "said").read_text()
    assert "vs stop" in said
    assert "vs start" not in said


def test_a_last_pass_that_fails_lets_the_old_guest_run_again(hosts: tuple[Node, Node], tmp_path: Path) -> None:
    here, there = hosts
    let_in(here, there)
    os.chown(there.root / "vservers/vs/root/kept", 1 << 24, 0)
    code, _, err = bring(here, there, "--final")
    assert (code, "belongs to an id over 65535" in err) == (1, True), err
    assert "vs stop" not in (there.root / "said").read_text(), "that was known before"
    os.chown(there.root / "vservers/vs/root/kept", 33, 33)
    for fault, sentence in (
        ("spoiling", "/root/log belongs to an id over 65535"), ("restarting", "was started again on host"),
        ("silencing", "does not say whether guest vs runs there"),
    ):  # fmt: skip
        (there.root / fault).touch()
        code, _, err = bring(here, there, "--final")
        assert (code, sentence in err) == (1, True), err
        assert (there.root / "running").exists(), "it runs again"
        (there.root / fault).unlink(missing_ok=True)
        os.chown(there.root / "vservers/vs/root/log", 0, 0)
    (there.root / "silent").unlink()
    assert "is still stopped: vserver vs start there" in here.vs("vs-import", "--name", "vs", "--abandon").err
    trace = tmp_path / "trace"
    assert bring(here, there, "--final", VS_TOOLS_FAULT_TRACE=str(trace))[0] == 0
    steps = list(dict.fromkeys(trace.read_text().split()))
    assert {"import:staged", "import:copied", "import:stopped", "import:last", "import:registered"} <= set(steps)
    here.ok("vs-remove", "--name", "vs", "--yes")
    for step in ("import:staged", "import:copied", "import:stopped", "import:last", "create:settled"):
        (there.root / "running").touch()
        assert bring(here, there, "--final", VS_TOOLS_FAULT=step)[0] == -9, step
        code, out, err = bring(here, there, "--final")
        assert (code, out) == (0, "vsh-a:vs:disabled:stopped\n"), (step, err)
        wait(lambda: here.leftovers() == [])
        here.ok("vs-remove", "--name", "vs", "--yes")


def test_nobody_believes_that_a_guest_is_stopped_because_nothing_is_said(hosts: tuple[Node, Node]) -> None:
    here, there = hosts
    let_in(here, there)
    for fault, sentence in (("silent", "does not say whether guest vs runs"), ("endless", "speaks without an end")):
        (there.root / fault).touch()
        code, _, err = bring(here, there, "--final")
        assert (code, sentence in err) == (2, True), err
        (there.root / fault).unlink()
    assert (there.root / "running").exists()
    assert here.leftovers() == []

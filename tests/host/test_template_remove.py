"""A guest becomes a template, and a guest goes for good."""

import os
import pty
import subprocess
import tarfile
from pathlib import Path

import pytest
from conftest import BIN, Host, create

SECRETS = {
    "etc/machine-id": "0123456789abcdef0123456789abcdef",
    "var/lib/dbus/machine-id": "0123456789abcdef0123456789abcdef",
    "etc/ssh/ssh_host_ed25519_key": "private",
    "etc/ssh/ssh_host_rsa_key.pub": "public",
    "root/.ssh/authorized_keys": "ssh-ed25519 AAAA",
    "root/.bash_history": "mysql -psecret",
    "var/log/journal/0123456789abcdef0123456789abcdef/system.journal": "LPKSHHRH",
    "var/lib/systemd/random-seed": "seed",
    "tmp/left": "left",
    "run/left": "left",
}
"""What identifies a guest, or belongs to its last life."""


@pytest.fixture
def web(host: Host, small: Path) -> Host:
    """A host with one small guest, stopped, with a past."""
    assert create(host, "web", 10, small).code == 0
    for name, text in SECRETS.items():
        path = host.trees / "web" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return host


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.zst"])
def test_template_knows_nothing_of_its_guest_and_makes_another(web: Host, tmp_path: Path, suffix: str) -> None:
    archive = tmp_path / f"t{suffix}"
    assert web.ok("vs-template", "--name", "web", "--file", str(archive)) == f"{archive}\n"
    assert archive.stat().st_mode & 0o777 == 0o600
    listing = subprocess.run(["tar", "-tf", archive], capture_output=True, text=True, check=True).stdout.split()
    names = {name.removeprefix("./").rstrip("/") for name in listing}
    assert {"bin/busybox", "sbin/init", "dev", "proc", "sys", "tmp", "root"} <= names
    assert names.isdisjoint(SECRETS)
    assert names.isdisjoint({"etc/hostname", "etc/hosts", "etc/resolv.conf", "root/.ssh"})
    assert create(web, "other", 11, archive, "--start").code == 0
    assert web.inside("other", "cat /etc/hostname").out == "other\n"
    assert os.listdir(tmp_path) == [f"t{suffix}"]


def test_template_of_a_name_without_a_kind_is_refused(web: Host, tmp_path: Path) -> None:
    done = web.vs("vs-template", "--name", "web", "--file", str(tmp_path / "t.zip"))
    assert (done.code, ".tar.zst" in done.err) == (2, True), done


@pytest.mark.parametrize("case", ["running", "existing", "no directory", "unknown", "neither", "both"])
def test_refused_template_changes_nothing(web: Host, tmp_path: Path, case: str) -> None:
    archive = tmp_path / "t.tar"
    words = ["--name", "web", "--file", str(archive)]
    if case == "running":
        web.ok("vs-control", "--name", "web", "--start")
    elif case == "existing":
        archive.write_text("mine")
    elif case == "no directory":
        words[3] = str(tmp_path / "nowhere/t.tar")
    elif case == "unknown":
        words[1] = "nobody"
    elif case == "neither":
        del words[:2]
    else:
        words += ["--debootstrap", "trixie"]
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    done = web.vs("vs-template", *words)
    assert (done.code, len(done.err.strip().splitlines())) == (2, 1), done
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.zst"])
def test_full_disk_leaves_no_partial_template(web: Host, tmp_path: Path, suffix: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", tmp_path], check=True)
    try:
        done = web.vs("vs-template", "--name", "web", "--file", str(tmp_path / f"t{suffix}"))
        assert done.code == 1, done
        assert "could not be written" in done.err
        assert "space" in done.err
        assert os.listdir(tmp_path) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_killed_template_leaves_no_file_of_its_name(web: Host, tmp_path: Path) -> None:
    (web.trees / "web/root/large").write_bytes(os.urandom(30 << 20))
    process = web.start("vs-template", "--name", "web", "--file", str(tmp_path / "t.tar.xz"))
    while not list(tmp_path.iterdir()):
        assert process.poll() is None
    process.kill()
    process.communicate()
    assert not (tmp_path / "t.tar.xz").exists()
    web.ok("vs-template", "--name", "web", "--file", str(tmp_path / "u.tar"))


def test_capabilities_and_attributes_survive(host: Host, debian: Path, tmp_path: Path) -> None:
    """Set by root in one guest, effective for a plain user in another, whose ids are others on the host."""
    assert create(host, "deb", 10, debian, "--start").code == 0
    script = """
    cp /usr/bin/perl /usr/local/bin/reader
    setcap cap_dac_read_search=ep /usr/local/bin/reader
    perl -e 'exit 1' || touch /root/marked
    ln /usr/local/bin/reader /usr/local/bin/same
    chown 1234:4321 /root/marked
    echo secret > /root/secret; chmod 600 /root/secret
    """
    assert host.inside("deb", script).code == 0
    os.setxattr(host.trees / "deb/root/marked", "user.origin", b"deb")
    host.ok("vs-control", "--name", "deb", "--stop")
    archive = tmp_path / "t.tar.zst"
    host.ok("vs-template", "--name", "deb", "--file", str(archive))
    assert create(host, "copy", 11, archive, "--start").code == 0
    assert host.inside("copy", "getcap /usr/local/bin/reader").out == "/usr/local/bin/reader cap_dac_read_search=ep\n"
    assert os.getxattr(host.trees / "copy/root/marked", "user.origin") == b"deb"
    read = "runuser -u nobody -- {} -pe '' /root/secret"
    assert host.inside("copy", read.format("/usr/local/bin/reader")).out == "secret\n"
    assert host.inside("copy", read.format("/usr/bin/perl")).out == ""
    same = host.inside("copy", "stat -c %i:%u:%g /usr/local/bin/reader /usr/local/bin/same; stat -c %u:%g /root/marked")
    first, second, owner = same.out.split()
    assert (first, owner) == (second, "1234:4321")
    ids = host.inside("copy", "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub").out
    assert (
        ids
        != (host.trees / "deb/etc/machine-id").read_text()
        + (host.trees / "deb/etc/ssh/ssh_host_ed25519_key.pub").read_text()
    )


@pytest.mark.slow
def test_template_from_packages(host: Host, tmp_path: Path) -> None:
    archive = tmp_path / "t.tar.zst"
    script = 'exec nsenter --net="$VS_TOOLS_TESTS_NET" "$0" "$@"'  # packages come over the real network
    subprocess.run(
        ["sh", "-c", script, BIN / "vs-template", "--debootstrap", "trixie", "--file", archive],
        env={**os.environ, "VS_TOOLS_ROOT": str(host.root)}, check=True, timeout=1200,
    )  # fmt: skip
    with subprocess.Popen(["zstd", "-dc", archive], stdout=subprocess.PIPE) as unpacker:
        assert unpacker.stdout is not None
        with tarfile.open(fileobj=unpacker.stdout, mode="r|") as tar:
            names = {member.name.removeprefix("./") for member in tar}
    assert "usr/lib/systemd/systemd" in names
    assert not [name for name in names if name.startswith("etc/ssh/ssh_host_") or name.endswith(".deb")]
    assert names.isdisjoint({"etc/machine-id", "usr/sbin/policy-rc.d", "etc/hostname", "etc/resolv.conf"})
    assert list(host.trees.glob(".*")) == []
    assert create(host, "web", 10, archive, "--start").code == 0


def test_remove_takes_everything(web: Host) -> None:
    web.ok("vs-control", "--name", "web", "--start")
    web.ok("vs-control", "--name", "web", "--stop")
    assert (web.root / "var/log/vs-tools/web").is_dir()
    assert web.ok("vs-remove", "--name", "web", "--yes") == ""
    for folder in (web.guests, web.trees, web.root / "var/log/vs-tools", web.run / "guests"):
        assert [name for name in os.listdir(folder) if "web" in name] == [], folder
    assert web.ok("vs-control", "--all") == ""
    assert create(web, "web", 10, web.root / "none.tar").code == 2
    assert web.vs("vs-remove", "--name", "web", "--yes").code == 2


@pytest.mark.parametrize("case", ["running", "enabled", "nobody there to answer", "unknown"])
def test_refused_removal_changes_nothing(web: Host, case: str) -> None:
    words = ["--name", "web", "--yes"]
    if case == "running":
        web.ok("vs-control", "--name", "web", "--start")
    elif case == "enabled":
        web.ok("vs-control", "--name", "web", "--enable")
    elif case == "unknown":
        words[1] = "nobody"
    else:
        words.remove("--yes")
    before = web.state()
    done = web.vs("vs-remove", *words)
    assert (done.code, len(done.err.strip().splitlines())) == (2, 1), done
    assert web.state() == before


@pytest.mark.parametrize(
    ("answer", "goes"), [(b"y\r", True), (b"n\r", False), (b"\r", False), (b"\x04", False)], ids=repr
)
def test_removal_asks_on_a_terminal(web: Host, answer: bytes, goes: bool) -> None:
    pid, side = pty.fork()
    if not pid:
        os.environ["VS_TOOLS_ROOT"] = str(web.root)
        os.execv(BIN / "vs-remove", ["vs-remove", "--name", "web"])  # noqa: S606 - as a shell would
    seen = b""
    while b"[y/N]" not in seen:
        seen += os.read(side, 1024)
    os.write(side, answer)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(side)
    assert status == (0 if goes else 2)
    assert (web.trees / "web").exists() is not goes


def test_dry_run_removes_nothing(web: Host) -> None:
    before = web.state()
    assert str(web.trees / "web") in web.ok("vs-remove", "--name", "web", "--dry-run")
    assert web.state() == before


def test_deep_and_oddly_named_trees_go_too(web: Host) -> None:
    """A guest's root may nest directories past any path length, and name files as it likes."""
    where = os.open(web.trees / "web", os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deeper-and-deeper", dir_fd=where)
        below = os.open("deeper-and-deeper", os.O_RDONLY, dir_fd=where)
        os.close(where)
        where = below
    os.close(where)
    for name in (b"new\nline", b"-rf", b"\xff\xfe", b"\x1b[31m", b" ", b"a" * 255):
        Path(os.fsdecode(os.fsencode(web.trees / "web") + b"/" + name)).write_bytes(b"x")
    (web.trees / "web/link").symlink_to("/etc")
    web.ok("vs-remove", "--name", "web", "--yes")
    assert list(web.trees.glob("*web*")) == []
    assert Path("/etc/passwd").exists()


def test_what_is_mounted_in_a_tree_is_neither_removed_nor_packed(web: Host, outside: Path, tmp_path: Path) -> None:
    """A bind mount of the same file system is invisible to rm and tar."""
    (web.trees / "web/outside").symlink_to(outside)
    inner = web.trees / "web/a directory"
    inner.mkdir()
    subprocess.run(["mount", "--bind", outside, inner], check=True)
    try:
        before = web.state()
        for argv in (
            ["vs-remove", "--name", "web", "--yes"],
            ["vs-template", "--name", "web", "--file", f"{tmp_path}/t.tar"],
        ):
            done = web.vs(*argv)
            assert (done.code, f"umount {inner}" in done.err) == (2, True), done
        assert web.state() == before
        assert not (tmp_path / "t.tar").exists()
    finally:
        subprocess.run(["umount", inner], check=True)
    web.ok("vs-remove", "--name", "web", "--yes")


def test_killed_removal_is_not_finished_over_a_mount(web: Host, outside: Path) -> None:
    web.vs("vs-remove", "--name", "web", "--yes", VS_TOOLS_FAULT="remove:tree-renamed")
    inner = web.trees / ".old-web/mnt"
    inner.mkdir()
    subprocess.run(["mount", "--bind", outside, inner], check=True)
    try:
        assert f"umount {inner}" in web.vs("vs-control", "--all", "--stop").err
    finally:
        subprocess.run(["umount", inner], check=True)
    web.ok("vs-control", "--all", "--stop")
    assert list(web.trees.glob("*web*")) == []


def test_removal_killed_at_any_step_is_finished_by_the_next_command(host: Host, small: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    assert create(host, "web", 10, small, "--start").code == 0
    host.ok("vs-control", "--name", "web", "--stop")
    host.ok("vs-remove", "--name", "web", "--yes", VS_TOOLS_FAULT_TRACE=str(trace))
    steps = [step for step in dict.fromkeys(trace.read_text().split()) if step.startswith("remove:")]
    assert len(steps) >= 4
    for step in steps:
        assert create(host, "web", 10, small).code == 0, step
        (host.root / "var/log/vs-tools/web").mkdir()
        killed = host.vs("vs-remove", "--name", "web", "--yes", VS_TOOLS_FAULT=step)
        assert killed.code == -9, step
        assert host.vs("vs-control", "--name", "web").code == 2, f"{step}: it is gone at once"
        done = create(host, "web", 10, small)  # the name and the address are free again
        assert done.code == 0, (step, done)
        assert (host.trees / "web/bin/busybox").exists()
        host.ok("vs-remove", "--name", "web", "--yes")
        assert host.leftovers() == [], step
        assert list((host.root / "var/log/vs-tools").iterdir()) == [], step

"""Two arguments make a guest; everything wrong is refused and changes nothing."""

import os
import subprocess
import tarfile
import threading
from io import BytesIO
from pathlib import Path

import pytest
from conftest import NET, Host, create


def test_two_arguments_make_a_guest(host: Host, small: Path) -> None:
    host.configure(DEFAULT_TEMPLATE=str(small))
    node = os.uname().nodename.partition(".")[0]
    out = host.ok("vs-create", "--name", "web", "--interface", f"{NET}.10")
    assert out == f"{node}:web:disabled:stopped\n"
    assert (host.guests / "web/context").read_text() == "60000\n"
    assert (host.guests / "web/interfaces/0/ip").read_text() == f"{NET}.10\n"
    assert not (host.guests / "web/interfaces/0/prefix").exists(), "networks.conf decides at each start"
    tree = host.trees / "web"
    assert (tree / "etc/hostname").read_text() == "web\n"
    assert f"{NET}.10\tweb.test.internal web" in (tree / "etc/hosts").read_text()
    assert f"nameserver {NET}.53" in (tree / "etc/resolv.conf").read_text()
    assert (tree / "etc/shadow").read_text().startswith("root:*:"), "root's password is locked"
    assert host.trees.stat().st_mode & 0o7777 == 0o700


def test_command_line_wins_over_networks_conf_which_wins_over_create_conf(host: Host, small: Path) -> None:
    host.configure(DEFAULT_DOMAIN="create.example", DEFAULT_NAMESERVER="192.0.2.1", DEFAULT_RSS_LIMIT="100")
    create(host, "a", 10, small)
    create(host, "b", 11, small, "--domain", "line.example", "--nameserver", "192.0.2.9", "--rss", "200")
    read = lambda name, file: (host.trees / name / "etc" / file).read_text()  # noqa: E731
    assert "search test.internal" in read("a", "resolv.conf")
    assert "search line.example" in read("b", "resolv.conf")
    assert "nameserver 192.0.2.9" in read("b", "resolv.conf")
    assert (host.guests / "a/rlimits/rss").read_text() == "25600\n"
    assert (host.guests / "b/rlimits/rss").read_text() == "51200\n"


def test_guests_of_one_template_differ_where_they_must(host: Host, debian: Path) -> None:
    for number, name in ((10, "one"), (11, "two")):
        assert create(host, name, number, debian).code == 0
    keys = {(host.trees / name / "etc/ssh/ssh_host_ed25519_key").read_text() for name in ("one", "two")}
    assert len(keys) == 2
    assert (host.trees / "one/etc/machine-id").read_text() == ""
    assert os.readlink(host.trees / "one/etc/systemd/system/systemd-networkd.service") == "/dev/null"
    macs = {(host.guests / name / "interfaces/0/mac").read_text() for name in ("one", "two")}
    assert len(macs) == 2


def test_dry_run_changes_nothing(host: Host, small: Path) -> None:
    before = host.state()
    done = create(host, "web", 10, small, "--dry-run")
    assert done.code == 0
    assert f"{NET}.10/24, gateway {NET}.1" in done.out
    assert host.state() == before


def test_skeleton_has_the_minimal_directories(host: Host) -> None:
    host.ok("vs-create", "--name", "bare", "--interface", f"{NET}.10", "--skeleton")
    assert {"dev", "etc", "proc", "sys", "tmp", "var"} <= set(os.listdir(host.trees / "bare"))


@pytest.mark.parametrize("compress", [["gzip"], ["xz", "-0"], ["zstd", "-q"]], ids=lambda words: words[0])
def test_compressed_templates(host: Host, small: Path, tmp_path: Path, compress: list[str]) -> None:
    packed = tmp_path / "packed"
    packed.write_bytes(subprocess.run([*compress, "-c", small], capture_output=True, check=True).stdout)
    assert create(host, "web", 10, packed).code == 0
    packed.write_bytes(packed.read_bytes()[:-2000])
    done = create(host, "bad", 11, packed)
    assert (done.code, "damaged" in done.err) == (2, True), done


def test_ssh_key_locale_and_time_zone(host: Host, debian: Path) -> None:
    host.configure(DEFAULT_TIMEZONE="Europe/Paris", DEFAULT_LOCALE="fr_FR.UTF-8")
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ5 admin@example"
    assert create(host, "web", 10, debian, "--ssh-key", key).code == 0
    tree = host.trees / "web"
    assert (tree / "root/.ssh/authorized_keys").read_text() == f"{key}\n"
    assert (tree / "root/.ssh/authorized_keys").stat().st_mode & 0o777 == 0o600
    assert os.readlink(tree / "etc/localtime") == "/usr/share/zoneinfo/Europe/Paris"
    assert "fr_FR.UTF-8" in (tree / "etc/locale.conf").read_text()


BAD = {
    "capital name": (["--name", "Web"], "capitals"),
    "name with a slash": (["--name", "../etc"], "cannot name a guest"),
    "reserved name": (["--name", "TEMPLATES"], "reserved"),
    "long name": (["--name", "a" * 64], "cannot name a guest"),
    "taken name": (["--name", "taken"], "already"),
    "taken address": (["--interface", f"{NET}.9"], "guest taken"),
    "no address": (["--interface", "10.0.0.300"], "not an IPv4 or IPv6 address"),
    "outside every network": (["--interface", "10.1.2.3"], "in no network"),
    "outside with a prefix alone": (["--interface", "10.1.2.3", "--prefix", "24"], "in no network"),
    "the network itself": (["--interface", f"{NET}.0"], "network"),
    "broadcast": (["--interface", f"{NET}.255"], "broadcast"),
    "gateway": (["--interface", f"{NET}.1"], "gateway"),
    "the host's own": (["--interface", f"{NET}.77"], "this host's own"),
    "twice the same": (["--interface", f"{NET}.10", "--interface", f"{NET}.10"], "twice"),
    "missing template": (["--template", "/nowhere/t.tar"], "does not exist"),
    "unknown device": (["--device", "nodev0"], "does not exist"),
    "unknown option": (["--frobnicate"], "frobnicate"),
    "limit": (["--rss", "-1"], "--rss"),
    "share": (["--cpu", "3/2"], "--cpu"),
    "private key": (["--ssh-key", "-----BEGIN"], "--ssh-key"),
    "two ways at once": (["--skeleton", "--debootstrap", "trixie"], "contradict"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_changes_nothing(host: Host, small: Path, case: str) -> None:
    assert create(host, "taken", 9, small).code == 0
    subprocess.run(["ip", "address", "add", f"{NET}.77/32", "dev", "lo"], check=True)
    try:
        words, sentence = BAD[case]
        good = {"--name": ["web"], "--interface": [f"{NET}.10"]}
        argv = [word for key, value in good.items() if key not in words for word in (key, *value)] + words
        if not {"--template", "--skeleton"} & set(words):
            argv += ["--template", str(small)]
        before = host.state()
        done = host.vs("vs-create", *argv)
        assert done.code == 2, done
        assert sentence in done.err
        assert len(done.err.strip().splitlines()) == 1, done.err
        assert host.state() == before
    finally:
        subprocess.run(["ip", "address", "delete", f"{NET}.77/32", "dev", "lo"], check=True)


def test_unknown_keys_are_told_with_their_places_all_at_once(host: Host, small: Path) -> None:
    (host.conf / "create.conf").write_text("DEFAULT_DEVICE=vsbr0\nFOO=1\n  BAR=2\n")
    (host.conf / "networks.conf").write_text(f"0:{NET}.0/24\n5000:10.0.0.0/24\n")
    done = create(host, "web", 10, small)
    assert done.code == 2
    assert [line.split(": ")[0] for line in done.err.splitlines()] == [
        f"{host.conf}/create.conf:2:1", f"{host.conf}/create.conf:3:3", f"{host.conf}/networks.conf:2:1",
    ]  # fmt: skip


def test_address_that_answers_on_the_wire_is_refused(host: Host, small: Path) -> None:
    """A neighbour in a namespace of its own holds the address."""
    script = f"""
    ip link add vsbr0 type bridge && ip link set vsbr0 up
    ip netns add neighbour && ip link add port0 type veth peer name eth0 netns neighbour
    ip link set port0 master vsbr0 up
    ip -n neighbour address add {NET}.10/24 dev eth0 && ip -n neighbour link set eth0 up
    """
    subprocess.run(["sh", "-ec", script], check=True)
    try:
        before = host.state()
        done = create(host, "web", 10, small)
        assert (done.code, "in use on the network" in done.err) == (2, True), done
        assert host.state() == before
        assert create(host, "web", 11, small).code == 0
    finally:
        subprocess.run(["ip", "netns", "delete", "neighbour"], check=True)


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"", **more: int) -> tuple:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, len(data)
    for key, value in more.items():
        setattr(member, key, value)
    return member, data


HOSTILE = {
    "absolute name": [_member("/etc/cron.d/x", data=b"x")],
    "leads outside": [_member("a/../../x", data=b"x")],
    "hard link outside": [_member("x", tarfile.LNKTYPE, "../../etc/shadow")],
    "absolute hard link": [_member("x", tarfile.LNKTYPE, "/etc/shadow")],
    "through a link": [_member("etc", tarfile.SYMTYPE, "/etc"), _member("etc/passwd", data=b"x")],
    "over a link": [_member("x", tarfile.SYMTYPE, "/etc/passwd"), _member("x", data=b"x")],
    "through a hard-linked link": [
        _member("a", tarfile.SYMTYPE, "/etc"), _member("b", tarfile.LNKTYPE, "a"), _member("b/x", data=b"x"),
    ],
    "the root as a link": [_member("./", tarfile.SYMTYPE, "/etc"), _member("./x", data=b"x")],
    "shifted ids": [_member("x", data=b"x", uid=100000)],
    "file as a directory": [_member("x", data=b"x"), _member("x/y", data=b"y")],
    "empty": [],
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_template_is_refused_and_changes_nothing(host: Host, tmp_path: Path, case: str) -> None:
    archive = tmp_path / "hostile.tar"
    with tarfile.open(archive, "w") as tar:
        for member, data in HOSTILE[case]:
            tar.addfile(member, BytesIO(data))
    before, passwd = host.state(), Path("/etc/passwd").read_bytes()
    done = create(host, "web", 10, archive)
    assert done.code == 2, done
    assert len(done.err.strip().splitlines()) == 1
    assert host.leftovers() == []
    assert host.state() == before
    assert Path("/etc/passwd").read_bytes() == passwd


NO_ARCHIVE = {
    "empty": b"",
    "text": b"no archive\n" * 100,
    "broken gzip": b"\x1f\x8b\x08 broken",
    "zeros": b"\0" * 10240,
}


@pytest.mark.parametrize("case", NO_ARCHIVE)
def test_no_archive_is_refused(host: Host, tmp_path: Path, case: str) -> None:
    archive = tmp_path / "t.tar"
    archive.write_bytes(NO_ARCHIVE[case])
    done = create(host, "web", 10, archive)
    assert (done.code, len(done.err.strip().splitlines())) == (2, 1), done
    assert not list(host.trees.glob("*web*"))


def test_device_nodes_are_left_out_and_counted(host: Host, small: Path, tmp_path: Path) -> None:
    archive = tmp_path / "t.tar"
    archive.write_bytes(small.read_bytes())
    with tarfile.open(archive, "a") as tar:
        for minor in (3, 5):
            tar.addfile(_member(f"./dev/n{minor}", tarfile.CHRTYPE, devmajor=1, devminor=minor)[0])
    done = create(host, "web", 10, archive)
    assert (done.code, "2 device nodes" in done.err) == (0, True), done
    assert os.listdir(host.trees / "web/dev") == []


def test_full_disk_leaves_nothing(host: Host, small: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", host.trees], check=True)
    try:
        done = create(host, "web", 10, small)
        assert (done.code, "space" in done.err) == (1, True), done
        assert not list(host.trees.glob("*web*"))
        assert not list(host.guests.glob("*web*"))
        subprocess.run(["mount", "-o", "remount,size=100m", host.trees], check=True)
        assert create(host, "web", 10, small).code == 0
    finally:
        subprocess.run(["umount", host.trees], check=True)


def test_guests_made_at_once_get_contexts_and_addresses_of_their_own(host: Host, small: Path) -> None:
    done = {}
    threads = [
        threading.Thread(target=lambda n=number: done.update({n: create(host, f"g{n}", 20 + n % 4, small)}))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    codes = sorted(result.code for result in done.values())
    assert codes == [0, 0, 0, 0, 2, 2, 2, 2], done
    contexts = {(host.guests / name / "context").read_text() for name in os.listdir(host.guests) if name[0] != "."}
    assert len(contexts) == 4


def _steps(host: Host, small: Path, tmp_path: Path) -> list[str]:
    trace = tmp_path / "trace"
    done = host.vs(
        "vs-create",
        "--name",
        "trace",
        "--interface",
        f"{NET}.200",
        "--template",
        str(small),
        VS_TOOLS_FAULT_TRACE=str(trace),
    )
    assert done.code == 0, done
    return list(dict.fromkeys(trace.read_text().split()))


def test_killed_at_any_step_leaves_nothing_that_the_next_run_does_not_clear(
    host: Host, small: Path, tmp_path: Path
) -> None:
    steps = _steps(host, small, tmp_path)
    assert len(steps) >= 10
    for step in steps:
        words = ("--name", "web", "--interface", f"{NET}.10", "--template", str(small))
        killed = host.vs("vs-create", *words, VS_TOOLS_FAULT=step)
        assert killed.code == -9, (step, killed)
        if (host.guests / "web").exists():  # it was killed after the guest had got its name
            assert (host.trees / "web/bin/busybox").exists(), step
            host.ok("vs-remove", "--name", "web", "--yes")
        else:
            host.ok("vs-create", *words)
            host.ok("vs-remove", "--name", "web", "--yes")
        assert host.leftovers() == [], step

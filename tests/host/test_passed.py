"""What of the host a guest is given: directories and files of its fstab, device nodes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Host, create, wait


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host's that everybody may read, with one that everybody may write."""
    folder = tmp_path / "shared data"
    (folder / "open").mkdir(parents=True)
    (folder / "note").write_text("from the host\n")
    (folder / "open").chmod(0o777)
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == 0 and path.is_relative_to("/tmp/pytest-of-root"):
            path.chmod(0o755)
    return folder


def lines(host: Host, *text: str) -> None:
    """Write the guest's fstab."""
    (host.guests / "web/fstab").write_text("".join(f"{line}\n" for line in text))


def field(path: Path) -> str:
    """A path as fstab has it."""
    return str(path).replace(" ", "\\040")


def test_directories_files_and_devices_of_the_host_are_in_the_guest(host: Host, small: Path, shared: Path) -> None:
    assert create(host, "web", 10, small).code == 0
    lines(
        host, f"{field(shared)} /srv/data none bind,ro 0 0", f"{field(shared)}/open /srv/open none bind",
        f"{field(shared)}/note /etc/note none bind,ro", "none /proc proc defaults 0 0",
        "/dev/vg/old /mnt ext4 defaults 0 0",
    )  # fmt: skip
    (host.guests / "web/devices").write_text("# for a VPN\n/dev/net/tun\n")
    done = host.vs("vs-control", "--name", "web", "--start")
    assert done.code == 0, done
    assert f"{host.guests}/web/fstab:5: /mnt is not mounted" in done.err
    assert host.inside("web", "cat /srv/data/note /etc/note").out == "from the host\n" * 2
    assert host.inside("web", "echo no > /srv/data/open/file").code != 0, "read-only"
    assert host.inside("web", "echo yes > /srv/open/file").code == 0
    made = shared / "open/file"
    assert made.stat().st_uid == int((host.guests / "web/context").read_text()) * 65536, "the guest's root, no other"
    (shared / "open/tool").write_text("#!/bin/sh\nid -u\n")
    (shared / "open/tool").chmod(0o4755)
    assert "nosuid" in host.inside("web", "grep ' /srv/open ' /proc/self/mountinfo").out
    assert host.inside("web", "stat -c %t:%T:%u /dev/net/tun").out == "a:c8:0\n"
    assert host.inside("web", "exec 3<>/dev/net/tun").code == 0
    assert host.inside("web", "chown 0 /srv/data/note; mount -o remount,rw /srv/data").code != 0
    (shared / "later").mkdir()
    host.ok("vs-control", "--name", "web", "--restart")
    assert host.inside("web", "ls /srv/data").out == "later\nnote\nopen\n"
    assert host.ok("vs-control", "--name", "web", "--stop").endswith(":stopped\n")
    assert not os.listdir(host.trees / "web/srv/data"), "nothing of the host's is in the tree itself"


def test_what_the_guests_own_reboot_finds_is_what_the_files_say_then(host: Host, small: Path, shared: Path) -> None:
    assert create(host, "web", 10, small, "--start").code == 0
    lines(host, f"{field(shared)} /srv none bind,ro")
    host.inside("web", "reboot -f")
    wait(lambda: host.inside("web", "cat /srv/note").out == "from the host\n")


def test_a_start_that_is_killed_leaves_no_mount(host: Host, small: Path, shared: Path) -> None:
    assert create(host, "web", 10, small).code == 0
    lines(host, f"{field(shared)} /srv none bind,ro", f"{field(shared)}/note /etc/note none bind")
    (host.guests / "web/devices").write_text("/dev/net/tun\n")
    assert host.vs("vs-control", "--name", "web", "--start", VS_TOOLS_FAULT="start:tmp").code < 0
    assert len([what for what in host.leftovers() if "/shares/" in what]) == 2
    assert host.ok("vs-control", "--name", "web", "--start").endswith(":running\n")
    assert host.inside("web", "cat /srv/note").out == "from the host\n"
    host.ok("vs-control", "--name", "web", "--stop")
    assert not host.leftovers()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        ("ln -s /etc {tree}/srv", "/srv is no directory"),
        ("mkdir -p {tree}/srv; ln -s /etc {tree}/srv/data", "/srv/data is no directory"),
        ("mv '{shared}' '{shared}.real'; ln -s '{shared}.real' '{shared}'", "a link is on its way"),
        ("rm -r '{shared}'", "No such file or directory"),
    ],
)
def test_a_link_leads_nobody_astray(host: Host, small: Path, shared: Path, spoil: str, sentence: str) -> None:
    assert create(host, "web", 10, small).code == 0
    lines(host, f"{field(shared)} /srv/data none bind")
    os.system(spoil.format(tree=host.trees / "web", shared=shared))  # noqa: S605 - the test's own
    done = host.vs("vs-control", "--name", "web", "--start")
    assert (done.code, sentence in done.err) == (2, True), done


def test_faults_have_their_place_and_trees_are_given_to_nobody(host: Host, small: Path) -> None:
    assert create(host, "web", 10, small).code == 0
    lines(host, "/srv /data none bind,suid", "srv /data none bind", "/srv /proc/x none bind", "/srv /data none rbind")
    (host.guests / "web/devices").write_text("/etc/passwd\n")
    done = host.vs("vs-control", "--name", "web", "--start")
    places = [line.partition(": ")[0].removeprefix(f"{host.guests}/web/") for line in done.err.splitlines()]
    assert (done.code, places) == (2, ["fstab:1:17", "fstab:2:1", "fstab:3:6", "fstab:4:17", "devices:1:1"]), done
    (host.guests / "web/devices").unlink()
    for source in (host.trees, host.trees / "web", host.root):
        lines(host, f"{source} /data none bind")
        done = host.vs("vs-control", "--name", "web", "--start")
        assert (done.code, "guests' trees are there" in done.err) == (2, True), done
    lines(host)
    (host.guests / "web/devices").write_text("/dev/shm\n")
    assert "no device node" in host.vs("vs-control", "--name", "web", "--start").err

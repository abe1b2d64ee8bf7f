"""A lab's hosts: how they are named and started, who they are, and which have to be made."""

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from lab import host as hosts
from lab.host import BUILDER, Host, HostFiles, Origin
from lab.identity import archive, identity, known_hosts
from lab.places import Places
from lab.pool import events, to_make
from lab.qemu import command_line
from lab.ssh import argv, write_config, write_host_config

ORIGIN = Origin("trixie-1", "trixie-1.aa", 1024)
HOST = Host(1, ORIGIN.image, ORIGIN.layer, ORIGIN.memory, 4022, "tcg")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    made = Places("12345678", cache=tmp_path / "cache", states=tmp_path / "states")
    HostFiles.of(made, HOST.name).folder.mkdir(parents=True)
    return made


def devices(line: list[str]) -> list[str]:
    """What stands after each -device, as far as the driver's own options."""
    return [line[place + 1] for place, word in enumerate(line) if word == "-device"]


def test_labs_of_two_checkouts_share_no_name() -> None:
    one, other = Places.of(Path("/tmp/a")), Places.of(Path("/tmp/b"))
    assert one == Places.of(Path("/tmp/a"))
    assert one.state != other.state
    assert one.namespace != other.namespace
    assert one.tap(0) != other.tap(0)
    assert one.images == other.images


def test_a_tap_has_a_name_that_the_kernel_takes() -> None:
    assert len(Places.of(Path("/tmp/a")).tap(BUILDER)) < 16


def test_a_boot_has_the_trunk_nic_and_a_restore_has_the_devices_of_the_snapshot(places: Places) -> None:
    files = HostFiles.of(places, HOST.name)
    first, later = command_line(places, HOST, files), command_line(places, HOST, files, with_trunk_nic=True)
    restored = command_line(places, HOST, files, snapshot="fresh")
    assert restored == [*first, "-loadvm", "fresh"]
    assert "virtio-net-pci,id=nic-trunk,netdev=trunk,addr=0x4,mac=52:54:00:99:01:01" in devices(later)
    assert [device for device in devices(later) if "trunk" not in device] == devices(first)


def test_a_host_listens_on_loopback_only(places: Places) -> None:
    line = " ".join(command_line(places, HOST, HostFiles.of(places, HOST.name)))
    assert "hostfwd=tcp:127.0.0.1:4022-10.99.0.15:22" in line


def test_what_one_command_remembers_the_next_one_finds(places: Places) -> None:
    hosts.save(places, HOST)
    hosts.save(places, replace(HOST, saved=True))
    assert hosts.load_all(places) == [replace(HOST, saved=True)]
    assert hosts.load(places, "vsh-01").trunk_address == "10.99.1.11"


def test_a_process_id_of_somebody_else_is_not_our_host(places: Places) -> None:
    files = HostFiles.of(places, HOST.name)
    files.pid.write_text("1\n")
    files.settled.write_text("1")
    assert hosts.running_pid(files) is None
    assert not hosts.is_up(files)


def test_ssh_asks_nothing_and_believes_only_the_lab_s_own_keys(places: Places) -> None:
    write_config(places)
    write_host_config(places, HOST)
    assert argv(places, "vsh-01", ["true"]) == ["ssh", "-F", str(places.ssh_config), "vsh-01", "true"]
    assert "StrictHostKeyChecking yes" in places.ssh_config.read_text()
    assert "Port 4022" in HostFiles.of(places, "vsh-01").ssh_config.read_text()


def test_a_host_is_known_by_name_and_by_address() -> None:
    assert known_hosts({0: "ssh-ed25519 AAA0 comment\n", 1: "ssh-ed25519 AAA1 comment\n"}) == (
        "vsh-00,10.99.1.10 ssh-ed25519 AAA0\nvsh-01,10.99.1.11 ssh-ed25519 AAA1\n"
    )


def test_the_identity_of_a_host_has_its_own_key_and_keeps_it_private() -> None:
    names = ("root", "root.pub", "known_hosts", "vsh-00", "vsh-00.pub", "vsh-01", "vsh-01.pub")
    files = identity(HOST, {name: name.encode() for name in names})
    with tarfile.open(fileobj=io.BytesIO(archive(files))) as tar:
        modes = {entry.name: entry.mode for entry in tar}
    assert {name for name, mode in modes.items() if mode == 0o600} == {
        "etc/ssh/ssh_host_ed25519_key",
        "root/.ssh/id_ed25519",
        "root/.ssh/authorized_keys",
    }
    assert files["etc/ssh/ssh_host_ed25519_key"].content == b"vsh-01"
    assert files["etc/hostname"].content == b"vsh-01\n"
    assert b"10.99.1.10 vsh-00\n" in files["etc/hosts"].content
    assert b"address 10.99.1.11/24" in files["etc/network/interfaces"].content


def test_hosts_that_are_missing_or_were_never_saved_are_made() -> None:
    saved = [replace(HOST, number=number, saved=True) for number in (0, 1)]
    assert to_make([], 2, ORIGIN, renew=False) == [0, 1]
    assert to_make(saved, 3, ORIGIN, renew=False) == [2]
    assert to_make([saved[0], HOST], 1, ORIGIN, renew=False) == [1]


def test_only_renew_makes_an_outdated_host_anew() -> None:
    outdated = replace(HOST, number=0, layer="trixie-1.bb", saved=True)
    current = replace(HOST, saved=True)
    assert to_make([outdated, current], 2, ORIGIN, renew=False) == []
    assert to_make([outdated, current], 2, ORIGIN, renew=True) == [0]


EVENTS = """\
Nov 22 04:08:32.783600 vsh-00 kernel: eth0: renamed from vs10000.0t
Nov 22 04:08:36.218210 vsh-00 systemd[1]: Started vs-guest@web.service - Guest web.
Nov  2 04:08:36.427904 vsh-00 vs-create[1399]: who=root what=start guest=web result=ok
Nov 22 04:12:08.890028 vsh-00 systemd[1]: vs-guest@web.service: Consumed 1.311s CPU time, 4.2M memory peak."""
SESSIONS = """\
Nov 22 04:11:40.270368 vsh-00 sshd-session[1396]: Received disconnect from 10.99.0.2 port 35128:11: disconnected by user
Nov  2 04:11:40.270368 vsh-00 sshd[1396]: Server listening on :: port 22.
Nov 22 04:12:02.848246 vsh-00 systemd-logind[463]: New session 17 of user root.
Nov 22 04:12:03.034431 vsh-00 systemd[1]: Started session-17.scope - Session 17 of User root.
Nov 22 04:12:08.890028 vsh-00 systemd[1]: session-18.scope: Consumed 1.311s CPU time, 4.2M memory peak.
Nov 22 04:12:09.000000 vsh-00 systemd[1]: Stopping user@0.service - User Manager for UID 0...
Nov 22 04:12:09.100000 vsh-00 systemd[812]: Reached target basic.target - Basic System.
Nov 22 04:12:09.200000 vsh-00 (systemd)[812]: pam_unix(systemd-user:session): session opened for user root(uid=0)"""


def test_what_a_failed_test_shows_of_a_journal_is_not_its_own_ssh() -> None:
    first, *others = EVENTS.splitlines()
    assert events("\n".join([first, SESSIONS, *others]), 200) == EVENTS
    assert events(f"{EVENTS}\n{SESSIONS}", 1) == others[-1]

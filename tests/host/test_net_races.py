"""A guest's network is changed while the guest starts: the kernel and the files say the same in the end."""

import subprocess
import time
from ipaddress import ip_address
from pathlib import Path

import pytest
from conftest import NET, Host, create

from vstools import units
from vstools.lifecycle import change, presence
from vstools.lifecycle.host import runtime_lock
from vstools.paths import Paths


def addresses_in_kernel() -> str:
    return subprocess.run(["ip", "-n", "vs60000", "-4", "address"], capture_output=True, text=True, check=True).stdout


def test_a_start_that_waited_for_a_change_makes_what_the_files_say_now(host: Host, small: Path) -> None:
    """systemd's starts hold no lock of the guest but that of its runtime."""
    assert create(host, "web", 10, small).code == 0
    with runtime_lock(Paths(host.root), "web"):
        start = host.start("vs-guest-phase", "prepare", "web")
        time.sleep(1)
        (host.guests / "web/interfaces/0/ip").write_text(f"{NET}.20\n")
    try:
        assert start.wait(60) == 0
        assert f"{NET}.20/24" in addresses_in_kernel()
    finally:
        host.ok("vs-guest-phase", "cleanup", "web")


def test_a_change_finds_a_guest_that_systemd_is_just_starting(
    host: Host, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert create(host, "web", 10, small).code == 0
    host.ok("vs-guest-phase", "prepare", "web")
    try:
        monkeypatch.setattr(Paths, "systemd", property(lambda _: True))
        monkeypatch.setattr(units, "is_idle", lambda _: False)
        change.apply(Paths(host.root), "web", change.Edits(add=(ip_address(f"{NET}.20"),)))
        assert f"{NET}.20/24" in addresses_in_kernel()
    finally:
        host.ok("vs-guest-phase", "cleanup", "web")


def test_a_guest_that_ends_behind_a_change_is_announced_to_nobody(
    host: Host, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "/run/netns/vs60000")

    assert create(host, "web", 10, small, "--start").code == 0
    monkeypatch.setattr(presence, "announce", ended)
    change.apply(Paths(host.root), "web", change.Edits(add=(ip_address(f"{NET}.20"),)))
    assert (host.guests / "web/interfaces/1/ip").read_text() == f"{NET}.20\n"
    host.ok("vs-control", "--name", "web", "--stop")


def test_a_change_that_waits_for_a_start_keeps_nobody_from_making_another_guest(host: Host, small: Path) -> None:
    assert create(host, "web", 10, small).code == 0
    with runtime_lock(Paths(host.root), "web"):
        waiting = host.start("vs-net", "--name", "web", "--add", f"{NET}.20")
        time.sleep(1)
        assert create(host, "other", 11, small).code == 0
        assert waiting.poll() is None
    assert waiting.wait(60) == 0

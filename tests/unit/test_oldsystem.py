"""A system that ran elsewhere: which init it has, and what is put right in it, once."""

import os
from pathlib import Path

import pytest

from vstools.errors import Refused
from vstools.inside import Inside
from vstools.tree import oldsystem
from vstools.tree.oldsystem import System

from .made import below

HERE = {"x86_64": 62, "aarch64": 183}.get(os.uname().machine, 0)


def program(path: Path, *words: bytes, machine: int = HERE) -> None:
    """A program of this or another machine, with these words in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x7fELF\2\1" + bytes(12) + machine.to_bytes(2, "little") + b"\0".join((b"", *words, b"")))


INITS = {
    "systemd": ((b"systemd 252.39-1~deb12u1 running in %ssystem mode (%s)",), System("systemd", 252, None)),
    "systemd by its library": ((b"libsystemd-shared-257.so",), System("systemd", 257, None)),
    "an old systemd": ((b"systemd 215 running in %ssystem mode",), System("systemd", 215, None)),
    "sysvinit": ((b"/etc/inittab", b"INIT_HALT"), System("sysvinit", None, None)),
    "upstart": ((b"com.ubuntu.Upstart", b"/etc/inittab"), System("upstart", None, None)),
    "busybox": ((b"BusyBox v1.35", b"/etc/inittab"), System("busybox", None, None)),
    "another": ((b"runit",), System("other", None, None)),
}


@pytest.mark.parametrize("kind", INITS)
def test_an_init_is_known_by_its_words(tmp_path: Path, kind: str) -> None:
    words, expected = INITS[kind]
    program(tmp_path / "lib/init", *words)
    (tmp_path / "sbin").mkdir()
    (tmp_path / "sbin/init").symlink_to("/lib/init")
    with Inside(tmp_path) as tree:
        found = oldsystem.examine(tree)
    assert (found.init, found.version, found.machine) == (expected.init, expected.version, os.uname().machine)


def test_what_cannot_run_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with Inside(tmp_path) as tree, pytest.raises(Refused, match="has no /sbin/init: install one in it"):
        oldsystem.check(oldsystem.examine(tree), "guest web")
    with pytest.raises(Refused, match=r"has systemd 225, which knows no cgroup v2 .* sysvinit-core"):
        oldsystem.check(System("systemd", 225, None), "guest web")
    oldsystem.check(System("systemd", 226, None), "guest web")
    oldsystem.check(System("systemd", None, None), "guest web")
    with pytest.raises(Refused, match="has programs for machine 8, this host is"):
        oldsystem.check(System("sysvinit", None, "machine 8"), "guest web")
    if os.uname().machine == "x86_64":
        oldsystem.check(System("sysvinit", None, "i386"), "guest web")


@pytest.fixture
def sysv(tmp_path: Path) -> Path:
    """A guest with sysvinit as util-vserver's scripts left it: no halt, the hardware's services in its runlevels."""
    for name in ("init.d", "rcS.d", "rc0.d", "rc2.d", "rc6.d", "network"):
        (tmp_path / "etc" / name).mkdir(parents=True)
    (tmp_path / "sbin").mkdir()
    (tmp_path / "sbin/halt").write_text("")
    for name in ("udev", "hwclock.sh", "ssh", "rc", "halt", "reboot"):
        (tmp_path / "etc/init.d" / name).write_text("#!/bin/sh\n# halt -d -f\nexit 0\n")
    (tmp_path / "etc/init.d/reboot").write_text("#!/bin/sh\nreboot -d -f -i\n")
    for link, target in (("rcS.d/S02udev", "udev"), ("rcS.d/S11hwclock.sh", "hwclock.sh"), ("rc2.d/S20ssh", "ssh"),
                         ("rc2.d/K01udev", "udev"), ("rc6.d/S90reboot", "reboot")):  # fmt: skip
        (tmp_path / "etc" / link).symlink_to(f"../init.d/{target}")
    (tmp_path / "etc/inittab").write_text(
        "id:3:initdefault:\nsi::sysinit:/etc/init.d/rcS\n1:2345:respawn:/sbin/getty 38400 tty1\n"
    )
    (tmp_path / "etc/network/interfaces").write_text("auto eth0\n")
    return tmp_path


def test_a_sysvinit_guest_is_put_right_once(sysv: Path) -> None:
    with Inside(sysv) as tree:
        said = oldsystem.put_right(tree, System("sysvinit", None, None), "2")
        assert said == [
            "/etc/inittab: runlevel 2",
            "not started any more, for they are the host's: hwclock.sh udev",
            "/etc/init.d/halt ends the guest now",
            "runlevel 0 ends with halt",
            "/sbin/poweroff was missing: it is a link to halt now",
        ]
        before = below(sysv)
        assert oldsystem.put_right(tree, System("sysvinit", None, None), "2") == []
    assert below(sysv) == before
    inittab = (sysv / "etc/inittab").read_text()
    assert inittab.startswith("id:2:initdefault:\nsi::sysinit:/etc/init.d/rcS\n")
    assert "tty1" not in inittab
    assert "console" in inittab
    assert os.listdir(sysv / "etc/rcS.d") == []
    assert sorted(os.listdir(sysv / "etc/rc2.d")) == ["K01udev", "S20ssh"]
    assert "exec /sbin/halt -d -f -p" in (sysv / "etc/init.d/halt").read_text()
    assert (sysv / "etc/init.d/halt").stat().st_mode & 0o777 == 0o755
    assert "exit 0" in (sysv / "etc/init.d/halt.before-import").read_text()
    assert (sysv / "etc/rc0.d/S90halt").readlink() == Path("../init.d/halt")
    assert not (sysv / "etc/init.d/reboot.before-import").exists(), "that one was right"
    assert "eth0" not in (sysv / "etc/network/interfaces").read_text()


def test_red_hats_directories_are_links_and_its_reboot_leads_to_halt(tmp_path: Path) -> None:
    for name in ("init.d", "rc0.d", "rc6.d"):
        (tmp_path / "etc/rc.d" / name).mkdir(parents=True)
        (tmp_path / "etc" / name).symlink_to(f"rc.d/{name}")
    (tmp_path / "etc/rc.d/init.d/halt").write_text("#!/bin/bash\nexit 0\n")
    (tmp_path / "etc/rc.d/rc0.d/S01halt").symlink_to("../init.d/halt")
    (tmp_path / "etc/rc.d/rc6.d/S01reboot").symlink_to("../init.d/halt")
    with Inside(tmp_path) as tree:
        said = oldsystem.put_right(tree, System("sysvinit", None, None), "3")
        assert "/etc/init.d/halt ends the guest now" in said
        before = below(tmp_path)
        assert oldsystem.put_right(tree, System("sysvinit", None, None), "3") == []
    assert below(tmp_path) == before
    assert "exec /sbin/halt -d -f -p" in (tmp_path / "etc/rc.d/rc0.d/S01halt").read_text()
    assert "exec /sbin/reboot -d -f" in (tmp_path / "etc/rc.d/rc6.d/S01reboot").read_text()


def test_a_guest_without_inittab_gets_one(sysv: Path) -> None:
    (sysv / "etc/inittab").unlink()
    with Inside(sysv) as tree:
        said = oldsystem.put_right(tree, System("sysvinit", None, None), None)
    assert "/etc/inittab was missing: it is written anew" in said
    assert (sysv / "etc/inittab").read_text().startswith("id:2:initdefault:\nsi::sysinit:/etc/init.d/rcS\n")


def test_services_of_a_machine_are_masked_for_systemd(tmp_path: Path) -> None:
    (tmp_path / "lib/systemd/system").mkdir(parents=True)
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    (tmp_path / "etc/init.d").mkdir()
    for unit in ("smartd.service", "ssh.service", "systemd-udevd.service"):
        (tmp_path / "lib/systemd/system" / unit).write_text("")
    (tmp_path / "etc/init.d/hwclock.sh").write_text("")
    with Inside(tmp_path) as tree:
        said = oldsystem.put_right(tree, System("systemd", 252, None))
    assert said == ["masked, for they are the host's: hwclock.service smartd.service"]
    units = tmp_path / "etc/systemd/system"
    for unit in ("smartd.service", "hwclock.service", "systemd-udevd.service"):
        assert (units / unit).readlink() == Path("/dev/null")
    assert not (units / "ssh.service").is_symlink()


def test_links_of_a_hostile_tree_lead_nowhere(sysv: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "S02udev").write_text("x")
    (outside / "halt").write_text("x")
    (sysv / "etc/rcS.d").rename(sysv / "etc/rcS.old")
    (sysv / "etc/rcS.d").symlink_to(outside)
    (sysv / "etc/init.d/halt").unlink()
    (sysv / "etc/init.d/halt").symlink_to(outside / "halt")
    before = below(outside)
    with Inside(sysv) as tree:
        oldsystem.put_right(tree, System("sysvinit", None, None), "2")
    assert below(outside) == before
    assert not (sysv / "etc/init.d/halt").is_symlink()

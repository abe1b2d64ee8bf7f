"""A whole machine's tree: what stays out of it, and what is put out of use in it."""

import os
import re
from fnmatch import fnmatchcase
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from vstools.inside import Inside
from vstools.tree import machine
from vstools.tree.oldsystem import System

from .made import below

MOUNTS = """/dev/sda1 / ext4 rw,relatime 0 0
proc /proc proc rw 0 0
sysfs /sys sysfs rw 0 0
udev /dev devtmpfs rw 0 0
tmpfs /run tmpfs rw 0 0
tmpfs /run/lock tmpfs rw 0 0
/dev/sda2 /boot ext4 rw 0 0
/dev/mapper/vg-home /home xfs rw 0 0
/dev/sda1 /srv/chroot\\040old ext4 rw 0 0
nas:/data /srv/data nfs4 rw 0 0
overlay /var/lib/docker/overlay2/x/merged overlay rw 0 0
/dev/sdb1 /data btrfs rw,subvol=/a 0 0
/dev/sdb1 /more btrfs rw,subvol=/b 0 0
broken
"""
SWAPS = "Filename\tType\tSize\tUsed\tPriority\n/dev/sda3 partition 1 0 -2\n/swap.img file 1 0 -3\n"
FSTAB = "# its disks\nUUID=1-2 / ext4 errors=remount-ro 0 1\n\n/dev/sda3 none swap sw 0 0\n"


def test_disks_are_copied_and_what_is_mounted_from_elsewhere_is_named() -> None:
    paths, notes = machine.left_out(MOUNTS, SWAPS)
    assert paths == ["/srv/chroot old/*", "/srv/data/*", "/var/lib/docker/overlay2/x/merged/*", "/swap.img"]
    assert notes == [
        "/srv/chroot old is not copied: /dev/sda1 is mounted elsewhere, too",
        "/srv/data is not copied: nfs4, which is on none of its disks",
        "/var/lib/docker/overlay2/x/merged is not copied: overlay, which is on none of its disks",
    ]
    assert machine.pattern("/srv/chroot old/*") == "--exclude=/srv/chroot old/*"
    assert machine.pattern("/srv/a[b]*c/*") == "--exclude=/srv/a\\[b\\]\\*c/*"


@given(st.text(max_size=200))
def test_any_list_of_mounts_is_read(text: str) -> None:
    paths, _ = machine.left_out(text, text)
    assert all(machine.pattern(path).startswith("--exclude=") for path in paths)


def test_what_is_never_copied_is_no_part_of_a_guest() -> None:
    for path in ("/dev/sda", "/proc/1", "/boot/vmlinuz-6", "/lib/modules/6.1", "/vmlinuz.old", "/run/x"):
        assert any(fnmatchcase(path, pattern) for pattern in machine.NEVER), path
    for path in ("/etc/fstab", "/var/lib/mysql/x", "/lib/x86_64-linux-gnu", "/srv/boot/x", "/usr/lib/modules-x"):
        assert not any(fnmatchcase(path, pattern) for pattern in machine.NEVER), path


def test_what_mounts_disks_is_put_out_of_use_once(tmp_path: Path) -> None:
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    (tmp_path / "etc/fstab").write_text(FSTAB)
    (tmp_path / "etc/crypttab").write_text("home UUID=3 none luks\n")
    status = tmp_path / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text(
        "Package: linux-image-6.1.0-1-amd64\nStatus: install ok installed\n\n"
        "Package: grub-pc\nStatus: deinstall ok config-files\n\nPackage: grub-common\nStatus: install ok installed\n\n"
        "Package: ssh\nStatus: install ok installed\n"
    )
    system = System("systemd", 252, None)
    with Inside(tmp_path) as tree:
        assert machine.settle(tree, system) == [
            "/etc/fstab: file systems are commented out: UUID=1-2 /, /dev/sda3 none",
            "/etc/crypttab: encrypted disks are commented out: home UUID=3",
            "remove in the guest what boots a machine: linux-image-6.1.0-1-amd64",
        ]
        before = below(tmp_path)
        assert machine.settle(tree, system) == ["remove in the guest what boots a machine: linux-image-6.1.0-1-amd64"]
    assert below(tmp_path) == before
    text = (tmp_path / "etc/fstab").read_text()
    assert [line for line in text.splitlines() if line and not line.startswith("#")] == []
    assert re.sub("#vs-import# ", "", text) == FSTAB


def test_a_hostile_fstab_leads_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("secret\n")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/fstab").symlink_to(outside)
    os.mkfifo(root / "etc/crypttab")
    with Inside(root) as tree:
        machine.settle(tree, System("sysvinit", None, None))
    assert outside.read_text() == "secret\n"


def test_a_table_keeps_its_mode_and_one_without_an_end_is_read(tmp_path: Path) -> None:
    table = tmp_path / "etc/fstab"
    table.parent.mkdir()
    table.write_text("".join(f"{number}\n" for number in range(100_000)))
    table.chmod(0o600)
    with Inside(tmp_path) as tree:
        said = machine.settle(tree, System("other", None, None))
    assert table.stat().st_mode & 0o777 == 0o600
    assert "97, 98, 99, and 99900 more" in said[0]
    assert table.read_text().endswith("#vs-import# 99999\n")

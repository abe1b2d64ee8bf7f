"""A whole machine becomes a guest: a Debian with sshd and rsync, in namespaces of its own, copied while it runs."""

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import OPEN, wait
from nodes import Node, pool

from tests.templates import debian_template

pytestmark = pytest.mark.slow

ADDRESS = "10.99.7.20"
SSHD = """ListenAddress {address}:2222
HostKey /etc/ssh/ssh_host_ed25519_key
PidFile none
PermitRootLogin yes
UsePAM no
LogLevel ERROR
"""
BOOT = """
mount --bind $1 $1
cd $1
mount -t proc proc proc
mount -t tmpfs tmpfs run
mkdir run/sshd
mount -t tmpfs tmpfs dev
for node in null:3 zero:5 urandom:9; do mknod -m 666 dev/${node%%:*} c 1 ${node##*:}; done
mkdir -p mnt/usb srv/scratch
mount -t tmpfs tmpfs srv/scratch
echo no > srv/scratch/no
echo no > mnt/usb/no
exec chroot . /usr/sbin/sshd -D -e -f /etc/ssh/machine_config
"""


@pytest.fixture
def hosts() -> Iterator[tuple[Node, Node, Path]]:
    """This host, and a node on which a machine runs, with the machine's own root."""
    with pool("vsh-a", "old") as (here, there):
        (here.conf / "firewall.conf").write_text(OPEN)
        root = there.root / "machine"
        root.mkdir()
        subprocess.run(["tar", "-xf", debian_template("trixie", "rsync"), "-C", root], check=True)
        subprocess.run(["ssh-keygen", "-A", "-f", root], check=True, stdout=subprocess.DEVNULL)
        (root / "etc/ssh/machine_config").write_text(SSHD.format(address=there.address))
        (root / "etc/fstab").write_text("UUID=1-2 / ext4 defaults 0 1\n/dev/sda2 /home ext4 defaults 0 2\n")
        (root / "boot/vmlinuz-6").write_text("x")
        (root / "lib/modules/6").mkdir(parents=True)
        (root / "lib/systemd/system/smartd.service").write_text("[Service]\nExecStart=/bin/false\n")
        os.mknod(root / "srv/disk", stat.S_IFBLK | 0o666, os.makedev(8, 0))
        (root / "srv/www").mkdir()
        (root / "srv/www/page").write_text("first\n")
        os.chown(root / "srv/www/page", 33, 33)
        machine = subprocess.Popen(there.words(["unshare", "--mount", "sh", "-euc", BOOT, "sh", str(root)]))
        try:
            yield here, there, root
        finally:
            machine.kill()
            machine.wait()


def test_a_running_machine_becomes_a_guest(hosts: tuple[Node, Node, Path], small: Path) -> None:
    here, there, root = hosts
    key = (root / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
    shown = subprocess.run(["ssh-keygen", "-l", "-f", "-"], input=key, capture_output=True, text=True, check=True)
    source = ("--physical", f"ssh://{there.address}:2222", "--fingerprint", shown.stdout.split()[1])
    here.ok("vs-create", "--name", "web", "--interface", ADDRESS, "--skeleton")
    here.ok("vs-create", "--name", "full", "--interface", "10.99.7.21", "--template", str(small))
    wait(lambda: "lets nobody in" in here.vs("vs-import", "--name", "web", *source).err)
    keys = root / "root/.ssh/authorized_keys"
    keys.parent.mkdir(mode=0o700, exist_ok=True)
    keys.write_text((here.root / "etc/vs-tools/pool/key.pub").read_text())
    keys.chmod(0o600)

    done = here.vs("vs-import", "--name", "full", *source)
    assert (done.code, "guest full has a system already" in done.err) == (2, True), done
    out = here.ok("vs-import", "--name", "web", *source, "--dry-run")
    assert out.startswith("would copy ")
    assert not (here.trees / "web/usr").exists() or not os.listdir(here.trees / "web/usr")

    for step in ("filling:marked", "physical:copied"):
        assert here.vs("vs-import", "--name", "web", *source, VS_TOOLS_FAULT=step).code == -9
        done = here.vs("vs-control", "--name", "web", "--start")
        assert (done.code, "guest web holds a part of a machine: give the vs-import" in done.err) == (2, True), done
    (root / "srv/www/page").write_text("second\n")
    inode = (here.trees / "web/usr/bin/bash").stat().st_ino
    done = here.vs("vs-import", "--name", "web", *source)
    assert (done.code, done.out) == (0, "vsh-a:web:disabled:stopped\n"), done
    tree = here.trees / "web"
    assert (tree / "usr/bin/bash").stat().st_ino == inode, "the second run brought only what changed"
    assert (tree / "srv/www/page").read_text() == "second\n"
    assert (tree / "srv/www/page").stat().st_uid == 33
    for gone in ("boot/vmlinuz-6", "lib/modules/6", "mnt/usb", "srv/scratch/no", "dev/null", "proc/1", "srv/disk"):
        assert not os.path.lexists(tree / gone), gone
    report = (here.root / "var/log/vs-tools/web/import").read_text()
    for words in (
        "/srv/scratch is not copied: tmpfs", "/etc/fstab: file systems are commented out: UUID=1-2 /, /dev/sda2 /home",
        " smartd.service", "1 device nodes were removed",
    ):  # fmt: skip
        assert words in report
        assert words in done.err

    here.ok("vs-control", "--name", "web", "--start")
    done = here.vs("vs-import", "--name", "web", *source)
    assert (done.code, "guest web is running" in done.err) == (2, True), done
    wait(lambda: here.inside("web", "systemctl is-active ssh").out == "active\n", 120)
    scan = here.inside_node(["ssh-keyscan", "-t", "ed25519", ADDRESS]).stdout
    assert key.split()[1] in scan, "its sshd answers with the machine's own key"
    assert here.inside("web", "hostname; systemctl --failed --no-legend --plain").out == "web\n"

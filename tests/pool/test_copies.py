"""A master with systemd: copies by the timer's unit, a drill, a restore, and a host that gets another version."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.templates import small_template

if TYPE_CHECKING:
    from conftest import Hosts

MASTER, ONE = "vsh-00", "vsh-01"
TREES = "/var/lib/vservers"
CHECK = "/usr/local/share/vs-tools/nagios/check_vs_backup"
NEWER = "0.1.1"
LVS = "lvs --noheadings -o lv_name vs"


@pytest.mark.thorough
@pytest.mark.hosts(2)
def test_a_master_copies_by_its_timer_tries_the_copies_and_repairs_a_guest(hosts: "Hosts", tmp_path: Path) -> None:
    hosts.configure(ONE, "7:10.99.7.0/24\n", STORAGE="lvm:vs", DEFAULT_DISK_LIMIT="100")
    hosts.copy(ONE, small_template(tmp_path), "/root")
    make = "vs-create --template /root/small.tar --interface 10.99.7.5 --name web"
    hosts.ok(ONE, f"{make} && echo good > {TREES}/web/page && vs-control --name web --enable --start")
    key = hosts.ok(ONE, "ssh-keygen -l -f /etc/ssh/ssh_host_ed25519_key.pub").split()[1]
    hosts.ok(MASTER, f"vs-hosts --add {ONE} --fingerprint {key}; echo web:hot > /etc/vs-tools/backup.conf")
    the_timers_unit_copies(hosts)
    a_copy_comes_up(hosts)
    a_guest_with_a_volume_is_repaired(hosts)
    a_host_gets_a_newer_version(hosts)


def the_timers_unit_copies(hosts: "Hosts") -> None:
    """The unit does what vs-backup does, and what it mails is there; the check is content, and was not before."""
    code, said = hosts.call(MASTER, CHECK)
    assert (code, said.startswith("VS CRITICAL - web has no copy")) == (2, True), said
    start = "systemctl enable --now vs-backup.timer && systemctl start vs-backup.service"
    hosts.ok(MASTER, start, 600)
    said = hosts.ok(MASTER, "systemctl show -P NextElapseUSecRealtime vs-backup.timer; cat /var/lib/vs-tools/mails/*")
    assert (said[0] != "\n", f"copied web ({ONE}):" in said) == (True, True), said
    assert hosts.ok(MASTER, CHECK).startswith("VS OK - 1 guests, the oldest copy is 0 h old")
    assert hosts.ok(ONE, f"{LVS} | grep -c snap; true") == "0\n"


def a_copy_comes_up(hosts: "Hosts") -> None:
    """Nothing is left of the guest that it was for a moment."""
    said = hosts.ok(MASTER, "vs-backup --drill", 600)
    assert said.endswith(":up\n"), said
    left = "vs-control --all; ls -A /etc/vservers /var/lib/vservers | grep -i drill; ip netns list"
    assert hosts.ok(MASTER, f"{left}; systemctl list-units --plain --no-legend 'vs-guest@*'") == ""


def a_guest_with_a_volume_is_repaired(hosts: "Hosts") -> None:
    """It has a new volume of its own, as large as the suspect's, which stays aside with its own."""
    hosts.ok(ONE, f"echo bad > {TREES}/web/page")
    said = hosts.ok(MASTER, "vs-restore --name web", 600)
    assert said == f"{ONE}:web:enabled:running\n", said
    words = hosts.ok(ONE, f"cat {TREES}/web/page {TREES}/web.suspect-*/page; findmnt -n -o SOURCE {TREES}/web; {LVS}")
    good, bad, source, *volumes = words.split()
    assert (good, bad, source.startswith("/dev/mapper/vs-"), len(volumes)) == ("good", "bad", True, 3), words
    hosts.ok(ONE, "vs-remove --name $(basename /etc/vservers/web.suspect-*) --yes")
    assert len(hosts.ok(ONE, LVS).split()) == 2


def a_host_gets_a_newer_version(hosts: "Hosts") -> None:
    """install.sh runs there, and the guest runs on; the master, which is older now, talks to it as before."""
    init = hosts.ok(ONE, "vs-fonctions guest_init_pid web")
    edit = shlex.quote(f's/^\\(version\\|__version__\\) = .*/\\1 = "{NEWER}"/')
    hosts.ok(
        MASTER, f"cp -a /root/vs-tools /root/newer; cd /root/newer; sed -i {edit} pyproject.toml vstools/__init__.py"
    )
    assert hosts.ok(MASTER, f"vs-update --from /root/newer --host {ONE}", 1800) == f"{ONE}:{NEWER}\n"
    said = hosts.ok(MASTER, "vs-hosts --timeout 120; vs-scan --timeout 120")
    assert said == f"{ONE}:up:{NEWER}\n{ONE}:web:enabled:running\n"
    assert hosts.ok(ONE, "vs-fonctions guest_init_pid web") == init

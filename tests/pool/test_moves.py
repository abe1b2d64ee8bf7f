"""A pool as its admin first meets it: hosts added, a guest found, copied while it runs, moved, put and removed."""

import shlex
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Hosts

MASTER, ONE, TWO = "vsh-00", "vsh-01", "vsh-02"
NETWORKS = "7:10.99.7.0/24\n"
GUEST = "10.99.7.5"
STORE = "/var/lib/vs-tools/store/web"
SCAN = "vs-scan --timeout 120"
"""An emulated host that is busy takes longer than the usual 10 seconds to let anybody in."""
VLANS = "ip -o link show type vlan | cut -d ' ' -f 2 | cut -d @ -f 1"
WRITER = """[Service]
ExecStartPre=touch /srv/log
ExecStart=/bin/sh -c 'n=$(wc -l < /srv/log); while sleep 1; do n=$((n + 1)); echo $n >> /srv/log; \
sync /srv/log; echo $n > /srv/synced; done'
"""
"""Records with numbers, one after the other: what ``synced`` says is on the disk in ``log``."""
LINGER = "loginctl enable-linger root"
"""A session of ssh starts no systemd of its own each time: that takes an emulated host some seconds."""
NEEDLESS = "share/doc share/i18n share/locale share/man lib/x86_64-linux-gnu/gconv lib/x86_64-linux-gnu/perl-base"
"""Half of a Debian, below /usr: emulated hosts take minutes to copy it."""
WHOLE = "awk '$1 != NR { exit 1 } END { print NR }'"
"""How many records there are; fails where one is missing, torn or there twice."""
LEFT = """
vs-control --all
ls -A /etc/vservers /var/lib/vservers | grep web
lvs --noheadings -o lv_name vs | grep vs-snap
ip netns list
grep transfer /root/.ssh/authorized_keys
true
"""
"""What must not be on a host that has no guests."""


def pool_of_three(hosts: "Hosts") -> None:
    """A guest that writes runs on the first host, enabled; the master has met both hosts."""
    for host in (MASTER, ONE, TWO):
        hosts.configure(host, NETWORKS)
        hosts.ok(host, LINGER)
    hosts.ok(ONE, f"vs-create --name web --interface {GUEST}")
    unit = f"printf %s {shlex.quote(WRITER)} > writer.service; ln -s ../writer.service multi-user.target.wants/"
    hosts.ok(ONE, f"cd /var/lib/vservers/web/usr; rm -r {NEEDLESS}; cd ../etc/systemd/system; {unit}")
    assert hosts.ok(ONE, "vs-control --name web --enable --start") == f"{ONE}:web:enabled:running\n"
    for host in (ONE, TWO):
        key = hosts.ok(host, "ssh-keygen -l -f /etc/ssh/ssh_host_ed25519_key.pub").split()[1]
        assert hosts.ok(MASTER, f"vs-hosts --add {host} --fingerprint {key}").startswith(f"{host}:up:")
    hosts.wait(ONE, "vs-enter --name web -- test -s /srv/synced")


def synced(hosts: "Hosts", host: str) -> int:
    """How many records the guest has on the disk at least."""
    return int(hosts.wait(host, "grep . /var/lib/vservers/web/srv/synced"))


def whole(hosts: "Hosts", host: str, tree: str = "/var/lib/vservers/web") -> int:
    """How many records a tree has, none missing."""
    return int(hosts.ok(host, f"head -n -1 {tree}/srv/log | {WHOLE}")) + 1


def is_at(hosts: "Hosts", host: str, records: int) -> None:
    """The guest runs there and nowhere else, has all that was on the disk, and writes on."""
    assert hosts.ok(MASTER, SCAN) == f"{host}:web:enabled:running\n"
    hosts.wait(host, f"test $(cat /var/lib/vservers/web/srv/synced) -gt {records}")
    assert whole(hosts, host) > records


def listens(hosts: "Hosts") -> None:
    """A neighbour in the guest's VLAN that asks for an answer, again and again."""
    hosts.ok(
        MASTER,
        "ip link add link eth1 name eth1.7 type vlan id 7 && ip link set eth1.7 up"
        " && ip address add 10.99.7.9/24 dev eth1.7",
    )
    hosts.wait(MASTER, f"ping -c 1 -W 2 {GUEST}")
    hosts.ok(MASTER, f"setsid ping -D -n -i 0.5 {GUEST} > /root/pings 2> /dev/null < /dev/null & echo $! > /root/ping")


def heard(hosts: "Hosts") -> str:
    """Whether the guest answers the neighbour again; how long it did not, in seconds."""
    hosts.wait(MASTER, f"ping -c 1 -W 2 {GUEST}")
    answers = hosts.ok(
        MASTER, "kill -INT $(cat /root/ping); ip link del eth1.7; grep ' bytes from ' /root/pings | tr -d '[]'"
    ).splitlines()
    times = [float(line.split()[0]) for line in answers]
    return f"{max(later - before for before, later in pairwise(times)):.1f} s"


@pytest.mark.thorough
@pytest.mark.hosts(3)
def test_a_guest_is_found_copied_and_moved_while_it_runs(hosts: "Hosts") -> None:
    pool_of_three(hosts)
    assert hosts.ok(MASTER, SCAN) == f"{ONE}:web:enabled:running\n"
    first = is_copied_while_it_runs(hosts)
    is_backed_up(hosts, first)
    moves(hosts)
    is_put_and_removed(hosts)


def is_copied_while_it_runs(hosts: "Hosts") -> str:
    """The copy has what was on the disk when it was begun, whole; nothing is left of the snapshot."""
    init = hosts.ok(ONE, "vs-fonctions guest_init_pid web")
    before = synced(hosts, ONE)
    host, guest, time = hosts.ok(MASTER, "vs-get --name web", 600).strip().split(":")
    assert (host, guest) == (ONE, "web")
    assert before <= whole(hosts, MASTER, f"{STORE}/{time}/tree") < synced(hosts, ONE)
    assert hosts.ok(ONE, "vs-fonctions guest_init_pid web; lvs --noheadings -o lv_name vs").split() == [
        init.strip(), "vservers",
    ]  # fmt: skip
    return time


def is_backed_up(hosts: "Hosts", first: str) -> None:
    """The next copy is of later, and shares what is the same."""
    hosts.ok(MASTER, "echo 'web:hot,keep-last=2' > /etc/vs-tools/backup.conf")
    time = hosts.ok(MASTER, "vs-backup", 600).strip().split(":")[2]
    assert whole(hosts, MASTER, f"{STORE}/{time}/tree") > whole(hosts, MASTER, f"{STORE}/{first}/tree")
    hosts.ok(MASTER, f"cd {STORE}; test {first}/tree/usr/bin/dpkg -ef {time}/tree/usr/bin/dpkg")


def moves(hosts: "Hosts") -> None:
    """To the other host with its VLAN's interface; the first one has nothing of it any more."""
    assert (hosts.ok(ONE, VLANS), hosts.ok(TWO, VLANS)) == ("eth1.7\n", "")
    listens(hosts)
    before = synced(hosts, ONE)
    code, said = hosts.call(MASTER, f"vs-move --name web --dst-host {TWO}", 900)
    assert (code, f"{TWO}:web:enabled:running\n" in said) == (0, True), said
    print(f"{said}a neighbour missed it for {heard(hosts)}")
    assert (hosts.ok(ONE, VLANS), hosts.ok(TWO, VLANS)) == ("", "eth1.7\n")
    assert hosts.ok(ONE, LEFT) == ""
    is_at(hosts, TWO, before)


def is_put_and_removed(hosts: "Hosts") -> None:
    """A copy on the host that it left belongs to where the guest is, and goes again."""
    assert hosts.ok(MASTER, f"vs-put --name web --host {ONE}", 600) == f"{ONE}:web:disabled:stopped\n"
    code, said = hosts.call(ONE, "vs-control --name web --start")
    assert (code, f"belongs to host {TWO}" in said) == (2, True), said
    hosts.ok(MASTER, f"vs-remove --name web --host {ONE} --yes")
    assert hosts.ok(ONE, LEFT) == ""
    assert hosts.ok(MASTER, SCAN) == f"{TWO}:web:enabled:running\n"

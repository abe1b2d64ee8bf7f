"""Guests with a logical volume of their own, thick and thin: made, resized, read, removed, killed and cut off."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.templates import small_template

if TYPE_CHECKING:
    from conftest import Hosts

HOST = "vsh-00"
BOX = "/bin/busybox"
TREES = "/var/lib/vservers"
NETWORK = "7:10.99.7.0/24\n"
VOLUMES = "lvs --noheadings -o lv_name vs | grep -v -e vservers -e pool"
LEFT = f'! {VOLUMES}; ! findmnt -l | grep {TREES}/; test -z "$(ls -A /etc/vservers | grep -v .defaults)"'
"""Succeeds where no guest is left, nor anything of one."""


def prepare(hosts: "Hosts", folder: Path) -> None:
    """New guests have volumes of their own, of 100 MiB."""
    hosts.configure(HOST, NETWORK, DEFAULT_TEMPLATE="/root/small.tar", STORAGE="lvm:vs", DEFAULT_DISK_LIMIT="100")
    hosts.copy(HOST, small_template(folder), "/root")


def shown(hosts: "Hosts", guest: str) -> tuple[int, int]:
    """Size and free space of / in MiB, as a guest's df shows them."""
    words = hosts.inside(HOST, guest, f"{BOX} df -P -m / | {BOX} tail -n 1").split()
    return int(words[1]), int(words[3])


def refused(hosts: "Hosts", line: str, said: str) -> None:
    """A command is refused with a sentence."""
    code, words = hosts.call(HOST, line)
    assert (code, said in words) == (2, True), words


def test_a_guest_has_a_volume_of_its_own_that_is_its_disk_limit(hosts: "Hosts", tmp_path: Path) -> None:
    prepare(hosts, tmp_path)
    hosts.ok(HOST, "lvcreate -qqy --type thin-pool -L 300M -n pool vs")
    hosts.ok(HOST, "vs-create --name web --interface 10.99.7.5 --enable --start")
    hosts.ok(HOST, "vs-create --name thin --interface 10.99.7.6 --storage lvm:vs/pool --start")
    is_not_made_where_there_is_no_room(hosts)
    for guest in ("web", "thin"):
        is_its_own(hosts, guest)
        grows_while_it_runs(hosts, guest)
        shrinks_while_it_is_stopped(hosts, guest)
        is_read_as_it_was(hosts, guest)
    is_never_taken_for_an_empty_directory(hosts)
    comes_back_with_the_host(hosts)


def is_not_made_where_there_is_no_room(hosts: "Hosts") -> None:
    make = "vs-create --name more --interface 10.99.7.9"
    refused(hosts, f"{make} --disk inf", "needs a disk limit")
    refused(hosts, f"{make} --disk 99999999", "MiB free")
    refused(hosts, f"{make} --storage lvm:vs/pool --disk 400", "thin pool vs/pool has 300 MiB in all")
    refused(hosts, f"{make} --storage lvm:vs/vservers", "has no thin pool vservers")
    assert "more" not in hosts.ok(HOST, f"ls -A {TREES} /etc/vservers; lvs -o lv_tags vs")


def is_its_own(hosts: "Hosts", guest: str) -> None:
    """The guest can fill it, and no more; the admin sees a directory."""
    size, free = shown(hosts, guest)
    assert (85 <= size <= 100, free > 70) == (True, True)
    said = hosts.inside(
        HOST, guest, f"echo mine > /root/f; {BOX} dd if=/dev/zero of=/root/big bs=1M count=200 2>&1 || true"
    )
    assert "No space left" in said
    (row,) = json.loads(hosts.ok(HOST, f"vs-stats --name {guest} --json"))
    assert (row["disk_bytes"] > 98 << 20, row["disk_limit_bytes"]) == (True, 100 << 20)
    again = "" if guest == "thin" else f"vs-control --name {guest} --restart > /dev/null && "  # full, it starts as well
    hosts.ok(HOST, f"{again}rm {TREES}/{guest}/root/big")


def grows_while_it_runs(hosts: "Hosts", guest: str) -> None:
    refused(hosts, f"vs-limit --name {guest} --disk inf", "whose size is its disk limit")
    refused(hosts, f"vs-limit --name {guest} --disk 99999999", "MiB")
    hosts.ok(HOST, f"VS_TOOLS_FAULT=limit:extended vs-limit --name {guest} --disk 200; test $? = 137")
    assert hosts.ok(HOST, f"vs-limit --name {guest} --disk 200") == f"{HOST}:{guest}:inf:200:inf:inf:inf\n"
    assert 180 <= shown(hosts, guest)[0] <= 200
    hosts.inside(HOST, guest, f"{BOX} dd if=/dev/zero of=/root/big bs=1M count=120")


def shrinks_while_it_is_stopped(hosts: "Hosts", guest: str) -> None:
    refused(hosts, f"vs-limit --name {guest} --disk 160", "while it is stopped only")
    hosts.ok(HOST, f"vs-control --name {guest} --stop")
    refused(hosts, f"vs-limit --name {guest} --disk 60 --force", "MiB are in use")
    hosts.ok(HOST, f"vs-limit --name {guest} --disk 160 && vs-control --name {guest} --start")
    assert 140 <= shown(hosts, guest)[0] <= 160
    assert hosts.inside(HOST, guest, f"{BOX} stat -c %s /root/big; {BOX} cat /root/f") == f"{120 << 20}\nmine\n"


def is_read_as_it_was(hosts: "Hosts", guest: str) -> None:
    """What is written while a snapshot is read is not in it."""
    script = f"echo other > {TREES}/{guest}/root/f; cat root/f; test ! -e lost+found && echo clean"
    assert hosts.ok(HOST, f"vs-fonctions guest_snapshot {guest} sh -c '{script}'") == "mine\nclean\n"
    assert hosts.ok(HOST, f"cat {TREES}/{guest}/root/f; lvs vs | grep -c snap || true") == "other\n0\n"


def is_never_taken_for_an_empty_directory(hosts: "Hosts") -> None:
    """Where the volume cannot be mounted, nothing is started, packed, read or removed; else it is mounted first."""
    volume = hosts.ok(HOST, "cat /etc/vservers/thin/storage").strip()
    hosts.ok(
        HOST, f"vs-control --name thin --stop; umount {TREES}/thin; echo lvm:vs/vservers > /etc/vservers/thin/storage"
    )
    for line in ("control --name thin --start", "template --name thin --file /root/t.tar", "remove --name thin --yes",
                 "fonctions guest_snapshot thin true"):  # fmt: skip
        code, said = hosts.call(HOST, f"vs-{line}")
        assert (code != 0, "no volume lvm:vs/vservers with the tags" in said) == (True, True), said
    hosts.ok(HOST, f"echo {volume} > /etc/vservers/thin/storage; vs-template --name thin --file /root/t.tar")
    assert "root/f" in hosts.ok(HOST, f"tar -tf /root/t.tar; findmnt {TREES}/thin")
    lines = [line.split(":") for line in hosts.ok(HOST, "vs-stats --storage").splitlines()]
    assert [(line[1], line[3]) for line in lines] == [("lvm", "/dev/mapper/vs-vservers"), ("lvm", "vs")]


def comes_back_with_the_host(hosts: "Hosts") -> None:
    """After a power cut in the middle of a creation: what is whole is mounted, what is enabled runs, the rest goes."""
    make = "vs-create --name new --interface 10.99.7.8"
    hosts.ok(HOST, f"VS_TOOLS_FAULT=create:settled {make}; test $? = 137")
    hosts.power(HOST, "cut")
    hosts.power(HOST, "on")
    hosts.wait(HOST, "vs-control --all | grep web:enabled:running")
    assert hosts.ok(HOST, f"findmnt -n -o OPTIONS {TREES}/web; cat {TREES}/thin/root/f").split()[1:] == ["other"]
    hosts.ok(HOST, f"systemctl is-active vs-volumes && {make} && findmnt {TREES}/new")
    hosts.reboot(HOST)
    hosts.wait(HOST, f"vs-control --all | grep web:enabled:running && findmnt {TREES}/new")
    names = "web thin new"
    hosts.ok(HOST, f"vs-control --name web --disable --stop && for n in {names}; do vs-remove --name $n --yes; done")
    hosts.ok(HOST, LEFT)


KILLED = """
make='vs-create --skeleton --name web --interface 10.99.7.5'
export VS_TOOLS_FAULT_TRACE=/root/trace
$make && vs-remove --name web --yes || exit
unset VS_TOOLS_FAULT_TRACE
volume='volume|formatted|folder|mounted|unmounted|moved|settled|named|finished|released|renamed|tree|tree-renamed'
places() { grep -xE "$1:($volume)" trace | awk '!seen[$0]++'; }
for place in $(places create); do # each clears what the one before has left
    date +%T:$place
    VS_TOOLS_FAULT=$place $make; [ $? = 137 ] || { echo "$place: not killed"; exit 1; }
    if [ -d /etc/vservers/web ]; then
        vs-limit --name web --disk 120 && findmnt /var/lib/vservers/web && vs-remove --name web --yes || exit
    fi
done
for place in $(places remove); do
    date +%T:$place
    $make || exit
    VS_TOOLS_FAULT=$place vs-remove --name web --yes; [ $? = 137 ] || { echo "$place: not killed"; exit 1; }
    if [ -d /etc/vservers/web ]; then vs-remove --name web --yes || exit; fi
done
$make && echo kept > /var/lib/vservers/web/root/f || exit
size=100
for place in limit:unmounted limit:tagged limit:checked limit:shrunk limit:reduced limit:mounted limit:saved; do
    size=$((size - 4))
    date +%T:$place
    VS_TOOLS_FAULT=$place vs-limit --name web --disk $size; [ $? = 137 ] || { echo "$place: not killed"; exit 1; }
    vs-limit --name web --disk $size && grep kept /var/lib/vservers/web/root/f || exit
done
vs-remove --name web --yes
"""


@pytest.mark.thorough
def test_whoever_is_killed_with_a_volume_leaves_nothing_that_the_next_command_does_not_clear(
    hosts: "Hosts", tmp_path: Path
) -> None:
    prepare(hosts, tmp_path)
    (tmp_path / "killed.sh").write_text(KILLED)
    hosts.copy(HOST, tmp_path / "killed.sh", "/root")
    code, said = hosts.call(HOST, "cd /root && bash killed.sh 2>&1", timeout=900)
    assert code == 0, said
    places = hosts.ok(HOST, "cat /root/trace").split()
    assert {"create:volume", "create:mounted", "create:moved", "create:finished", "remove:unmounted"} <= set(places)
    hosts.ok(HOST, LEFT)

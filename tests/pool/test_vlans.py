"""A VLAN's own device comes with its first guest and goes with the last; one that somebody else made stays."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.templates import small_template

if TYPE_CHECKING:
    from conftest import Hosts

HOST = "vsh-00"
NETWORKS = "7:10.99.7.0/24\n8:10.99.8.0/24\n9:10.99.9.0/24\n"
VLANS = "ip -o link show type vlan | cut -d ' ' -f 2 | cut -d @ -f 1"


def make(hosts: "Hosts", small: Path, guests: dict[str, str]) -> None:
    """Small guests with these addresses, not started."""
    hosts.configure(HOST, NETWORKS)
    hosts.copy(HOST, small, "/root")
    for name, address in guests.items():
        hosts.ok(HOST, f"vs-create --name {name} --interface {address} --template /root/small.tar")


def vlans(hosts: "Hosts") -> list[str]:
    """The VLAN devices of the host."""
    return sorted(hosts.ok(HOST, VLANS).split())


@pytest.mark.hosts(2)
def test_a_vlan_lives_as_long_as_its_guests_and_is_silent(hosts: "Hosts", tmp_path: Path) -> None:
    make(hosts, small_template(tmp_path), {"a": "10.99.7.5", "b": "10.99.7.6", "c": "10.99.8.5"})
    hosts.ok(HOST, "vs-control --name a --name b --name c --start")
    assert vlans(hosts) == ["eth1.7", "eth1.8"]
    assert hosts.ok(HOST, "vs-net --name a --name c") == (
        f"{HOST}:a:10.99.7.5:up:up:up:up\n{HOST}:c:10.99.8.5:up:up:up:up\n"
    )
    assert hosts.ok(HOST, "ip -o address show dev eth1.7; ip -o address show dev eth1.8") == ""
    assert hosts.ok(HOST, "cd /proc/sys/net/ipv4/conf/eth1.7; cat arp_ignore forwarding") == "8\n0\n"
    hosts.ok("vsh-01", "ip link add link eth1 name eth1.7 type vlan id 7 && ip link set eth1.7 up")
    hosts.ok("vsh-01", "ip address add 10.99.7.9/24 dev eth1.7")
    hosts.wait("vsh-01", "ping -c 1 -W 2 10.99.7.5")
    host_address = hosts.ok(HOST, "ip -4 -o address show dev eth1 | awk '{print $4}'").partition("/")[0]
    hosts.ok("vsh-01", f"ip route add {host_address}/32 dev eth1.7")
    code, said = hosts.call("vsh-01", f"ping -c 3 -W 2 {host_address}")
    assert code != 0, said
    hosts.ok(HOST, "vs-control --name a --stop")
    assert vlans(hosts) == ["eth1.7", "eth1.8"]
    hosts.ok(HOST, "vs-control --name b --stop")
    assert vlans(hosts) == ["eth1.8"]
    hosts.ok(HOST, "kill -9 $(vs-fonctions guest_init_pid c)")
    hosts.wait(HOST, f"! {VLANS} | grep .")


def test_a_vlan_of_somebody_else_stays(hosts: "Hosts", tmp_path: Path) -> None:
    make(hosts, small_template(tmp_path), {"a": "10.99.7.5", "b": "10.99.8.5"})
    hosts.ok(HOST, "ip link add link eth1 name eth1.7 type vlan id 7")
    hosts.ok(HOST, "vs-control --name a --name b --start")
    hosts.ok(HOST, "ip address add 10.99.8.200/24 dev eth1.8")  # now somebody uses ours, too
    hosts.ok(HOST, "vs-control --name a --name b --stop")
    assert vlans(hosts) == ["eth1.7", "eth1.8"]


@pytest.mark.thorough
def test_guests_that_start_and_stop_at_the_same_moment(hosts: "Hosts", tmp_path: Path) -> None:
    guests = {f"g{number}": f"10.99.{7 + number % 2}.{10 + number}" for number in range(4)}
    make(hosts, small_template(tmp_path), guests)
    first, second = "--name g0 --name g1", "--name g2 --name g3"
    hosts.ok(HOST, f"vs-control {first} --start")
    for _ in range(2):
        hosts.ok(HOST, f"vs-control {first} --stop > /dev/null & vs-control {second} --start && wait $!")
        assert vlans(hosts) == ["eth1.7", "eth1.8"]
        hosts.ok(HOST, f"vs-control {second} --stop > /dev/null & vs-control {first} --start && wait $!")
        for name in ("g0", "g1"):
            hosts.ok(HOST, f"vs-enter --name {name} -- ip link show eth0")
    hosts.ok(HOST, "vs-control --all --stop")
    assert vlans(hosts) == []
    assert hosts.ok(HOST, "ls /run/vs-tools/guests; ip netns list; ip -o link | grep vs1 || true") == ""

"""Where systemd is PID 1, a change that nobody confirms goes back although the session that made it is gone."""

from pathlib import Path
from typing import TYPE_CHECKING

from tests.templates import small_template

if TYPE_CHECKING:
    from conftest import Hosts

HOST = "vsh-00"
NAME = "--name web"


def test_a_change_goes_back_by_itself_and_a_power_cut_does_not_keep_it(hosts: "Hosts", tmp_path: Path) -> None:
    hosts.configure(HOST, "7:10.99.7.0/24\n8:10.99.8.0/24\n")
    hosts.copy(HOST, small_template(tmp_path), "/root")
    hosts.ok(HOST, "vs-create --name web --interface 10.99.7.5 --template /root/small.tar --enable --start")
    said = hosts.ok(HOST, f"vs-net {NAME} --set 0=10.99.8.5 --confirm 8; echo enable > /etc/vservers/web/firewall.conf")
    assert said == f"{HOST}:web:10.99.8.5:up:up:up:up\n"
    hosts.wait(HOST, f"vs-net {NAME} | grep -q :10.99.7.5:up:up:up:up")
    assert hosts.ok(HOST, "cat /etc/vservers/web/interfaces/0/ip") == "10.99.7.5\n"
    hosts.wait(HOST, "! systemctl list-units --no-legend --all 'vs-confirm-*' | grep .")
    vlans = "ip -o link show type vlan | cut -d ' ' -f 2 | cut -d @ -f 1"
    assert hosts.ok(HOST, vlans) == "eth1.7\n"
    hosts.ok(HOST, f"vs-net {NAME} --set 0=10.99.8.5 --confirm 600")
    hosts.power(HOST, "cut")
    hosts.power(HOST, "on")
    hosts.wait(HOST, "vs-control --name web | grep -q :enabled:running")
    assert hosts.ok(HOST, f"vs-net {NAME}") == f"{HOST}:web:10.99.7.5:up:up:up:up\n"
    assert hosts.call(HOST, f"vs-net {NAME} --confirmed")[0] == 2

"""The back end for iptables: the text it makes of a policy, what it makes of the kernel's, and when it is chosen."""

import socket
import struct
import sys
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from vstools.config import firewall
from vstools.config.text import Faults
from vstools.firewall import backend, iptables, live, model, nftables, present

from .made import REPO

OWN = (ip_interface("10.7.1.2/24"), ip_interface("2001:db8:7::2/64"))
HOST = (ip_address("10.7.1.1"),)


def text(tmp_path: Path, *lines: str) -> dict[str, list[str]]:
    """The rules for a file of these lines, by family."""
    path = tmp_path / "f.conf"
    path.write_text("\n".join(lines))
    faults = Faults()
    policy = firewall.load(path, tmp_path, faults)
    faults.check()
    rules = tuple(replace(rule, place=rule.place.removeprefix(str(tmp_path))) for rule in policy.rules)
    said = iptables.text(model.chains(replace(policy, rules=rules), OWN, HOST))
    _, v4, v6 = said.split("# IPv")
    return {"4": v4.splitlines()[1:], "6": v6.splitlines()[1:]}


def of_chain(lines: list[str], chain: str) -> list[str]:
    """The rules of a chain but its last two, which drop what none of them takes; without the comments."""
    found = [line.removeprefix(f"-A {chain} ") for line in lines if line.startswith(f"-A {chain} ")]
    return [line.replace('-m comment --comment "/f.conf:1" ', "") for line in found[:-2]]


def test_both_tables_drop_what_gets_to_the_end_and_are_whole(tmp_path: Path) -> None:
    for lines in text(tmp_path, "allow from any to tcp:80").values():
        assert lines[0] == "*filter"
        assert lines[-1] == "COMMIT"
        assert lines[1:4] == [f":{chain} DROP [0:0]" for chain in ("INPUT", "FORWARD", "OUTPUT")]
        heads = {line[1:].split(" ")[0] for line in lines if line.startswith(":")}
        assert {line.split(" ")[1] for line in lines if line.startswith("-A")} <= heads


@pytest.mark.parametrize(
    ("line", "v4", "v6"),
    [
        (
            "allow from any to tcp:80",
            ["-p tcp -m tcp --dport 80 -j ACCEPT"],
            ["-p tcp -m tcp --dport 80 -j ACCEPT"],
        ),
        ("allow from 10.1.0.0/16 to udp:5-9", ["-s 10.1.0.0/16 -p udp -m udp --dport 5:9 -j ACCEPT"], []),
        (
            "allow from ::/0 to tcp:22,tcp:80-90,tcp",
            [],
            ["-p tcp -j ACCEPT"],
        ),
        ("allow from ::/0 to tcp:22,tcp:80-90", [], ["-p tcp -m multiport --dports 22,80:90 -j ACCEPT"]),
        ("allow from 0/0 to 47,all", ["-j ACCEPT"], []),
        ("allow from any to 47", ["-p 47 -j ACCEPT"], ["-p 47 -j ACCEPT"]),
        ("allow from any to icmp:8", ["-p icmp -m icmp --icmp-type 8 -j ACCEPT"], []),
        ("allow from any to icmp6:128", [], ["-p icmpv6 -m icmp6 --icmpv6-type 128 -j ACCEPT"]),
        (
            "allow from 10.1.0.1,10.1.0.3 to all",
            ["-s 10.1.0.1/32 -j ACCEPT", "-s 10.1.0.3/32 -j ACCEPT"],
            [],
        ),
        (
            "deny from 0/0 to icmp",
            [
                '-p icmp -j NFLOG --nflog-prefix "/f.conf:1" --nflog-group 30323',
                "-p icmp -j DROP",
            ],
            [],
        ),
    ],
)
def test_a_line_becomes_these_rules(tmp_path: Path, line: str, v4: list[str], v6: list[str]) -> None:
    found = text(tmp_path, line)
    assert of_chain(found["4"], "from_all") == v4
    assert of_chain(found["6"], "from_all") == v6


def test_zero_is_no_wildcard(tmp_path: Path) -> None:
    """To iptables protocol 0 means every protocol, and to the kernel's match for IPv4 type 255 every type."""
    found = text(tmp_path, "allow from any to 0,icmp:255,icmp6:255")
    assert of_chain(found["4"], "from_all") == [
        '-m u32 --u32 "0x6&0xff=0x0" -j ACCEPT',
        '-p icmp -m u32 --u32 "0x0>>0x16&0x3c@0x0>>0x18=0xff" -j ACCEPT',
    ]
    assert of_chain(found["6"], "from_all") == ["-p icmpv6 -m icmp6 --icmpv6-type 255 -j ACCEPT"]


def test_more_ports_than_a_rule_takes_are_shared_out(tmp_path: Path) -> None:
    ports = [str(port) for port in range(1, 60, 2)] + ["100-110", "200-210"]
    rules = of_chain(text(tmp_path, f"allow from 0/0 to {','.join(f'tcp:{port}' for port in ports)}")["4"], "from_all")
    assert len(rules) == 3
    shares = [rule.split(" --dports ")[1].split(" ")[0].split(",") for rule in rules]
    assert [port.replace(":", "-") for share in shares for port in share] == ports
    assert max(sum(1 + (":" in port) for port in share) for share in shares) <= 15


def test_several_addresses_share_a_chain_where_each_would_need_several_rules(tmp_path: Path) -> None:
    lines = text(tmp_path, "deny from 10.1.0.1,10.1.0.3 to tcp:80")["4"]
    assert of_chain(lines, "from_all") == ["-s 10.1.0.1/32 -j from_all_1", "-s 10.1.0.3/32 -j from_all_1"]
    inner = [line.removeprefix("-A from_all_1 ") for line in lines if line.startswith("-A from_all_1 ")]
    assert [line.startswith("-p tcp -m tcp --dport 80 ") for line in inner] == [True, True]
    assert [line.rsplit("-j ")[-1].split(" ")[0] for line in inner] == ["NFLOG", "DROP"]


def test_a_long_reason_keeps_its_end() -> None:
    reason = f"/{'x' * 300}'\"/firewall.conf:7"
    chains = {"from_known": (model.Entry(model.Match(), "drop", reason),)}
    log, drop, *_ = (line for line in iptables.text(chains).splitlines() if line.startswith("-A"))
    prefix, comment = log.split('"')[1], drop.split('"')[1]
    assert (len(prefix), len(comment)) == (63, 255)
    assert prefix.startswith("...x")
    assert prefix.endswith("??/firewall.conf:7")
    assert comment.endswith(prefix[3:])


SAVED = """# IPv4
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT {policy} [0:0]
:from_all - [0:0]
:from_known - [0:0]
[1:84] -A INPUT -i lo -m comment --comment "loopback" -j ACCEPT
[2:90] -A INPUT -d 10.7.1.2/32 -g from_known
[3:99] -A from_all -s 10.0.0.0/8 -p tcp -m multiport --dports 22,80:90 -m comment --comment "/x -y:1" -j ACCEPT
[4:99] -A from_all -j NFLOG --nflog-prefix "end" --nflog-group 30323
[4:99] -A from_all -m comment --comment "end" -j DROP
[5:99] -A from_known -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment "established" -j ACCEPT
{leads}
COMMIT
# IPv6
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT DROP [0:0]
:from_all - [0:0]
:from_known - [0:0]
[0:0] -A INPUT -p icmpv6 -m icmp6 --icmpv6-type 135 -m hl --hl-eq 255 -m comment --comment "nd" -j ACCEPT
[0:0] -A from_all -p 47 -m comment --comment "end" -j DROP
[0:0] -A from_known -g from_all
COMMIT
"""
LEADS = "[6:99] -A from_known -g from_all"


def test_a_live_rule_reads_as_nft_would_write_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iptables, "_child", lambda *_: SAVED.format(policy="DROP", leads=LEADS))
    found = iptables.read("vs2")
    assert found.hooks == {"input": "drop", "forward": "drop", "output": "drop"}
    assert found.rules == (
        live.LiveRule("input", 1, 84, "accept", "meta nfproto ipv4 meta iif lo", "loopback"),
        live.LiveRule("input", 2, 90, "from_known", "ip daddr 10.7.1.2", ""),
        live.LiveRule("from_all", 3, 99, "accept", "ip saddr 10.0.0.0/8 tcp dport { 22, 80-90 }", "/x -y:1"),
        live.LiveRule("from_all", 4, 99, "drop", "meta nfproto ipv4", "end"),
        live.LiveRule("from_known", 5, 99, "accept", "meta nfproto ipv4 ct state established,related", "established"),
        live.LiveRule("from_known", 6, 99, "from_all", "meta nfproto ipv4", ""),
        live.LiveRule("input", 0, 0, "accept", "meta nfproto ipv6 icmpv6 type 135 ip6 hoplimit 255", "nd"),
        live.LiveRule("from_all", 0, 0, "drop", "meta nfproto ipv6 meta l4proto 47", "end"),
        live.LiveRule("from_known", 0, 0, "from_all", "meta nfproto ipv6", ""),
    )


@pytest.mark.parametrize(("leads", "up"), [(LEADS, True), ("", False)])
def test_a_firewall_is_up_where_both_families_lead_to_the_rules(
    monkeypatch: pytest.MonkeyPatch, leads: str, up: bool
) -> None:
    monkeypatch.setattr(iptables, "_child", lambda *_: SAVED.format(policy="ACCEPT", leads=leads))
    found = iptables.read("vs2")
    assert found.hooks["output"] == "accept"
    assert live.is_up(found) == {"input": up, "output": False}


def test_nothing_of_ours_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iptables, "_child", lambda *_: "")
    assert iptables.read("vs2") == live.NOTHING


class Kernel:
    """A netlink socket of a kernel that answers with this type and error number (``man 7 netlink``)."""

    def __init__(self, kind: int, error: int = 0) -> None:
        self.answer = struct.pack("=IHHIIi", 20, kind, 0, 1, 0, -error)

    def __enter__(self) -> "Kernel":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def settimeout(self, _: float) -> None:
        pass

    def send(self, _: bytes) -> None:
        pass

    def recv(self, _: int) -> bytes:
        return self.answer


@pytest.mark.parametrize(
    ("kernel", "chosen"), [(Kernel(0x0A0F), nftables), (Kernel(2, 22), iptables), (None, iptables)]
)
def test_auto_takes_nftables_where_the_kernel_has_it(
    monkeypatch: pytest.MonkeyPatch, kernel: Kernel | None, chosen: object
) -> None:
    def opened(*_: object) -> Kernel:
        if kernel is None:
            raise OSError(93, "Protocol not supported")
        return kernel

    monkeypatch.setattr(socket, "socket", opened)
    assert backend.choose("auto") is chosen
    assert present.nft_table("vs") is (chosen is nftables)
    assert backend.choose("nftables") is nftables
    assert backend.choose("iptables") is iptables


def test_only_the_child_imports_python_iptables() -> None:
    """It takes its time and runs programs; and the child is of another Python, so it imports nothing of ours."""
    importers = [path.name for path in (REPO / "vstools").rglob("*.py") if "import iptc" in path.read_text()]
    assert importers == ["iptables_child.py"]
    assert "vstools" not in (REPO / "vstools/firewall/iptables_child.py").read_text().split('"""', 2)[2]
    assert "iptc" not in sys.modules

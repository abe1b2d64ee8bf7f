"""A running guest's network is changed, checked and mended; a change that nobody confirms goes back."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import NET, NETWORKS, Host, create, wait

from vstools.errors import VsError
from vstools.lifecycle import upkeep
from vstools.network import mend
from vstools.paths import Paths

SELF = os.uname().nodename.partition(".")[0]
NET6 = "fd99:7:"
GUEST, GUEST6, HOST = f"{NET}.10", f"{NET6}:10", f"{NET}.1"
SECOND = "vsbr1"
OTHER = "10.99.8"


def sh(script: str) -> str:
    return subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=True).stdout


def links(context: int = 60000) -> dict[str, tuple[str, set[str]]]:
    """Name -> (MAC, addresses) of a guest's links, as its namespace has them."""
    found = json.loads(sh(f"ip -n vs{context} -j address"))
    return {
        link["ifname"]: (
            link["address"],
            {each["local"] for each in link["addr_info"] if each["scope"] == "global" and each["family"][0] == "i"},
        )
        for link in found
        if link["ifname"] != "lo"
    }


def answers(address: str) -> bool:
    """Whether the host gets an answer from an address of the guest's."""
    argv = ["ping", "-c1", "-W1", address]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def net(host: Host, *words: str) -> list[str]:
    """The lines of vs-net for the guest web, without host and name."""
    return [line.removeprefix(f"{SELF}:web:") for line in host.ok("vs-net", "--name", "web", *words).splitlines()]


@pytest.fixture
def web(host: Host, small: Path) -> Iterator[Host]:
    """A running guest with one address; a second bridge has a network of its own."""
    sh(f"ip link add {SECOND} type bridge; ip address add {OTHER}.1/24 dev {SECOND}; ip link set {SECOND} up")
    try:
        host.configure(f"{NETWORKS}0:{OTHER}.0/24,{OTHER}.1\n")
        assert create(host, "web", 10, small, "--start").code == 0
        yield host
        host.ok("vs-control", "--name", "web", "--stop")
    finally:
        sh(f"ip link delete {SECOND}")


def test_an_address_is_added_exchanged_and_taken_away_while_the_guest_runs(web: Host) -> None:
    before = links()
    assert net(web, "--add", f"{NET}.20", "--add", GUEST6) == [
        f"{GUEST}:up:up:up:up", f"{NET}.20:up:up:up:up", f"[{GUEST6}]:up:up:up:up",
    ]  # fmt: skip
    assert links() == {"eth0": (before["eth0"][0], {GUEST, f"{NET}.20", GUEST6})}
    assert answers(f"{NET}.20")
    wait(lambda: answers(GUEST6))
    assert net(web, "--set", f"1={NET}.21") == [
        f"{GUEST}:up:up:up:up",
        f"{NET}.21:up:up:up:up",
        f"[{GUEST6}]:up:up:up:up",
    ]
    assert answers(f"{NET}.21")
    assert not answers(f"{NET}.20")
    assert (web.guests / "web/interfaces/1/ip").read_text() == f"{NET}.21\n"
    assert net(web, "--del", GUEST, "--del", f"[{GUEST6}]") == [f"{NET}.21:up:up:up:up"]
    assert links() == {"eth0": (before["eth0"][0], {f"{NET}.21"})}, "the link keeps its MAC"
    hosts = (web.trees / "web/etc/hosts").read_text()
    assert f"{NET}.21" in hosts
    assert GUEST not in hosts
    assert net(web, "--check") == []
    web.ok("vs-control", "--name", "web", "--restart")
    assert links() == {"eth0": (before["eth0"][0], {f"{NET}.21"})}


def test_open_connections_of_addresses_that_stay_go_on(web: Host) -> None:
    web.inside("web", "nc -ll -p 80 -e cat > /dev/null 2>&1 &")
    wait(lambda: socket.socket().connect_ex((GUEST, 80)) == 0)
    with socket.create_connection((GUEST, 80), timeout=20) as client:
        net(web, "--add", f"{NET}.20")
        net(web, "--del", f"{NET}.20")
        client.sendall(b"still here\n")
        assert client.recv(64) == b"still here\n"


def test_all_the_same_twice_changes_nothing(web: Host) -> None:
    net(web, "--add", f"{NET}.20")
    before = web.state(), links()
    done = web.vs("vs-net", "--name", "web", "--add", f"{NET}.20", "--set", f"0={GUEST}", "--del", f"{NET}.99")
    assert done.code == 0, done
    assert f"no address {NET}.99" in done.err
    assert (web.state(), links()) == before


def test_a_stopped_guests_address_is_changed_in_its_files(web: Host) -> None:
    web.ok("vs-control", "--name", "web", "--stop")
    assert net(web, "--set", f"0={NET}.30") == [f"{NET}.30:down:down:down:down"]
    web.ok("vs-control", "--name", "web", "--start")
    assert answers(f"{NET}.30")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--add", f"{NET}.11"), "address of guest other"),
        (("--add", HOST), "gateway"),
        (("--add", "192.0.2.7"), "in no network"),
        (("--add", f"{NET}.99"), "in use on the network by"),
        (("--set", f"7={NET}.20"), "has no interface '7'"),
        (("--set", f"{NET}.20"), "not KEY=ADDR"),
        (("--add", "web"), "--add: "),
        (("--add", f"{NET}.255"), "broadcast"),
        (("--all", "--add", f"{NET}.20"), "either --name"),
        (("--name", "other", "--add", f"{NET}.20"), "about one guest"),
        (("--add", f"{NET}.20", "--fw", "up"), "contradict"),
        (("--confirm", "5"), "goes with"),
        (("--confirmed",), "no change that waits"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_changes(
    web: Host, small: Path, words: tuple[str, ...], sentence: str
) -> None:
    assert create(web, "other", 11, small).code == 0
    sh(f"""
    ip netns add world; ip link add world0 type veth peer name eth0 netns world; ip link set world0 master vsbr0 up
    ip -n world address add {NET}.99/24 dev eth0; ip -n world link set eth0 up
    """)
    try:
        before = web.state(), links(), sh("nsenter --net=/run/netns/vs60000 nft --stateless list ruleset")
        done = web.vs("vs-net", "--name", "web", *words)
        assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1), done
        assert sentence in done.err
        assert (web.state(), links(), sh("nsenter --net=/run/netns/vs60000 nft --stateless list ruleset")) == before
    finally:
        sh("ip link delete world0; ip netns delete world")


def test_what_fails_in_the_middle_is_undone(web: Host) -> None:
    """The device of a new address is no bridge and cannot carry a macvlan: that shows when the link is made."""
    web.configure(f"{NETWORKS}0:{OTHER}.0/24,{OTHER}.1\n", MTU="9000")
    (web.guests / "web/interfaces/0/dev").write_text("vsbr0\n")
    web.configure(f"{NETWORKS}0:{OTHER}.0/24,{OTHER}.1\n", DEFAULT_DEVICE="lo")
    before = web.state(), links(), sh("nsenter --net=/run/netns/vs60000 nft --stateless list ruleset")
    done = web.vs("vs-net", "--name", "web", "--add", f"{OTHER}.20")
    assert (done.code, done.out) == (1, ""), done
    assert "eth1 on lo could not be made" in done.err
    assert (web.state(), links(), sh("nsenter --net=/run/netns/vs60000 nft --stateless list ruleset")) == before
    assert answers(GUEST)


@pytest.mark.parametrize("step", ["change:firewall", "change:connected", "change:saved"])
def test_a_kill_in_the_middle_is_mended_by_the_same_command_or_by_repair(web: Host, step: str) -> None:
    done = web.vs("vs-net", "--name", "web", "--set", f"0={NET}.20", VS_TOOLS_FAULT=step)
    assert done.code == -9, done
    if step == "change:saved":
        assert net(web, "--check") == []
    else:
        assert web.vs("vs-net", "--name", "web", "--check").code == 1
        assert net(web, "--repair")
        assert net(web, "--check") == []
        assert net(web) == [f"{GUEST}:up:up:up:up"]
        assert answers(GUEST)
    assert net(web, "--set", f"0={NET}.20") == [f"{NET}.20:up:up:up:up"]
    assert answers(f"{NET}.20")


def test_links_and_routes_go_down_and_come_back(web: Host) -> None:
    net(web, "--add", GUEST6)
    assert net(web, "--vlan", "down") == [f"{GUEST}:down:down:up:up", f"[{GUEST6}]:down:down:up:up"]
    assert not answers(GUEST)
    assert net(web, "--vlan", "up") == [f"{GUEST}:up:up:up:up", f"[{GUEST6}]:up:up:up:up"]
    assert answers(GUEST)
    assert net(web, "--route", "down") == [f"{GUEST}:up:down:up:up", f"[{GUEST6}]:up:down:up:up"]
    assert not answers(GUEST)
    assert net(web, "--route", "up", "--fw", "down") == [f"{GUEST}:up:up:down:down", f"[{GUEST6}]:up:up:down:down"]
    assert answers(GUEST)
    web.ok("vs-control", "--name", "web", "--restart")
    assert net(web) == [f"{GUEST}:up:up:up:up", f"[{GUEST6}]:up:up:up:up"]


def test_what_somebody_changed_is_named_and_mended(web: Host) -> None:
    def damage(script: str) -> list[str]:
        sh(script)
        lines = web.vs("vs-net", "--name", "web", "--check")
        assert lines.code == 1, lines
        assert net(web, "--repair") == [line.removeprefix(f"{SELF}:web:") for line in lines.out.splitlines()]
        assert net(web, "--check") == [], script
        assert answers(GUEST)
        return [line.removeprefix(f"{SELF}:web: ") for line in lines.out.splitlines()]

    assert net(web, "--check") == []
    ip = "ip -n vs60000"
    assert damage(f"{ip} address add 10.1.1.1/24 dev eth0") == ["eth0 has the address 10.1.1.1/24, which is too much"]
    assert damage(f"{ip} route delete default") == [f"the routes of {GUEST}/24 are not all there"]
    assert "the default route by 10.99.7.77 is too much" in damage(f"{ip} route replace default via 10.99.7.77")
    assert "eth0 is down" in damage(f"{ip} link set eth0 down")
    assert any("the MAC 02:00:00:00:00:99" in line for line in damage(f"{ip} link set eth0 address 02:00:00:00:00:99"))
    assert "the link eth0 is missing" in damage(f"{ip} link delete eth0")
    assert "eth0 is not a link on vsbr0" in damage(
        f"ip link set vs60000.0 nomaster; ip link set vs60000.0 master {SECOND}"
    )
    within = "nsenter --net=/run/netns/vs60000 nft"
    assert damage(f"{within} flush ruleset") == ["the firewall is down"]
    assert damage(f"{within} insert rule inet vs from_all counter accept") == [
        "the rule from_all: all accept is too much"
    ]
    (only,) = damage(f"{within} flush chain inet vs forward")
    assert only == "the rule forward: all drop (a guest is no router) is missing"
    rows = json.loads(web.ok("vs-net", "--name", "web", "--check", "--json"))
    assert rows == []


def test_rules_that_nobody_confirms_go_back_and_the_file_stays(web: Host) -> None:
    assert answers(GUEST)
    (web.guests / "web/firewall.conf").write_text("enable\n")
    net(web, "--fw", "up", "--confirm", "3")
    assert not answers(GUEST)
    again = web.vs("vs-net", "--name", "web", "--fw", "up")
    assert (again.code, "waits for its confirmation" in again.err) == (2, True), again
    wait(lambda: answers(GUEST))
    wait(lambda: not (web.guests / "web/.confirm").exists())
    assert (web.guests / "web/firewall.conf").read_text() == "enable\n"
    assert web.vs("vs-net", "--name", "web", "--check").code == 1
    done = web.vs("vs-net", "--name", "web", "--confirmed")
    assert (done.code, "no change that waits" in done.err) == (2, True), done


def test_what_is_confirmed_stays(web: Host) -> None:
    net(web, "--set", f"0={NET}.20", "--confirm", "4")
    net(web, "--confirmed")
    wait(lambda: not sh("pgrep -f 'vs-guest-phase expir[e] web' || true"))
    assert net(web) == [f"{NET}.20:up:up:up:up"]


def test_addresses_that_nobody_confirms_go_back_and_nobody_else_gets_them_meanwhile(web: Host, small: Path) -> None:
    before = web.state(), links()
    net(web, "--set", f"0={OTHER}.20", "--confirm", "6")
    assert links() != before[1]
    taken = create(web, "other", 10, small)
    assert (taken.code, f"{GUEST} is the address of guest web" in taken.err) == (2, True), taken
    wait(lambda: not (web.guests / "web/.confirm").exists())
    wait(lambda: answers(GUEST))
    assert (web.state(), links()) == before


def test_where_the_waiting_process_is_killed_the_next_command_goes_back(web: Host) -> None:
    net(web, "--set", f"0={NET}.20", "--confirm", "2")
    for pid in sh("pgrep -f 'vs-guest-phase expir[e] web' || true").split():
        os.kill(int(pid), 9)
    wait(lambda: net(web) == [f"{GUEST}:up:up:up:up"])
    net(web, "--set", f"0={NET}.20", "--confirm", "600")
    for pid in sh("pgrep -f 'vs-guest-phase expir[e] web' || true").split():
        os.kill(int(pid), 9)
    path = web.guests / "web/.confirm"
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "that of yesterday"}))
    web.ok("vs-control", "--name", "web", "--restart")
    assert links()["eth0"][1] == {GUEST}
    assert not path.exists()


def test_a_link_that_a_killed_command_left_goes_with_the_next_change(web: Host) -> None:
    (web.guests / "web/interfaces/0/dev").write_text("vsbr0\n")
    web.configure(f"{NETWORKS}0:{OTHER}.0/24,{OTHER}.1\n", DEFAULT_DEVICE=SECOND)
    done = web.vs("vs-net", "--name", "web", "--add", f"{OTHER}.20", VS_TOOLS_FAULT="change:connected")
    assert (done.code, links().keys()) == (-9, {"eth0", "eth1"}), done
    web.configure(f"{NETWORKS}0:{OTHER}.0/24,{OTHER}.1\n")
    net(web, "--add", f"{NET}.20")
    assert {name: has for name, (_, has) in links().items()} == {"eth0": {GUEST, f"{NET}.20"}}


def gone_back(host: Host) -> None:
    wait(lambda: not (host.guests / "web/.confirm").exists())


def test_links_that_were_down_are_down_again_where_nobody_confirms(web: Host) -> None:
    net(web, "--vlan", "down")
    assert net(web, "--vlan", "up", "--confirm", "2") == [f"{GUEST}:up:up:up:up"]
    gone_back(web)
    assert net(web) == [f"{GUEST}:down:down:up:up"]
    net(web, "--fw", "down", "--confirm", "2")
    gone_back(web)
    assert net(web) == [f"{GUEST}:down:down:up:up"]
    net(web, "--vlan", "up")
    net(web, "--route", "down")
    assert net(web, "--route", "up", "--confirm", "2") == [f"{GUEST}:up:up:up:up"]
    gone_back(web)
    assert net(web) == [f"{GUEST}:up:down:up:up"]


def test_while_a_change_waits_the_same_address_again_is_refused_as_well(web: Host) -> None:
    net(web, "--vlan", "down", "--confirm", "600")
    done = web.vs("vs-net", "--name", "web", "--set", f"0={GUEST}")
    assert (done.code, "waits for its confirmation" in done.err) == (2, True), done
    assert net(web) == [f"{GUEST}:down:down:up:up"]


def test_a_change_with_a_way_back_that_fails_half_done_goes_back_at_once(
    web: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VS_TOOLS_ROOT", str(web.root))
    (web.guests / "web/firewall.conf").write_text("enable\n")
    failures = [VsError("the kernel would not")]
    real = mend.mend

    def fails_once(*words: Any) -> None:
        if failures:
            raise failures.pop()
        real(*words)

    monkeypatch.setattr(mend, "mend", fails_once)
    with pytest.raises(VsError, match="would not"):
        upkeep.switch(Paths(web.root), "web", upkeep.Switches(fw=True, vlan=True), 600)
    assert answers(GUEST), "the rules are those of before"
    assert not (web.guests / "web/.confirm").exists()


@pytest.mark.parametrize("words", [("--vlan", "up"), ("--repair",), ("--set", f"0={GUEST}")])
def test_a_link_is_not_taken_for_a_device_that_is_not_there(web: Host, words: tuple[str, ...]) -> None:
    before = links()
    (web.guests / "web/interfaces/0/dev").write_text("vsnone0\n")
    done = web.vs("vs-net", "--name", "web", *words)
    assert (done.code, "vsnone0 does not exist" in done.err) == (2, True), done
    assert links() == before
    assert answers(GUEST)


def test_rules_that_are_loaded_while_the_links_are_down_know_all_addresses(web: Host) -> None:
    """The kernel forgets the IPv6 addresses of a link that goes down."""
    net(web, "--add", GUEST6)
    net(web, "--vlan", "down")
    net(web, "--fw", "up")
    net(web, "--vlan", "up")
    assert net(web, "--check") == []
    wait(lambda: answers(GUEST6))


def test_a_kill_while_the_files_are_written_leaves_those_of_before(web: Host) -> None:
    before = web.state()
    words = ("--set", f"0={NET}.20", "--add", f"{NET}.21", "--add", GUEST6)
    done = web.vs("vs-net", "--name", "web", *words, "--confirm", "2", VS_TOOLS_FAULT="save:interfaces")
    assert done.code == -9, done
    gone_back(web)
    wait(lambda: answers(GUEST))
    net(web, *words)
    net(web, "--set", f"0={GUEST}", "--del", f"{NET}.21", "--del", GUEST6)
    assert web.state() == before


def test_one_guest_that_cannot_be_told_of_hides_no_other(web: Host, small: Path) -> None:
    assert create(web, "other", 11, small, "--start").code == 0
    lines = [f"{SELF}:web:{GUEST}:up:up:up:up", f"{SELF}:other:{NET}.11:up:up:up:up"]
    (web.guests / "web/.confirm").write_text("{")
    done = web.vs("vs-net", "--all")
    assert (done.code, sorted(done.out.splitlines())) == (1, sorted(lines)), done
    assert ".confirm:1:1: it is not what vs-net wrote there" in done.err
    (web.guests / "web/.confirm").unlink()
    sh("umount -l /run/netns/vs60000; rm /run/netns/vs60000")
    done = web.vs("vs-net", "--all")
    assert (done.code, done.out.splitlines()) == (1, lines[1:]), done
    assert done.err.startswith("vs-net: guest web: ")


def test_a_guest_that_spoils_its_hosts_file_keeps_nobody_from_changing_its_network(web: Host) -> None:
    web.inside("web", "rm -f /etc/hosts; mkdir /etc/hosts")
    done = web.vs("vs-net", "--name", "web", "--set", f"0={NET}.20")
    assert (done.code, done.out) == (0, f"{SELF}:web:{NET}.20:up:up:up:up\n"), done
    assert "/etc/hosts" in done.err
    web.inside("web", "rmdir /etc/hosts")


def test_links_that_come_up_with_another_address_have_its_rules(web: Host) -> None:
    (web.guests / "web/interfaces/0/ip").write_text(f"{NET}.20\n")
    assert net(web, "--vlan", "up") == [f"{NET}.20:up:up:up:up"]
    assert net(web, "--check") == []
    wait(lambda: answers(f"{NET}.20"))
    net(web, "--fw", "down")
    (web.guests / "web/interfaces/0/ip").write_text(f"{GUEST}\n")
    assert net(web, "--vlan", "up") == [f"{GUEST}:up:up:down:down"]
    wait(lambda: answers(GUEST))

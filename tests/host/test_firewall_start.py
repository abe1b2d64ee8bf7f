"""The firewall and a guest's start: the rules come first, and without them there is no start."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from conftest import NET, Host, create, wait

from tests.templates import BIN

GUEST, HOST = f"{NET}.10", f"{NET}.1"
SELF = os.uname().nodename.partition(".")[0]


def _sh(script: str) -> str:
    return subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=True).stdout


def test_a_new_guest_begins_with_the_hosts_file(host: Host, small: Path) -> None:
    (host.conf / "firewall.conf").write_text("enable\nallow from any to tcp:80 # ours\n")
    assert create(host, "web", 10, small).code == 0
    assert (host.guests / "web/firewall.conf").read_text() == "enable\nallow from any to tcp:80 # ours\n"
    (host.conf / "firewall.conf").write_text("allow from here to there\n")
    before = host.state()
    done = create(host, "other", 11, small)
    assert (done.code, done.err.count("firewall.conf:1:")) == (2, 2), done
    assert host.state() == before


@pytest.mark.parametrize("tool", ["nftables", "iptables"])
def test_a_guest_without_a_file_is_closed(host: Host, small: Path, tool: str) -> None:
    host.configure(FIREWALL_BACKEND=tool)
    (host.conf / "firewall.conf").unlink()
    assert create(host, "web", 10, small, "--start").code == 0
    assert not (host.guests / "web/firewall.conf").exists()
    host.inside("web", "nc -ll -p 80 -e echo served > /dev/null 2>&1 &")
    argv = ["busybox", "nc", "-w", "1", GUEST, "80"]
    assert subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False).stdout == b""
    assert host.ok("vs-net", "--name", "web") == f"{SELF}:web:{GUEST}:up:up:up:up\n"
    host.ok("vs-control", "--name", "web", "--stop")
    assert host.ok("vs-net", "--name", "web") == f"{SELF}:web:{GUEST}:down:down:down:down\n"
    assert host.ok("vs-net", "--name", "web", "--rules") == ""
    assert host.ok("vs-net", "--all", "--fw", "up") == f"{SELF}:web:{GUEST}:down:down:down:down\n"
    done = host.vs("vs-net", "--name", "web", "--fw", "up")
    assert (done.code, "does not run" in done.err) == (2, True), done


def test_a_file_with_faults_refuses_the_start(host: Host, small: Path) -> None:
    assert create(host, "web", 10, small).code == 0
    file = host.guests / "web/firewall.conf"
    file.write_text("allow from web to all\nnonsense\n")
    done = host.vs("vs-control", "--name", "web", "--start")
    assert done.code == 2, done
    assert [line.partition(": ")[0] for line in done.err.splitlines()] == [f"{file}:1:12", f"{file}:2:1"]
    assert host.leftovers() == []


BROKEN_NFT = "#!/bin/sh\necho 'Could not process rule: No such file or directory' >&2\nexit 1\n"
KERNEL_WITHOUT = """
class IPTCError(Exception): pass
class Table:
    FILTER = "filter"
    def __init__(self, name, autocommit): raise IPTCError("can't initialize")
class Table6(Table): pass
Rule = Rule6 = None
"""
PACKAGES = "/usr/lib/python3/dist-packages"


@pytest.mark.parametrize(
    ("tool", "broken", "text", "sentence"),
    [
        ("nftables", "$(command -v nft)", BROKEN_NFT, "nft -f - failed"),
        ("iptables", PACKAGES, None, "the package python3-iptables is not installed"),
        ("iptables", f"{PACKAGES}/iptc/__init__.py", KERNEL_WITHOUT, "the kernel has no legacy packet filter for IPv4"),
    ],
)
def test_rules_that_cannot_be_loaded_end_the_start_and_nothing_is_left(
    host: Host, small: Path, tmp_path: Path, tool: str, broken: str, text: str | None, sentence: str
) -> None:
    """Something of the host's is covered by what does not work, for this one command."""
    host.configure(FIREWALL_BACKEND=tool)
    assert create(host, "web", 10, small, "--start").code == 0  # the bridge is there afterwards
    host.ok("vs-control", "--name", "web", "--stop")
    cover = tmp_path / "cover"
    if text is None:
        cover.mkdir()
    else:
        cover.write_text(text)
        cover.chmod(0o755)
    script = f'mount --bind {cover} "{broken}"; exec "$@"'
    words = ["unshare", "--mount", "--propagation", "slave", "sh", "-ec", script, "sh"]
    env = {**os.environ, "VS_TOOLS_ROOT": str(host.root)}
    argv = [*words, str(BIN / "vs-control"), "--name", "web", "--start"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1, done
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert host.leftovers() == []


@pytest.mark.parametrize(
    ("tool", "policy"),
    [
        ("nftables", "nft list table inet vs | grep 'policy drop'"),
        ("iptables", "iptables-legacy -S | grep 'P OUTPUT DROP'; ip6tables-legacy -S | grep 'P INPUT DROP'"),
    ],
)
def test_the_rules_are_there_before_the_first_link(host: Host, small: Path, tool: str, policy: str) -> None:
    host.configure(FIREWALL_BACKEND=tool)
    assert create(host, "web", 10, small).code == 0
    done = host.vs("vs-control", "--name", "web", "--start", VS_TOOLS_FAULT="start:firewall")
    assert done.code == -9, done
    links = json.loads(_sh("ip -n vs60000 -j link"))
    assert [(link["ifname"], "UP" in link["flags"]) for link in links] == [("lo", False)]
    _sh(f'nsenter --net=/run/netns/vs60000 sh -ec "{policy}"')
    host.ok("vs-control", "--name", "web", "--stop")


def test_nothing_is_started_where_only_nftables_was_used(host: Host, small: Path) -> None:
    """Neither to load rules nor to read them: a host that never uses iptables does not pay for it."""
    assert create(host, "web", 10, small, "--start").code == 0
    for words in (["--fw", "up"], ["--fw", "down"], []):
        done = host.vs("vs-net", "--name", "web", *words, VS_TOOLS_DEBUG="1")
        assert ("run: nft" in done.err, "iptables_child" in done.err) == (bool(words), False), done
    names = _sh("nsenter --net=/run/netns/vs60000 cat /proc/net/ip_tables_names /proc/net/ip6_tables_names")
    assert names == ""


def test_a_guests_reboot_keeps_its_rules(host: Host, small: Path) -> None:
    (host.conf / "firewall.conf").write_text(f"allow from {HOST} to tcp:80\n")
    assert create(host, "web", 10, small, "--start").code == 0
    before = host.ok("vs-fonctions", "guest_init_pid", "web")
    host.inside("web", "reboot")
    wait(lambda: host.vs("vs-fonctions", "guest_init_pid", "web").out.strip() not in ("", "null", before.strip()))
    assert host.ok("vs-net", "--name", "web") == f"{SELF}:web:{GUEST}:up:up:up:up\n"

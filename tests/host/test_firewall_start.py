"""The firewall and a guest's start: the rules come first, and without them there is no start."""

import json
import os
import subprocess
from collections.abc import Callable
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


def test_a_guest_without_a_file_is_closed(host: Host, small: Path) -> None:
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


@pytest.fixture
def broken_nft(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run a command on a host whose nft refuses everything."""
    program = tmp_path / "nft"
    program.write_text("#!/bin/sh\necho 'Could not process rule: No such file or directory' >&2\nexit 1\n")
    program.chmod(0o755)

    def run(host: Host, *argv: str) -> "subprocess.CompletedProcess[str]":
        script = f'mount --bind {program} "$(command -v nft)"; exec "$@"'
        words = ["unshare", "--mount", "--propagation", "slave", "sh", "-ec", script, "sh", *argv]
        env = {**os.environ, "VS_TOOLS_ROOT": str(host.root)}
        return subprocess.run(words, env=env, capture_output=True, text=True, check=False, timeout=60)

    return run


def test_rules_that_cannot_be_loaded_end_the_start_and_nothing_is_left(
    host: Host, small: Path, broken_nft: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    assert create(host, "web", 10, small, "--start").code == 0  # the bridge is there afterwards
    host.ok("vs-control", "--name", "web", "--stop")
    done = broken_nft(host, str(BIN / "vs-control"), "--name", "web", "--start")
    assert done.returncode == 1, done
    assert "nft -f - failed" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert host.leftovers() == []


def test_the_rules_are_there_before_the_first_link(host: Host, small: Path) -> None:
    assert create(host, "web", 10, small).code == 0
    done = host.vs("vs-control", "--name", "web", "--start", VS_TOOLS_FAULT="start:firewall")
    assert done.code == -9, done
    links = json.loads(_sh("ip -n vs60000 -j link"))
    assert [(link["ifname"], "UP" in link["flags"]) for link in links] == [("lo", False)]
    assert "policy drop" in _sh("nsenter --net=/run/netns/vs60000 nft list table inet vs")
    host.ok("vs-control", "--name", "web", "--stop")


def test_a_guests_reboot_keeps_its_rules(host: Host, small: Path) -> None:
    (host.conf / "firewall.conf").write_text(f"allow from {HOST} to tcp:80\n")
    assert create(host, "web", 10, small, "--start").code == 0
    before = host.ok("vs-fonctions", "guest_init_pid", "web")
    host.inside("web", "reboot")
    wait(lambda: host.vs("vs-fonctions", "guest_init_pid", "web").out.strip() not in ("", "null", before.strip()))
    assert host.ok("vs-net", "--name", "web") == f"{SELF}:web:{GUEST}:up:up:up:up\n"

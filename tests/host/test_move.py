"""Guests move between hosts over real sshd and rsync: running ones, stopped ones, and with a kill at each step."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from nodes import Node, met

MASTER, ONE, TWO = "vsm", "vsh-00", "vsh-01"


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[str, Node]]:
    """A master that knows two hosts."""
    with met(MASTER, ONE, TWO) as found:
        yield {node.name: node for node in found}


def test_a_running_guest_moves_there_and_back(nodes: dict[str, Node], small: Path) -> None:
    master, one, two = (nodes[name] for name in (MASTER, ONE, TWO))
    made = one.vs("vs-create", "--name", "web", "--interface", "10.99.7.5", "--template", str(small))
    assert made.code == 0, made
    one.ok("vs-control", "--name", "web", "--enable", "--start")
    one.inside("web", "echo kept > /kept")
    done = master.vs("vs-move", "--name", "web", "--dst_host", TWO)
    assert (done.code, done.out) == (0, f"{TWO}:web:enabled:running\n"), done
    assert "guest web was away for" in done.err
    assert two.inside("web", "cat /kept").out == "kept\n"
    assert master.ok("vs-scan") == f"{TWO}:web:enabled:running\n"
    assert (two.guests / "web/owner").read_text() == f"{TWO} 2\n"
    for node in (one, two):
        keys = node.root / "home/.ssh/authorized_keys"
        assert "transfer" not in keys.read_text()
    done = master.vs("vs-move", "--name", "web", "--dst-host", ONE, "--src-host", TWO)
    assert (done.code, done.out) == (0, f"{ONE}:web:enabled:running\n"), done
    one.ok("vs-control", "--name", "web", "--stop", "--disable")
    done = master.vs("vs-move", "--name", "web", "--dst-host", TWO)
    assert (done.code, done.out) == (0, f"{TWO}:web:disabled:stopped\n"), done
    two.ok("vs-remove", "--name", "web", "--yes")
    assert master.ok("vs-move", "--status") == ""


def test_a_host_is_emptied_and_goes_on_after_a_kill(nodes: dict[str, Node], small: Path) -> None:
    master, one, two = (nodes[name] for name in (MASTER, ONE, TWO))
    for number, name in enumerate(("a", "b", "c"), 6):
        made = one.vs("vs-create", "--name", name, "--interface", f"10.99.7.{number}", "--template", str(small))
        assert made.code == 0, made
    one.ok("vs-control", "--name", "b", "--start")
    made = two.vs("vs-create", "--name", "c", "--interface", "10.99.7.9", "--template", str(small))
    assert made.code == 0, made
    (two.guests / "c/owner").write_text(f"{TWO} 1\n")
    one.ok("vs-create", "--name", "d", "--interface", "10.99.7.10", "--template", str(small))
    (one.guests / "d/rlimits").mkdir(exist_ok=True)
    (one.guests / "d/rlimits/nproc").write_text("many\n")
    done = master.vs("vs-move", "--all", "--src-host", ONE, "--dry-run")
    assert done.code == 1, done
    assert sorted(done.err.splitlines()[:2]) == [f"a:{TWO}", f"b:{TWO}"], done
    assert "c: stays: " in done.err
    assert "nproc" in done.err.partition("d: stays: ")[2], done
    one.ok("vs-remove", "--name", "d", "--yes")
    assert master.vs("vs-move", "--all", "--src-host", ONE).code == 2  # nobody says yes
    done = master.vs("vs-move", "--all", "--src-host", ONE, "--yes", VS_TOOLS_FAULT="move:released")
    assert done.code == -9, done
    done = master.vs("vs-move", "--all", "--src-host", ONE, "--yes")
    assert (done.code, sorted(done.out.splitlines())) == (
        1, [f"{TWO}:a:disabled:stopped", f"{TWO}:b:disabled:running"],
    ), done  # fmt: skip
    assert "(begun)" in done.err
    assert [path.name for path in one.guests.glob("[!.]*")] == ["c"]
    two.ok("vs-control", "--name", "b", "--stop")
    for node, names in ((one, "c"), (two, "abc")):
        for name in names:
            node.ok("vs-remove", "--name", name, "--yes")


def durations(node: Node, name: str) -> dict[str, float]:
    """Seconds that a guest's last start and stop took, as its host has noted them."""
    lines = (node.root / f"var/log/vs-tools/{name}/durations").read_text().splitlines()
    return {word: float(seconds) for word, seconds in (line.split() for line in lines)}


def test_a_guest_is_not_away_for_longer_than_allowed(nodes: dict[str, Node], small: Path) -> None:
    master, one, two = (nodes[name] for name in (MASTER, ONE, TWO))
    made = one.vs("vs-create", "--name", "slow", "--interface", "10.99.7.5", "--template", str(small), "--start")
    assert made.code == 0, made
    assert list(durations(one, "slow")) == ["start"]
    done = master.vs("vs-move", "--name", "slow", "--dst-host", TWO, "--max-downtime", "20")
    assert (done.code, "its stop may take: vs-control --restart" in done.err) == (1, True), done

    hook = one.guests / "slow/scripts/pre-stop"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\nsleep 3\n")
    hook.chmod(0o755)
    one.ok("vs-control", "--name", "slow", "--restart")
    assert durations(one, "slow")["stop"] > 3
    hook.write_text("#!/bin/sh\nexit 0\n")
    (one.root / "var/log/vs-tools/slow/durations").write_text("start 1.00\nstop 30.00\n")
    move = ("vs-move", "--name", "slow", "--dst-host", TWO, "--accept-config", "--max-downtime")
    init = one.ok("vs-fonctions", "guest_init_pid", "slow")
    done = master.vs(*move, "30")
    assert (done.code, "it stays where it is" in done.err, "restart" in done.err) == (1, True, False), done
    assert one.ok("vs-fonctions", "guest_init_pid", "slow") == init

    done = master.vs(*move, "60")
    assert (done.code, done.out) == (0, f"{TWO}:slow:disabled:running\n"), done
    known = durations(two, "slow")
    assert set(known) == {"start", "stop"}
    assert 0 < known["stop"] < 30, known
    two.ok("vs-control", "--name", "slow", "--stop")
    done = master.vs("vs-move", "--name", "slow", "--dst-host", ONE, "--accept-config", "--max-downtime", "1")
    assert (done.code, done.out) == (0, f"{ONE}:slow:disabled:stopped\n"), done
    one.ok("vs-remove", "--name", "slow", "--yes")

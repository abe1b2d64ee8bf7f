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

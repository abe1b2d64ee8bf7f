"""vs-update brings the master's version to the hosts; install.sh is a stand-in here: the kernel has one /opt."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from nodes import Node, met

from tests.templates import REPO
from vstools import __version__

MASTER, ONE, TWO = "vsm", "vsh-00", "vsh-01"


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[str, Node]]:
    """A master that knows two hosts, each with a /usr/src of its own."""
    with met(MASTER, ONE, TWO) as found:
        for node in found:
            node.inside_node(["mount", "-t", "tmpfs", "tmpfs", "/usr/src"])
        yield {node.name: node for node in found}


def checkout(folder: Path, script: str) -> Path:
    """A directory of vs-tools whose install.sh does something else."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "vstools").mkdir(parents=True)
    (folder / "vstools/__init__.py").write_text("")
    (folder / "secret").write_text("not to be sent\n")
    shutil.copy(REPO / "pyproject.toml", folder)
    (folder / "install.sh").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "install.sh").chmod(0o755)
    return folder


def test_hosts_are_updated_until_one_is_not_well(nodes: dict[str, Node], small: Path, tmp_path: Path) -> None:
    master, one, two = (nodes[name] for name in (MASTER, ONE, TWO))
    made = one.vs("vs-create", "--name", "web", "--interface", "10.99.7.5", "--template", str(small), "--start")
    assert made.code == 0, made
    folder = checkout(tmp_path / "vs", 'echo "$PWD" >> "$VS_TOOLS_ROOT/ran"')
    done = master.vs("vs-update")
    assert (done.code, "--from" in done.err) == (2, True), done
    state = master.root / "var/lib/vs-tools"
    state.mkdir(parents=True, exist_ok=True)
    (state / "source").write_text(f"{folder}\n")
    assert f"on {TWO}" in master.ok("vs-update", "--dry-run")
    assert not (one.root / "ran").exists()
    assert master.ok("vs-update") == f"{ONE}:{__version__}\n{TWO}:{__version__}\n"
    for node in (one, two):
        assert (node.root / "ran").read_text() == "/usr/src/vs-tools\n"
        assert "secret" not in node.inside_node(["ls", "/usr/src/vs-tools"]).stdout
        (node.root / "ran").unlink()

    checkout(folder, "seq 100; echo no disk; exit 3")
    done = master.vs("vs-update", "--host", TWO)
    assert (done.code, done.out) == (1, ""), done
    assert "status 3" in done.err
    assert "no disk" in done.err

    checkout(folder, 'echo ran >> "$VS_TOOLS_ROOT/ran"; sed -i s/0.1.0/9.9.9/ pyproject.toml')
    text = (folder / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text(text.replace(f'version = "{__version__}"', 'version = "9.9.9"'))
    done = master.vs("vs-update")
    assert (done.code, done.out) == (1, ""), done
    assert "not 9.9.9" in done.err
    assert f"not touched: {TWO}" in done.err
    assert not (two.root / "ran").exists()
    assert one.ok("vs-control", "--name", "web").strip().endswith(":running")
    one.ok("vs-control", "--name", "web", "--stop")
    one.ok("vs-remove", "--name", "web", "--yes")

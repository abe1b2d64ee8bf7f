"""The first contact with hosts of a pool, and vs-scan over real sshd."""

import json
import subprocess
from collections.abc import Iterator

import pytest
from nodes import Node, pool
from nodes import meet as first_contact

MASTER, ONE, TWO = "vsm", "vsh-00", "vsh-01"


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[str, Node]]:
    """A master and two hosts that have not met."""
    with pool(MASTER, ONE, TWO) as found:
        yield {node.name: node for node in found}


def meet(nodes: dict[str, Node], name: str) -> str:
    """The first contact of the master with a host."""
    return first_contact(nodes[MASTER], nodes[name])


def test_a_pool_is_met_and_scanned(nodes: dict[str, Node]) -> None:
    master = nodes[MASTER]
    done = master.vs("vs-scan")
    assert (done.code, "no master" in done.err) == (2, True), done

    # a wrong fingerprint, or nobody who could compare it: nothing is stored
    one = nodes[ONE]
    words = ("vs-hosts", "--add", ONE, "--address", one.address)
    done = master.vs(*words, "--fingerprint", "SHA256:no")
    assert (done.code, one.key in done.err) == (2, True), done
    done = master.vs(*words)
    assert (done.code, one.key in done.err) == (2, True), done
    assert not (master.conf / "pool/known_hosts").exists()
    assert not (one.root / "home/.ssh/authorized_keys").exists()

    assert meet(nodes, ONE).startswith(f"{ONE}:up:")
    assert meet(nodes, TWO).startswith(f"{TWO}:up:")
    own = (master.conf / "pool/key.pub").read_text().split()[1]
    assert own in (one.root / "home/.ssh/authorized_keys").read_text()
    lines = (master.conf / "slaves.conf").read_text().splitlines()
    assert lines == [f"{ONE}:address={one.address}", f"{TWO}:address={nodes[TWO].address}"]
    meet(nodes, ONE)
    assert (master.conf / "slaves.conf").read_text().splitlines() == lines
    assert [line.rsplit(":", 1)[0] for line in master.ok("vs-hosts").splitlines()] == [f"{ONE}:up", f"{TWO}:up"]

    # what they have, all at once
    for node, name, number in ((one, "web", 5), (nodes[TWO], "db", 6)):
        made = node.vs("vs-create", "--name", name, "--interface", f"10.99.7.{number}", "--skeleton")
        assert made.code == 0, made
    assert master.ok("vs-scan") == f"{ONE}:web:disabled:stopped\n{TWO}:db:disabled:stopped\n"
    assert master.ok("vs-scan", "--host", TWO) == f"{TWO}:db:disabled:stopped\n"
    assert master.ok("vs-scan", "--name", "web") == f"{ONE}:web:disabled:stopped\n"
    rows = json.loads(master.ok("vs-scan", "--json"))
    assert rows[0]["addresses"] == ["10.99.7.5"]
    inventory = json.loads(master.ok("vs-scan", "--ansible"))
    assert inventory["_meta"]["hostvars"]["db"] == {"ansible_host": "10.99.7.6", "vs_host": TWO, "vs_running": False}
    assert inventory["stopped"] == {"hosts": ["db", "web"]}

    # what is wrong: a copy, and two owners
    one.ok("vs-create", "--name", "db", "--interface", "10.99.7.7", "--skeleton")
    done = master.vs("vs-scan")
    assert (done.code, "guest db belongs to several hosts: vsh-00, vsh-01" in done.err) == (1, True), done
    (one.guests / "db/owner").write_text(f"{TWO} 3\n")
    done = master.vs("vs-scan")
    assert (done.code, "guest db is on several hosts" in done.err) == (0, True), done
    one.ok("vs-remove", "--name", "db", "--yes")


def test_a_host_that_is_cut_off_costs_its_timeout_once_and_is_named(nodes: dict[str, Node]) -> None:
    master = nodes[MASTER]
    if not (master.conf / "slaves.conf").exists():
        meet(nodes, ONE), meet(nodes, TWO)
    nodes[ONE].cut("off")
    try:
        done = master.vs("vs-scan", "--timeout", "2", "--json")
        assert (done.code, f"host {ONE} does not answer within 2 seconds" in done.err) == (1, True), done
        assert {row["host"] for row in json.loads(done.out)} <= {TWO}
    finally:
        nodes[ONE].cut("on")
    assert "warning" not in master.vs("vs-scan").err


def test_a_host_with_another_key_is_sent_nothing(nodes: dict[str, Node]) -> None:
    master, one = nodes[MASTER], nodes[ONE]
    if not (master.conf / "slaves.conf").exists():
        meet(nodes, ONE), meet(nodes, TWO)
    for suffix in ("", ".pub"):
        (one.root / f"sshd/key{suffix}").rename(one.root / f"sshd/old{suffix}")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", one.root / "sshd/key"], check=True)
    one.sshd("off")
    one.sshd("on")
    try:
        done = master.vs("vs-scan")
        assert (done.code, "shows another key" in done.err, one.key in done.err) == (1, True, True), done
        done = master.vs("vs-hosts", "--add", ONE, "--address", one.address, "--fingerprint", one.key)
        assert (done.code, "--forget-key" in done.err) == (2, True), done
        master.ok("vs-hosts", "--forget-key", ONE)
        done = master.vs("vs-scan")
        assert (done.code, f"the key of host {ONE} is unknown" in done.err) == (1, True), done
        master.ok("vs-hosts", "--add", ONE, "--address", one.address, "--fingerprint", one.key)
        assert master.vs("vs-scan").code == 0
    finally:
        for suffix in ("", ".pub"):
            (one.root / f"sshd/old{suffix}").rename(one.root / f"sshd/key{suffix}")
        master.vs("vs-hosts", "--forget-key", ONE)
        one.sshd("off")
        one.sshd("on")
        meet(nodes, ONE)


@pytest.mark.parametrize(
    "answer",
    [
        "not json",
        '{"agent": 1, "version": "9", "node": "vsh-00"}\n[{"guest": "../../etc"}]',
        r'{"agent": 1, "version": "9", "node": "vsh-00"}\n{"value": [{"guest": "a\\nb"}]}',
        '{"agent": 1, "version": "9", "node": "other"}',
        '{"agent": 1, "version": "9", "node": "vsh-00"}\n{"value": {"guest": 1}}',
        "ENDLESS",
        "",
    ],
)
def test_a_host_that_lies_is_named_and_nothing_of_it_is_believed(nodes: dict[str, Node], answer: str) -> None:
    master, one = nodes[MASTER], nodes[ONE]
    if not (master.conf / "slaves.conf").exists():
        meet(nodes, ONE), meet(nodes, TWO)
    liar = one.root / "liar"
    liar.mkdir(exist_ok=True)
    script = "cat /dev/zero" if answer == "ENDLESS" else f"printf '%s\\n' '{answer}'; sleep 1"
    (liar / "vs-slave").write_text(f"#!/bin/sh\n{script.replace(chr(92) + 'n', chr(10))}\n")
    (liar / "vs-slave").chmod(0o755)
    config = one.root / "sshd/config"
    honest = config.read_text()
    config.write_text(honest.replace("PATH=", f"PATH={liar}:"))
    one.sshd("off")
    one.sshd("on")
    try:
        done = master.vs("vs-scan", timeout=120)
        assert done.code == 1, done
        assert ONE in done.err, done
        assert all(line.startswith(TWO) for line in done.out.splitlines()), done
        assert len(done.err) < 2000
    finally:
        config.write_text(honest)
        one.sshd("off")
        one.sshd("on")

"""Copies of guests to the master and back, with a kill at each step: what has a name is whole, and guests run again."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import wait
from nodes import TABLE, Node, met, told

NO_COPY = "no copy, the next one goes on with what came"
MASTER, ONE, TWO, GUEST = "vsm", "vsh-00", "vsh-01", "web"
QUICK = {"VS_TOOLS_FAULT_PATIENCE": "9"}
GET_STEPS = ["store:partial", "get:config", "get:tree", "get:copied", "manifest:begun", "get:manifest", "store:filled",
             "store:synced", "store:renamed"]  # fmt: skip
PUT_PLACES = ["arrive:directory", "arrive:saved", "arrive:tree", "register:cleaned", "create:settled", "create:named",
              "create:finished"]  # fmt: skip


@pytest.fixture(scope="module")
def nodes(small: Path) -> Iterator[tuple[Node, Node, Node]]:
    """A master, a host with a guest that runs, and a host without."""
    with met(MASTER, ONE, TWO) as found:
        master, one, two = found
        one.ok("vs-create", "--name", GUEST, "--interface", "10.99.7.5", "--template", str(small))
        (one.trees / GUEST / "large").write_bytes(os.urandom(2 << 20))
        one.ok("vs-control", "--name", GUEST, "--start")
        yield master, one, two
        for node in found:
            node.cut("on")
            node.agent()


def generations(master: Node) -> list[Path]:
    folder = master.root / "var/lib/vs-tools/store" / GUEST
    return sorted(path for path in folder.glob("[!.]*") if path.name != "accepted")


def whole(master: Node, one: Node) -> None:
    """A copy goes on; then there are whole ones and nothing else, and the guest runs."""
    done = master.vs("vs-get", "--name", GUEST, "--cool", **QUICK)
    assert done.code == 0, done
    lines = master.ok("vs-backup", "--verify").splitlines()
    assert lines == [f"{GUEST}:{path.name}:whole" for path in generations(master)]
    hidden = {path.name for path in generations(master)[0].parent.iterdir() if path.name[0] == "."}
    assert hidden == {".lock"}
    awake(one)


def awake(one: Node) -> None:
    wait(lambda: one.ok("vs-control", "--name", GUEST) == f"{ONE}:{GUEST}:disabled:running\n")
    wait(lambda: not list(one.run.glob("asleep/*")))
    assert [path for path in one.leftovers() if "/." in path] == []


@pytest.mark.parametrize("step", GET_STEPS if TABLE else GET_STEPS[1::2])
def test_a_copy_is_killed_on_the_master(nodes: tuple[Node, Node, Node], step: str) -> None:
    master, one, _ = nodes
    before = len(generations(master))
    done = master.vs("vs-get", "--name", GUEST, "--cool", VS_TOOLS_FAULT=step, **QUICK)
    assert done.code == -signal.SIGKILL, done
    assert len(generations(master)) == before + (step == "store:renamed")
    whole(master, one)
    told(f"get: {step}", "the master's command", "the copy is whole" if step == "store:renamed" else NO_COPY)


@pytest.mark.parametrize("place", ["asleep:marked", "cool:stopped", "cool:snapshot"])
@pytest.mark.parametrize("command", ["get", "backup"] if TABLE else ["backup"])
def test_a_guest_that_was_stopped_for_its_copy_runs_again(
    nodes: tuple[Node, Node, Node], command: str, place: str
) -> None:
    master, one, _ = nodes
    (master.conf / "backup.conf").write_text(f"{GUEST}:cool,keep-last=2\n")
    before = len(generations(master))
    one.agent(**QUICK, VS_TOOLS_FAULT=place)
    words = ("vs-get", "--name", GUEST, "--cool") if command == "get" else ("vs-backup",)
    done = master.vs(*words, **QUICK)
    one.agent()
    assert (done.code, ONE in done.err, "internal" in done.err) == (1, True, False), done
    awake(one)
    assert len(generations(master)) == before
    whole(master, one)
    told(f"{command}: {place}", "agent of the host", f"{NO_COPY}, the guest runs again")


@pytest.mark.parametrize("fault", ["master", "agents", "rsync", "sshd", "network"])
def test_a_cool_copy_is_cut_short(nodes: tuple[Node, Node, Node], fault: str) -> None:
    master, one, _ = nodes
    (one.trees / GUEST / "large").write_bytes(os.urandom(8 << 20))
    conf = master.conf / "slaves.conf"
    before, count = conf.read_text(), len(generations(master))
    conf.write_text("".join(f"{line},bwlimit=1000\n" for line in before.splitlines()))
    one.agent(**QUICK)
    try:
        process = master.start("vs-get", "--name", GUEST, "--cool", **QUICK)
        wait(lambda: bool(one.processes("rsync")))
        if fault == "master":
            process.kill()
        elif fault == "agents":
            for pid in one.agents():
                os.kill(pid, signal.SIGKILL)
        elif fault == "rsync":
            one.kill("rsync")
        elif fault == "sshd":
            one.sshd("off")
        else:
            one.cut("off")
        _, err = process.communicate(timeout=120)
    finally:
        conf.write_text(before)
    assert process.returncode in (1, -signal.SIGKILL), err
    assert "internal error" not in err
    awake(one)
    assert len(generations(master)) == count
    one.cut("on")
    if fault == "sshd":
        one.sshd("on")
    one.agent()
    wait(lambda: not one.agents())
    whole(master, one)
    told("get: copying", fault, f"{NO_COPY}, the guest runs again")


@pytest.mark.parametrize("place", PUT_PLACES if TABLE else PUT_PLACES[1::2])
def test_a_put_is_killed_on_the_host(nodes: tuple[Node, Node, Node], place: str) -> None:
    master, one, two = nodes
    if not (master.root / "var/lib/vs-tools/store" / GUEST).exists():
        master.ok("vs-get", "--name", GUEST, "--cool")
    words = ("vs-put", "--name", GUEST, "--host", TWO)
    two.agent(**QUICK, VS_TOOLS_FAULT=place)
    done = master.vs(*words, **QUICK)
    two.agent()
    assert (done.code, TWO in done.err, "internal" in done.err) == (1, True, False), done
    done = master.vs(*words, **QUICK)
    if is_there := (two.guests / GUEST).exists() and done.code == 2:
        assert "already" in done.err, done
    else:
        assert (done.code, done.out) == (0, f"{TWO}:{GUEST}:disabled:stopped\n"), done
    tree, (newest, *_) = two.trees / GUEST, generations(master)[::-1]
    assert (tree / "large").read_bytes() == (newest / "tree/large").read_bytes()
    assert (two.guests / GUEST / "owner").read_text() == f"{ONE} 1\n"
    assert two.vs("vs-control", "--name", GUEST, "--start").code == 2
    master.ok("vs-remove", "--name", GUEST, "--host", TWO, "--yes")
    assert two.leftovers() == []
    awake(one)
    told(
        f"put: {place}", "agent of the host", "the guest is there" if is_there else "no guest, the next vs-put makes it"
    )

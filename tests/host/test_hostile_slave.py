"""A host that belongs to somebody else now: whatever it says or sends, the master says so and is harmed in nothing."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Done, snapshot
from nodes import Node, met

MASTER, ONE, TWO = "vsm", "vsh-00", "vsh-01"
QUICK = {"VS_TOOLS_FAULT_PATIENCE": "9"}
AGENT = r"""#!/usr/bin/python3 -I
# A vs-slave that answers each verb with what plan.json has for it: a value, or raw text.
import json, os, subprocess, sys
plan = json.load(open({plan!r}))
while "complain" in plan and sys.argv[1:]:
    os.write(2, b"x" * 65536)
if sys.argv[1:2] == ["send"]:
    argv = ["rsync", *sys.argv[4:]]
    rsync = subprocess.Popen(argv, cwd=plan["tree"], stdout=subprocess.PIPE)
    while text := os.read(rsync.stdout.fileno(), 1 << 16):
        for this, other in plan.get("swap", ()):
            assert len(this) == len(other)
            if this.encode() in text:
                open(plan["tree"] + ".swapped", "w").close()
            text = text.replace(this.encode(), other.encode())
        while text:
            text = text[os.write(1, text):]
    sys.exit(rsync.wait())
def say(what):
    os.write(1, (what if isinstance(what, str) else json.dumps(what)).encode("utf-8", "surrogatepass") + b"\n")
say(plan.get("hello", {{"agent": 1, "version": "0.1.0", "node": {node!r}}}))
for line in sys.stdin.buffer:
    if not line.strip():
        continue
    asked = json.loads(line)
    found = plan.get(asked.get("verb"), {{"value": None}})
    if isinstance(found, dict) and "endless" in found:
        while True:
            os.write(1, found["endless"].encode() * 100)
    say({{**found, "id": asked.get("id")}} if isinstance(found, dict) else found.replace("ID", str(asked.get("id"))))
"""
STATE = {
    "guest": "web", "enabled": False, "running": False, "broken": False, "addresses": [], "owner": ONE, "epoch": 1,
}  # fmt: skip
TOLD = {
    "owner": [ONE, 1], "size": 1 << 20, "inodes": 9, "arch": os.uname().machine, "version": "0.1.0", "enabled": False,
    "running": False,
}  # fmt: skip
HONEST = {"states": {"value": [STATE]}, "describe": {"value": TOLD}, "files": {"value": [["context", 420, "MTIzNDU="]]}}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Node]]:
    """A master, and two hosts that were honest when they were met."""
    with met(MASTER, ONE, TWO) as found:
        yield {node.name: node for node in found}
        for node in found:
            node.agent()


def lies(node: Node, **plan: Any) -> Path:
    """From now on the host answers so; the tree that it sends."""
    tree = node.root / "tree"
    tree.mkdir(exist_ok=True)
    path = node.root / "plan.json"
    path.write_text(json.dumps({**HONEST, **plan, "tree": str(tree)}))
    node.agent(AGENT.format(plan=str(path), node=node.name))
    return tree


def harmed(nodes: dict[str, Node], *argv: str) -> Done:
    """A command of the master's that must fail, and change nothing but the store of this guest."""
    master = nodes[MASTER]
    before, around = master.state(), snapshot(master.root / "home")
    done = master.vs(*argv, **QUICK, timeout=120)
    words = done.out + done.err
    assert done.code in (1, 2), done
    assert ONE in done.err, done
    assert "internal error" not in words, done
    assert "Traceback" not in words, done
    assert words.replace("\n", "").isprintable(), done
    assert len(words) < 20_000
    assert master.state() == before
    assert snapshot(master.root / "home") == around
    assert not list(Path("/tmp").glob("evil*"))
    store = master.root / "var/lib/vs-tools/store"
    if store.exists():
        assert [path.name for path in store.iterdir()] in ([], ["web"])
        assert not [path for path in (store / "web").iterdir() if not path.name.startswith(".")]
    return done


GET = ("vs-get", "--name", "web")


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"hello": "x" * 100}, "nothing that is understood"),
        ({"hello": {"agent": 1, "version": "0.1.0", "node": "../\x1b[2J"}}, "calls itself"),
        ({"hello": {"agent": 9, "version": ["\n"] * 10**5, "node": ONE}}, "another version"),
        ({"states": {"endless": "x" * 1000}}, "nothing that is understood"),
        ({"states": {"endless": '{"note":"evil"}\n'}}, "says too much"),
        ({"states": {"value": [{**STATE, "guest": "../../etc/cron.d/x"}]}}, "what cannot be"),
        ({"states": {"value": [{**STATE, "guest": "web\nweb"}]}}, "what cannot be"),
        ({"states": {"failed": ["\x1b[2J\n" * 1000, {"x": "y"}]}}, ONE),
        ({"states": '{"value":' + "[" * 100_000}, "nothing that is understood"),
        ({"states": {"other": 1}}, "nothing that is understood"),
        ({"states": {"endless": '{"id":0,"value":1}\n'}}, "says too much"),
    ],
)
def test_answers_that_are_none(nodes: dict[str, Node], plan: dict[str, Any], said: str) -> None:
    lies(nodes[ONE], **plan)
    done = harmed(nodes, "vs-scan")
    assert said in done.err, done


@pytest.mark.parametrize(
    "plan",
    [
        {"describe": {"value": {**TOLD, "size": 10**300}}},
        {"describe": '{"id":ID,"value":{"owner":null,"size":1e999,"inodes":1}}'},
        {"describe": {"value": {**TOLD, "owner": ["../x", 1]}}},
        {"describe": {"value": {**TOLD, "arch": "x\ny"}}},
        {"describe": {"value": 5}},
        {"files": {"value": [["../../../tmp/evil", 420, "ZXZpbA=="]]}},
        {"files": {"value": [["/tmp/evil", 420, "ZXZpbA=="]]}},
        {"files": {"value": [["x\ny\ud800", 420, "ZXZpbA=="]]}},
        {"files": {"value": [["scripts/pre-start", 511, "ZXZpbA=="]]}},
        {"files": {"value": [[f"x{number}", 420, ""] for number in range(4096)]}},
        {"describe": {"endless": '{"done":1}\n'}},
        {"files": {"endless": '{"note":"x"}\n'}},
        {"complain": True},
    ],
)
def test_a_guest_that_cannot_be(nodes: dict[str, Node], plan: dict[str, Any]) -> None:
    lies(nodes[ONE], **plan)
    harmed(nodes, *GET, "--host", ONE)


SWAPS = [
    ([["AAxevil", "../evil"]], "the parent's directory"),
    ([["xtmpxevil", "/tmp/evil"]], "an absolute path"),
    ([["xevil", "/evil"]], "through a link"),
]  # fmt: skip


@pytest.mark.parametrize(("swap", "what"), SWAPS, ids=[what for _, what in SWAPS])
def test_a_tree_with_names_that_lead_out(nodes: dict[str, Node], tmp_path: Path, swap: Any, what: str) -> None:
    master = nodes[MASTER]
    outside = tmp_path / "outside"
    outside.mkdir()
    tree = lies(nodes[ONE], swap=swap)
    for path in tree.iterdir():
        path.unlink()
    (tree.parent / "tree.swapped").unlink(missing_ok=True)
    (tree / "lnk").symlink_to(outside)
    for this, _ in swap:
        (tree / (f"lnk{this}" if "link" in what else this)).write_text("evil")
    harmed(nodes, *GET, "--host", ONE)
    assert (tree.parent / "tree.swapped").exists(), "the names went as they are"
    assert list(outside.iterdir()) == []
    assert not list(master.root.rglob("evil"))


def test_devices_do_not_come(nodes: dict[str, Node]) -> None:
    master, store = nodes[MASTER], nodes[MASTER].root / "var/lib/vs-tools/store"
    tree = lies(nodes[ONE])
    for path in tree.iterdir():
        path.unlink()
    os.mknod(tree / "disk", 0o20666, os.makedev(1, 3))
    (tree / "lnk").symlink_to("/etc/passwd")
    master.ok(*GET, "--host", ONE)
    (made,) = (path for path in (store / "web").iterdir() if path.name[0] != ".")
    assert sorted(path.name for path in (made / "tree").iterdir()) == ["lnk"]
    store.rename(master.root / "store.of-before")


@pytest.mark.parametrize(
    "words",
    [
        ["--server", "--log-file=evil", ".", "./"], ["--server", "--log-file=/tmp/evil", ".", "./"],
        ["--server", "--backup-dir=../evil", ".", "./"], ["--server", ".", "../"], ["--server", ".", "/tmp"],
        ["--server", "--sender", ".", "./"], ["--server", "--temp-dir=/tmp", ".", "./"], ["--daemon", ".", "./"],
        ["--server", "--files-from=/etc/shadow", ".", "./"], ["--server", "-e.", "--rsync-path=x", ".", "./"],
        ["--asked", "rsync --server . /tmp"], ["--asked", "sh -c evil"], ["--asked", "'"], ["--asked"], [],
        ["--server", "-T", "/tmp", ".", "./"], ["--server", "--partial-dir=/tmp", ".", "./"],
        ["--server", "--write-devices", ".", "./"], ["--server", "--copy-dest=/", ".", "./"],
    ],
)  # fmt: skip
def test_what_another_host_may_not_ask_for(nodes: dict[str, Node], words: list[str]) -> None:
    two = nodes[TWO]
    staged = two.trees / ".new-web"
    staged.mkdir(exist_ok=True)
    before = snapshot(two.trees)
    try:
        done = two.vs("vs-slave", "receive", "web", *words, timeout=30)
        assert done.code in (1, 2), done
        assert done.err.startswith("vs-slave: "), done
        assert "Traceback" not in done.err, done
        assert snapshot(two.trees) == before
        assert not list(Path("/tmp").glob("evil*"))
    finally:
        staged.rmdir()

"""The product of a move's steps and of faults: after each, at most one host may run the guest, and nothing is lost.

One guest goes back and forth between two hosts. In it a writer numbers its records, each on the disk before the next,
and each with a word of its own: one that is lost cannot be written again. A watch looks all the time how many may run
the guest, how many do, and which record was the last one. Without VS_TOOLS_TESTS_SAFETY a part of the product is
walked; with it (tests/run safety) all of it, and what came of each is written to the file of that name.
"""

import os
import signal
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import Done, wait
from nodes import TABLE, Node, met, told

MASTER, HOSTS, GUEST = "vsm", ("vsh-00", "vsh-01"), "web"
QUICK = {"VS_TOOLS_FAULT_PATIENCE": "9"}
"""Seconds after which somebody who says nothing is dead: a cut network is noticed sooner."""
WRITER = """#!/bin/sh
n=$(/bin/busybox tail -n 1 /records)
n=${n%% *}
while n=$((n + 1)) && read word < /proc/sys/kernel/random/uuid; do
    echo $n $word | /bin/busybox dd of=/records oflag=append conv=notrunc,fsync 2> /dev/null
    /bin/busybox usleep 20000
done
"""
STEPS = ("begun", "staged", "copied", "held", "registered", "released", "owned", "started", "ended")
SOURCE_STEPS = (
    "asleep:marked", "depart:stopped", "depart:held", "depart:released", "forget:disabled", "remove:renamed",
    "remove:tree-renamed", "remove:tree", "remove:done",
)  # fmt: skip
TARGET_STEPS = (
    "arrive:directory", "arrive:files", "arrive:saved", "arrive:reserved", "arrive:tree", "arrive:staged",
    "register:cleaned", "register:synced", "create:marked", "create:settled", "create:named", "create:finished",
    "create:done", "own:written",
)  # fmt: skip
FAULTS = ("agent of the source", "agent of the target", "sshd of the source", "sshd of the target",
          "network of the source", "network of the target", "network of the master")  # fmt: skip
SOME = {
    ("staged", "agent of the target"), ("copied", "network of the source"), ("held", "agent of the source"),
    ("held", "sshd of the source"), ("held", "network of the source"), ("held", "network of the master"),
    ("registered", "agent of the target"), ("registered", "network of the target"),
    ("released", "network of the master"), ("released", "sshd of the target"), ("owned", "agent of the target"),
    ("started", "network of the source"),
}  # fmt: skip
SOME_PLACES = {
    "asleep:marked", "depart:stopped", "depart:held", "depart:released", "forget:disabled", "remove:tree-renamed",
    "arrive:directory", "arrive:saved", "arrive:tree", "register:synced", "create:settled", "create:named",
    "own:written",
}  # fmt: skip


class Watch(threading.Thread):
    """Looks at the two hosts until it is ended; ``wrong`` is what must never be."""

    def __init__(self, hosts: tuple[Node, Node]) -> None:
        super().__init__(daemon=True)
        self.hosts, self.wrong, self._ended = hosts, [], threading.Event()
        self.seen: dict[int, str] = {}
        """Records by their numbers."""

    def run(self) -> None:
        while not self._ended.wait(0.02):
            self.look()

    def look(self) -> None:
        may = [node.name for node in self.hosts if owned(node)]
        if len(may) > 1:
            self.wrong.append(f"both may start it: {may}")
        if len(twice := running(self.hosts)) > 1:
            self.wrong.append(f"it runs twice: {twice}")
        for node in self.hosts:
            if record := last(node):
                number = int(record.split()[0])
                if self.seen.setdefault(number, record) != record:
                    self.wrong.append(f"record {number} was lost, and written again")

    def end(self) -> None:
        self._ended.set()
        self.join()


def owned(node: Node) -> bool:
    """Whether the host may start the guest."""
    config = node.guests / GUEST
    try:
        return (config / "owner").read_text().split()[0] == node.name
    except FileNotFoundError:
        return config.is_dir() and not (config / "owner").exists()


def records(node: Node) -> list[str]:
    """What the writer wrote, as the host has it; a last line that is not whole is none."""
    try:
        return (node.trees / GUEST / "records").read_text().split("\n")[:-1]
    except (FileNotFoundError, NotADirectoryError):
        return []


def last(node: Node) -> str:
    """The last record that is whole, as the host has it."""
    try:
        with (node.trees / GUEST / "records").open("rb") as handle:
            handle.seek(max(0, os.fstat(handle.fileno()).st_size - 200))
            return (["", *handle.read().decode().split("\n")[:-1]])[-1]
    except (FileNotFoundError, NotADirectoryError):
        return ""


def running(hosts: Sequence[Node]) -> dict[str, str]:
    """The PID namespaces in which a writer of these hosts' runs, and the cgroup, which tells whose it is."""
    groups = [f"vs-tools-{zlib.crc32(os.fsencode(node.root)):08x}/" for node in hosts]
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (entry / "cmdline").read_bytes() == b"/bin/sh\0/writer\0":
                lines = (entry / "cgroup").read_text().split("\n")
                if own := [line for line in lines if any(group in line for group in groups)]:
                    found[os.readlink(entry / "ns/pid")] = own[0]
    return found


class Pool:
    """The master, and the guest's two hosts by where it is now."""

    def __init__(self, nodes: list[Node]) -> None:
        self.master, *hosts = nodes
        self.hosts = (hosts[0], hosts[1])

    @property
    def source(self) -> Node:
        return next(node for node in self.hosts if owned(node))

    @property
    def target(self) -> Node:
        return next(node for node in self.hosts if node is not self.source)

    def move(self, **env: str) -> "subprocess.Popen[str]":
        return self.master.start("vs-move", "--name", GUEST, "--dst-host", self.target.name, **QUICK, **env)

    def normal(self) -> None:
        """Nobody is hindered."""
        for node in (self.master, *self.hosts):
            node.cut("on")
        for node in self.hosts:
            node.agent(**QUICK)
            if node._sshd is None:
                node.sshd("on")


@pytest.fixture(scope="module")
def pool(small: Path) -> Iterator[Pool]:
    """A master, two hosts, and a guest that writes."""
    with met(MASTER, *HOSTS) as nodes:
        pool = Pool(nodes)
        node = pool.hosts[0]
        node.ok("vs-create", "--name", GUEST, "--interface", "10.99.7.5", "--template", str(small))
        tree = node.trees / GUEST
        (tree / "writer").write_text(WRITER)
        (tree / "records").write_text("")
        (tree / "etc/inittab").write_text("::respawn:/bin/sh /writer\n")
        node.ok("vs-control", "--name", GUEST, "--enable", "--start")
        pool.normal()
        yield pool
        pool.normal()


@pytest.fixture(autouse=True)
def watched(pool: Pool) -> Iterator[Watch]:
    """Each test begins with the guest running, and nothing may be wrong while it lasts."""
    wait(lambda: len(running(pool.hosts)) == 1)
    watch = Watch(pool.hosts)
    watch.start()
    yield watch
    pool.normal()
    watch.end()
    assert not watch.wrong


def finished(process: "subprocess.Popen[str]") -> Done:
    out, err = process.communicate(timeout=200)
    assert "internal error" not in err, err
    assert "Traceback" not in err, err
    return Done(process.returncode, out, err)


def outlived(pool: Pool, source: Node, watch: Watch) -> str:
    """Before anything else is done: the guest runs where it was, or was released. What is the case."""
    watch.look()
    if owned(source):
        wait(lambda: len(running(pool.hosts)) == 1)
        before = len(records(source))
        wait(lambda: len(records(source)) > before)
        return "runs on at the source"
    return "runs at the target" if running(pool.hosts) else "released: --resume starts it at the target"


def ended(pool: Pool, watch: Watch, where: Node, begun: bool, *, back: bool = False) -> None:
    """Bring the move to its end, and look that there is nothing but the guest, with all that it wrote."""
    if begun:
        done = pool.master.vs("vs-move", "--name", GUEST, "--rollback" if back else "--resume", **QUICK)
        assert (done.code, done.out) == (0, f"{where.name}:{GUEST}:enabled:running\n"), done
    wait(lambda: len(running(pool.hosts)) == 1)
    assert pool.master.ok("vs-scan", **QUICK) == f"{where.name}:{GUEST}:enabled:running\n"
    seen = dict(watch.seen)
    found = records(where)
    assert [record.split()[0] for record in found] == [str(number) for number in range(1, len(found) + 1)]
    assert seen
    assert {number: found[number - 1 : number] for number in seen} == {number: [word] for number, word in seen.items()}
    (other,) = (node for node in pool.hosts if node is not where)
    wait(lambda: not any(node.agents() for node in pool.hosts), patience=30)
    assert other.leftovers() == []
    assert [path for path in where.leftovers() if "/." in path] == []
    left = [path for node in pool.hosts for path in (*node.run.glob("asleep/*"), *node.run.glob("transfer-*"))]
    left += [*pool.master.run.glob("transfer-*"), *(pool.master.root / "var/lib/vs-tools/moves").glob("*.json")]
    assert left == []
    for node in pool.hosts:
        assert "transfer" not in (node.root / "home/.ssh/authorized_keys").read_text()


def is_begun(pool: Pool) -> bool:
    return pool.master.ok("vs-move", "--status") != ""


@pytest.mark.parametrize("step", STEPS)
def test_the_command_on_the_master_is_killed(pool: Pool, watched: Watch, step: str) -> None:
    source, target = pool.source, pool.target
    done = finished(pool.move(VS_TOOLS_FAULT=f"move:{step}"))
    assert done.code == -signal.SIGKILL, done
    outcome = outlived(pool, source, watched)
    back = step in ("staged", "held") or bool(TABLE and step in ("begun", "copied", "registered"))
    ended(pool, watched, source if back else target, is_begun(pool), back=back)
    told(f"move:{step}", "the master's command", outcome + (", --rollback" if back else ""))


@pytest.mark.parametrize("place", [place for place in SOURCE_STEPS + TARGET_STEPS if TABLE or place in SOME_PLACES])
def test_an_agent_is_killed(pool: Pool, watched: Watch, place: str) -> None:
    source, target = pool.source, pool.target
    (source if place in SOURCE_STEPS else target).agent(**QUICK, VS_TOOLS_FAULT=place)
    done = finished(pool.move())
    assert done.code in (1, 2), done
    pool.normal()
    outcome = outlived(pool, source, watched)
    begun = is_begun(pool)
    ended(pool, watched, target if begun or not owned(source) else source, begun)
    told(place, f"the agent of the {'source' if place in SOURCE_STEPS else 'target'}", outcome)


def hit(pool: Pool, source: Node, target: Node, fault: str) -> None:
    """Let something happen."""
    what, _, whom = fault.partition(" of the ")
    node = {"source": source, "target": target, "master": pool.master}[whom]
    if what == "agent":
        for pid in node.agents():
            os.kill(pid, signal.SIGKILL)
    elif what == "sshd":
        node.sshd("off")
    else:
        node.cut("off")


@pytest.mark.parametrize(
    ("step", "fault"),
    [(step, fault) for step in STEPS[:-1] for fault in FAULTS if TABLE or (step, fault) in SOME],
)
def test_a_host_or_its_network_fails(pool: Pool, watched: Watch, step: str, fault: str) -> None:
    source, target = pool.source, pool.target
    process = pool.move(VS_TOOLS_FAULT=f"move:{step}", VS_TOOLS_FAULT_SIGNAL="STOP")
    stopped(process)
    hit(pool, source, target, fault)
    process.send_signal(signal.SIGCONT)
    done = finished(process)
    outcome = outlived(pool, source, watched)
    pool.normal()
    begun = is_begun(pool)
    assert done.code == 0 or done.code in (1, 2), done
    ended(pool, watched, target if begun or not owned(source) else source, begun)
    told(f"move:{step}", fault, outcome)


def stopped(process: "subprocess.Popen[str]") -> None:
    """Wait until a process stands at the place where it was to."""
    stat = Path(f"/proc/{process.pid}/stat")
    wait(lambda: process.poll() is not None or stat.read_text().rpartition(")")[2].split()[0] == "T")
    assert process.poll() is None, process.communicate()


KILLED: dict[str, Callable[[Pool, Node, Node, "subprocess.Popen[str]"], None]] = {
    "rsync of the source": lambda pool, source, target, process: source.kill("rsync"),
    "rsync of the target": lambda pool, source, target, process: target.kill("rsync"),
    "the master's command": lambda pool, source, target, process: process.kill(),
    "agent of the source": lambda pool, source, target, process: hit(pool, source, target, "agent of the source"),
    "network of the target": lambda pool, source, target, process: hit(pool, source, target, "network of the target"),
}


@pytest.mark.parametrize("what", KILLED)
def test_something_fails_while_data_flows(pool: Pool, watched: Watch, what: str) -> None:
    source, target = pool.source, pool.target
    (source.trees / GUEST / "large").write_bytes(os.urandom(6 << 20))
    conf = pool.master.conf / "slaves.conf"
    before = conf.read_text()
    conf.write_text("".join(f"{line},bwlimit=1000\n" for line in before.splitlines()))
    wait(lambda: not source.processes("rsync") and not target.processes("rsync"))  # of the test before
    try:
        process = pool.move()
        wait(lambda: bool(source.processes("rsync")) and bool(target.processes("rsync")))
        time.sleep(0.5)
        KILLED[what](pool, source, target, process)
        done = finished(process)
    finally:
        conf.write_text(before)
    assert done.code in (1, 2, -signal.SIGKILL), done
    outcome = outlived(pool, source, watched)
    pool.normal()
    begun = is_begun(pool)
    ended(pool, watched, target if begun else source, begun)
    told("copying", what, outcome)

"""Many guests start, stop and restart at once, again and again: none is lost on the way and nothing is left of any."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import NET, Done, Host, create, installation, wait

pytestmark = pytest.mark.slow

NODE = os.uname().nodename.partition(".")[0]
FIRST = 10
GUESTS = {f"guest{number}": f"{NET}.{FIRST + number}" for number in range(10)}
PATIENCE = 30  # seconds, for what takes a tenth of one on a quiet machine


@pytest.fixture(scope="module")
def many(small: Path) -> Iterator[Host]:
    """Ten guests that tell their names to whoever connects; started and stopped once, so that the bridge is there."""
    with installation() as host:
        for number, name in enumerate(GUESTS):
            done = create(host, name, FIRST + number, small)
            assert done.code == 0, done
            (host.trees / name / "etc/who").write_text(f"{name}\n")
            with (host.trees / name / "etc/inittab").open("a") as lines:
                lines.write("::respawn:/bin/nc -ll -p 7 -e /bin/cat /etc/who\n")
        host.ok("vs-control", "--all", "--start")
        host.ok("vs-control", "--all", "--stop")
        yield host


@pytest.fixture
def quiet(many: Host) -> Iterator[Host]:
    """The same, checked before and after each test for what ``leftovers`` does not look at."""
    before = traces(many)
    yield many
    many.ok("vs-control", "--all", "--stop")
    assert traces(many) == before


def traces(host: Host) -> dict[str, list[str]]:
    """What guests could leave outside of their own directories: links, rules, processes, sockets."""
    root = os.fsencode(host.root)
    commands = {pid: _read(Path("/proc", pid, "cmdline")) for pid in os.listdir("/proc") if pid.isdigit()}
    return {
        "links": sorted(name for _, name in socket.if_nameindex()),
        "namespaces": sorted(os.listdir("/run/netns")),
        "rules of the host": _lines("nft", "list", "ruleset"),
        "processes": sorted(command.decode(errors="replace") for command in commands.values() if root in command),
        "sockets": [line for line in Path("/proc/net/unix").read_text().splitlines() if str(host.root) in line],
    }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


def _lines(*argv: str) -> list[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()


def at_once(host: Host, *commands: tuple[str, ...]) -> list[Done]:
    """Run commands at the same time, each to its end."""
    running = [host.start(*words) for words in commands]
    ended = [(process, *process.communicate(timeout=300)) for process in running]
    return [Done(process.returncode, out, err) for process, out, err in ended]


def control(name: str, verb: str) -> tuple[str, ...]:
    """The command for one guest."""
    return ("vs-control", "--name", name, f"--{verb}")


def every(verb: str) -> list[tuple[str, ...]]:
    """A command for each guest."""
    return [control(name, verb) for name in GUESTS]


def who(address: str) -> str:
    """The name that the guest at this address tells; empty while nobody does."""
    try:
        with socket.create_connection((address, 7), timeout=5) as answer:
            return answer.makefile().readline().strip()
    except OSError:
        return ""


def assert_answers(name: str) -> None:
    """The guest itself answers on its address, as soon as its init has come that far; nobody else does before."""
    told = set()
    wait(lambda: told.add(who(GUESTS[name])) or told != {""}, PATIENCE)
    assert told - {""} == {name}


def assert_all_run(host: Host) -> None:
    """Each guest runs, by the command's word and by its own, on its own address and with its own rules."""
    rows = json.loads(host.ok("vs-control", "--all", "--json"))
    assert {row["guest"]: row["running"] for row in rows} == dict.fromkeys(GUESTS, True)
    for name in GUESTS:
        assert_answers(name)
    nets = host.ok("vs-net", "--all").splitlines()
    assert nets == [f"{NODE}:{name}:{address}:up:up:up:up" for name, address in sorted(GUESTS.items())]


def assert_all_gone(host: Host) -> None:
    """When a stop has ended there is nothing left, at that moment and not some time later."""
    assert host.leftovers() == []


def assert_done(done: list[Done], *states: str) -> None:
    """Each command ended with 0, had nothing to complain of, and told a state that it may tell."""
    assert [(one.code, one.err) for one in done] == [(0, "")] * len(done)
    assert {line.rpartition(":")[2] for one in done for line in one.out.splitlines()} <= set(states)


def test_all_start_and_stop_by_one_command(quiet: Host) -> None:
    for _ in range(8):
        assert_done(at_once(quiet, ("vs-control", "--all", "--start")), "running")
        assert_all_run(quiet)
        assert_done(at_once(quiet, ("vs-control", "--all", "--stop")), "stopped")
        assert_all_gone(quiet)


def test_all_start_and_stop_by_commands_of_their_own_at_once(quiet: Host) -> None:
    for _ in range(4):
        assert_done(at_once(quiet, *every("start")), "running")
        assert_all_run(quiet)
        assert_done(at_once(quiet, *every("stop")), "stopped")
        assert_all_gone(quiet)


def test_restarts_among_starts_lose_no_guest(quiet: Host) -> None:
    """Half of them run and are restarted while the others start, each asked twice; then the other way round."""
    names = list(GUESTS)
    for turn in range(4):
        first, second = (names[:5], names[5:]) if turn % 2 else (names[::2], names[1::2])
        assert_done(at_once(quiet, *(control(name, "start") for name in first)), "running")
        starts = [control(name, "start") for name in second * 2]
        done = at_once(quiet, *starts, *(control(name, "restart") for name in first))
        assert_done(done, "running")
        assert_all_run(quiet)
        assert_done(at_once(quiet, ("vs-control", "--all", "--restart"), control(second[0], "restart")), "running")
        assert_all_run(quiet)
        assert_done(at_once(quiet, *every("stop"), ("vs-control", "--all", "--stop")), "stopped")
        assert_all_gone(quiet)


def test_starts_against_stops_leave_each_guest_whole_or_gone(quiet: Host) -> None:
    """Who comes last is chance; what there is afterwards is what the last one says, and the next start finds it so."""
    for _ in range(4):
        done = at_once(quiet, *every("start"), *every("stop"), ("vs-control", "--all", "--start"), *every("stop"))
        assert_done(done, "running", "stopped")
        rows = {row["guest"]: row["running"] for row in json.loads(quiet.ok("vs-control", "--all", "--json"))}
        assert rows.keys() == GUESTS.keys()
        for name in (name for name, running in rows.items() if running):
            assert_answers(name)
        links = {name for _, name in socket.if_nameindex() if name.startswith("vs6")}
        assert links == {f"vs{60000 + number}.0" for number, name in enumerate(GUESTS) if rows[name]}
        assert_done(at_once(quiet, ("vs-control", "--all", "--start")), "running")
        assert_all_run(quiet)
        assert_done(at_once(quiet, ("vs-control", "--all", "--stop")), "stopped")
        assert_all_gone(quiet)

"""LXC's configuration, its command lines, and what of a guest's output may reach a terminal."""

import fcntl
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from vstools import alive, lxc, render
from vstools.lifecycle import logs
from vstools.lxc import Surroundings
from vstools.paths import Paths

from .made import DATA, guest

AROUND = Surroundings(
    netns="vs10000",
    cgroup="vs-tools/web",
    tmpfs=True,
    limits=(("lxc.cgroup2.memory.max", "134217728"), ("lxc.cgroup2.pids.max", "150")),
)


def written(paths: Paths, around: Surroundings, nodename: str = "web.lan.test") -> str:
    """LXC's configuration of a guest."""
    paths.runtime_of("web").mkdir(parents=True, exist_ok=True)
    path = lxc.write_config(paths, guest(nodename=nodename), around)
    assert path.stat().st_mode & 0o777 == 0o600
    return path.read_text()


def test_the_configuration_is_the_one_that_works(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lxc, "_has_apparmor", lambda: True)
    golden = (DATA / "lxc.conf.golden").read_text()
    hook = render.data_file("vs-guest-reboot")
    seccomp = render.data_file("guest.seccomp")
    assert written(paths, AROUND) == golden.format(root=paths.root, hook=hook, seccomp=seccomp)


def test_without_apparmor_tmp_and_limits_their_lines_are_other_ones_or_none(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lxc, "_has_apparmor", lambda: True)
    full = written(paths, AROUND).splitlines()
    monkeypatch.setattr(lxc, "_has_apparmor", lambda: False)
    bare = written(paths, Surroundings("vs10000", "vs-tools/web", tmpfs=False, limits=())).splitlines()
    assert [line for line in bare if line not in full] == ["lxc.apparmor.profile = unconfined"]
    assert [line.split(" = ")[0] for line in full if line not in bare] == [
        "lxc.mount.entry",
        "lxc.apparmor.profile",
        "lxc.apparmor.allow_nesting",
        "lxc.cgroup2.memory.max",
        "lxc.cgroup2.pids.max",
    ]


def test_files_of_an_lxcfs_are_mounted_where_it_answers_and_a_start_does_not_depend_on_them(paths: Paths) -> None:
    text = written(paths, replace(AROUND, lxcfs=("proc/meminfo", "proc/uptime")))
    entries = [line for line in text.splitlines() if "/var/lib/lxcfs/" in line]
    assert entries == [
        f"lxc.mount.entry = {paths.root}/var/lib/lxcfs/{name} {name} none bind,ro,nosuid,nodev,noexec,optional 0 0"
        for name in ("proc/meminfo", "proc/uptime")
    ]
    assert text.index("proc:mixed") < text.index(entries[0]), "over the guest's own /proc"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain text\twith a tab", "plain text\twith a tab"),
        ("d\u00e9j\u00e0 vu \u4e16", "d\u00e9j\u00e0 vu \u4e16"),
        ("\x1b[2Jgone", "\ufffd[2Jgone"),
        ("\x1b]0;title\x07", "\ufffd]0;title\ufffd"),
        ("\x9b31m", "\ufffd31m"),
        ("back\x08\rspace\x00\x7f", "back\ufffd\ufffdspace\ufffd\ufffd"),
        ("right to left \u202etxt.exe", "right to left \ufffdtxt.exe"),
        ("half \udce9", "half \ufffd"),
    ],
)
def test_nothing_of_a_guests_output_is_obeyed_by_a_terminal(line: str, shown: str) -> None:
    assert lxc.printable(line) == shown


def test_a_failed_start_tells_the_last_lines_of_lxc_and_of_the_console(paths: Paths) -> None:
    assert lxc.last_words(paths, "web") == "LXC said nothing"
    folder = paths.log_of("web")
    folder.mkdir(parents=True)
    (folder / "lxc").write_text("".join(f"lxc {number}\n" for number in range(2000)) + "\n\n")
    (folder / "console").write_bytes(b"one\r\n\x1b[31mtwo\xff\n")
    expected = ["LXC and the console said:", "lxc 1998", "lxc 1999", "one", "\ufffd[31mtwo\ufffd"]
    assert lxc.last_words(paths, "web", lines=2).split("\n  ") == expected


def test_a_new_start_keeps_the_last_console_and_begins_a_new_one(paths: Paths) -> None:
    folder = paths.log_of("web")
    folder.mkdir(parents=True)
    lxc.reset_logs(paths, "web")
    for name, text in {"console": "last", "console.1": "before", "lxc": "words"}.items():
        (folder / name).write_text(text)
    lxc.reset_logs(paths, "web")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"console.1": "last"}


def test_attach_runs_words_as_they_are_with_a_clear_environment(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    argv = lxc.attach(paths, "web", ["ls", "-l", "a b; rm"])
    assert argv[:6] == ["lxc-attach", "-n", "web", "-P", str(paths.runtime), "--clear-env"]
    assert argv[-4:] == ["--", "ls", "-l", "a b; rm"]
    assert not [word for word in argv if "SECRET" in word or "TERM" in word]


def test_attach_without_words_is_a_shell_and_with_rescue_outside_the_guests_limits(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    plain, rescue = lxc.attach(paths, "web", []), lxc.attach(paths, "web", [], rescue=True)
    assert plain[-2:] == ["-v", "TERM=xterm"]
    assert rescue == [*plain, "--elevated-privileges=CGROUP"]


@pytest.fixture
def short() -> Iterator[Paths]:
    """An installation whose socket names fit into 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="vs", dir="/tmp") as folder:
        yield Paths(Path(folder))


def test_a_guest_runs_while_its_monitor_accepts_connections(short: Paths) -> None:
    assert not alive.is_running(short, "web")
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.bind(f"\0{short.runtime_of('web')}/command")
        assert not alive.has_monitor(short, "web")
        monitor.listen()
        assert alive.has_monitor(short, "web")
        assert alive.is_running(short, "web")
        assert not alive.is_running(short, "we")
    assert not alive.is_running(short, "web")


def test_a_guest_runs_while_its_runner_lives_although_it_is_just_restarting(paths: Paths) -> None:
    paths.runtime_of("web").mkdir(parents=True)
    runner = paths.runtime_of("web") / "runner"
    with runner.open("w") as held:
        assert not alive.is_running(paths, "web")
        fcntl.flock(held, fcntl.LOCK_EX)
        assert alive.is_running(paths, "web")
        assert not alive.has_monitor(paths, "web")
    assert not alive.is_running(paths, "web")


def test_the_console_is_shown_with_the_start_before_or_without(paths: Paths) -> None:
    folder = paths.log_of("web")
    folder.mkdir(parents=True)
    assert list(logs.console(paths, "web", boot=False)) == []
    (folder / "console.1").write_bytes(b"old \x1b[2J\r\n")
    (folder / "console").write_bytes(b"new\r\nlogin: ")
    assert list(logs.console(paths, "web", boot=True)) == ["new", "login: "]
    assert list(logs.console(paths, "web", boot=False)) == ["old \ufffd[2J", "new", "login: "]


def test_following_a_console_shows_whole_lines_and_starts_anew_when_it_was_rotated(tmp_path: Path) -> None:
    path = tmp_path / "console"
    tail = logs._Tail(path)
    assert list(tail.lines()) == []
    path.write_bytes(b"one\ntw")
    assert list(tail.lines()) == ["one"]
    path.write_bytes(b"one\ntwo\n\x07three\n")
    assert list(tail.lines()) == ["two", "\ufffdthree"]
    path.write_bytes(b"new\n")
    assert list(tail.lines()) == ["new"]
    assert list(tail.lines()) == []

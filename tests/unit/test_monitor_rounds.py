"""Rounds of vs-monitor over guests that do not run: what is told, what is remembered, what a kill leaves."""

import os
import shutil
from pathlib import Path

import pytest

from vstools import files
from vstools.config.monitor import MonitorConf
from vstools.errors import Refused
from vstools.guest import Limits
from vstools.lifecycle import monitor, observe, treesizes
from vstools.lifecycle.monitor import Monitor
from vstools.lifecycle.monitored import Configurations
from vstools.lifecycle.observe import Looker
from vstools.monitor.alerts import Count, Fact, Level, Seen
from vstools.monitor.state import Disk, Life
from vstools.paths import Paths
from vstools.stats.cgroups import Trees
from vstools.stats.sample import Sample

from .made import guest, saved

BROKEN = "RSS_THRESHOLD=lots\n"


@pytest.fixture
def conf(paths: Paths) -> Path:
    """The monitor.conf of the guest web, which is broken."""
    saved(paths, guest("web", 10000))
    path = paths.config_of("web") / "monitor.conf"
    path.write_text(BROKEN)
    return path


def told(found: Monitor) -> list[tuple[str, bool, str]]:
    return [(each.guest, each.event.began, each.event.key) for each in found.round(everyone=True)]


def spool(paths: Paths) -> list[str]:
    return [path.read_text() for path in sorted((paths.monitor / "spool").iterdir())]


def test_an_alert_is_told_once_also_by_the_next_monitor_and_logged(paths: Paths, conf: Path, logged: list[str]) -> None:
    first = Monitor(paths)
    assert told(first) == [("web", True, "config")]
    assert told(first) == []
    assert told(Monitor(paths)) == []
    (mail,) = spool(paths)
    assert f"{conf}:1:15: 'lots' is not a whole number from 1 to 100" in mail
    assert any('what="alert began" guest=web' in line for line in logged)
    conf.write_text("")
    assert told(Monitor(paths)) == [("web", False, "config")]
    assert len(spool(paths)) == 2


def test_a_round_that_was_cut_short_is_done_again_and_its_mail_is_one(
    paths: Paths, conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = files.write

    def cut(path: Path, *words: object) -> None:
        if path.name == "state.json":
            raise OSError(28, "No space left on device")
        write(path, *words)  # type: ignore[arg-type]

    found = Monitor(paths)
    with monkeypatch.context() as patch:
        patch.setattr(files, "write", cut)
        with pytest.raises(OSError, match="No space"):
            found.round()
        assert len(spool(paths)) == 1
        assert not found.spool.is_due(2e9), "nobody knows of it yet"
        with pytest.raises(OSError, match="No space"):
            found.round()
        assert len(spool(paths)) == 1
    assert told(found) == [], "it goes on with what it has in memory"
    assert found.spool.is_due(2e9)
    shutil.rmtree(paths.monitor)
    found = Monitor(paths)
    with monkeypatch.context() as patch:
        patch.setattr(files, "write", cut)
        with pytest.raises(OSError, match="No space"):
            found.round()
    after = Monitor(paths)
    assert told(after) == [("web", True, "config")]
    assert len(spool(paths)) == 1


def test_a_relay_that_create_conf_names_wrongly_is_said_when_a_mail_is_to_be_sent(
    paths: Paths, conf: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    ways: list[str] = []
    monkeypatch.setattr(monitor.deliver, "by_sendmail", lambda mail: ways.append(mail) or "")
    found = Monitor(paths)
    told(found)
    paths.conf.mkdir(parents=True)
    (paths.conf / "create.conf").write_text(f"MONITOR_SMTP={'a' * 64}.example.org\n")
    assert (found.send(), len(ways)) == (0, 1)
    assert any("create.conf:1:14: 'aaa" in line for line in logged)


def test_a_guest_that_is_gone_ends_its_alerts_and_is_forgotten(paths: Paths, conf: Path) -> None:
    found = Monitor(paths)
    told(found)
    shutil.rmtree(paths.config_of("web"))
    assert told(found) == [("web", False, "config")]
    assert "the guest is no longer on this host" in spool(paths)[1]
    assert told(found) == []
    assert '"guests":{}' in (paths.monitor / "state.json").read_text()


def test_a_guest_that_is_gone_while_its_mails_have_to_wait_keeps_nobody_busy(
    paths: Paths, conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(monitor, "boottime", lambda: clock[0])
    found = Monitor(paths)
    for number in range(20):
        conf.write_text(f"# {number}\n" if number % 2 else BROKEN)
        found.round()
    shutil.rmtree(paths.config_of("web"))
    clock[0] += 100
    assert found.round() == []
    assert found.pause(10) == 10
    assert len(spool(paths)) == 5
    clock[0] += 3600
    found.round()
    assert len(spool(paths)) == 6, "and they are not lost"


@pytest.mark.parametrize("restarted", [False, True])
def test_the_last_mail_of_a_guest_that_is_gone_goes_to_its_own_recipients(
    paths: Paths, conf: Path, restarted: bool
) -> None:
    paths.conf.mkdir(parents=True)
    (paths.conf / "monitor.conf").write_text("MONITOR_MAILTO=host@example.org\n")
    conf.write_text("MONITOR_MAILTO=customer@example.org\n")
    found = Monitor(paths)
    found.round()
    conf.write_text("MONITOR_MAILTO=customer@example.org\nBAD\n")
    assert told(found) == [("web", True, "config")]
    shutil.rmtree(paths.config_of("web"))
    found = Monitor(paths) if restarted else found
    assert told(found) == [("web", False, "config")]
    assert ["To: customer@example.org" in mail for mail in spool(paths)] == [True, True]


def test_on_a_full_disk_all_guests_are_watched_and_alerts_are_in_syslog(
    paths: Paths, conf: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    saved(paths, guest("able", 10001))
    good = paths.config_of("able") / "monitor.conf"

    def full(path: Path, *_: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    for number in range(2):
        good.write_text("MONITOR_POOLING=5\n")
        shutil.rmtree(paths.monitor, ignore_errors=True)
        found = Monitor(paths) if number else None
        logged.clear()
        with monkeypatch.context() as patch:
            patch.setattr(files, "write", full)
            found = found or Monitor(paths)
            for _ in range(2):
                with pytest.raises(OSError, match="No space"):
                    found.round(everyone=True)
        assert [line for line in logged if "guest=web" in line] != []
        assert sum("last good monitor.conf of able could not be kept" in line for line in logged) == 1
        assert told(found) == []
        assert (paths.monitor / "good/able").read_text() == good.read_text()
        assert found.spool.is_due(2e9)


def test_a_guest_that_was_stopped_removed_and_made_anew_between_two_looks_is_not_dead(
    paths: Paths, conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf.write_text("")
    token = ["a1"]
    monkeypatch.setattr(Looker, "sample", lambda *_: Sample("web", bool(token[0]), 0.0, {}))
    monkeypatch.setattr(Looker, "look", lambda _s, _n, _c, life, *_: (life, []))
    monkeypatch.setattr(monitor.stats, "record", lambda *_: {"token": token[0]})
    paths.ended.mkdir(parents=True)
    found = Monitor(paths)
    assert told(found) == []
    (paths.ended / "web").write_text("a1 asked\nb2 signal Killed(9)\n")
    os.utime(paths.ended / "web", (0, 0))  # whatever clock it was written by
    token[0] = ""
    assert told(found) == []
    token[0] = "b2"
    assert told(found) == []
    token[0] = ""
    assert told(found) == [("web", True, "down")]
    shutil.rmtree(paths.config_of("web"))
    assert told(found) == [("web", False, "down")]
    assert told(found) == []
    assert not (paths.ended / "web").exists()


def test_a_state_that_cannot_be_read_is_begun_anew_and_no_mail_is_lost(
    paths: Paths, conf: Path, logged: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    told(Monitor(paths))
    (paths.monitor / "state.json").write_text("{")
    found = Monitor(paths)
    assert "is begun anew" in logged[-1]
    assert told(found) == [("web", True, "config")]
    assert len(spool(paths)) == 2
    assert found.spool.is_due(2e9)


def test_a_thousand_changes_of_a_file_send_few_mails(paths: Paths, conf: Path) -> None:
    found = Monitor(paths)
    for number in range(40):
        conf.write_text(BROKEN if number % 2 == 0 else f"# {number}\n")
        found.round()
    assert len(spool(paths)) == 5


def test_the_last_good_file_is_in_force_until_the_broken_one_is_mended(paths: Paths, conf: Path) -> None:
    conf.write_text("PROC_THRESHOLD=50\n")
    first = Configurations(paths)
    assert first.of("web").conf.proc == 50
    conf.write_text("PROC_THRESHOLD=500\n")
    for each in (first, Configurations(paths)):
        watching = each.of("web")
        assert (watching.conf.proc, len(watching.faults)) == (50, 1)
    conf.unlink()
    conf.mkdir()
    assert first.of("web").faults == (f"{conf}:1:1: it is a directory, not a file",)
    conf.rmdir()
    assert first.of("web").conf == MonitorConf()


def test_a_guest_without_a_file_is_watched_as_the_host_says(paths: Paths, conf: Path) -> None:
    conf.unlink()
    paths.conf.mkdir(parents=True)
    (paths.conf / "monitor.conf").write_text("PROC_THRESHOLD=70\n")
    assert Configurations(paths).of("web").conf.proc == 70


def test_a_guest_is_looked_at_when_its_time_has_come_and_when_its_file_was_changed(
    paths: Paths, conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, looked = [1000.0], list[float]()
    monkeypatch.setattr(monitor, "boottime", lambda: clock[0])
    conf.write_text("MONITOR_POOLING=3600\n")
    found = Monitor(paths)
    monkeypatch.setattr(found, "_look", lambda *_: (looked.append(clock[0]), (Life(), []))[1])
    for seconds in (0, 10, 3000, 600):
        clock[0] += seconds
        found.round()
    assert looked == [1000, 4610]
    assert found.pause(1e6) == 3600
    conf.write_text("MONITOR_POOLING=60\n")
    found.round()
    assert looked == [1000, 4610, 4610]
    assert found.pause(1e6) == 60


def test_there_is_one_monitor(paths: Paths) -> None:
    with monitor.alone(paths), pytest.raises(Refused, match="vs-monitor runs already"), monitor.alone(paths):
        pass


def seen(conf: MonitorConf = MonitorConf(), disk: Disk = Disk(), **values: float | None) -> dict[str, Seen]:
    sample = Sample("web", True, 0.0, values)
    return {each.key: each for each in [*observe.limits(conf, Life(disk=disk), sample), *observe.hits(conf, sample)]}


def test_percent_are_of_the_limits_and_without_a_limit_there_is_nothing_to_come_near_to() -> None:
    found = seen(
        disk=Disk(50, 100, 0.0), processes=39, processes_limit=40, memory_unreclaimable_bytes=5,
        memory_limit_bytes=float("inf"),
    )  # fmt: skip
    assert found["processes"] == Level("processes", 97.5, 90, "processes 98% (39 of 40), threshold 90%")
    assert found["disk"] == Level("disk", 50, 90, "disk 50% (50 of 100), threshold 90%")
    assert found["memory"] == Level("memory", 0, 90, "memory has no limit")
    assert found["/tmp"] == Level("/tmp", None, 90, "/tmp")


class Du:
    """A du that ends when it is told to, with its pipe."""

    def __init__(self, argv: list[str]) -> None:
        self.name = Path(argv[-1]).name
        self.code: int | None = None
        out, self._in = os.pipe()
        self.stdout = os.fdopen(out, "rb")

    def end(self, code: int = 0, words: bytes = b"") -> None:
        self.code = code
        os.write(self._in, words)
        os.close(self._in)

    def poll(self) -> int | None:
        return self.code

    def kill(self) -> None:
        self.end(-9)

    def wait(self) -> None:
        assert self.code is not None


def test_a_tree_that_takes_too_long_is_told_and_the_others_have_their_turn(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, begun = [0.0], list[Du]()

    def start(argv: list[str], **_: object) -> Du:
        begun.append(Du(argv))
        return begun[-1]

    monkeypatch.setattr(treesizes.run, "start", start)
    monkeypatch.setattr(treesizes.time, "monotonic", lambda: clock[0])
    for context, name in enumerate("abcdef", 10000):
        saved(paths, guest(name, context, limits=Limits(disk=1)))
    names, known, sizes = "abcdef", dict.fromkeys("abcdef", Disk()), treesizes.TreeSizes(paths)
    for clock[0] in range(0, 6 * 3600, 60):
        if begun and begun[-1].name == "f" and begun[-1].code is None:
            begun[-1].end(0, b"7\t/tree\n")
        for name in names:
            known[name] = sizes.latest(name, known[name], clock[0], watched=True)
    assert [each.name for each in begun][:8] == [*names, "a", "b"], "all others are slow"
    assert known["f"] == Disk(7, 1 << 20, known["f"].at, late=False)
    assert (known["a"].used, known["a"].late) == (None, True)
    sizes.forget("c")
    begun[-1].end(0, b"9\t/tree\n")
    for name in "defab":
        known[name] = sizes.latest(name, known[name], clock[0], watched=True)
    assert begun[-1].name == "d", "whoever is gone is waited for by nobody"
    sizes.close()


def test_processes_in_more_cgroups_than_are_looked_at_are_told(paths: Paths, tmp_path: Path) -> None:
    payload = tmp_path / "vs/web/payload"
    payload.mkdir(parents=True)
    (payload / "cgroup.procs").write_text("1\n")
    looker = observe.Looker(paths, 0)
    looker._trees = Trees({"pids": str(tmp_path)}, None)
    record = {"cgroup": "vs/web"}

    def cgroups() -> list[tuple[bool | None, str]]:
        _, facts = looker.look("web", MonitorConf(sockets=False), Life(), Sample("web", True, 0.0, {}), record, 0.0)
        return [(each.holds, each.text) for each in facts if isinstance(each, Fact) and each.key == "cgroups"]

    assert cgroups() == [(False, "all cgroups are looked at")]
    for number in range(400):
        (payload / f"q{number}").mkdir()
        (payload / f"q{number}/cgroup.procs").write_text(f"{number + 2}\n")
    text = "more than 256 cgroups, 256 processes in the first: the others are not looked at"
    assert cgroups() == [(True, text)]


def test_hits_are_watched_where_that_is_asked_for() -> None:
    assert isinstance(seen()["oom-kills"], Count)
    assert {"oom-kills", "memory-hits"}.isdisjoint(seen(MonitorConf(rss_hits=False)))
    assert "process-hits" not in seen(MonitorConf(proc_hits=False))

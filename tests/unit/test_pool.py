"""The master's side without a network: what is wrong with a pool, who is meant, what rsync said, journals, parcels."""

import base64
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from vstools.config.carried import File
from vstools.config.slaves import Slave
from vstools.errors import Refused, VsError
from vstools.paths import Paths
from vstools.pool import accepted, backup, handing, journal, parcel, put, rsync, scan, wire
from vstools.pool.scan import Pool, Seen
from vstools.pool.store import Generation, Store


def seen(host: str, guest: str = "web", **more: Any) -> Seen:
    """A guest on a host, disabled and stopped."""
    return Seen(host, guest, **{"enabled": False, "running": False, **more})


@pytest.mark.parametrize(
    ("copies", "grave", "words"),
    [
        ([seen("a")], False, []),
        ([seen("a", running=True), seen("b", running=True, owner="a", epoch=1)], True, ["runs on several hosts: a, b"]),
        ([seen("a", enabled=True), seen("b", enabled=True, owner="a")], True, ["is enabled on several hosts: a, b"]),
        ([seen("a"), seen("b")], True, ["belongs to several hosts: a, b"]),
        ([seen("a", owner="c", epoch=2)], True, ["belongs to c, which has no copy"]),
        ([seen("a"), seen("b", owner="a", epoch=1)], False, ["is on several hosts: a, b"]),
        ([seen("a", broken=True)], True, ["files that cannot be read"]),
    ],
)
def test_what_is_wrong_with_copies_is_said(copies: list[Seen], grave: bool, words: list[str]) -> None:
    found = scan.problems(copies)
    assert any(problem.grave for problem in found) is grave
    for word in words:
        assert any(word in problem.sentence for problem in found)


def test_an_address_of_two_guests_is_said_once() -> None:
    found = scan.problems([seen("a", addresses=("10.0.0.5",)), seen("b", "db", addresses=("10.0.0.5", "[::1]"))])
    assert [problem.sentence for problem in found] == ["address 10.0.0.5 belongs to several guests: db, web"]


@pytest.mark.parametrize(
    ("copies", "host"),
    [
        ([seen("a")], "a"),
        ([seen("a"), seen("b", running=True)], "b"),
        ([seen("a"), seen("b", enabled=True)], "b"),
        ([seen("a", owner="b", enabled=True), seen("b")], "b"),
        ([seen("no", running=True), seen("b")], "b"),
        ([seen("no")], None),
        ([seen("a"), seen("b")], None),
        ([seen("a", running=True), seen("b", running=True)], None),
        ([], None),
    ],
)
def test_the_copy_that_is_meant_follows_from_the_states(copies: list[Seen], host: str | None) -> None:
    if host is None:
        with pytest.raises(Refused) as caught:
            scan.chosen(copies, "web", frozenset({"no"}))
        assert all(copy.host in str(caught.value) for copy in copies)
    else:
        assert scan.chosen(copies, "web", frozenset({"no"})).host == host


GOOD = {
    "guest": "web", "enabled": True, "running": False, "addresses": ["10.0.0.5", "[2001:db8::1]"], "owner": "a",
    "epoch": 3, "broken": False,
}  # fmt: skip


@pytest.mark.parametrize(
    "bad",
    [
        {"guest": "../x"}, {"guest": "a\nb"}, {"guest": 5}, {"guest": None}, {"enabled": 1}, {"running": "yes"},
        {"addresses": ["x"]}, {"addresses": 7}, {"addresses": [["10.0.0.1"]]}, {"owner": "a b"}, {"owner": 5},
        {"epoch": "3"}, {"epoch": None}, {"broken": None},
    ],
)  # fmt: skip
def test_what_a_host_says_of_its_guests_is_checked(bad: dict[str, object]) -> None:
    assert scan.checked("a", [GOOD])[0].owned
    for answer in ([{**GOOD, **bad}], [{key: value for key, value in GOOD.items() if key not in bad}]):
        with pytest.raises(VsError, match="host a says of its guests what cannot be"):
            scan.checked("a", answer)


@pytest.mark.parametrize("answer", [None, 5, "web", {"guest": 1}, [5], [None], ["web"]])
def test_what_is_no_list_of_guests_is_refused(answer: object) -> None:
    with pytest.raises(VsError, match="host a says of its guests what cannot be"):
        scan.checked("a", answer)


SAID = """
Number of files: 1,203 (reg: 1,000, dir: 203)
Number of created files: 3
Number of regular files transferred: 3
Total file size: 12,345,678 bytes
Total transferred file size: 456 bytes
Total bytes sent: 1,024
Total bytes received: 77
"""


def test_the_numbers_of_rsync_are_read() -> None:
    found = rsync.passed(SAID, 1.5)
    assert (found.files, found.size, found.transferred, found.bytes, found.seconds) == (1203, 12345678, 3, 1101, 1.5)
    with pytest.raises(VsError):
        rsync.passed(SAID.replace("Total bytes sent", "Bytes"), 1.5)


@pytest.mark.parametrize(
    "words",
    [
        [], ["--server"], ["--server", "--sender", "-logDtpr", ".", "./"], ["--server", "-logDtpr", ".", "/etc"],
        ["--server", "--log-file=/etc/x", ".", "./"], ["--server", "--backup-dir=../x", ".", "./"],
        ["--server", "--daemon", ".", "./"], ["--server", "-logDtpr", "--link-dest=/etc", ".", "./"],
        ["--server", "-logDtpr", "../x", "./"], ["--server", "-e", "sh -c x", ".", "./"],
        ["--server", "--temp-dir=/tmp", ".", "./"], ["--server", "--write-devices", ".", "./"],
    ],
)  # fmt: skip
def test_rsync_is_served_for_its_own_place_only(tmp_path: Path, words: list[str]) -> None:
    with pytest.raises(VsError, match="no request of rsync's"):
        rsync.serve(words, sender=False, folder=tmp_path)


def test_a_journal_holds_what_is_behind(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    with journal.opened(paths, "web") as found:
        assert found is None
    book = journal.Journal(journal.path_of(paths, "web"), {"name": "web", "epoch": 3})
    book.begin()
    for step in ("staged", "copied", "staged"):
        book.step(step)
    assert journal.names(paths) == ("web",)
    again = journal.read(paths, "web")
    assert again is not None
    assert (again.facts, again.steps) == ({"name": "web", "epoch": 3}, ["staged", "copied"])
    with again.path.open("a") as handle:  # a power cut tore the last line off
        handle.write('{"step": "rele')
    torn = journal.read(paths, "web")
    assert torn is not None
    assert torn.steps == ["staged", "copied"]
    torn.step("registered")  # and the next command goes on
    assert getattr(journal.read(paths, "web"), "steps", []) == ["staged", "copied", "registered"]
    torn.end()
    assert journal.read(paths, "web") is None
    assert journal.names(paths) == ()


def test_a_disk_that_takes_no_more_stops_nothing_half_way_and_leaves_no_part_of_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, write = Paths(tmp_path), os.write
    book = journal.Journal(journal.path_of(paths, "web"), {"name": "web"})
    paths.moves.mkdir(parents=True)
    book.begin()
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:5]))
        book.step("released")
        assert "does not say that this is behind: released (No space left on device)" in capsys.readouterr().err
    book.step("owned")
    assert book.steps == ["released", "owned"]
    assert getattr(journal.read(paths, "web"), "steps", []) == ["owned"]


@pytest.mark.parametrize("text", ["", "\n", "[]\n", "5\n", '{"a": 1}\n5\n', '{"a": 1}\n{"stop": 1}\n', "not json\n"])
def test_a_broken_journal_is_said(tmp_path: Path, text: str) -> None:
    paths = Paths(tmp_path)
    paths.moves.mkdir(parents=True)
    journal.path_of(paths, "web").write_text(text)
    with pytest.raises(VsError, match="cannot be read"):
        journal.read(paths, "web")


def test_files_come_back_as_they_went() -> None:
    files = [File("context", 0o644, b"10000\n"), File("scripts/pre-start", 0o755, bytes(range(256)))]
    assert parcel.unpacked(json.loads(json.dumps(parcel.packed(files)))) == files


@pytest.mark.parametrize(
    "rows",
    [
        None, 5, [5], [["a"]], [["a", 420, "!"]], [["a", "x", ""]], [[5, 420, ""]], [["../a", 420, ""]],
        [["/a", 420, ""]], [["owner", 420, ""]], [["a", 420, 5]], [["a", None, ""]], [["a", float("inf"), ""]],
        [["a\0", 420, ""]],
        [["a", 420, base64.b64encode(bytes(9 << 20)).decode()]],
    ],
)  # fmt: skip
def test_files_that_cannot_be_are_refused(rows: object) -> None:
    with pytest.raises(Refused):
        parcel.unpacked(rows)


@pytest.mark.parametrize("text", [b"", b"{}", b"[]\n", b"{\n", b"\xff\n", b"5\n"])
def test_a_message_is_one_object_on_one_line(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it is that is wrong with it
        wire.message(text)


def test_what_was_accepted_is_asked_again_when_it_changes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "web").mkdir()
    hook = File("scripts/pre-start", 0o755, b"#!/bin/sh\n")
    plain = File("context", 0o644, b"10000\n")
    accepted.require(store, "web", "a", [plain], accept=False)
    with pytest.raises(Refused, match="scripts/pre-start"):
        accepted.require(store, "web", "a", [plain, hook], accept=False)
    accepted.require(store, "web", "a", [plain, hook], accept=True)
    accepted.require(store, "web", "a", [plain, hook], accept=False)
    with pytest.raises(Refused):
        accepted.require(store, "web", "a", [plain, File(hook.path, 0o755, b"#!/bin/sh\nrm\n")], accept=False)


ABOUT = {
    "host": "a", "owner": "a", "epoch": 4, "mode": "hot", "arch": "x86_64", "version": "0.1", "size": 1, "inodes": 1,
    "enabled": False, "seconds": 1.0, "sent": 1, "manifest": "0",
}  # fmt: skip


@pytest.mark.parametrize(
    ("copies", "missing", "start", "dead", "wanted"),
    [
        ([], (), True, False, ("b", 5)),
        ([], (), False, False, ("b", 5)),
        ([seen("a", owner="a", epoch=7)], (), False, False, ("a", 7)),
        ([seen("a", owner="a", epoch=7)], (), True, False, None),
        ([], (("a", "no answer"),), False, False, ("a", 4)),
        ([], (("a", "no answer"),), True, False, None),
        ([], (("a", "no answer"),), True, True, ("b", 5)),
        ([seen("a", owner="b", epoch=6)], (), True, False, ("b", 7)),
    ],
)
def test_who_owns_a_copy_that_is_put_somewhere(
    tmp_path: Path, copies: list[Seen], missing: tuple[tuple[str, str], ...], start: bool, dead: bool,
    wanted: tuple[str, int] | None,
) -> None:  # fmt: skip
    (tmp_path / "about.json").write_text(json.dumps(ABOUT))
    made = Generation("web", datetime.now(UTC), tmp_path)
    pool = Pool(tuple(copies), missing)
    if wanted is None:
        with pytest.raises(Refused):
            put.ownership(made, Slave("b"), pool, wants_start=start, owner_is_dead=dead)
    else:
        found = put.ownership(made, Slave("b"), pool, wants_start=start, owner_is_dead=dead)
        assert (found.host, found.epoch) == wanted


def test_a_backup_asks_each_host_for_its_guests_and_names_what_it_cannot_find() -> None:
    entries = [backup.Entry("web", hot=True), backup.Entry("db", hot=False), backup.Entry("none", hot=True)]
    pool = Pool((seen("a"), seen("b", "db")), (("c", "no answer"),))
    jobs, failed = backup.plan(entries, pool, [Slave("a"), Slave("b"), Slave("c")], named=False)
    assert [(job.entry.guest, job.slave.host) for job in jobs] == [("web", "a"), ("db", "b")]
    assert [(outcome.guest, "no answer from c" in outcome.error) for outcome in failed] == [("none", True)]
    lines = backup.summary([backup.Outcome("web", "a", "20260101T000000Z"), *failed])
    assert lines[0].startswith("FAILED none (no host): ")


@pytest.mark.parametrize(
    "bad",
    [
        {"host": "a b"}, {"place": "x y"}, {"port": "x"}, {"user": "-x"}, {"known": "a\nb"}, {"key": "k" * 5000},
        {"bwlimit": "x"},
    ],
)  # fmt: skip
def test_where_a_copy_goes_is_checked(tmp_path: Path, bad: dict[str, object]) -> None:
    words = {
        "host": "a", "place": "10.0.0.1", "port": 22, "user": "root", "compress": False, "bwlimit": None, "key": "k",
        "known": "a ssh-ed25519 x",
    }  # fmt: skip
    with handing.target(Paths(tmp_path), words) as (slave, shell):
        assert (slave.place, "-oHostKeyAlias=a" in shell) == ("10.0.0.1", True)
    with pytest.raises(Refused), handing.target(Paths(tmp_path), {**words, **bad}):
        pass
    assert list(Paths(tmp_path).run.iterdir()) == []

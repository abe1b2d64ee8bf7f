"""vs-backup: its summary and mail, what is noted of a copy, and the check for Nagios."""

import os
from pathlib import Path

import pytest

from vstools.cli.check_backup import Newest, verdict
from vstools.config.backup import Entry, Keep
from vstools.errors import Refused
from vstools.paths import Paths
from vstools.pool import backup, store
from vstools.pool.backup import Outcome
from vstools.pool.store import Generation, Store

HOUR = 3600.0


def copy(root: Path, name: str, time: str = "20261122T031500Z") -> Generation:
    """An empty copy in a store."""
    (root / name / time).mkdir(parents=True)
    found = Store(root).newest(name)
    assert found is not None
    return found


def test_what_failed_stands_first_and_in_the_subject() -> None:
    good = Outcome("web", "one", "20261122T031500Z", seconds=2.4, sent=3 << 20, pruned=2)
    bad = Outcome("mail", "two", error="host two said nothing")
    lines = backup.summary([good, bad], ["host three does not answer"])
    assert lines == [
        "FAILED mail (two): host two said nothing",
        "FAILED host three does not answer",
        "copied web (one): 20261122T031500Z, 3.0 MiB sent, 2 s, 2 older removed",
    ]
    host = os.uname().nodename.partition(".")[0]
    assert backup.title(lines) == f"{host}: backup: 2 FAILED: mail (two): host two said nothing"
    assert backup.title(lines[2:]) == f"{host}: backup: 1 copied"


def test_a_summary_is_a_mail_and_one_that_nobody_takes_waits(
    as_root: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vstools.errors import VsError
    from vstools.monitor import deliver

    sent: list[str] = []

    def refuse(_: str) -> str:
        raise VsError("no")

    as_root.conf.mkdir(parents=True, exist_ok=True)
    (as_root.conf / "create.conf").write_text("BACKUP_MAILTO=one@example.org, two\n")
    monkeypatch.setattr(deliver, "by_sendmail", refuse)
    backup.mail(as_root, ["FAILED mail: caf\u00e9\nBcc: x"])
    said = capsys.readouterr().err
    assert "a mail could not be sent: no" in said
    assert f"a summary waits in {as_root.mails}: the next vs-backup --mail tries again" in said
    assert " s: " not in said, "nobody comes back by then"
    assert len(list(as_root.mails.iterdir())) == 1
    (waiting,) = as_root.mails.iterdir()
    os.utime(waiting, (0, 0))
    monkeypatch.setattr(deliver, "by_sendmail", lambda text: sent.append(text) or "")
    backup.mail(as_root, ["copied web"])
    assert list(as_root.mails.iterdir()) == []
    assert len(sent) == 2
    assert "To: one@example.org, two\n" in sent[0]
    assert "\nBcc" not in sent[0]
    assert sent[0].isascii()


def test_what_is_found_out_about_a_copy_is_noted_beside_it(tmp_path: Path) -> None:
    made = copy(tmp_path, "web")
    assert store.noted(made, "verified") is None
    store.note(made, "verified", "whole")
    found = store.noted(made, "verified")
    assert found is not None
    assert found.good
    assert found.word == found.time
    store.note(made, "verified", "damaged")
    assert getattr(store.noted(made, "verified"), "word", "") == "damaged"
    made.path.rename(tmp_path / "gone")
    store.note(made, "verified", "whole")
    assert store.noted(made, "verified") is None


def test_lines_of_backup_conf_are_found_by_their_guests(as_root: Paths) -> None:
    with pytest.raises(Refused, match="lists no guest"):
        backup.entries(as_root)
    as_root.conf.mkdir(parents=True, exist_ok=True)
    (as_root.conf / "backup.conf").write_text("web:hot\nmail:cool,keep-last=1\n")
    assert [entry.guest for entry in backup.entries(as_root)] == ["web", "mail"]
    assert backup.entries(as_root, ["mail"]) == [Entry("mail", False, Keep(1, 0, 0, 0))]
    with pytest.raises(Refused, match="no line for db"):
        backup.entries(as_root, ["db"])


@pytest.mark.parametrize(
    ("found", "status", "words"),
    [
        ([Newest("web", HOUR), Newest("db", 2 * HOUR)], 0, "VS OK - 2 guests, the oldest copy is 2 h old"),
        ([Newest("web", HOUR), Newest("db", 31 * HOUR)], 1, "VS WARNING - db is 31 h old"),
        ([Newest("web", 31 * HOUR), Newest("db", None)], 2, "VS CRITICAL - db has no copy"),
        ([Newest("web", HOUR, damaged=True)], 2, "VS CRITICAL - the copy of web is damaged"),
        ([Newest("web", HOUR, failed=True)], 2, "VS CRITICAL - the copy of web failed its drill"),
        ([], 3, "VS UNKNOWN - backup.conf lists no guest"),
    ],
)
def test_the_check_names_what_is_missing_or_too_old(found: list[Newest], status: int, words: str) -> None:
    code, line = verdict(found, 30, 54)
    assert (code, line.partition(" | ")[0]) == (status, words)
    if status < 2:
        assert "web=3600s;108000;194400;0" in line

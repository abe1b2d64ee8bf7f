"""vs-limit's command line: what it refuses, what it prints, what it saves for guests that do not run."""

import json
import os
from pathlib import Path

import pytest

from vstools import limits
from vstools.config import guests
from vstools.guest import Cpu, Limits, Rlimit
from vstools.limits import Controllers
from vstools.network import rates
from vstools.paths import Paths

from .made import below, guest, saved
from .test_commands import said

HOST = os.uname().nodename.partition(".")[0]
ALL, NONE = frozenset({"memory", "pids", "cpu"}), frozenset[str]()


@pytest.fixture
def web(as_root: Paths, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A stopped guest with the slide's limits, on a host of two CPUs that can enforce them."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(limits, "controllers", lambda: Controllers(ALL, NONE))
    monkeypatch.setattr(rates, "lacking", frozenset)
    saved(as_root, guest(limits=Limits(rss=128, disk=1024, tmpfs=16, proc=150, cpu=Cpu(9, 10))))
    return as_root


def test_the_line_of_2008(web: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    saved(web, guest("db", 10001))
    assert said(capsys, "vs-limit", "--all") == (
        0,
        [f"{HOST}:db:inf:inf:inf:inf:inf", f"{HOST}:web:128:1024:16:150:9/10"],
        [],
    )


def test_limits_are_saved_and_inf_lifts_them(web: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--rss",
        "256",
        "--proc",
        "inf",
        "--cpu",
        "1/4",
        "--burst",
        "20",
        "--swap",
        "64",
        "--nofile",
        "1024",
        "--rlimit",
        "core=0:inf",
    ]
    assert said(capsys, "vs-limit", "--name", "web", *words) == (0, [f"{HOST}:web:256:1024:16:inf:1/4"], [])
    assert guests.load(web, "web").limits == Limits(
        256, 1024, 16, None, Cpu(1, 4), 20, 64, (("core", Rlimit(0, None)), ("nofile", Rlimit(1024, 1024)))
    )
    words = [
        "--rss",
        "inf",
        "--disk",
        "inf",
        "--tmpfs",
        "inf",
        "--cpu",
        "inf",
        "--burst",
        "inf",
        "--swap",
        "0",
        "--nofile",
        "inf",
    ]
    assert said(capsys, "vs-limit", "--name", "web", *words)[:2] == (0, [f"{HOST}:web:inf:inf:inf:inf:inf"])
    left = (("core", Rlimit(0, None)), ("nofile", Rlimit(None, None)))
    assert guests.load(web, "web").limits == Limits(rlimits=left)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--cpu", "0/10"), "is not a share of the host"),
        (("--cpu", "11/10"), "is not a share of the host"),
        (("--cpu", "1/0"), "is not a share"),
        (("--cpu", "half"), "is not a share like 9/10"),
        (("--rss", "0"), "is not a whole number of at least 1, nor inf"),
        (("--rss", "-5"), "is not a whole number"),
        (("--rss", "1.5"), "is not a whole number"),
        (("--rss", "much"), "is not a whole number"),
        (("--rss", "٣"), "is not a whole number"),
        (("--rss", "8796093022208"), "past what a kernel counts"),
        (("--rss", "99999999999999999999"), "is not a whole number"),
        (("--disk", ""), "is not a whole number"),
        (("--tmpfs", "0"), "--tmpfs: "),
        (("--proc", "none"), "--proc: "),
        (("--swap", "-1"), "--swap: "),
        (("--burst", "x"), "--burst: "),
        (("--burst", "10000000000"), "past what can be saved up"),
        (("--burst", "181"), "the kernel takes at most 180 ms for 9/10 of 2 CPUs"),
        (("--rlimit", "nofile"), "is not NAME=SOFT[:HARD]"),
        (("--rlimit", "files=5"), "names: as core cpu"),
        (("--rlimit", "nofile=5:4"), "the soft limit is above the hard one"),
        (("--rlimit", "nofile=inf:4"), "the soft limit is above the hard one"),
        (("--rlimit", "nofile=-1"), "is not a number below 2^63"),
        (("--rlimit", "core=9223372036854775808"), "is not a number below 2^63"),
        (("--rlimit", "as=9223372036854775807"), "is not a number below 2^63"),
        (("--rlimit", "nproc=5"), "nproc is a limit of the guest as a whole here: --proc"),
        (("--rlimit", "rss=5"), "--rss"),
        (("--nofile", "5", "--rlimit", "nofile=6"), "given twice"),
        (("--nofile", "many"), "--nofile: "),
        (("--rlimit", "nofile=10:5"), "--rlimit: 'nofile=10:5': the soft limit is above the hard one"),
        (("--net-rate", "0"), "--net-rate: '0' is not a whole number of at least 1, nor inf"),
        (("--net-rate", "10mbit"), "--net-rate: "),
        (("--net-rate", "10/"), "--net-rate: '' is not"),
        (("--net-rate", "10/20/30"), "--net-rate: '20/30' is not"),
        (("--net-rate", "34360"), "--net-rate: 34360 Mbit/s is past what a kernel counts (34359)"),
        (("--io-rate", "-1/5"), "--io-rate: '-1' is not"),
        (("--io-rate", "1/8796093022208"), "--io-rate: "),
        (("--force",), "--force goes with a limit"),
        (("--dry-run",), "--dry-run goes with a limit"),
        (("--json", "--table"), "contradict"),
    ],
)
def test_what_is_no_limit_is_refused_in_one_sentence_and_nothing_changes(
    web: Paths, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], sentence: str
) -> None:
    before = below(web.guests)
    status, out, err = said(capsys, "vs-limit", "--name", "web", *words)
    assert (status, out, len(err)) == (2, [], 1), err
    assert sentence in err[0]
    assert below(web.guests) == before


def test_without_a_guest_nothing_is_done(web: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "vs-limit", "--rss", "5")[0] == 2
    status, _, err = said(capsys, "vs-limit", "--name", "nobody", "--rss", "5")
    assert (status, "no guest 'nobody'" in err[0]) == (2, True)


def test_what_this_host_cannot_enforce_is_saved_and_said_once(
    web: Paths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "controllers", lambda: Controllers(NONE, NONE))
    status, out, err = said(capsys, "vs-limit", "--name", "web", "--rss", "64")
    assert (status, out) == (0, [f"{HOST}:web:64:1024:16:150:9/10"])
    (warning,) = err
    assert "rss is not enforced: this kernel has no memory controller" in warning
    status, out, _ = said(capsys, "vs-limit", "--name", "web", "--json")
    (row,) = json.loads("\n".join(out))
    assert row["limits"]["rss"] == {
        "enforced": False,
        "reason": "rss is not enforced: this kernel has no memory controller",
    }
    assert row["limits"]["tmpfs"] == {"enforced": True}
    assert (row["enforced"], row["rss"], row["cpu"]) == (False, 64, "9/10")


def test_json_has_the_words_of_the_line_and_numbers(web: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "vs-limit", "--name", "web", "--proc", "inf", "--disk", "inf")
    (row,) = json.loads("\n".join(said(capsys, "vs-limit", "--name", "web", "--json")[1]))
    line = {"host": HOST, "guest": "web", "rss": 128, "disk": None, "tmpfs": 16, "proc": None, "cpu": "9/10"}
    assert list(row)[:7] == list(line)
    assert {key: row[key] for key in line} == line
    assert (row["burst"], row["swap"], row["rlimits"], row["enforced"]) == (None, 0, {}, True)


@pytest.mark.parametrize(
    ("text", "files", "told"),
    [
        ("10", {"one": "10\n", "other": "10\n"}, (10, 10)),
        ("10/20", {"one": "10\n", "other": "20\n"}, (10, 20)),
        ("inf/20", {"other": "20\n"}, (None, 20)),
        ("10/inf", {"one": "10\n"}, (10, None)),
        ("inf", {}, None),
        ("inf/inf", {}, None),
    ],
)
def test_rates_are_a_file_for_each_direction(
    web: Paths,
    capsys: pytest.CaptureFixture[str],
    text: str,
    files: dict[str, str],
    told: tuple[int | None, ...] | None,
) -> None:
    said(capsys, "vs-limit", "--name", "web", "--net-rate", "5", "--io-rate", "5")
    status, out, err = said(capsys, "vs-limit", "--name", "web", "--net-rate", text, "--io-rate", text)
    assert (status, out) == (0, [f"{HOST}:web:128:1024:16:150:9/10"]), err
    names = {"net-sent": "one", "net-received": "other", "io-read": "one", "io-written": "other"}
    found = {path.name: path.read_text() for path in (web.guests / "web/rates").iterdir()}
    assert found == {name: files[key] for name, key in names.items() if key in files}
    (row,) = json.loads("\n".join(said(capsys, "vs-limit", "--name", "web", "--json")[1]))
    for key, words in (("net_rate", ("sent", "received")), ("io_rate", ("read", "written"))):
        assert row[key] == (None if told is None else dict(zip(words, told, strict=True)))


def test_a_rate_of_a_disk_that_cannot_be_held_is_saved_and_said(web: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = said(capsys, "vs-limit", "--name", "web", "--io-rate", "5/6")
    assert (status, len(err)) == (0, 1)
    assert "io-rate is not enforced: this kernel has no io controller" in err[0]
    (row,) = json.loads("\n".join(said(capsys, "vs-limit", "--name", "web", "--json")[1]))
    assert row["io_rate"] == {"read": 5, "written": 6}
    assert row["limits"]["io_rate"]["enforced"] is False


@pytest.mark.parametrize(
    ("lacks", "rate", "sentence"),
    [
        ({"tbf", "ifb"}, "10", "net-rate is not enforced: this kernel has no tbf"),
        ({"ifb"}, "10", "net-rate is enforced in part: this kernel has no ifb"),
        ({"ifb"}, "10/inf", ""),
    ],
)
def test_a_rate_of_links_that_this_kernel_cannot_hold_is_saved_and_said(
    web: Paths,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    lacks: set[str],
    rate: str,
    sentence: str,
) -> None:
    monkeypatch.setattr(rates, "lacking", lambda: frozenset(lacks))
    status, _, err = said(capsys, "vs-limit", "--name", "web", "--net-rate", rate)
    assert (status, len(err)) == (0, 1 if sentence else 0)
    assert sentence in "".join(err)
    (row,) = json.loads("\n".join(said(capsys, "vs-limit", "--name", "web", "--json")[1]))
    assert row["net_rate"]["sent"] == 10
    assert row["limits"]["net_rate"]["enforced"] is not bool(sentence)


def test_a_table_for_people(web: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "vs-limit", "--name", "web", "--proc", "inf")
    _, out, _ = said(capsys, "vs-limit", "--name", "web", "--table")
    assert [line.split()[1:] for line in out] == [
        ["GUEST", "RSS", "DISK", "TMPFS", "PROC", "CPU", "NET_RATE", "IO_RATE"],
        ["web", "128", "1024", "16", "inf", "9/10", "inf", "inf"],
    ]


def test_a_guest_with_faults_hides_no_other(web: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    saved(web, guest("db", 10001))
    (Path(web.config_of("db")) / "context").write_text("x\n")
    for words in ((), ("--dry-run", "--rss", "64")):
        status, out, err = said(capsys, "vs-limit", "--all", *words)
        assert (status, len(out), len(err)) == (1, 1, 1)
        assert "db/context:1:1" in err[0]


def test_what_a_change_leaves_without_force_is_said_too(web: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "vs-limit", "--name", "web", "--burst", "150", "--swap", "100")[2] == []
    err = said(capsys, "vs-limit", "--name", "web", "--cpu", "inf", "--rss", "inf")[2]
    assert len(err) == 2, err
    for what in ("swap", "burst"):
        assert any(f"{what} is not enforced: it goes with" in line for line in err), err
    assert said(capsys, "vs-limit", "--name", "web", "--proc", "20")[2] == []


def test_dry_run_tells_what_would_change(web: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    before = below(web.guests)
    words = ("--rss", "inf", "--proc", "150", "--nofile", "5", "--dry-run")
    status, out, _ = said(capsys, "vs-limit", "--name", "web", *words)
    assert (status, out) == (0, ["web: rss 128 -> inf", "web: nofile inf -> 5:5"])
    assert said(capsys, "vs-limit", "--name", "web", "--rss", "128", "--dry-run")[1] == ["web: nothing changes"]
    assert below(web.guests) == before

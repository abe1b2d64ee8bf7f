"""What monitoring systems ask: Munin's plugin protocol, and the lines and exit statuses of Nagios checks."""

import re
import sys
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstools.cli import check, munin
from vstools.cli.check import Thresholds, verdict
from vstools.paths import Paths

from .made import REPO, guest, saved
from .test_stats import sample

FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
NORMAL = Thresholds(90, 95)
PERFORMANCE = re.compile(r"'?[^=' ]+'?=[0-9.]+(s|%|B|c|)(;[0-9.]*){0,4}")
"""Of the guidelines: ``label=value[UOM];[warn];[crit];[min];[max]``."""


def plugin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str]]:
    """Status and lines of what Munin's node calls."""
    monkeypatch.setattr(sys, "argv", ["vs-munin", *words])
    with pytest.raises(SystemExit) as end:
        munin.main()
    return int(end.value.code or 0), capsys.readouterr().out.splitlines()


@given(st.lists(st.text("abcXYZ019.-_", min_size=1, max_size=63), unique=True, max_size=8))
def test_fields_of_different_guests_are_different(names: list[str]) -> None:
    fields = [munin.field(name) for name in names]
    assert len(set(fields)) == len(names)
    assert all(FIELD.fullmatch(field) for field in fields)


@pytest.mark.parametrize("name", munin.GRAPHS)
def test_every_value_of_a_graph_is_configured_and_the_other_way_round(name: str) -> None:
    graph = munin.GRAPHS[name]
    known = {graph.key: 1.5, **({graph.second: 7} if graph.second else {})}
    config = munin.config(graph, ["web", "db-1"])
    fetched = munin.values(graph, [sample("web", **known), sample("db-1", running=False)])
    labelled = {line.partition(".label ")[0] for line in config if ".label " in line}
    assert {line.partition(".value ")[0] for line in fetched} == labelled
    assert all(re.fullmatch(r"\w+\.value (\d+|U)", line) for line in fetched)
    assert all(line.endswith(" U") for line in fetched if line.startswith("g_db"))
    for line in config:
        assert re.match(
            r"graph_(title|vlabel|category|info|args) \S|\w+\.(label|type|min|draw|graph|negative|cdef) \S", line
        )
    assert f"graph_title {graph.title}" in config


def test_the_plugin_answers_munins_words(
    as_root: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plugin(monkeypatch, capsys, "vs_", "autoconf") == (0, ["no (this host has no guests)"])
    saved(as_root, guest("web", 10000))
    assert plugin(monkeypatch, capsys, "vs_", "autoconf") == (0, ["yes"])
    assert plugin(monkeypatch, capsys, "vs_", "suggest") == (0, list(munin.GRAPHS))
    assert plugin(monkeypatch, capsys, "vs_memory") == (0, ["g_web.value U"])
    status, lines = plugin(monkeypatch, capsys, "vs_cpu", "config")
    assert status == 0
    assert {"g_web.type DERIVE", "g_web.cdef g_web,10,/", "graph_category virtualization"} <= set(lines)
    assert plugin(monkeypatch, capsys, "vs_none")[0] == 2
    assert plugin(monkeypatch, capsys, "vs_cpu", "dance")[0] == 2
    text = (REPO / "share/munin/vs_").read_text()
    assert "#%# family=auto" in text
    assert "#%# capabilities=autoconf suggest" in text


def judged(**values: float | None) -> tuple[int, str]:
    """The check of a running guest with these values."""
    return verdict(sample("web", **values), NORMAL, NORMAL, NORMAL, NORMAL, Thresholds(80, 95))


@pytest.mark.parametrize(
    ("used", "status", "word"),
    [(0, 0, "OK"), (89, 0, "OK"), (90, 1, "WARNING"), (95, 2, "CRITICAL"), (200, 2, "CRITICAL")],
)
def test_the_status_follows_the_thresholds(used: int, status: int, word: str) -> None:
    found, line = judged(memory_unreclaimable_bytes=used, memory_limit_bytes=100, processes=1, processes_limit=100)
    assert found == status
    assert line.startswith(f"VS {word} - web runs, memory {used}%")
    assert f"memory={used}B;90;95;0;100" in line


def test_performance_data_is_as_the_guidelines_say_and_the_worst_comes_first() -> None:
    status, line = judged(
        memory_unreclaimable_bytes=5, memory_limit_bytes=inf, processes=19, processes_limit=20, tmpfs_bytes=91,
        tmpfs_limit_bytes=100, cpu_some_percent=99.0, io_some_percent=0.5, oom_kills=3,
    )  # fmt: skip
    said, _, data = line.partition(" | ")
    assert (status, said) == (2, "VS CRITICAL - web runs, processes 95%, cpu pressure 99%")
    assert all(PERFORMANCE.fullmatch(word) for word in data.split()), data
    assert data.split()[0] == "memory=5B;;;0"
    assert data.endswith("kills=3c")


def test_a_stopped_guest_is_critical_and_one_that_nothing_is_known_of_unknown() -> None:
    assert verdict(sample(running=False), NORMAL, NORMAL, NORMAL, NORMAL, NORMAL) == (2, "VS CRITICAL - web is stopped")
    assert judged()[0] == 3


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--name", "nobody"),
        ("--name", "web", "--memory", "95,90"),
        ("--name", "web", "--memory", "x"),
        ("--dance",),
    ],
)
def test_whatever_prevents_an_answer_is_unknown(
    as_root: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    saved(as_root, guest("web", 10000))
    monkeypatch.setattr(sys, "argv", ["check_vs_guest", *words])
    with pytest.raises(SystemExit) as end:
        check.main()
    out, err = capsys.readouterr()
    assert (end.value.code, err) == (3, "")
    assert out.startswith("VS UNKNOWN - ")
    assert len(out.splitlines()) == 1

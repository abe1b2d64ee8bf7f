"""monitor.conf: the slide's lines load as printed; what is wrong is told with its place, all of it at once."""

from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstools.config import monitor
from vstools.config.monitor import MonitorConf
from vstools.config.text import Faults

from .made import DATA
from .parsed import fault_lines, reader


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "monitor.conf"


read = reader(monitor.load)
faults_of = fault_lines(monitor.load)


def test_the_lines_of_2008_load_as_printed(path: Path) -> None:
    text = (DATA / "monitor.conf.2008").read_text()
    assert read(path, text) == MonitorConf(
        ("root",), 60, rss=90, disk=90, tmpfs=90, proc=90, load_15=2, rss_hits=True, proc_hits=True, sockets=True
    )
    patterns = read(path, text.replace("#", "")).sockets_filter
    assert [each.pattern for each in patterns] == ["/apache2$", "/var/run/apache2/cgi.sockl."]


def test_a_missing_file_is_an_empty_one(path: Path) -> None:
    assert monitor.load(path, Faults()) == read(path, "# nothing\n") == MonitorConf()


def test_several_are_told_and_what_is_not_watched_is_inf_or_no(path: Path) -> None:
    conf = read(
        path, "MONITOR_MAILTO=root, ops@example.org\nRSS_THRESHOLD=inf\nLOADAVG_15_THRESHOLD=0.5\nMONITOR_SOCKETS=no\n"
    )
    assert (conf.mailto, conf.rss, conf.load_15, conf.sockets) == (("root", "ops@example.org"), inf, 0.5, False)
    assert read(path, "DISK_THRESHOLD=80%\n").disk == 80


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("MONITOR_POLLING=60", "1:1: MONITOR_POLLING is not a key of this file"),
        ("MONITOR_POOLING=0", "1:17: '0' is not a whole number from 1 to 86400"),
        ("RSS_THRESHOLD=101", "1:15: '101' is not a whole number from 1 to 100"),
        ("LOADAVG_15_THRESHOLD=much", "1:22: 'much' is not a load like 2 or 0.5"),
        ("LOADAVG_15_THRESHOLD=0.0", "1:22: '0.0' is not a load like 2 or 0.5"),
        ("MONITOR_SOCKETS=on", "1:17: 'on' is neither yes nor no"),
        ("MONITOR_MAILTO=-oQ/tmp", "1:16: '-oQ/tmp' is not a mail address"),
        ("MONITOR_MAILTO=,", "1:16: 0 mail addresses, not 1 to 32"),
        ("MONITOR_MAILTO=a@b<c>", "1:16: 'a@b<c>' is not a mail address"),
        (
            "SOCKETS_FILTER=ssh( nginx",
            "1:16: 'ssh(' is not a regular expression: missing ), unterminated subpattern at position 3",
        ),
    ],
)
def test_a_wrong_value_is_an_error_at_its_place(path: Path, line: str, fault: str) -> None:
    assert faults_of(path, line + "\n") == [fault]


def test_all_faults_are_told_at_once(path: Path) -> None:
    text = "PROC_THRESHOLD=x\nnonsense\nPROC_THRESHOLD=1\nMONITOR_SOCKETS=maybe\n"
    assert [fault.partition(":")[0] for fault in faults_of(path, text)] == ["1", "2", "3", "4"]


KEYS = [setting.key for setting in monitor.SETTINGS]


@given(lines=st.lists(st.one_of(st.text(), st.builds("{}={}".format, st.sampled_from(KEYS), st.text()))))
def test_whatever_the_file_holds_reading_it_raises_nothing(path: Path, lines: list[str]) -> None:
    path.write_bytes("\n".join(lines).encode("utf-8", "replace"))
    assert isinstance(monitor.load(path, Faults()), MonitorConf)

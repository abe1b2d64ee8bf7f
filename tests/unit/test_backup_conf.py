"""backup.conf: the slide's lines, what stays, and every fault at its place."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vstools.config import backup
from vstools.config.backup import DEFAULT, Entry, Keep
from vstools.config.text import Faults
from vstools.errors import BadFiles

from .made import DATA
from .parsed import fault_lines, reader


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "backup.conf"


read = reader(backup.load)
faults_of = fault_lines(backup.load)


def test_the_lines_on_the_slide_load_as_printed() -> None:
    faults = Faults()
    found = backup.load(DATA / "backup.conf.2008", faults)
    faults.check()
    assert found == (
        *(Entry(name, hot=False) for name in ("etch1", "lamp")),
        *(Entry(name, hot=True) for name in ("nagios", "munin", "crit", "jabber", "ldap")),
    )
    assert {entry.keep for entry in found} == {Keep(last=3, daily=7, weekly=4, monthly=6)}


def test_a_missing_file_has_no_guests(path: Path) -> None:
    faults = Faults()
    assert backup.load(path, faults) == ()
    assert not faults


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        ("web:hot", Entry("web", hot=True, keep=DEFAULT)),
        ("  Web_1.x-y : cool  # the old one", Entry("Web_1.x-y", hot=False)),
        ("web:hot,keep-daily=2", Entry("web", hot=True, keep=Keep(daily=2))),
        ("web:hot,keep-last=0", Entry("web", hot=True, keep=Keep())),
        (
            "web:cool , keep-monthly=12 ,keep-weekly=8,\tkeep-daily=14,keep-last=10000",
            Entry("web", hot=False, keep=Keep(10000, 14, 8, 12)),
        ),
    ],
)
def test_a_line_says_how_a_guest_is_read_and_what_stays(path: Path, line: str, entry: Entry) -> None:
    assert read(path, line + "\r\n") == (entry,)


ONE_OF = "is not one of: keep-last=N, keep-daily=N, keep-weekly=N, keep-monthly=N"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("web", "1:1: a line is GUEST:hot|cool[,keep-daily=N][,...]"),
        ("  web hot", "1:3: a line is GUEST:hot|cool[,keep-daily=N][,...]"),
        (":hot", "1:1: '' cannot name a guest"),
        (" ../web:hot", "1:2: '../web' cannot name a guest"),
        ("TEMPLATES:hot", "1:1: 'TEMPLATES' cannot name a guest"),
        ("web:", "1:5: '' is neither hot nor cool"),
        ("web: warm", "1:6: 'warm' is neither hot nor cool"),
        ("web:Hot", "1:5: 'Hot' is neither hot nor cool"),
        ("web:hot,", f"1:9: '' {ONE_OF}"),
        ("web:hot, keep-yearly=1", f"1:10: 'keep-yearly=1' {ONE_OF}"),
        ("web:hot,keep-daily", f"1:9: 'keep-daily' {ONE_OF}"),
        ("web:hot,keep-daily = 1", f"1:9: 'keep-daily = 1' {ONE_OF}"),
        ("web:hot,keep-daily=", "1:20: '' is not a whole number from 0 to 10000"),
        ("web:hot,keep-daily=-1", "1:20: '-1' is not a whole number from 0 to 10000"),
        ("web:hot,keep-daily=10001", "1:20: '10001' is not a whole number from 0 to 10000"),
        ("web:hot,keep-daily=1,keep-daily=1", "1:22: keep-daily stands in this line already"),
    ],
)
def test_a_wrong_line_is_an_error_at_its_place(path: Path, line: str, fault: str) -> None:
    assert faults_of(path, line + "\n") == [fault]


def test_a_guest_has_one_line(path: Path) -> None:
    assert faults_of(path, "web:hot\n\n# again\n web:cool\nweb:hot\n") == [
        "4:2: web has line 1 already",
        "5:1: web has line 1 already",
    ]


def test_all_faults_of_a_file_and_of_a_line_are_told_at_once(path: Path) -> None:
    places = [fault.split(": ")[0] for fault in faults_of(path, "..:warm,keep-x=1,keep-last=z\nweb:hot\nweb\nweb:hot")]
    assert places == ["1:1", "1:4", "1:9", "1:28", "3:1", "4:1"]


WORDS = st.sampled_from(
    ["web", "db", ":", "::", "hot", "cool", ",", "keep-", "daily", "keep-last=", "keep-weekly=3", "=", "1", "99999",
     " ", "\t", "#", " # ", "\r", "\0", "\x0b", "\u2028", "..", "²", "é", "x" * 64]
)  # fmt: skip


@settings(max_examples=300)
@given(lines=st.lists(st.one_of(st.lists(WORDS, max_size=8).map("".join), st.text(max_size=30)), max_size=4))
def test_whatever_the_file_holds_it_is_entries_or_faults_at_places_of_it(path: Path, lines: list[str]) -> None:
    path.write_bytes("\n".join(lines).encode("utf-8", "replace"))
    faults = Faults()
    found = backup.load(path, faults)
    assert len({entry.guest for entry in found}) == len(found) or faults
    if not faults:
        return
    with pytest.raises(BadFiles) as caught:
        faults.check()
    text = path.read_bytes().decode("utf-8", "replace").split("\n")
    for fault in caught.value.faults:
        match = re.fullmatch(rf"{re.escape(str(path))}:([0-9]+):([0-9]+): .+", fault)
        assert match, fault
        assert fault.isprintable(), "what a file holds must not reach a terminal as it is"
        assert 1 <= int(match[1]) <= len(text)
        assert 1 <= int(match[2]) <= len(text[int(match[1]) - 1]) + 1


NAMES = st.from_regex(r"[a-z0-9](\.?[a-z0-9_-]{1,20}){0,2}", fullmatch=True)
KEEPS = st.lists(st.tuples(st.sampled_from(["last", "daily", "weekly", "monthly"]), st.integers(0, 10000)),
                 unique_by=lambda pair: pair[0])  # fmt: skip
BLANK = st.sampled_from(["", " ", "\t"])


@settings(max_examples=150)
@given(data=st.data(), names=st.lists(NAMES, max_size=4, unique=True))
def test_every_line_of_the_grammar_is_read_as_it_was_meant(path: Path, data: st.DataObject, names: list[str]) -> None:
    expected, text = [], ""
    for name in names:
        hot, keeps = data.draw(st.booleans()), data.draw(KEEPS)
        expected.append(Entry(name, hot, Keep(**dict(keeps)) if keeps else DEFAULT))
        words = ["hot" if hot else "cool", *(f"keep-{word}={number}" for word, number in keeps)]
        comma = data.draw(BLANK) + "," + data.draw(BLANK)
        tail = data.draw(st.sampled_from(["", " # why, web:hot", "\r"]))
        text += data.draw(BLANK) + name + data.draw(BLANK) + ":" + data.draw(BLANK) + comma.join(words) + tail + "\n"
        text += data.draw(st.sampled_from(["", "\n", "# web:hot\n"]))
    assert read(path, text) == tuple(expected)

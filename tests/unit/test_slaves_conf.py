"""slaves.conf: the slide's lines, our options, and every fault at its place."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstools.config import slaves
from vstools.config.slaves import Slave
from vstools.config.text import Faults
from vstools.errors import BadFiles

from .made import DATA
from .parsed import reader


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "slaves.conf"


read = reader(slaves.load)


def test_the_lines_on_the_slide_load_as_printed() -> None:
    faults = Faults()
    found = slaves.load(DATA / "slaves.conf.2008", faults)
    faults.check()
    assert found == (
        Slave("vsh-00", noselect=True), Slave("vsh-01"), Slave("vsh-02"), Slave("vsh-04", bwlimit=10240),
        Slave("vsh-05", compress=True, bwlimit=512), Slave("vsh-06"), Slave("vsh-07"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "slave"),
    [
        ("vsh-01.example.org:port=2222,user=admin", Slave("vsh-01.example.org", port=2222, user="admin")),
        (" a : address=2001:db8::1 , noselect # far", Slave("a", address="2001:db8::1", noselect=True)),
        ("a:bwlimit=7", Slave("a", bwlimit=7)),
        ("a:bwlimit=2G", Slave("a", bwlimit=2 << 20)),
        ("a:address=host.example.org,compress", Slave("a", address="host.example.org", compress=True)),
        ("a:", Slave("a")),
    ],
)
def test_a_line_says_how_a_host_is_reached(path: Path, line: str, slave: Slave) -> None:
    assert read(path, line) == (slave,)
    assert read(path, slaves.line(slave)) == (slave,)


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("10.0.0.1", "1:1:"), ("a b", "1:1:"), ("a:noselekt", "1:3:"), ("a:port=0", "1:8:"), ("a:port", "1:3:"),
        ("a:bwlimit=-1", "1:11:"), ("a:bwlimit=", "1:11:"), ("a:compress,compress", "1:12:"), ("a:user=Root;", "1:8:"),
        ("a\na.example.org", "2:1:"), ("a:noselect=yes", "1:3:"), ("-a", "1:1:"), ("a:address=x/../y", "1:11:"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(path: Path, line: str, place: str) -> None:
    with pytest.raises(BadFiles) as caught:
        read(path, line)
    assert [fault.removeprefix(f"{path}:").startswith(place) for fault in caught.value.faults] == [True]


PIECES = st.sampled_from([*"a1-.:,=# \t\n", "noselect", "bwlimit=", "port=22", "compress", "é"])


@given(text=st.lists(PIECES, max_size=40).map("".join))
def test_any_text_is_hosts_or_faults_with_places(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "slaves.random"
    path.write_text(text)
    faults = Faults()
    found = slaves.load(path, faults)
    assert len({slave.host for slave in found}) == len(found)
    assert read(path, "".join(f"{slaves.line(slave)}\n" for slave in found)) == found
    if faults:
        with pytest.raises(BadFiles) as caught:
            faults.check()
        assert all(re.match(rf"{re.escape(str(path))}:\d+:\d+: .", fault) for fault in caught.value.faults)

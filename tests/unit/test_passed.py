"""fstab and devices: what is given, what is left, and each fault at its place."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstools.config import passed
from vstools.config.passed import Bind, Passed

from .parsed import fault_lines, reader


def _load(path: Path, faults: passed.Faults) -> Passed:
    return passed.load(path.parent, faults)


read, faults_of = reader(_load), fault_lines(_load)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fstab"


def test_the_fstab_that_util_vserver_made_gives_nothing_and_leaves_nothing(path: Path) -> None:
    text = (
        "none\t/proc\tproc\tdefaults\t0 0\nnone\t/tmp\ttmpfs\tsize=16m,mode=1777\t0 0\nnone /dev/pts devpts gid=5 0 0\n"
    )
    assert read(path, text) == Passed()


def test_binds_devices_and_what_is_left(path: Path) -> None:
    (path.parent / "devices").write_text("/dev/net/tun # VPN\n\n/dev/fuse\n")
    text = r"""
/srv/data            /srv/data   none  bind,ro,noexec  0 0
/var/a\040b          /var/c      auto  defaults,bind,rw
/dev/vg/x            /mnt        ext4  defaults        0 2
nas:/export          /net        nfs   ro
"""
    assert read(path, text) == Passed(
        [Bind("/srv/data", "srv/data", ("ro", "noexec")), Bind("/var/a b", "var/c")],
        ["/dev/net/tun", "/dev/fuse"],
        [
            f"{path}:4: /mnt is not mounted: it is no bind of a directory or a file",
            f"{path}:5: /net is not mounted: it is no bind of a directory or a file",
        ],
    )


OPTION = "is no option here: a line is SOURCE TARGET none bind[,ro][,noexec]"
HERE = "is no absolute path in the guest where something of the host can be"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("/srv /data none rbind", f"1:17: 'rbind' {OPTION}"),
        ("/srv /data none bind,dev", f"1:17: 'dev' {OPTION}"),
        ("srv /data none bind", "1:1: 'srv' is no absolute path of a directory or file of the host"),
        ("/ /data none bind", "1:1: '/' is no absolute path of a directory or file of the host"),
        ("/srv/../etc /data none bind", "1:1: '/srv/../etc' is no absolute path of a directory or file of the host"),
        ("/srv /data/../.. none bind", f"1:6: '/data/../..' {HERE}"),
        ("/srv / none bind", f"1:6: '/' {HERE}"),
        ("/srv /dev/x none bind", f"1:6: '/dev/x' {HERE}"),
        ("/srv /a\\012b none bind", f"1:6: '/a\\\\012b' {HERE}"),
        ("/a /data none bind\n/b /data/x none bind", "2:4: /data/x is in another line's target, or holds it"),
    ],
)  # fmt: skip
def test_faults_have_their_place(path: Path, line: str, fault: str) -> None:
    assert faults_of(path, line) == [fault]


@given(st.text(alphabet="ab/. \\\n04#,:", max_size=60).map(lambda text: text + " none bind"))
def test_whatever_is_given_is_plain(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("any") / "fstab"
    faults = passed.Faults()
    path.write_text(text)
    for bind in passed.load(path.parent, faults).binds:
        assert Path(bind.source).is_absolute()
        assert not {"..", "."} & set(bind.source.split("/")) | {".."} & set(bind.target.split("/"))
        assert bind.target
        assert not bind.target.startswith("/")
        assert passed._unescaped(passed.escaped(bind.source)) == bind.source

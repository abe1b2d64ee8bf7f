"""What the copies in a master's store have installed."""

import json
from pathlib import Path

import pytest

from vstools.cli import pkg
from vstools.errors import Refused
from vstools.paths import Paths

OLD, NEW = "20261101T031500Z", "20261102T031500Z"


def copy(paths: Paths, guest: str, time: str, version: str, *, os_release: str = "ID=debian\n") -> Path:
    """A copy of a guest that has two packages."""
    tree = paths.store / guest / time / "tree"
    (tree / "var/lib/dpkg").mkdir(parents=True)
    (tree / "etc").mkdir()
    (tree / "etc/os-release").write_text(os_release)
    paragraph = "Package: {}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {}\n\n"
    (tree / "var/lib/dpkg/status").write_text(paragraph.format("openssl", version) + paragraph.format("bash", "5"))
    return tree


def ask(paths: Paths, *queries: str, name: list[str] | None = None, as_json: bool = False) -> int:
    return pkg._stored(paths, name, list(queries), everyone=name is None, running=False, as_json=as_json, table=False)


def test_each_copy_is_looked_into(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    for guest, time, version in (("web", OLD, "3.0.1-1"), ("web", NEW, "3.0.9-1"), ("mail", NEW, "3.0.2-1")):
        copy(paths, guest, time, version)
    assert ask(paths, "openssl<3.0.5", as_json=True) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["guest"], row["version"], row["generation"]) for row in rows] == [
        ("mail", "3.0.2-1", NEW),
        ("web", "3.0.1-1", OLD),
    ]
    assert ask(paths, "openssl", name=["web"]) == 0
    assert [line.partition(":web:")[2] for line in capsys.readouterr().out.splitlines()] == [
        f"openssl:3.0.1-1:{OLD}",
        f"openssl:3.0.9-1:{NEW}",
    ]


def test_a_copy_that_cannot_be_read_hides_no_other(
    paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy(paths, "web", OLD, "3.0.1-1", os_release="ID=fedora\n")
    tree = copy(paths, "web", NEW, "3.0.2-1")
    lost = copy(paths, "mail", NEW, "3.0.3-1") / "var/lib/dpkg/status"
    lost.rename(tmp_path / "status")
    lost.symlink_to(tmp_path / "status")
    assert ask(paths, "openssl") == 1
    out, err = capsys.readouterr()
    assert out.endswith(f":web:openssl:3.0.2-1:{NEW}\n")
    assert out.count("\n") == 1
    assert "guest mail has no package database of apt's" in err
    assert f"guest web, copy {OLD}: only a running guest's own rpm can read its database" in err
    assert tree.exists()


def test_a_guest_without_a_copy_is_refused(paths: Paths) -> None:
    with pytest.raises(Refused, match="there is no copy of web"):
        ask(paths, "openssl", name=["web"])
    with pytest.raises(Refused, match="copies do not run"):
        pkg._stored(paths, None, [], everyone=False, running=True, as_json=False, table=False)

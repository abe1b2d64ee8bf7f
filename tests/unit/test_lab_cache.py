"""The lab's cache: what an image and a layer are named by, what an update starts from, and what may go."""

from dataclasses import replace
from pathlib import Path

import pytest

from lab.cache import prune, stale
from lab.layer import About, parent, read_checkout
from lab.places import Places
from lab.recipe import Recipe

SCRIPT = b'#!/bin/bash\nPACKAGES="lxc rsync\n    nftables"\necho %s\n'


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    files = {
        "install.sh": SCRIPT % b"one",
        "pyproject.toml": b"",
        "README.md": b"",
        "requirements.txt": b"jinja2==3.1.6\n",
        "vstools/__init__.py": b"",
        "vstools/cli/create.py": b"print()\n",
        "templates/guest.conf": b"x\n",
        "etc/create.conf.sample": b"",
        "systemd/vs-guest@.service": b"",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "install.sh").chmod(0o755)
    return tmp_path


def test_a_layer_is_named_by_contents_and_by_what_can_be_executed(checkout: Path) -> None:
    before = read_checkout(checkout).digest
    (checkout / "templates/guest.conf").chmod(0o600)
    assert read_checkout(checkout).digest == before  # as git sees it
    (checkout / "templates/guest.conf").chmod(0o755)
    executable = read_checkout(checkout).digest
    assert executable != before
    (checkout / "templates/guest.conf").write_text("y\n")
    assert read_checkout(checkout).digest not in (before, executable)


@pytest.mark.parametrize("name", ["vstools/__pycache__/x.cpython-311.pyc", "vs_tools.egg-info/PKG-INFO", "tests/x.py"])
def test_what_install_does_not_read_does_not_change_a_layer(checkout: Path, name: str) -> None:
    before = read_checkout(checkout)
    (checkout / name).parent.mkdir(parents=True)
    (checkout / name).write_text("junk")
    assert read_checkout(checkout) == before


def test_a_new_file_changes_a_layer(checkout: Path) -> None:
    before = read_checkout(checkout)
    (checkout / "vstools/new.py").write_text("")
    assert read_checkout(checkout).digest != before.digest
    assert read_checkout(checkout).base == before.base


@pytest.mark.parametrize(
    ("name", "content", "same"),
    [
        ("install.sh", SCRIPT % b"two", True),
        ("install.sh", SCRIPT.replace(b"\n    nftables", b" nftables") % b"one", True),
        ("install.sh", SCRIPT.replace(b"nftables", b"iptables") % b"one", False),
        ("install.sh", b"apt-get install lxc\n", False),
        ("requirements.txt", b"jinja2==3.1.7\n", False),
    ],
)
def test_an_update_starts_from_the_same_packages(checkout: Path, name: str, content: bytes, same: bool) -> None:
    before = read_checkout(checkout).base
    (checkout / name).write_bytes(content)
    assert (read_checkout(checkout).base == before) is same


def test_the_parent_of_a_layer_is_the_newest_with_its_image_and_its_packages() -> None:
    wanted = About("trixie-1", "base-1", "new")
    found = [
        About("trixie-1", "base-2", "a"),
        About("bookworm-1", "base-1", "b"),
        About("trixie-1", "base-1", "c"),
        About("trixie-1", "base-1", "d"),
    ]
    assert parent(found, wanted) == found[2]
    assert parent(found[:2], wanted) is None


def test_an_image_is_named_by_all_that_is_in_it() -> None:
    recipe = Recipe("trixie", ("deb mirror trixie main",), "", {"etc/a": b"1", "etc/b": b""}, frozenset())
    others = [
        replace(recipe, release="bookworm"),
        replace(recipe, sources=("deb other trixie main",)),
        replace(recipe, apt_settings='Acquire::http::Proxy "http://proxy:3128";'),
        replace(recipe, files={"etc/a": b"2", "etc/b": b""}),
        replace(recipe, files={"etc/a": b"", "etc/b": b"1"}),
        replace(recipe, files={"etc/a": b"1"}),
        replace(recipe, executables=frozenset({"etc/a"})),
    ]
    assert len({recipe.name, *(other.name for other in others)}) == 1 + len(others)
    assert replace(recipe, files={"etc/b": b"", "etc/a": b"1"}).name == recipe.name


def test_what_was_used_last_and_what_is_in_use_stays() -> None:
    last_used = {"oldest": 1.0, "old": 2.0, "new": 3.0, "newest": 4.0}
    assert stale(last_used, (), 4) == []
    assert stale(last_used, (), 2) == ["old", "oldest"]
    assert stale(last_used, ("oldest", "newest"), 1) == ["new", "old"]


def test_pruning_spares_what_any_lab_runs_on_and_the_image_below_a_layer_that_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.cache.KEEP_LAYERS", 0)
    monkeypatch.setattr("lab.cache.KEEP_IMAGES", 0)
    places = Places("00000000", cache=tmp_path / "cache", states=tmp_path / "states")
    for image in ("a", "b", "c", ".build-x"):
        (places.images / image).mkdir(parents=True)
    for layer, image in (("a.1", "a"), ("b.1", "b")):
        (places.layers / layer).mkdir(parents=True)
        (places.layers / layer / "layer.json").write_text(f'{{"image": "{image}"}}')
    (places.states / "another" / "vsh-00").mkdir(parents=True)
    (places.states / "another" / "vsh-00" / "host.json").write_text('{"image": "a", "layer": "a.1"}')
    prune(places)
    assert [path.name for path in places.images.iterdir()] == ["a"]
    assert [path.name for path in places.layers.iterdir()] == ["a.1"]

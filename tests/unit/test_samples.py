"""The shipped samples: values of the slides as comments, and nothing in them that would not load."""

import re
from pathlib import Path

import pytest

from vstools.config import create, firewall, networks
from vstools.config.text import Faults

from .made import DATA, REPO

LOADERS = {
    "create.conf.sample": create.load,
    "firewall.conf.sample": lambda path, faults: firewall.load(path, path.parent, faults),
    "networks.conf.sample": networks.load,
}
MARKED = {
    "create.conf.sample": re.compile(r"^#(?=[A-Z_]+=)", re.M),
    "firewall.conf.sample": re.compile(r"^#(?=(allow|deny) (from|to) [0-9a-f])", re.M),
    "networks.conf.sample": re.compile(r"^#(?=\d+:)", re.M),
}


def test_every_sample_is_checked_here() -> None:
    assert {path.name for path in (REPO / "etc").glob("*.conf.sample")} == set(LOADERS)


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("uncommented", [False, True])
def test_a_sample_loads_as_shipped_and_with_all_its_lines_made_active(
    tmp_path: Path, name: str, uncommented: bool
) -> None:
    text = (REPO / "etc" / name).read_text()
    path = tmp_path / name
    path.write_text(MARKED[name].sub("", text) if uncommented else text)
    faults = Faults()
    found = LOADERS[name](path, faults)
    faults.check()
    empty = LOADERS[name](tmp_path / "missing", Faults())
    assert (found != empty) is uncommented


def test_a_sample_holds_the_slides_values_as_comments() -> None:
    for name in ("create.conf", "networks.conf"):
        sample = (REPO / "etc" / f"{name}.sample").read_text().splitlines()
        for line in (DATA / f"{name}.2008").read_text().splitlines():
            if "MIRROR=" in line:
                line = line.partition("=")[0] + "="
            if not line.startswith("# "):
                assert f"#{line.lstrip('#')}" in sample


def test_every_key_that_has_an_effect_is_in_the_sample() -> None:
    text = (REPO / "etc/create.conf.sample").read_text()
    shown = set(re.findall(r"^#([A-Z_]+)=", text, re.M))
    assert shown == {setting.key for setting in create.SETTINGS if "no effect yet" not in setting.help}

"""The shipped samples: values of the slides as comments, and nothing in them that would not load."""

import re
from pathlib import Path

import pytest

from vstools.config import backup, create, firewall, monitor, networks, slaves
from vstools.config.text import Faults

from .made import DATA, REPO

LOADERS = {
    "backup.conf.sample": backup.load,
    "create.conf.sample": create.load,
    "firewall.conf.sample": lambda path, faults: firewall.load(path, path.parent, faults),
    "monitor.conf.sample": monitor.load,
    "networks.conf.sample": networks.load,
    "slaves.conf.sample": slaves.load,
}
MARKED = {
    "backup.conf.sample": re.compile(r"^#(?=[a-z0-9]+:(hot|cool)\b(?!\|))", re.M),
    "create.conf.sample": re.compile(r"^#(?=[A-Z_]+=)", re.M),
    "firewall.conf.sample": re.compile(r"^#(?=(allow|deny) (from|to) [0-9a-f])", re.M),
    "monitor.conf.sample": re.compile(r"^#(?=[A-Z_0-9]+=)", re.M),
    "networks.conf.sample": re.compile(r"^#(?=\d+:)", re.M),
    "slaves.conf.sample": re.compile(r"^#(?=vsh-)", re.M),
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
    for name in ("backup.conf", "create.conf", "networks.conf", "monitor.conf"):
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


def test_the_sample_of_monitor_conf_shows_every_key_with_the_value_that_holds_without_it(tmp_path: Path) -> None:
    text = (REPO / "etc/monitor.conf.sample").read_text()
    assert re.findall(r"^#([A-Z_0-9]+)=", text, re.M) == [setting.key for setting in monitor.SETTINGS]
    path = tmp_path / "monitor.conf"
    path.write_text(re.sub(r"^SOCKETS_FILTER.*", "", MARKED["monitor.conf.sample"].sub("", text), flags=re.M))
    assert monitor.load(path, Faults()) == monitor.MonitorConf()

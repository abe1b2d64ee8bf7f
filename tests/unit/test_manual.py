"""The manual, the completions, the console scripts and install.sh know the same commands."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest

from vstools.cli import manual

from .made import REPO

PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
NOT_FOR_PEOPLE = {"vs-guest-phase", "vs-munin", "vs-slave", "check_vs_backup", "check_vs_guest"}
REQUESTS = re.compile(r"\.(TH|SH|B|PP|TP)( |$)")


def test_every_console_script_is_a_command_of_the_manual_and_the_other_way_round() -> None:
    assert set(PROJECT["scripts"]) - NOT_FOR_PEOPLE == set(manual.COMMANDS)


@pytest.mark.parametrize("name", PROJECT["scripts"])
def test_every_console_script_leads_to_a_function(name: str) -> None:
    module, _, function = PROJECT["scripts"][name].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    if name in manual.COMMANDS:
        assert module == f"vstools.cli.{manual.COMMANDS[name][0]}"


def test_install_sh_links_every_command_and_no_other() -> None:
    (commands,) = re.findall(r'^COMMANDS="([^"]*)"$', (REPO / "install.sh").read_text(), re.MULTILINE)
    assert sorted(commands.split()) == sorted(manual.COMMANDS)


@pytest.mark.parametrize("name", manual.COMMANDS)
def test_every_command_has_a_page_with_all_its_options(name: str) -> None:
    page = manual.page(name)
    for parameter in manual.command(name).params:
        for option in parameter.opts:
            if option.startswith("-"):
                assert option.replace("-", "\\-") in page
        if parameter.param_type_name == "option":
            assert parameter.help.replace("-", "\\-").replace("'", "\\(aq") in page, parameter.name
    for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "FILES", "SEE ALSO"):
        assert f"\n.SH {section}\n" in page
    assert page.startswith(f".TH {name.upper()} 8 ")
    others = set(re.findall(r"\\fB(vs\\-[a-z]+)\\fR\(8\)", page))
    assert others == {other.replace("-", "\\-") for other in manual.COMMANDS if other != name}


@pytest.mark.parametrize("name", manual.COMMANDS)
def test_a_line_of_a_page_is_a_request_only_where_the_template_has_one(name: str) -> None:
    for line in manual.page(name).splitlines():
        assert not line.startswith("'")
        assert not line.startswith(".") or REQUESTS.match(line), line
        assert line.strip(), "an empty line is a gap in a page"


def test_the_pages_and_completions_are_written_where_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("man", "completion"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(manual.sys, "argv", ["manual", str(tmp_path / "man"), str(tmp_path / "completion")])
    manual.main()
    assert {path.name for path in (tmp_path / "man").iterdir()} == {f"{name}.8" for name in manual.COMMANDS}
    assert {path.name for path in (tmp_path / "completion").iterdir()} == set(manual.COMMANDS)
    text = (tmp_path / "completion/vs-control").read_text()
    assert "complete -o default -F _vs_control vs-control" in text
    assert "_VS_CONTROL_COMPLETE=complete_bash" in text

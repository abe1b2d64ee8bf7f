"""The linters, as tests: ruff (rules and format), mypy in strict mode, and the shell's own syntax check."""

import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
SHELL = ("install.sh", "tests/run", ".ci/run", "templates/vs-guest-run", "templates/vs-guest-reboot")
COMMANDS = {
    "ruff check": ("ruff", "check", "."),
    "ruff format": ("ruff", "format", "--check", "."),
    "mypy": ("mypy", "--no-incremental"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_linter_is_silent(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *COMMANDS[name]], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", SHELL)
def test_shell_scripts_parse(script: str) -> None:
    text = (REPO / script).read_text()
    shell = "bash" if text.startswith("#!/bin/bash") else "sh"
    done = subprocess.run([shell, "-n", REPO / script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

"""What every unit test lives under: no program is started, no owner is changed, nothing is logged, no disk waited for.

A test that needs a program belongs to tests/host.
"""

import io
import os
import subprocess
import sys
import syslog
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import vstools.network.kernel  # noqa: F401 - pyroute2 runs uname and file while it is imported: not in a test
from vstools.paths import Paths

settings.register_profile(
    "unit",
    deadline=None,
    derandomize=True,  # the same examples each time: a red test stays red
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("unit")

_STARTERS = ("fork", "forkpty", "system", "popen", "posix_spawn", "posix_spawnp", "execv", "execve")

if os.geteuid() == 0 and os.access("/etc", os.W_OK):
    # Some tests write through hostile links: with a mistake in inside.py, root would write the machine's own files.
    pytest.exit("as root, run these tests by tests/run: it makes /etc and /usr read-only for them", returncode=2)


@pytest.fixture(autouse=True)
def _no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: object, **_: object) -> None:
        raise AssertionError(f"a unit test starts a program: {words[-1]!r}")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    for name in _STARTERS:
        monkeypatch.setattr(os, name, refuse)


@pytest.fixture(autouse=True)
def owners(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """What would have been given to whom: (name, uid, gid). Without root nothing can be given away."""
    given: list[tuple[str, int, int]] = []

    def chown(path: int | str, uid: int, gid: int, **_: object) -> None:
        name = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.fspath(path)
        given.append((Path(name).name, uid, gid))

    monkeypatch.setattr(os, "chown", chown)
    monkeypatch.setattr(os, "fchown", chown)
    return given


@pytest.fixture(autouse=True)
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that would have gone to syslog."""
    lines: list[str] = []
    monkeypatch.setattr(syslog, "openlog", lambda *_: None)
    monkeypatch.setattr(syslog, "syslog", lambda _level, text: lines.append(text))
    return lines


@pytest.fixture(autouse=True)
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files and directories that were brought to the disk, in order."""
    names: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: names.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name))
    return names


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("VS_TOOLS_") or name in ("SUDO_USER", "TERM"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "argv", ["/usr/local/sbin/vs-test"])
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # nobody is there to answer


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """An installation of its own, empty."""
    return Paths(tmp_path)


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Paths:
    """The commands believe that root calls them, and find an empty installation."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("VS_TOOLS_ROOT", str(tmp_path))
    return Paths(tmp_path)

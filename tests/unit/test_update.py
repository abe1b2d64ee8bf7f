"""vs-update: where the version comes from, and what a host has to be afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vstools import __version__, run
from vstools.config.slaves import Slave
from vstools.errors import Refused, VsError
from vstools.paths import Paths
from vstools.pool import remote, update

from .made import REPO


def test_the_version_is_where_install_ran_from(paths: Paths, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is not known"):
        update.source(paths, None)
    paths.source.parent.mkdir(parents=True, exist_ok=True)
    paths.source.write_text(f"{REPO}\n")
    assert update.source(paths, None) == update.Source(REPO, __version__)
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2"\n')
    with pytest.raises(Refused, match="holds no vs-tools"):
        update.source(paths, tmp_path)
    (tmp_path / "install.sh").touch()
    assert update.source(paths, tmp_path).version == "1.2"


def answering(monkeypatch: pytest.MonkeyPatch, version: str, running: tuple[str, ...]) -> None:
    """A host whose agent says this; nothing waits."""

    def states(verb: str) -> list[dict[str, Any]]:
        assert verb == "states"
        row = {"enabled": True, "broken": False, "addresses": [], "owner": None, "epoch": 0}
        return [{"guest": name, "running": name in running, **row} for name in ("web", "db")]

    @contextmanager
    def agent(*_: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(version=version, call=states)

    monkeypatch.setattr(remote, "agent", agent)
    monkeypatch.setattr(update, "_AGAIN", 0)


def test_a_host_is_well_with_the_new_version_and_what_ran_before(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = update.Source(REPO, "2.0")
    answering(monkeypatch, "2.0", ("web",))
    update._check(paths, Slave("one"), wanted, {"web"})
    with pytest.raises(VsError, match="no longer running: db"):
        update._check(paths, Slave("one"), wanted, {"web", "db"})
    answering(monkeypatch, "1.0", ("web",))
    with pytest.raises(VsError, match=r"has vs-tools 1\.0 now, not 2\.0"):
        update._check(paths, Slave("one"), wanted, {"web"})


def test_what_runs_is_read_from_lines_of_any_version(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    said = run.Result((), 0, "one:web:enabled:running\none:db:disabled:stopped\nodd\n", "")
    monkeypatch.setattr(update, "_there", lambda *_: said)
    assert update._running(paths, Slave("one")) == {"web"}
    monkeypatch.setattr(update, "_there", lambda *_: run.Result((), 127, "", "vs-control: not found"))
    assert update._running(paths, Slave("one")) == set()
    monkeypatch.setattr(update, "_there", lambda *_: run.Result((), 1, "", "broken"))
    with pytest.raises(VsError, match="does not say what runs"):
        update._running(paths, Slave("one"))

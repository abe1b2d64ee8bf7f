"""The master's version of vs-tools comes to a host: its files by rsync, install.sh there, and a look at what runs.

All of it goes by plain ssh, so that a host with another protocol can be brought up; the agent is asked at the end.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from vstools import files, log, run
from vstools.config.slaves import Slave
from vstools.errors import Refused, VsError
from vstools.paths import Paths
from vstools.pool import remote, scan, ssh, wire

PLACE = "/usr/src/vs-tools"
"""Where the files are on a host."""
_PARTS = (
    "install.sh", "pyproject.toml", "requirements.txt", "README.md", "CHANGELOG.md", "docs", "etc", "share", "systemd",
    "templates", "vstools",
)  # fmt: skip
_INSTALL, _ASK, _COPY = 3600.0, 120.0, 1800.0
_AGAIN = 120.0
"""Seconds in which a guest that just restarts itself runs again."""
_SHOWN = 30


@dataclass(frozen=True)
class Source:
    """A directory with install.sh, and the version in it."""

    folder: Path
    version: str


def source(paths: Paths, given: Path | None) -> Source:
    """Where the version is that shall be everywhere: the directory given, else the one that install.sh ran from."""
    if given is None:
        try:
            given = Path(files.read_bounded(paths.source, 4096).strip())
        except FileNotFoundError:
            raise Refused(
                "where vs-tools was installed from is not known", "--from DIRECTORY, with install.sh in it"
            ) from None
    try:
        text = files.read_bounded(given / "pyproject.toml", 1 << 16)
    except OSError as error:
        raise Refused(f"{given} holds no vs-tools", "--from DIRECTORY, with install.sh in it") from error
    found = re.search(r'^version = "([0-9][0-9A-Za-z.+-]*)"$', text, re.MULTILINE)
    if found is None or not (given / "install.sh").is_file():
        raise Refused(f"{given} holds no vs-tools", "--from DIRECTORY, with install.sh in it")
    return Source(given.absolute(), found[1])


def update(paths: Paths, slave: Slave, wanted: Source) -> None:
    """Install it on a host; raises VsError where that fails or the host is not well afterwards."""
    before = _running(paths, slave)
    with log.change(f"install {wanted.version} on {slave.host}", "-"):
        _copy(paths, slave, wanted)
        done = _there(paths, slave, f"cd {PLACE} && exec ./install.sh 2>&1", _INSTALL)
        if done.code:
            shown = "\n".join(done.out.splitlines()[-_SHOWN:])
            raise VsError(f"host {slave.host}: install.sh ended with status {done.code}\n{_clean(shown)}")
    _check(paths, slave, wanted, before)


def _there(paths: Paths, slave: Slave, script: str, timeout: float) -> run.Result:
    """Run a line of shell on a host, as root."""
    argv = [*ssh.words(paths, slave), slave.name, shlex.join(ssh.remote(slave, "sh", "-c", script))]
    done = run.run(argv, timeout=timeout, check=False)
    if done.code == 255:
        said = _clean((done.err.strip().splitlines() or ["the connection failed"])[-1])
        raise ssh.Unreachable(f"host {slave.host}: {said}")
    return done


def _running(paths: Paths, slave: Slave) -> set[str]:
    """The guests that run on a host, by whatever version of vs-control it has; none where it has none."""
    done = _there(paths, slave, "vs-control --all", _ASK)
    if done.code not in (0, 127):
        raise VsError(f"host {slave.host} does not say what runs there", _clean(done.err)[:300])
    rows = (line.split(":") for line in done.out.splitlines())
    return {row[1] for row in rows if len(row) == 4 and row[3] == "running"}


def _copy(paths: Paths, slave: Slave, wanted: Source) -> None:
    parts = [f"--include=/{part}" for part in _PARTS]
    argv = ["rsync", "-a", "--delete", "--exclude=__pycache__", *parts, "--exclude=/*"]
    argv += [f"--rsh={shlex.join(ssh.words(paths, slave))}", f"--rsync-path={shlex.join(ssh.remote(slave, 'rsync'))}"]
    run.run([*argv, f"{wanted.folder}/", f"{slave.name}:{PLACE}/"], timeout=_COPY)


def _check(paths: Paths, slave: Slave, wanted: Source, before: set[str]) -> None:
    with remote.agent(paths, slave) as there:
        if there.version != wanted.version:
            raise VsError(f"host {slave.host} has vs-tools {there.version} now, not {wanted.version}")
        gone: set[str] = set()

        def all_run() -> bool:
            rows = scan.checked(slave.host, there.call("states"))
            gone.clear()
            gone.update(before - {seen.guest for seen in rows if seen.running})
            return not gone

        if not files.wait_until(all_run, patience=_AGAIN, pause=1):
            raise VsError(f"host {slave.host}: no longer running: {', '.join(sorted(gone))}", "vs-log shows why")


def _clean(text: str) -> str:
    """What a host said, line by line."""
    return "\n".join(wire.clean(line) for line in text.splitlines())

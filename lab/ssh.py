"""Reach the hosts over ssh: the configuration, the wait until one answers, commands."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from lab.command import LabError
from lab.host import Host
from lab.places import Places


def write_config(places: Places, hosts: Iterable[Host]) -> None:
    """Write the lab's ssh_config; a host's key is taken on first contact, on this lab's own port."""
    known = places.state / "known_hosts"
    parts = [f"Host {host.name}\n  Port {host.port}\n  HostKeyAlias {host.name}\n" for host in hosts]
    parts.append(
        "Host *\n  HostName 127.0.0.1\n  User root\n"
        f"  IdentityFile {places.ssh_key}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
        f"  UserKnownHostsFile {known}\n  StrictHostKeyChecking accept-new\n  LogLevel ERROR\n"
        "  BatchMode yes\n  ConnectTimeout 30\n  ServerAliveInterval 15\n  ServerAliveCountMax 8\n"
    )
    places.ssh_config.write_text("".join(parts))


def forget(places: Places, host: Host) -> None:
    """Forget a host's key: after a reinstallation it has another one."""
    known = places.state / "known_hosts"
    if known.exists():
        kept = [line for line in known.read_text().splitlines() if line.split(" ")[0] != host.name]
        known.write_text("".join(f"{line}\n" for line in kept))


def argv(places: Places, name: str, command: Iterable[str] = ()) -> list[str]:
    """The ssh command line for a host; the words of command become one shell line over there."""
    return ["ssh", "-F", str(places.ssh_config), name, *command]


def call(places: Places, name: str, command: str, *, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a shell line on a host and give its result, whatever the exit code."""
    line = argv(places, name, [command])
    try:
        return subprocess.run(
            line, timeout=timeout, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{name}: no end after {timeout:.0f} s: {command}") from error


def wait_ready(places: Places, host: Host, *, timeout: float, alive: Callable[[], bool], console: Path) -> None:
    """Wait until a host accepts ssh and systemd calls its boot finished, as `running` or `degraded`."""
    deadline = time.monotonic() + timeout
    said = ""
    while time.monotonic() < deadline:
        if not alive():
            raise LabError(f"{host.name} switched itself off while booting", f"its console: {console}")
        left = max(5.0, deadline - time.monotonic())
        try:
            done = call(places, host.name, "systemctl is-system-running --wait", timeout=left)
        except LabError:
            break
        said = done.stdout.strip() or done.stderr.strip()
        if done.stdout.strip() in ("running", "degraded"):
            return
        time.sleep(0.5)
    raise LabError(f"{host.name} is not ready after {timeout:.0f} s ({said})", f"its console: {console}")

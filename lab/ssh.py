"""Reach the hosts over ssh: the configuration, the wait until one answers, commands, files."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from lab.command import LabError
from lab.host import Host, HostFiles
from lab.identity import ROOT_KEY
from lab.places import Places


def write_config(places: Places) -> None:
    """Write the lab's ssh_config: what holds for all hosts; each host's own part is beside its disks."""
    places.ssh_config.write_text(
        f"Include {places.state}/*/ssh_config\n"
        "Host *\n  HostName 127.0.0.1\n  User root\n"
        f"  IdentityFile {places.keys / ROOT_KEY}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
        f"  UserKnownHostsFile {places.keys / 'known_hosts'}\n  StrictHostKeyChecking yes\n  LogLevel ERROR\n"
        "  BatchMode yes\n  ConnectTimeout 30\n  ServerAliveInterval 15\n  ServerAliveCountMax 8\n"
    )


def write_host_config(places: Places, host: Host) -> None:
    """Write a host's part of the ssh_config: where it is reached now."""
    text = f"Host {host.name}\n  Port {host.port}\n  HostKeyAlias {host.name}\n"
    HostFiles.of(places, host.name).ssh_config.write_text(text)


def argv(places: Places, name: str, command: Iterable[str] = ()) -> list[str]:
    """The ssh command line for a host; the words of command become one shell line over there."""
    return ["ssh", "-F", str(places.ssh_config), name, *command]


def call(places: Places, name: str, command: str, *, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a shell line on a host and give its result, whatever the exit code; 255 is also ssh's own failure."""
    line = argv(places, name, [command])
    try:
        return subprocess.run(
            line, timeout=timeout, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{name}: no end after {timeout:.0f} s: {command}") from error


def check(places: Places, name: str, command: str, *, timeout: float = 120) -> str:
    """Run a shell line on a host and give its standard output; a non-zero exit is a LabError."""
    done = call(places, name, command, timeout=timeout)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()[-15:]
        raise LabError(f"{name}: exit {done.returncode}: {command}", "\n".join(words))
    return done.stdout


def send(places: Places, name: str, command: str, content: bytes, *, timeout: float = 120) -> None:
    """Run a shell line on a host with content as its standard input."""
    line = argv(places, name, [command])
    try:
        done = subprocess.run(line, timeout=timeout, capture_output=True, input=content, check=False)
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{name}: no end after {timeout:.0f} s: {command}") from error
    if done.returncode != 0:
        raise LabError(f"{name}: exit {done.returncode}: {command}", done.stderr.decode(errors="replace").strip())


def copy_to(places: Places, name: str, source: Path, folder: str, *, timeout: float = 600) -> None:
    """Copy a file or a directory of this machine into a folder on a host, with modes and links, owned by root."""
    pack = ["tar", "-c", "--owner=0", "--group=0", "--numeric-owner", "-C", str(source.absolute().parent), source.name]
    unpack = argv(places, name, [f"mkdir -p '{folder}' && tar -x -C '{folder}'"])
    with subprocess.Popen(pack, stdout=subprocess.PIPE) as packing:
        try:
            done = subprocess.run(unpack, stdin=packing.stdout, timeout=timeout, capture_output=True, check=False)
        except subprocess.TimeoutExpired as error:
            packing.kill()
            raise LabError(f"{name}: {source} was not copied within {timeout:.0f} s") from error
        except BaseException:
            packing.kill()
            raise
        if packing.stdout:  # else tar could wait for ever for a reader that has failed
            packing.stdout.close()
    if done.returncode or packing.returncode:
        raise LabError(f"{name}: {source} could not be copied", done.stderr.decode(errors="replace").strip())


def wait(places: Places, host: Host, script: str, *, timeout: float, alive: Callable[[], bool]) -> None:
    """Run a script over ssh until it succeeds: at first nobody answers, or the script's time has not come."""
    deadline = time.monotonic() + timeout
    said = "no answer"
    while time.monotonic() < deadline:
        if not alive():
            raise LabError("switched itself off while it came up")
        left = max(5.0, deadline - time.monotonic())
        try:
            done = call(places, host.name, script, timeout=left)
        except LabError:
            break
        if done.returncode == 0:
            return
        said = done.stdout.strip() or done.stderr.strip()
        time.sleep(0.3)
    raise LabError(f"not ready after {timeout:.0f} s ({said})")

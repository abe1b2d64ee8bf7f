"""The lab's command line: a parser for each lab/COMMAND, one place for errors and exit codes."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lab import host as hosts
from lab import pool, ssh
from lab.command import LabError
from lab.places import Places
from lab.recipe import RELEASES


def say(line: str) -> None:
    """Progress goes to standard error, so that standard output stays for results."""
    print(line, file=sys.stderr, flush=True)


def up(places: Places, arguments: Sequence[str]) -> int:
    """Bring up hosts."""
    parser = argparse.ArgumentParser("lab/up", description="Bring up Debian hosts and wait until they have booted.")
    parser.add_argument("--hosts", type=int, default=3, metavar="N", help="how many: vsh-00, vsh-01, ... (default 3)")
    parser.add_argument("--memory", type=int, default=1024, metavar="MIB", help="of each host (default 1024)")
    parser.add_argument("--release", choices=RELEASES, default=RELEASES[0], help="of Debian (default trixie)")
    parser.add_argument(
        "--template", type=Path, action="append", default=[], metavar="FILE", help="bring it to each host (repeatable)"
    )
    parser.add_argument("--bare", action="store_true", help="without vs-tools")
    parser.add_argument("--renew", action="store_true", help="make hosts anew that another state of the checkout made")
    options = parser.parse_args(arguments)
    if not 1 <= options.hosts <= hosts.MOST:
        parser.error(f"--hosts is 1 to {hosts.MOST}")
    for template in options.template:
        if not template.is_file():
            parser.error(f"--template: {template} is no file")
    pool.up(
        places,
        count=options.hosts,
        memory=options.memory,
        release=options.release,
        bare=options.bare,
        templates=options.template,
        renew=options.renew,
        say=say,
    )
    return 0


def run_ssh(places: Places, arguments: Sequence[str]) -> int:
    """Run ssh: options are not parsed, as lab/ssh also serves as rsync's -e."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: lab/ssh HOST [COMMAND...]      rsync -a -e lab/ssh FILES HOST:PLACE")
        return 0 if arguments else 2
    host = hosts.load(places, arguments[0])
    return subprocess.call(ssh.argv(places, host.name, arguments[1:]))


def reset(places: Places, arguments: Sequence[str]) -> int:
    """Put hosts back."""
    parser = argparse.ArgumentParser(
        "lab/reset", description="Put hosts back to where their first boot left them, whatever state they are in."
    )
    parser.add_argument("hosts", nargs="*", metavar="HOST", help="default: all")
    pool.reset(places, parser.parse_args(arguments).hosts, say=say)
    return 0


def power(places: Places, arguments: Sequence[str]) -> int:
    """Switch a host."""
    parser = argparse.ArgumentParser(
        "lab/power", description="off: the power button; cut: the plug; on: boot and wait."
    )
    parser.add_argument("host")
    parser.add_argument("what", choices=pool.POWER)
    options = parser.parse_args(arguments)
    pool.power(places, options.host, options.what, say)
    return 0


def net(places: Places, arguments: Sequence[str]) -> int:
    """Pull or plug a cable."""
    parser = argparse.ArgumentParser("lab/net", description="Pull or plug the cable of one of a host's NICs.")
    parser.add_argument("host")
    parser.add_argument("nic", choices=pool.NICS)
    parser.add_argument("link", choices=("down", "up"))
    options = parser.parse_args(arguments)
    pool.net(places, options.host, options.nic, link_up=options.link == "up")
    return 0


def down(places: Places, arguments: Sequence[str]) -> int:
    """Remove the lab."""
    argparse.ArgumentParser("lab/down", description="End all hosts; only the image cache stays.").parse_args(arguments)
    pool.down(places)
    return 0


def status(places: Places, arguments: Sequence[str]) -> int:
    """Show the lab."""
    argparse.ArgumentParser("lab/status", description="Show the lab's hosts.").parse_args(arguments)
    print("\n".join(pool.status(places)))
    return 0


COMMANDS: dict[str, Callable[[Places, Sequence[str]], int]] = {
    "up": up,
    "ssh": run_ssh,
    "reset": reset,
    "power": power,
    "net": net,
    "down": down,
    "status": status,
}


def main(command: str, arguments: Sequence[str]) -> int:
    """Run one lab command: 0 done, 1 failed, 2 refused before the first change."""
    if os.geteuid() != 0:
        print(f"lab/{command}: root only: it makes namespaces and taps", file=sys.stderr)
        return 2
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # end at once: each command takes up what a killed one left
    try:
        code = COMMANDS[command](Places.of(), arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except LabError as error:
        print(f"lab/{command}: {error.message}", *error.hint.splitlines(), sep="\n  ", file=sys.stderr)
        return 1
    return code

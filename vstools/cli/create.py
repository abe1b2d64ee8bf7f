"""vs-create: a guest from two arguments."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from vstools import paths as installation
from vstools.cli import app, limitwords
from vstools.cli.limitwords import parsed
from vstools.errors import Refused
from vstools.guest import (
    Address,
    parse_address,
    parse_device,
    parse_domain,
    parse_place,
    parse_rlimit,
)


def create(
    name: Annotated[str, typer.Option("--name", help="the new guest's name", metavar="GUEST")],
    interface: Annotated[
        list[str], typer.Option("--interface", help="IPv4 or IPv6 address (repeatable)", metavar="ADDR")
    ],
    template: Annotated[
        Path | None,
        typer.Option("--template", help="from a tar archive (.gz, .xz, .zst) or an OCI image", metavar="FILE"),
    ] = None,
    debootstrap: Annotated[
        str | None, typer.Option("--debootstrap", help="from packages of a Debian suite", metavar="DISTRO")
    ] = None,
    skeleton: Annotated[bool, typer.Option("--skeleton", help="configuration and an empty tree")] = False,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", help="with --debootstrap: one more package (repeatable)", metavar="PKG"),
    ] = None,
    domain: Annotated[str | None, typer.Option("--domain", help="DNS domain", metavar="DOMAIN")] = None,
    nameserver: Annotated[
        list[str] | None, typer.Option("--nameserver", help="name server (repeatable)", metavar="ADDR")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="network device or bridge of the host", metavar="DEV")
    ] = None,
    prefix: Annotated[
        int | None, typer.Option("--prefix", help="prefix length of the addresses", min=1, max=128, metavar="BITS")
    ] = None,
    rss: Annotated[str | None, typer.Option("--rss", help="memory limit", metavar="MIB")] = None,
    disk: Annotated[str | None, typer.Option("--disk", help="disk limit", metavar="MIB")] = None,
    tmpfs: Annotated[str | None, typer.Option("--tmpfs", help="size of /tmp", metavar="MIB")] = None,
    proc: Annotated[str | None, typer.Option("--proc", help="number of processes", metavar="N")] = None,
    cpu: Annotated[str | None, typer.Option("--cpu", help="share of the host's CPUs", metavar="R/T")] = None,
    burst: Annotated[
        str | None, typer.Option("--burst", help="milliseconds of CPU time saved up beyond the share", metavar="MS")
    ] = None,
    swap: Annotated[str | None, typer.Option("--swap", help="swap beside --rss, 0 by itself", metavar="MIB")] = None,
    nofile: Annotated[str | None, typer.Option("--nofile", help="open files of each process", metavar="N")] = None,
    net_rate: Annotated[
        str | None,
        typer.Option("--net-rate", help="Mbit/s that each link sends and receives", metavar="OUT[/IN]"),
    ] = None,
    io_rate: Annotated[
        str | None,
        typer.Option("--io-rate", help="MiB/s read from and written to the disk", metavar="READ[/WRITE]"),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage", help="auto, or a volume of its own as large as --disk", metavar="auto|lvm:GROUP[/POOL]"
        ),
    ] = None,
    ssh_key: Annotated[
        list[str] | None,
        typer.Option("--ssh-key", help="public key for root, or a file of them (repeatable)", metavar="KEY"),
    ] = None,
    enable: Annotated[bool, typer.Option("--enable", help="start the guest with the host")] = False,
    start: Annotated[bool, typer.Option("--start", help="start the guest now")] = False,
    dry_run: app.DryRun = False,
) -> int:
    """Make a guest. --name and --interface suffice where create.conf and networks.conf are filled in.

    The command line wins over networks.conf, which wins over create.conf. Limits take inf for none. Ends with the
    guest's vs-control line.
    """
    app.exclusive(template=template is not None, debootstrap=debootstrap is not None, skeleton=skeleton)
    from vstools.lifecycle import create, sweep
    from vstools.lifecycle.create import Request

    limits = limitwords.values(
        {"rss": rss, "disk": disk, "tmpfs": tmpfs, "proc": proc, "burst": burst, "swap": swap, "net_rate": net_rate,
         "io_rate": io_rate, "cpu": cpu}
    )  # fmt: skip
    if nofile is not None:
        limits["rlimits"] = (parsed("--nofile", parse_rlimit, f"nofile={nofile}"),)
    request = Request(
        name=name,
        addresses=tuple(parsed("--interface", parse_address, text) for text in interface),
        template=template.absolute() if template else None,
        distro=debootstrap,
        skeleton=skeleton,
        include=tuple(app.package(word) for word in include or ()),
        domain=parsed("--domain", parse_domain, domain) if domain else None,
        nameservers=tuple(_address("--nameserver", text) for text in nameserver or ()),
        device=parsed("--device", parse_device, device) if device else None,
        prefix=prefix,
        limits=limits,
        storage=parsed("--storage", parse_place, storage) if storage is not None else None,
        ssh_keys=tuple(key for text in ssh_key or () for key in _ssh_keys(text)),
    )
    paths = installation.from_environment()
    if not dry_run:
        sweep.sweep(paths)  # what a killed vs-create left has reserved a name and addresses
    creation = create.decide(paths, request)
    if dry_run:
        print("\n".join(create.describe(creation)))
        return 0
    with _progress(creation.archive) as progress:
        create.create(paths, creation, progress)
    status = app.status_of("vs-create", lambda: create.finish(paths, name, enable=enable, start=start))
    print(app.control_line(app.control_row(paths, name)))
    return 1 if status else 0


def _address(option: str, text: str) -> Address:
    return parsed(option, parse_address, text)


def _ssh_keys(text: str) -> tuple[str, ...]:
    """Public keys from an option: the key itself, or a file of them. Raises Refused for anything else."""
    import re

    lines = [text]
    if not text.startswith(("ssh-", "ecdsa-", "sk-")):
        try:
            lines = Path(text).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise Refused(f"--ssh-key: {text!r} is neither a public key nor a file of them", str(error)) from None
    keys = tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    for key in keys:
        if not re.fullmatch(r"(ssh|ecdsa|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/=]+( [^\x00-\x1f]*)?", key):
            raise Refused(f"--ssh-key: {key[:40]!r} is no public key", "a private key does not belong here")
    if not keys:
        raise Refused(f"--ssh-key: {text!r} holds no key")
    return keys


class _progress:  # noqa: N801 - reads as a function
    """A bar on stderr while an archive is unpacked, where stderr is a terminal."""

    def __init__(self, archive: Path | None) -> None:
        self.shown = -1
        self.size = archive.stat().st_size if archive and archive.is_file() and sys.stderr.isatty() else 0

    def __enter__(self) -> Callable[[int], None]:
        return self.step

    def step(self, count: int) -> None:
        percent = min(100, count * 100 // self.size) if self.size else self.shown
        if percent != self.shown:
            self.shown = percent
            print(f"\runpacking [{'#' * (percent // 4):25}] {percent:3} %", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if self.shown >= 0:
            print("\r" + " " * 45 + "\r", end="", file=sys.stderr, flush=True)


def main() -> None:
    """The command."""
    app.execute(create)

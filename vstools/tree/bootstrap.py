"""A fresh Debian tree from packages: mmdebstrap, with the mirrors that the host's own apt uses."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from vstools import run
from vstools.config.create import CreateConf, parse_distro
from vstools.errors import Refused, VsError

PACKAGES = ("dbus", "iproute2", "iputils-ping", "openssh-server", "ca-certificates", "locales", "tzdata")
_INIT = "systemd-sysv"
_OTHER_INITS = ("sysvinit-core", "openrc", "runit-init")
_INDEXTARGETS = "$(CREATED_BY)\t$(SITE)\t$(CODENAME)\t$(ORIGIN)\t$(LABEL)\t$(COMPONENT)\n"
_NO_SERVICES = 'printf \'#!/bin/sh\\nexit 101\\n\' > "$1/usr/sbin/policy-rc.d"; chmod 755 "$1/usr/sbin/policy-rc.d"'
_SERVICES = 'rm "$1/usr/sbin/policy-rc.d"'
_DEADLINE = 3600.0


@dataclass(frozen=True)
class Mirrors:
    """Where Debian's packages come from."""

    main: str
    security: str


def mirrors(conf: CreateConf) -> Mirrors:
    """create.conf's mirrors where it names one, else those of the host's own apt; raises Refused."""
    main, security = conf.main_mirror, conf.update_mirror
    for key, url in (("MAIN_MIRROR", main), ("UPDATE_MIRROR", security)):
        if url and not re.fullmatch(r"(https?|file|copy|cdrom|mirror\+https?):/[^\s<>\[\]\"']+", url):
            raise Refused(f"{key} in create.conf is no address of a mirror: {url!r}", "empty it to use the host's own")
    if main:
        return Mirrors(main, security)
    own = parse_indextargets(run.run(["apt-get", "indextargets", "--format", _INDEXTARGETS], check=False).out)
    return Mirrors(own.main, security or own.security)


def parse_indextargets(text: str) -> Mirrors:
    """Debian's main and security mirrors from ``apt-get indextargets``; raises Refused where there is none."""
    main = security = ""
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) < 6 or fields[0] != "Packages" or fields[3] != "Debian" or fields[5] != "main":
            continue
        if fields[4] == "Debian-Security":
            security = security or fields[1]
        else:
            main = main or fields[1]
    if not main:
        raise Refused("this host's apt knows no Debian mirror", "run apt-get update, or set MAIN_MIRROR in create.conf")
    return Mirrors(main, security)


def sources(mirror: Mirrors, distro: str) -> tuple[str, ...]:
    """apt's source lines of a suite with its security updates, as the guest will have them."""
    lines = [f"deb {mirror.main} {distro} main"]
    if distro not in ("sid", "unstable", "experimental"):
        lines.append(f"deb {mirror.main} {distro}-updates main")
        if mirror.security:
            lines.append(f"deb {mirror.security} {distro}-security main")
    return tuple(lines)


def packages(include: tuple[str, ...]) -> tuple[str, ...]:
    """What is installed beside the essential packages: an init, and what a server needs to be reached."""
    init = () if any(name in _OTHER_INITS for name in include) else (_INIT,)
    return tuple(dict.fromkeys((*init, *PACKAGES, *include)))


def check(distro: str) -> str:
    """Return a suite's name or raise Refused."""
    try:
        return parse_distro(distro)
    except ValueError as error:
        raise Refused(str(error), "--debootstrap takes a suite") from None


def bootstrap(tree: Path, distro: str, conf: CreateConf, include: tuple[str, ...] = ()) -> None:
    """Install ``distro`` into the empty directory ``tree``; no service is started meanwhile."""
    lines = sources(mirrors(conf), distro)
    argv = [
        *run.ALONE,
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
        "--quiet",
        f"--include={','.join(packages(include))}",
        f"--essential-hook={_NO_SERVICES}",
        f"--customize-hook={_SERVICES}",
        *(f"--aptopt={option}" for option in _apt_options()),
        distro,
        str(tree),
        *lines,
    ]
    result = run.run(argv, timeout=_DEADLINE, check=False)
    if result.code:
        said = [line for line in result.err.splitlines() if line.startswith("E:")] or result.err.splitlines()
        reason = said[-1] if said else f"exit status {result.code}"
        if "No space left" in result.err:
            raise VsError("the disk is full", reason)
        raise VsError(f"{distro} could not be installed", f"{reason} ({shlex.join(lines)})")


def _apt_options() -> tuple[str, ...]:
    """How the host's apt reaches and checks its mirrors, for the apt that fills the tree."""
    dump = run.run(["apt-config", "dump", "--format", "%F %v%n"], check=False).out
    wanted = ("Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::Check-Valid-Until", "Acquire::Check-Date")
    found = []
    for line in dump.splitlines():
        key, _, value = line.partition(" ")
        if key.startswith(wanted) and value and '"' not in value:
            found.append(f'{key} "{value}"')
    return tuple(found)

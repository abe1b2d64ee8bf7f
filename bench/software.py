"""What a bench needs from Debian: packages it installs, a peer's packages that it only unpacks, a tree."""

import platform
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.programs import BenchError, run, succeeds

CACHE = Path("/var/cache/vs-tools/bench")
TREE_PACKAGES = ("systemd-sysv", "dbus", "iproute2", "openssh-server", "ca-certificates")
_NEEDED = {
    "mmdebstrap": "mmdebstrap",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.btrfs": "btrfs-progs",
    "ip": "iproute2",
    "lxc-start": "lxc",
}
_SIMULATE = ("apt-get", "install", "--simulate", "--no-install-recommends")
_QUIET = {"DEBIAN_FRONTEND": "noninteractive"}


def say(sentence: str) -> None:
    """Tell what is being done, on stderr."""
    print(sentence, file=sys.stderr, flush=True)


def ensure_packages() -> None:
    """Install the packages whose programs are missing, and say so. LXC itself is install.sh's to install."""
    missing = [package for program, package in _NEEDED.items() if not shutil.which(program)]
    if "lxc" in missing:
        raise BenchError("LXC is not installed: run install.sh first")
    if missing:
        say(f"installing the Debian packages {', '.join(missing)}")
        install = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
        try:
            run(install, timeout=600, env=_QUIET)
        except BenchError:
            run(["apt-get", "update"])
            run(install, timeout=600, env=_QUIET)


def host_suite() -> str:
    """The host's Debian release, as a suite name."""
    release = platform.freedesktop_os_release()
    suite = release.get("VERSION_CODENAME", "")
    if not suite:
        raise BenchError("this host's /etc/os-release names no release: give --suite")
    return suite


def tree(suite: str) -> Path:
    """A tar of a small Debian with systemd, made by mmdebstrap from the host's own mirror; kept in CACHE."""
    path = CACHE / f"{suite}.tar"
    if not path.exists():
        say(f"making a tree of {suite} with mmdebstrap (once; kept in {CACHE})")
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.tar")
        run(
            [
                "mmdebstrap",
                "--mode=root",
                "--variant=minbase",
                f"--include={','.join(TREE_PACKAGES)}",
                *_apt_options(),
                suite,
                partial,
                *_sources(suite),
            ],
            timeout=1800,
        )
        partial.rename(path)
    return path


def _sources(suite: str) -> list[str]:
    """The source line of the mirror that the host's apt uses; where it has none, mmdebstrap chooses."""
    fields = "$(CREATED_BY)\t$(ORIGIN)\t$(LABEL)\t$(COMPONENT)\t$(SITE)\n"
    for line in run(["apt-get", "indextargets", "--format", fields]).splitlines():
        kind, origin, label, component, site = line.split("\t")
        if (kind, origin, label, component) == ("Packages", "Debian", "Debian", "main"):
            return [f"deb {site} {suite} main"]
    return []


def _apt_options() -> list[str]:
    """The host's apt proxies, for the apt that fills the tree."""
    dump = run(["apt-config", "dump", "--format", "%F %v%n"])
    proxies = re.findall(r"^(Acquire::https?::Proxy\S*) (\S+)$", dump, re.MULTILINE)
    return [f'--aptopt={key} "{value}"' for key, value in proxies]


@dataclass(frozen=True)
class Unpacked:
    """Packages and what they need beyond this host, unpacked but not installed; ``version`` is the first's."""

    version: str
    folder: Path


def unpack(packages: tuple[str, ...]) -> Unpacked:
    """Download ``packages`` from Debian with the dependencies that this host lacks; unpack them into CACHE.

    They are not installed: a peer's maintainer scripts start services and rewrite /etc/subuid.
    Raises BenchError when apt knows no such package.
    """
    plan = run([*_SIMULATE, *packages])
    wanted = re.findall(r"^Inst (\S+) \((\S+)", plan, re.MULTILINE)
    version = dict(wanted).get(packages[0], "as installed")
    folder = CACHE / f"{packages[0]}-{version}"
    if wanted and not folder.exists():
        say(f"unpacking Debian's {' and '.join(packages)} {version} into {folder}; they are not installed")
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "debs").mkdir(parents=True)
        names = [f"{name}={number}" for name, number in wanted]
        download = ["apt-get", "download", "-o", "APT::Sandbox::User=root", *names]
        run(download, folder=partial / "debs", timeout=600)
        for deb in (partial / "debs").glob("*.deb"):
            run(["dpkg-deb", "--extract", deb, partial])
        shutil.rmtree(partial / "debs")
        partial.rename(folder)
    return Unpacked(version, folder)


def are_available(packages: tuple[str, ...]) -> bool:
    """Whether the host's apt can install ``packages``."""
    return succeeds([*_SIMULATE, *packages])

"""What the lab takes over from the machine it runs on: how apt and pip reach registries, and whom TLS trusts."""

from __future__ import annotations

import configparser
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from lab.command import LabError, run, succeeds

PACKAGES = (
    "qemu-system-x86",
    "qemu-utils",
    "mmdebstrap",
    "debian-archive-keyring",
    "e2fsprogs",
    "iproute2",
    "openssh-client",
)
# Only what decides whether a registry is reachable and believed: the rest of apt.conf is the machine's taste.
APT_SETTINGS = re.compile(r"Acquire::(https?|ftp)::|Acquire::(Check-Valid-Until|Check-Date|Retries|ForceIPv[46]) ")
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")
TRUST = "/etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True)
class AptSource:
    """One line of sources.list, without its release: `pocket` is '', '-updates' or '-security'."""

    uri: str
    pocket: str
    component: str

    def line(self, release: str) -> str:
        """This source for a release, in sources.list(5)'s one-line form."""
        return f"deb {self.uri} {release}{self.pocket} {self.component}"


def install_packages() -> None:
    """Install what the lab needs and this machine lacks, without recommended packages (a desktop's worth)."""
    missing = [name for name in PACKAGES if not succeeds(["dpkg", "-s", name])]
    if not missing:
        return
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], timeout=300, env=env)
    run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], timeout=900, env=env)


def parse_index_targets(text: str, codename: str) -> list[AptSource]:
    """Read `apt-get indextargets` lines `URI|RELEASE|COMPONENT`; entries of other releases are left out."""
    sources = []
    for line in text.splitlines():
        uri, release, component = line.split("|")
        pocket = release.removeprefix(codename)
        if release.startswith(codename) and pocket in ("", "-updates", "-security"):
            sources.append(AptSource(uri, pocket, component))
    return sorted(set(sources), key=lambda source: (source.uri, source.pocket, source.component))


def apt_sources() -> list[AptSource]:
    """This machine's own Debian sources: the hosts get the same ones, for their release."""
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "?")
    form = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
    sources = parse_index_targets(run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"]), codename)
    if not sources:
        raise LabError(f"apt has no source for {codename} here", "the lab needs a Debian machine that has them")
    return sources


def apt_settings() -> str:
    """The machine's apt settings that matter for reaching a registry, as the text of an apt.conf file."""
    dump = run(["apt-config", "dump", "--format", '%F "%v";%n'])
    kept = [line for line in dump.splitlines() if APT_SETTINGS.match(line) and not line.endswith(' "";')]
    return "".join(f"{line}\n" for line in kept)


def pip_settings(files: list[Path], environment: dict[str, str]) -> str:
    """The machine's pip settings as the text of a pip.conf, later files first to give way, PIP_* above all.

    A registry that is a path of this machine (file://, a directory) does not exist on a host and is left out.
    """
    parser = configparser.RawConfigParser()
    parser.read(files)
    known = dict(parser["global"]) if parser.has_section("global") else {}
    known |= {key[4:].lower().replace("_", "-"): value for key, value in environment.items() if key.startswith("PIP_")}
    lines = ["[global]"]
    for key in PIP_SETTINGS:
        words = [word for word in known.get(key, "").split() if not word.startswith(("file:", "/"))]
        if words:
            lines.append(f"{key} = {' '.join(words)}")
    if "cert" in known:
        lines.append(f"cert = {TRUST}")
    return "\n".join(lines) + "\n"


def own_pip_settings() -> str:
    """`pip_settings` of this machine: the site-wide file, then root's own ones."""
    home = Path.home()
    files = [Path("/etc/pip.conf"), home / ".pip/pip.conf", home / ".config/pip/pip.conf"]
    return pip_settings(files, dict(os.environ))


def own_certificates() -> dict[str, bytes]:
    """Certificates that this machine's administrator added: file name -> PEM text.

    Behind a proxy that ends TLS nothing can be downloaded without them.
    """
    folder = Path("/usr/local/share/ca-certificates")
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.crt"))}

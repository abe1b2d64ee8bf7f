"""What managers say can be upgraded. The words come from a guest: what does not look like a package is left out."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,199}")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:~^_-]{0,199}")
_APT = re.compile(r"Inst (\S+?)(?::\S+)? (?:\[(\S+)\] )?\((\S+) .*")
_APK = re.compile(r"\(\d+/\d+\) (?:Upgrading|Installing) (\S+) \((\S+)(?: -> (\S+))?\)")
_PACMAN = re.compile(r"(\S+) (\S+) -> (\S+)(?: \[ignored\])?")


@dataclass(frozen=True)
class Upgrade:
    """A package that can be had in another version; ``old`` is empty where it is not there yet or is not told."""

    name: str
    old: str
    new: str


def parse(manager: str, text: str) -> tuple[Upgrade, ...]:
    """The upgrades in what a manager printed for ``list_upgrades``."""
    readers = {"apt": _apt, "dnf": _dnf, "apk": _apk, "pacman": _pacman, "zypper": _zypper}
    return tuple(each for each in readers[manager](text.splitlines()) if _is_sane(each))


def _is_sane(upgrade: Upgrade) -> bool:
    versions = all(VERSION.fullmatch(version) for version in (upgrade.old, upgrade.new) if version)
    return bool(upgrade.new and versions and NAME.fullmatch(upgrade.name))


def _apt(lines: list[str]) -> Iterator[Upgrade]:
    """``apt-get --simulate upgrade``: ``Inst NAME [OLD] (NEW ARCHIVE [ARCH])``."""
    for line in lines:
        if found := _APT.fullmatch(line):
            yield Upgrade(found[1], found[2] or "", found[3])


def _dnf(lines: list[str]) -> Iterator[Upgrade]:
    """``dnf check-update``: ``NAME.ARCH VERSION REPOSITORY``; what comes below is about obsolete packages."""
    for line in lines:
        if line.startswith(("Obsoleting", "Security:")):
            return
        words = line.split()
        if len(words) == 3 and "." in words[0] and any(char.isdigit() for char in words[1]):
            yield Upgrade(words[0].rpartition(".")[0], "", words[1])


def _apk(lines: list[str]) -> Iterator[Upgrade]:
    """``apk upgrade --simulate``: ``(1/2) Upgrading NAME (OLD -> NEW)``."""
    for line in lines:
        if found := _APK.fullmatch(line.strip()):
            yield Upgrade(found[1], found[2] if found[3] else "", found[3] or found[2])


def _pacman(lines: list[str]) -> Iterator[Upgrade]:
    """``pacman -Qu``: ``NAME OLD -> NEW``."""
    for line in lines:
        if found := _PACMAN.fullmatch(line.strip()):
            yield Upgrade(found[1], found[2], found[3])


def _zypper(lines: list[str]) -> Iterator[Upgrade]:
    """``zypper list-updates``: a table of status, repository, name, old version, new version, architecture."""
    for line in lines:
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 6 and cells[0] == "v":
            yield Upgrade(cells[2], cells[3], cells[4])

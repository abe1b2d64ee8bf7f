"""The tree of a whole machine becomes a guest's: what mounts its disks, and what boots it, is put out of use.

Sources: ``man 5 fstab``, ``man 5 crypttab``, ``man 5 proc`` (mounts, swaps). The tree may be hostile (inside.py).
"""

import re

from vstools.inside import Inside
from vstools.tree import oldsystem
from vstools.tree.oldsystem import System

_DISKS = frozenset(("btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "nilfs2", "reiserfs", "vfat", "xfs", "zfs"))
_OUT = "#vs-import# "
_OUT_OF_USE = {"etc/fstab": "file systems", "etc/crypttab": "encrypted disks", "etc/modules": "modules"}
_STATUS = 64 << 20
_SHOWN = 100
_BOOT = re.compile(r"(linux-image-|linux-modules-|grub-(?!common$)|lilo$|extlinux$|initramfs-tools$|dracut$)\S*")
NEVER = (
    "/dev/*", "/proc/*", "/sys/*", "/mnt/*", "/media/*", "/run/*", "/tmp/*", "/boot/*", "/lib/modules/*",  # noqa: S108
    "/usr/lib/modules/*", "/var/run/*", "/var/lock/*", "/vmlinuz*", "/initrd.img*", "lost+found",
)  # fmt: skip
"""What of a machine is no guest's: the kernel's file systems, what is mounted for a while, kernels with modules."""


def left_out(mounts: str, swaps: str) -> tuple[list[str], list[str]]:
    """What is not copied of a machine by its /proc/mounts and /proc/swaps, and a sentence for each. Pure.

    Other file systems than those of its disks stay out, and what is mounted a second time.
    """
    paths, notes = [], []
    seen: set[str] = set()
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 4 or not fields[1].startswith("/"):
            continue
        device, where, kind = fields[0], _unescaped(fields[1]), fields[2]
        again = device in seen and kind not in ("btrfs", "zfs")
        if kind in _DISKS and not again:
            seen.add(device)
            continue
        if where == "/" or any(where == known[:-2] or where.startswith(known[:-1]) for known in NEVER):
            continue
        paths.append(f"{where}/*")
        why = f"{device} is mounted elsewhere, too" if again else f"{kind}, which is on none of its disks"
        notes.append(f"{where} is not copied: {why}")
    for line in swaps.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 1 and fields[1] == "file":
            paths.append(_unescaped(fields[0]))
    return paths, notes


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def pattern(path: str) -> str:
    """rsync's word that leaves a path out; a ``*`` at its end is one, everything else is meant as it stands."""
    body, star = (path[:-2], "/*") if path.endswith("/*") else (path, "")
    return "--exclude=" + re.sub(r"([][*?\\])", r"\\\1", body) + star


def settle(tree: Inside, system: System) -> list[str]:
    """Make a machine's tree fit for a guest; returns what was changed, and what an admin should do, a sentence each."""
    said = []
    for path, what in _OUT_OF_USE.items():
        if lines := _put_out(tree, path):
            said.append(f"/{path}: {what} are commented out: {', '.join(lines)}")
    said += oldsystem.put_right(tree, system)
    if packages := _boot_packages(tree):
        said.append(f"remove in the guest what boots a machine: {' '.join(packages)}")
    return said


def _put_out(tree: Inside, path: str) -> list[str]:
    """Make comments of a file's lines; the first words of those that were none."""
    text = tree.read(path)
    if not text:
        return []
    lines = text.rstrip("\n").split("\n")
    live = [line for line in lines if _is_live(line)]
    if live:
        written = "".join(f"{_OUT if _is_live(line) else ''}{line}\n" for line in lines)
        tree.write(path, written, tree.mode(path) or 0o644)
    said = [_clean(" ".join(line.split()[:2])) for line in live[:_SHOWN]]
    return [*said, f"and {len(live) - _SHOWN} more"] if len(live) > _SHOWN else said


def _is_live(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _clean(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:200])


def _boot_packages(tree: Inside) -> list[str]:
    """Debian's packages of kernels and boot loaders that are installed (``man 1 dpkg-query``, the status file)."""
    found = []
    for paragraph in (tree.read("var/lib/dpkg/status", _STATUS) or "").split("\n\n"):
        name = re.search(r"(?m)^Package: (\S+)$", paragraph)
        if name and _BOOT.fullmatch(name[1]) and re.search(r"(?m)^Status: \S+ \S+ installed$", paragraph):
            found.append(_clean(name[1]))
    return sorted(found)[:_SHOWN]

"""What a host image is made of, and the hash that names it in the cache."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from lab import machine

HERE = Path(__file__).resolve().parent
RELEASES = ("trixie", "bookworm")
# Beside Debian's own "important" packages, what its installer adds to a server: kernel, ssh, LVM, AppArmor, a login
# session (libpam-systemd with dbus, by which logind also answers the power button), the second file system that has
# project quotas, and what lvm2 recommends for thin pools. Nothing that vs-tools installs.
PACKAGES = (
    "apparmor",
    "bash-completion",
    "ca-certificates",
    "dbus",
    "initramfs-tools",
    "libpam-systemd",
    "linux-image-amd64",
    "lvm2",
    "openssh-server",
    "rsync",
    "systemd-sysv",
    "thin-provisioning-tools",
    "xfsprogs",
    "xz-utils",
    "zstd",
)
ROOT_SIZE = "6G"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what an image holds, except the packages' versions of the day."""

    release: str
    sources: tuple[str, ...]
    apt_settings: str
    files: dict[str, bytes] = field(hash=False)
    executables: frozenset[str]

    @property
    def name(self) -> str:
        """The image's name in the cache: the release and a hash over the whole recipe."""
        parts = [self.release, ROOT_SIZE, *PACKAGES, *self.sources, self.apt_settings]
        digest = hashlib.sha256("\n".join(parts).encode())
        digest.update((HERE / "customize.sh").read_bytes())
        digest.update((HERE / "image.py").read_bytes())
        for path in sorted(self.files):
            digest.update(f"\n{path} {path in self.executables} {len(self.files[path])}\n".encode())
            digest.update(self.files[path])
        return f"{self.release}-{digest.hexdigest()[:16]}"

    def stage(self, folder: Path) -> None:
        """Write the recipe's files below folder, as they shall lie below the image's root."""
        for path, content in self.files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            target.chmod(0o755 if path in self.executables else 0o644)


def read_recipe(release: str) -> Recipe:
    """The recipe for a release on this machine."""
    static = HERE / "rootfs"
    paths = [path for path in sorted(static.rglob("*")) if path.is_file()]
    files = {str(path.relative_to(static)): path.read_bytes() for path in paths}
    executables = frozenset(str(path.relative_to(static)) for path in paths if path.stat().st_mode & 0o100)
    files["etc/pip.conf"] = machine.own_pip_settings().encode()
    for name, content in machine.own_certificates().items():
        files[f"usr/local/share/ca-certificates/{name}"] = content
    sources = tuple(source.line(release) for source in machine.apt_sources())
    return Recipe(release, sources, machine.apt_settings(), files, executables)

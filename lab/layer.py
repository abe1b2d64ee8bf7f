"""What an installed vs-tools is made of, and the name of the cached layer that holds it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path

from lab.identity import File, archive

# All that install.sh reads of the checkout.
PARTS = (
    "README.md",
    "etc",
    "install.sh",
    "pyproject.toml",
    "requirements.txt",
    "share",
    "systemd",
    "templates",
    "vstools",
)
JUNK = ("__pycache__", "*.pyc", "*.egg-info", ".*")
PLACE = "root/vs-tools"  # where the hosts have the checkout
DEBIAN_PACKAGES = re.compile(r'^PACKAGES="([^"]*)"', re.MULTILINE)


@dataclass(frozen=True)
class Checkout:
    """The files of a checkout that an installation depends on, by their path in it."""

    files: dict[str, File]

    @property
    def digest(self) -> str:
        """What names an installation of exactly these files."""
        return hashlib.sha256(archive(self.files)).hexdigest()[:16]

    @property
    def base(self) -> str:
        """What an installation takes from registries: where this is equal, an update downloads nothing."""
        script = self.files["install.sh"].content
        packages = DEBIAN_PACKAGES.search(script.decode())
        words = packages[1].split() if packages else [hashlib.sha256(script).hexdigest()]
        requirements = self.files["requirements.txt"].content
        return hashlib.sha256(" ".join(words).encode() + b"\n" + requirements).hexdigest()[:16]

    def archive(self) -> bytes:
        """The files as an archive to unpack over a host's /."""
        return archive({f"{PLACE}/{path}": file for path, file in self.files.items()})


def read_checkout(folder: Path) -> Checkout:
    """Read what install.sh reads; of a file's mode only whether it can be executed, as git keeps it."""
    paths: list[Path] = []
    for part in PARTS:
        paths += [folder / part] if (folder / part).is_file() else sorted((folder / part).rglob("*"))
    files = {}
    for path in paths:
        name = path.relative_to(folder)
        if path.is_file() and not any(fnmatch(word, junk) for word in name.parts for junk in JUNK):
            mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            files[str(name)] = File(path.read_bytes(), mode)
    return Checkout(files)


@dataclass(frozen=True)
class About:
    """What a layer was made from; kept beside its disks."""

    image: str
    base: str
    digest: str

    @property
    def name(self) -> str:
        """The layer's name in the cache."""
        return f"{self.image}.{self.digest}"


@dataclass(frozen=True)
class Layer:
    """One finished layer in the cache: the disks of a host that installed vs-tools and switched itself off."""

    folder: Path

    @property
    def root(self) -> Path:
        """The root disk, a qcow2 overlay on the image."""
        return self.folder / "root.qcow2"

    @property
    def data(self) -> Path:
        """The data disk with the volume group."""
        return self.folder / "data.qcow2"

    @property
    def about(self) -> About:
        """What the layer was made from."""
        return About(**json.loads((self.folder / "layer.json").read_text()))

    def describe(self, about: About) -> None:
        """Write down what the layer was made from."""
        (self.folder / "layer.json").write_text(json.dumps(asdict(about)) + "\n")


def parent(newest_first: Iterable[About], wanted: About) -> About | None:
    """The layer from which `wanted` is only an update away: the newest that took the same from registries."""
    return next((about for about in newest_first if (about.image, about.base) == (wanted.image, wanted.base)), None)

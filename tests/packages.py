"""Programs of Debian packages that are run from where they were unpacked: nothing is installed on the machine."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.templates import CACHE


def unpacked(*packages: str) -> Path:
    """A directory with the files of these packages, fetched once. ``a|b``: whichever this Debian has."""
    folder = CACHE / f"packages-{'-'.join(packages).replace('|', '-')}"
    if not folder.exists():
        outside = ["nsenter", f"--net={os.environ['VS_TOOLS_TESTS_NET']}"]
        beside = folder.with_name(f"{folder.name}.{os.getpid()}")
        beside.mkdir(parents=True)
        try:
            subprocess.run([*outside, "apt-get", "update", "-q"], check=True, capture_output=True, timeout=600)
            argv = ["apt-get", "download", "-q", *map(_here, packages)]
            subprocess.run([*outside, *argv], cwd=beside, check=True, capture_output=True, timeout=600)
            for archive in beside.glob("*.deb"):
                subprocess.run(["dpkg-deb", "--extract", archive, beside], check=True)
            beside.rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return folder


def _here(names: str) -> str:
    for name in names.split("|"):
        if subprocess.run(["apt-cache", "show", name], check=False, capture_output=True).returncode == 0:
            return name
    return names

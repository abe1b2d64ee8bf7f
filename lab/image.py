"""Build a host image, or take it from the cache: a root filesystem, a kernel and an initrd for direct boot.

Direct boot (QEMU's -kernel) spares the image a partition table and a boot loader, the build a loop device.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab import cache
from lab.command import run
from lab.places import Places, locked
from lab.recipe import HERE, PACKAGES, ROOT_SIZE, Recipe


@dataclass(frozen=True)
class Image:
    """One finished image in the cache."""

    folder: Path

    @property
    def root(self) -> Path:
        """The ext4 root filesystem, a raw file that every host's own disk is an overlay of."""
        return self.folder / "root.img"

    @property
    def kernel(self) -> Path:
        """Debian's kernel."""
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """The initial ramdisk that finds the root disk."""
        return self.folder / "initrd"


def cached_image(places: Places, recipe: Recipe, say: Callable[[str], None]) -> Image:
    """The image that a recipe makes, built now if it is not in the cache."""
    with locked(places, cache.LOCK):
        folder = places.images / recipe.name
        if not folder.exists():
            say(f"building the image {recipe.name}")
            build(recipe, folder)
            cache.prune(places)
        cache.touch(folder)
        return Image(folder)


def build(recipe: Recipe, folder: Path) -> None:
    """Build an image and put it in place with one rename, so that the cache never holds half of one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".build-") as scratch:
        work = Path(scratch)
        tree, staged, made = work / "tree", work / "staged", work / "made"
        recipe.stage(staged)
        made.mkdir()
        populate(recipe, tree, staged)
        for name in ("vmlinuz", "initrd.img"):
            (found,) = (tree / "boot").glob(f"{name}-*")
            shutil.copyfile(found, made / name.removesuffix(".img"))
        root = made / "root.img"
        run(["truncate", "-s", ROOT_SIZE, str(root)])
        run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-d", str(tree), str(root)], timeout=300)
        made.rename(folder)


def populate(recipe: Recipe, tree: Path, staged: Path) -> None:
    """Let mmdebstrap fill tree; the recipe's files go in first, as packages' scripts read them."""
    argv = [
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=important",
        f"--include={','.join(PACKAGES)}",
        "--skip=cleanup/apt/lists",
        "--dpkgopt=force-unsafe-io",
        *(f"--aptopt={line}" for line in recipe.apt_settings.splitlines()),
        f'--essential-hook=cp -r --preserve=mode "{staged}/." "$1"/',
        f'--customize-hook={HERE / "customize.sh"} "$1"',
        recipe.release,
        str(tree),
        "-",
    ]
    run(argv, timeout=1800, stdin="".join(f"{line}\n" for line in recipe.sources))

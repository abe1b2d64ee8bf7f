"""What the cache keeps: the images and layers used last, and all that any lab of this machine runs on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from lab.places import Places

LOCK = "images"  # held while something is built or pruned
KEEP_IMAGES = 3
KEEP_LAYERS = 4


def touch(folder: Path) -> None:
    """Note that an image or a layer is used now."""
    os.utime(folder)


def stale(last_used: Mapping[str, float], in_use: Collection[str], keep: int) -> list[str]:
    """Which names may go: neither in use nor among the `keep` used last (name -> time, later is larger)."""
    newest_first = sorted(last_used, key=lambda name: last_used[name], reverse=True)
    return [name for name in newest_first[keep:] if name not in in_use]


def prune(places: Places) -> None:
    """Remove images and layers that nobody needs, and what a killed build left behind; hold LOCK for it."""
    records = [json.loads(path.read_text()) for path in places.states.glob("*/*/host.json")]
    remove_stale(places.layers, {str(record.get("layer")) for record in records}, KEEP_LAYERS)
    layers = entries(places.layers)
    below = {json.loads((folder / "layer.json").read_text())["image"] for folder in layers.values()}
    remove_stale(places.images, below | {str(record.get("image")) for record in records}, KEEP_IMAGES)
    for folder in (places.images, places.layers):
        for leftover in folder.glob(".*"):
            shutil.rmtree(leftover, ignore_errors=True)


def entries(folder: Path) -> dict[str, Path]:
    """The finished directories in a part of the cache, by name."""
    if not folder.is_dir():
        return {}
    return {path.name: path for path in folder.iterdir() if not path.name.startswith(".")}


def remove_stale(folder: Path, in_use: Collection[str], keep: int) -> None:
    """Remove what `stale` names, each by a rename first: a half removed image must not look like one."""
    found = entries(folder)
    for name in stale({name: path.stat().st_mtime for name, path in found.items()}, in_use, keep):
        leaving = folder / f".{name}"
        shutil.rmtree(leaving, ignore_errors=True)
        found[name].rename(leaving)
        shutil.rmtree(leaving)

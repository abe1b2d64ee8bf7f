"""An OCI image layout, a directory or an uncompressed tar of one: which layers it has, in their order.

Source: the OCI image format specification, 1.1 (image-layout, image index, manifest). What docker save (since 25),
podman save and skopeo write. Every blob is read as what its digest says, or not at all.
"""

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from vstools.errors import Refused

_INDEX, _MARK = "index.json", "oci-layout"
_NAMES = re.compile(r"(\./)*(blobs|index\.json|oci-layout|manifest\.json|repositories)?(/|$)")
"""What lies beside the blobs; docker adds the last two."""
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_LAYER = re.compile(r"application/vnd\.(oci\.image\.layer\.v1|docker\.image\.rootfs\.diff)\.tar([.+](gzip|zstd))?")
_ARCH = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64", "ppc64le": "ppc64le", "s390x": "s390x"}
_MOST_JSON, _MOST_LAYERS, _MOST_MEMBERS = 4 << 20, 512, 4096
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Layer:
    """A blob: its SHA-256, and where its bytes are: in ``file`` from ``offset`` on."""

    digest: str
    file: Path
    offset: int
    size: int

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Its bytes are next, and nobody else's file position is moved. The file goes on behind them in an archive."""
        with self.file.open("rb", buffering=0) as handle:
            handle.seek(self.offset)
            yield handle

    def check(self) -> None:
        """Raise Refused unless it is what its digest says."""
        digest, left = hashlib.sha256(), self.size
        with self.opened() as handle:
            while left and (block := handle.read(min(left, _CHUNK))):
                digest.update(block)
                left -= len(block)
        if left or digest.hexdigest() != self.digest:
            raise Refused(f"the image's blob {self.digest[:12]} is damaged", "it is not what its digest says")


@dataclass(frozen=True)
class Image:
    """The layers of an image from the bottom up, and the digest of its manifest, which stands for all of it."""

    layers: tuple[Layer, ...]
    digest: str


def is_image(path: Path) -> bool:
    """Whether this is an image layout. An archive is looked at as far as its names could be those of one."""
    if path.is_dir():
        return (path / _MARK).is_file()
    return path.is_file() and _MARK in _members(path)


def image(path: Path) -> Image:
    """The image that is for this host's machine; raises Refused where there is none, or something is missing."""
    try:
        return _image(path)
    except RecursionError as error:
        raise Refused(f"{path} is no image that can be read", "what describes it is nested too deep") from error


def _image(path: Path) -> Image:
    blobs = _Blobs(path)
    index = blobs.json_of(blobs.named(_INDEX), _INDEX)
    for _ in range(4):  # an index may name another one
        entry = _chosen(index, path)
        digest = _digest(entry)
        found = blobs.json_of(blobs.blob(digest, entry), digest)
        if entry.get("mediaType") not in _INDEXES and "manifests" not in found:
            return Image(tuple(blobs.layer(layer) for layer in _layers(found)), digest)
        index = found
    raise Refused(f"{path} is no image that can be read", "its indexes name each other")


def _chosen(index: dict[str, Any], path: Path) -> dict[str, Any]:
    """The manifest for this host; one without a platform is for everybody."""
    wanted = _ARCH.get(os.uname().machine, os.uname().machine)
    entries = [entry for entry in _list(index, "manifests") if isinstance(entry, dict)]
    there = [entry.get("platform") or {} for entry in entries]
    fits = [entry for entry, platform in zip(entries, there, strict=True)
            if isinstance(platform, dict) and platform.get("architecture", wanted) == wanted
            and platform.get("os", "linux") == "linux"]  # fmt: skip
    if fits and len({_digest(entry) for entry in fits}) == 1:  # docker names an image once for each of its tags
        return fits[0]
    if not fits:
        raise Refused(f"{path} has no image for {wanted}", "choose one for this host")
    raise Refused(f"{path} has {len(fits)} images for {wanted}", "save one of them alone")


def _layers(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    layers = _list(manifest, "layers")
    if not 0 < len(layers) <= _MOST_LAYERS:
        raise Refused(f"the image has {len(layers)} layers", f"1 to {_MOST_LAYERS} can be read")
    for layer in layers:
        if not isinstance(layer, dict) or not _LAYER.fullmatch(str(layer.get("mediaType"))):
            raise Refused(f"the image has a layer of an unknown kind: {str(layer)[:80]!a}", "save it anew")
    return layers


def _list(found: dict[str, Any], key: str) -> list[Any]:
    value = found.get(key)
    if not isinstance(value, list):
        raise Refused(f"the image is damaged: {key} is missing", "save it anew")
    return value


def _digest(entry: dict[str, Any]) -> str:
    match = re.fullmatch(r"sha256:([0-9a-f]{64})", str(entry.get("digest")))
    if match is None:
        raise Refused(f"the image names a blob by {str(entry.get('digest'))[:80]!a}", "SHA-256 is read here")
    return match[1]


class _Blobs:
    """The files of a layout, in a directory or in an archive."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._members = {} if path.is_dir() else _members(path)

    def named(self, name: str) -> Layer:
        if not self._path.is_dir():
            if name not in self._members:
                raise Refused(f"the image {self._path} is not whole: {name} is missing", "save it anew")
            offset, size = self._members[name]
            return Layer("", self._path, offset, size)
        file = self._path / name
        if file.is_symlink() or not file.is_file():
            raise Refused(f"the image {self._path} is not whole: {name} is missing", "save it anew")
        return Layer("", file, 0, file.stat().st_size)

    def blob(self, digest: str, entry: dict[str, Any]) -> Layer:
        found = self.named(f"blobs/sha256/{digest}")
        if entry.get("size") != found.size:
            said = f"{found.size} bytes, not {entry.get('size')}"
            raise Refused(f"the image's blob {digest[:12]} has {said}", "save it anew")
        return Layer(digest, found.file, found.offset, found.size)

    def layer(self, entry: dict[str, Any]) -> Layer:
        return self.blob(_digest(entry), entry)

    def json_of(self, blob: Layer, what: str) -> dict[str, Any]:
        if blob.size > _MOST_JSON:
            raise Refused(f"the image is damaged: {what} has {blob.size} bytes", "save it anew")
        if blob.digest:
            blob.check()
        with blob.opened() as handle:
            try:
                found = json.loads(handle.read(blob.size))
            except (ValueError, RecursionError) as error:
                raise Refused(f"the image is damaged: {what[:12]}", str(error)) from error
        if not isinstance(found, dict):
            raise Refused(f"the image is damaged: {what[:12]} is no object", "save it anew")
        return found


class _Bounded:
    """What tarfile needs of a file; no header is read that takes more memory than an index may."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self.tell, self.seek = handle.tell, handle.seek

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes, fewer at the end."""
        if size > _MOST_JSON:
            raise tarfile.ReadError("a header is too long")
        return self._handle.read(size)


def _members(path: Path) -> dict[str, tuple[int, int]]:
    """Name -> offset and size of an uncompressed archive's regular files; empty for one that is no layout."""
    found: dict[str, tuple[int, int]] = {}
    try:
        with path.open("rb") as handle, tarfile.open(fileobj=cast("IO[bytes]", _Bounded(handle)), mode="r:") as archive:
            for count, member in enumerate(archive):
                name = member.name.removeprefix("./")
                if count > _MOST_MEMBERS or not _NAMES.match(name if name != "." else "./"):
                    return {}
                if member.isreg() and not member.sparse:
                    found[name] = (member.offset_data, member.size)
    except (OSError, tarfile.TarError, UnicodeError, ValueError, OverflowError):
        return {}
    return found

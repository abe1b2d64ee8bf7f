"""OCI image layouts for tests, written by hand from the specification."""

import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
Entry = str | None | tuple[str, str]
"""A file's text, None for a directory, ("link" or "hard", target), or ("device", "")."""


def layer(members: Iterable[tuple[str, Entry]]) -> bytes:
    """A layer's tar."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.mode = 0o755
            if content is None:
                member.type = tarfile.DIRTYPE
            elif isinstance(content, tuple):
                kinds = {"link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "device": tarfile.CHRTYPE}
                member.type, member.linkname = kinds[content[0]], content[1]
            else:
                member.size = len(content.encode())
            tar.addfile(member, io.BytesIO(content.encode()) if isinstance(content, str) else None)
    return stream.getvalue()


def blob(folder: Path, content: bytes) -> dict[str, Any]:
    """Write a blob; how it is named."""
    digest = hashlib.sha256(content).hexdigest()
    (folder / "blobs/sha256").mkdir(parents=True, exist_ok=True)
    (folder / "blobs/sha256" / digest).write_bytes(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def layout(
    folder: Path, layers: Iterable[bytes], *, compress: str = "", platform: Mapping[str, str] | None = None,
    nested: bool = False,
) -> Path:  # fmt: skip
    """Write an image of these layers into the directory ``folder``; ``nested``: by an index within the index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    records = []
    for content in layers:
        packed = content
        if compress == "gzip":
            packed = gzip.compress(content)
        elif compress == "zstd":
            packed = subprocess.run(["zstd", "-qc"], input=content, capture_output=True, check=True).stdout
        kind = "application/vnd.oci.image.layer.v1.tar" + (f"+{compress}" if compress else "")
        records.append({"mediaType": kind, **blob(folder, packed)})
    config = blob(folder, json.dumps({"architecture": ARCH, "os": "linux"}).encode())
    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **config}, "layers": records,
    }  # fmt: skip
    entry = {"mediaType": manifest["mediaType"], **blob(folder, json.dumps(manifest).encode())}
    if platform is not None:
        entry["platform"] = dict(platform)
    index: dict[str, Any] = {"schemaVersion": 2, "manifests": [entry]}
    if nested:
        kind = "application/vnd.oci.image.index.v1+json"
        index = {"schemaVersion": 2, "manifests": [{"mediaType": kind, **blob(folder, json.dumps(index).encode())}]}
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def packed(folder: Path, archive: Path) -> Path:
    """A layout as one archive, as ``docker save`` and ``skopeo copy oci-archive:`` write it."""
    with tarfile.open(archive, "w") as tar:
        for name in sorted(os.listdir(folder)):
            tar.add(folder / name, name)
    return archive

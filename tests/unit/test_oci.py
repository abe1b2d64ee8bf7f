"""OCI image layouts: what is one, and that whatever an index or a manifest says is an image or a sentence."""

import json
import os
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import images
from vstools.errors import Refused
from vstools.tree import oci, unpack


def test_a_layout_is_known_by_its_names(tmp_path: Path) -> None:
    image = images.layout(tmp_path / "image", [images.layer([("a", "x")]), images.layer([("b", "y")])])
    archive = images.packed(image, tmp_path / "image.tar")
    assert oci.is_image(image)
    assert oci.is_image(archive)
    assert [len(oci.image(path).layers) for path in (image, archive)] == [2, 2]
    assert oci.image(image).digest == oci.image(archive).digest
    unpack.check_archive(image)
    unpack.check_archive(archive)


def test_a_tree_that_has_such_names_among_others_is_no_layout(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "oci-layout").write_text("{}")
    archive = tmp_path / "root.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ("./oci-layout", "./etc"):
            tar.add(tmp_path / name, name)
    assert not oci.is_image(archive)
    assert not oci.is_image(tmp_path / "etc")
    assert not oci.is_image(tmp_path / "none")


def test_a_blob_that_is_a_link_is_none(tmp_path: Path) -> None:
    image = images.layout(tmp_path / "image", [images.layer([("a", "x")])])
    for blob in (image / "blobs/sha256").iterdir():
        blob.rename(tmp_path / blob.name)
        blob.symlink_to(tmp_path / blob.name)
    with pytest.raises(Refused, match="is not whole"):
        oci.image(image)


def test_a_header_without_an_end_takes_no_memory(tmp_path: Path) -> None:
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 1 << 40
    bomb = tmp_path / "bomb.tar"
    bomb.write_bytes(member.tobuf(tarfile.GNU_FORMAT))
    os.truncate(bomb, 300 << 20)
    tracemalloc.start()
    try:
        assert not oci.is_image(bomb)
        with (
            (tmp_path / "sink").open("wb") as sink,
            unpack.stream_of(bomb, sink, lambda _: None) as stream,
            pytest.raises(tarfile.ReadError, match="more than a MiB"),
        ):
            list(unpack.members(stream))
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_indexes_that_name_each_other_are_refused(tmp_path: Path) -> None:
    image = images.layout(tmp_path / "image", [])
    for _ in range(6):
        entry: dict[str, Any] = {"mediaType": "application/vnd.oci.image.index.v1+json"}
        entry |= images.blob(image, (image / "index.json").read_bytes())
        (image / "index.json").write_text(json.dumps({"manifests": [entry]}))
    with pytest.raises(Refused, match="its indexes name each other"):
        oci.image(image)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["manifests", "digest", "size", "platform", "layers", "mediaType"]), inner),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(anything)
def test_any_index_is_an_image_or_a_sentence(tmp_path: Path, content: object) -> None:
    image = images.layout(tmp_path / "image", [])
    (image / "index.json").write_text(json.dumps(content))
    with pytest.raises(Refused):
        oci.image(image)
    manifest = images.blob(image, json.dumps(content).encode())
    (image / "index.json").write_text(json.dumps({"manifests": [manifest]}))
    with pytest.raises(Refused):
        oci.image(image)
    for blob in (image / "blobs/sha256").iterdir():
        os.unlink(blob)

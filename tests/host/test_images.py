"""Guests from images: OCI layouts, as directories and archives, and root file systems of LXC and Proxmox."""

import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from conftest import Host, create

from tests import images
from tests.images import ARCH, layer, layout


def system(small: Path) -> bytes:
    """The lowest layer: a whole small system."""
    return small.read_bytes()


@pytest.mark.parametrize("compress", ["", "gzip", "zstd"])
@pytest.mark.parametrize("kind", ["directory", "archive"])
def test_a_guest_from_an_image_of_layers(host: Host, small: Path, tmp_path: Path, kind: str, compress: str) -> None:
    more = [
        layer([("opt", None), ("opt/one", "1"), ("opt/two", "2"), ("opt/dir", None), ("opt/dir/a", "a"),
               ("opt/link", ("link", "/etc")), ("opt/was", None), ("opt/was/x", "x"), ("root/sda", ("device", ""))]),
        layer([("opt/.wh.one", ""), ("opt/dir/.wh..wh..opq", ""), ("opt/dir/b", "b"), ("opt/two", "2nd"),
               ("opt/link", None), ("opt/link/passwd", "mine"), ("opt/was", "a file"),
               ("opt/hard", ("hard", "opt/two"))]),
        layer([("opt/.wh.none", ""), ("opt/last", "3")]),
    ]  # fmt: skip
    image = layout(tmp_path / "image", [system(small), *more], compress=compress, nested=kind == "archive",
                   platform={"architecture": ARCH, "os": "linux"})  # fmt: skip
    if kind == "archive":
        image = images.packed(image, tmp_path / "image.tar")
    done = create(host, "web", 10, image)
    assert done.code == 0, done
    tree = host.trees / "web"
    assert sorted(os.listdir(tree / "opt")) == ["dir", "hard", "last", "link", "two", "was"]
    assert os.listdir(tree / "opt/dir") == ["b"]
    assert (tree / "opt/two").read_text() == (tree / "opt/hard").read_text() == "2nd"
    assert (tree / "opt/was").read_text() == "a file"
    assert (tree / "opt/link/passwd").read_text() == "mine"
    assert "mine" not in (tree / "etc/passwd").read_text()
    assert not (tree / "root/sda").exists()
    assert list(tree.rglob(".wh*")) == []
    host.ok("vs-control", "--name", "web", "--start")
    assert host.inside("web", "cat /opt/last").out == "3"
    left = host.trees / ".imports"
    assert not left.exists() or not list(left.iterdir())


def test_a_compressed_layout_is_refused_with_what_to_do(host: Host, small: Path, tmp_path: Path) -> None:
    image = images.packed(layout(tmp_path / "image", [system(small)]), tmp_path / "image.tar")
    subprocess.run(["gzip", image], check=True)
    done = create(host, "web", 10, tmp_path / "image.tar.gz")
    assert (done.code, "take the compression away" in done.err) == (2, True), done


def test_an_image_of_a_program_is_made_and_said_to_have_no_init(host: Host, tmp_path: Path) -> None:
    image = layout(tmp_path / "image", [layer([("bin", None), ("bin/nginx", "x"), ("etc", None)])])
    done = create(host, "web", 10, image)
    assert (done.code, "has no /sbin/init" in done.err) == (0, True), done


def hostile(outside: Path) -> dict[str, tuple[list[list[tuple[str, images.Entry]]], str]]:
    """Layers that would touch the host, and what is said of them."""
    to_host = [("x", ("link", str(outside)))]
    return {
        "a link to the host": ([to_host, [("x/kept", "x")]], "through a link of its own"),
        "a whiteout through a link": ([to_host, [("x/.wh.kept", "")]], "through a link of its own"),
        "all of a directory through a link": ([to_host, [("x/.wh..wh..opq", "")]], "through a link of its own"),
        "a way out": ([[("../x", "x")]], "leads outside"),
        "an absolute whiteout": ([[(f"{outside}/.wh.kept", "")]], "the absolute name"),
        "a way out by a whiteout": ([[("a/../../.wh.kept", "")]], "leads outside"),
        "a whiteout of what is above": ([[("a", None), ("a/.wh...", ""), ("../.wh.x", "")]], "leads outside"),
        "a hard link out of a layer": ([to_host, [("y", ("hard", "x/kept"))]], "through a link of its own"),
        "no layer": ([], "has 0 layers"),
    }  # fmt: skip


@pytest.mark.parametrize("what", hostile(Path("/x")))
def test_a_hostile_image_is_refused_and_leads_nowhere(host: Host, tmp_path: Path, outside: Path, what: str) -> None:
    members, sentence = hostile(outside)[what]
    image = layout(tmp_path / "image", [layer(each) for each in members])
    before = host.state()
    done = create(host, "web", 10, image)
    assert (done.code, sentence in done.err, done.err.count("\n")) == (2, True, 1), done
    assert host.state() == before
    assert host.leftovers() == []


def spoiled(image: Path, what: str) -> None:
    """Damage a layout in one way."""
    index = json.loads((image / "index.json").read_text())
    digest = index["manifests"][0]["digest"].partition(":")[2]
    manifest = json.loads((image / "blobs/sha256" / digest).read_text())
    blob = image / "blobs/sha256" / manifest["layers"][0]["digest"].partition(":")[2]
    if what == "a changed layer":
        content = bytearray(blob.read_bytes())
        content[600] ^= 1
        blob.write_bytes(content)
    elif what == "a missing layer":
        blob.unlink()
    elif what == "a changed manifest":
        path = image / "blobs/sha256" / digest
        path.write_bytes(path.read_bytes().replace(b'"schemaVersion": 2', b'"schemaVersion": 3'))
    elif what == "a digest with a path":
        index["manifests"][0]["digest"] = "sha256:../../../etc/passwd"
    elif what == "another machine":
        index["manifests"][0]["platform"] = {"architecture": "vax", "os": "linux"}
    elif what == "two of a kind":
        other = json.dumps({**manifest, "annotations": {"other": "one"}}).encode()
        index["manifests"].append({**index["manifests"][0], **images.blob(image, other)})
    elif what == "no index":
        index = []
    (image / "index.json").write_text(json.dumps(index))


DAMAGE = {
    "a changed layer": "is damaged: it is not what its digest says",
    "a missing layer": "is not whole", "a changed manifest": "is damaged", "a digest with a path": "names a blob by",
    "another machine": "has no image for", "two of a kind": "has 2 images for", "no index": "is no object",
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_image_is_refused(host: Host, small: Path, tmp_path: Path, what: str) -> None:
    image = layout(tmp_path / "image", [system(small)])
    spoiled(image, what)
    before = host.state()
    done = create(host, "web", 10, image)
    assert (done.code, DAMAGE[what] in done.err, done.err.count("\n")) == (2, True, 1), done
    assert host.state() == before


def test_what_a_killed_command_unpacked_is_removed_by_the_next_one(host: Host, small: Path, tmp_path: Path) -> None:
    image = images.packed(layout(tmp_path / "image", [system(small)]), tmp_path / "image.tar")
    assert create(host, "web", 10, image, VS_TOOLS_FAULT="template:unpacked").code == -9
    assert len(list((host.trees / ".imports").iterdir())) == 1
    host.ok("vs-control", "--all", "--stop")
    assert not list((host.trees / ".imports").iterdir())


def test_an_image_that_expands_leaves_the_other_guests_room(host: Host, small: Path, tmp_path: Path) -> None:
    image = layout(tmp_path / "image", [system(small), layer([("much", "x" * (200 << 20))])], compress="gzip")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m,mode=700", "trees", host.trees], check=True)
    try:
        done = create(host, "web", 10, image)
        assert (done.code, "MiB free: the copy ended: make room" in done.err) == (1, True), done
        assert sorted(os.listdir(host.trees)) in ([], ["TEMPLATES"])
    finally:
        subprocess.run(["umount", host.trees], check=True)


def test_an_image_with_two_tags_is_one(host: Host, small: Path, tmp_path: Path) -> None:
    image = layout(tmp_path / "image", [system(small)])
    index = json.loads((image / "index.json").read_text())
    index["manifests"] *= 2
    (image / "index.json").write_text(json.dumps(index))
    assert create(host, "web", 10, image).code == 0


def test_what_a_layer_replaces_is_replaced_and_nothing_else(host: Host, small: Path, tmp_path: Path) -> None:
    deep = "/".join(["opt/deep", *("d" for _ in range(1500))])
    low = [("opt", None), ("opt/file", "a"), ("opt/one", "1"), ("opt/same", ("hard", "opt/one")), (deep, None)]
    high = [("opt/file", None), ("opt/file/x", "x"), ("opt/one", "2"), ("opt/.wh.deep", ""), ("opt/.wh.none", "")]
    image = layout(tmp_path / "image", [system(small), layer(low), layer(high)])
    done = create(host, "web", 10, images.packed(image, tmp_path / "image.tar"))
    assert done.code == 0, done
    tree = host.trees / "web/opt"
    assert (tree / "file/x").read_text() == "x"
    assert ((tree / "one").read_text(), (tree / "same").read_text()) == ("2", "1")
    assert not (tree / "deep").exists()


def test_an_impossible_name_is_refused(host: Host, small: Path, tmp_path: Path) -> None:
    image = layout(tmp_path / "image", [system(small), layer([(f"opt/{'x' * 300}", "x")])])
    before = host.state()
    done = create(host, "web", 10, image)
    assert (done.code, done.err.count("\n")) == (2, 1), done
    assert host.state() == before


def test_a_root_file_system_of_proxmox_is_a_template(host: Host, small: Path, tmp_path: Path) -> None:
    """As ``vzdump`` and ``pveam`` have them: device nodes, a configuration of its own, other compression."""
    archive = tmp_path / "debian-12-standard_12.7-1_amd64.tar.zst"
    plain = tmp_path / "plain.tar"
    plain.write_bytes(small.read_bytes())
    with tarfile.open(plain, "a") as tar:
        for name, kind in (("./dev/null", tarfile.CHRTYPE), ("./etc/vzdump", tarfile.DIRTYPE)):
            member = tarfile.TarInfo(name)
            member.type = kind
            tar.addfile(member)
    subprocess.run(["zstd", "-q", plain, "-o", archive], check=True)
    done = create(host, "web", 10, archive)
    assert (done.code, "1 device nodes of the template were left out" in done.err) == (0, True), done
    host.ok("vs-control", "--name", "web", "--start")

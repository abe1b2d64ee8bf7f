"""What an archive may hold: each kind of hostile one is refused, and tar sees no header that was not checked."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstools.errors import Refused
from vstools.tree import checker as checks
from vstools.tree import unpack
from vstools.tree.checker import Checker
from vstools.tree.stream import Stream

Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **fields: object) -> Member:
    """One member of an archive."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def folder(name: str) -> Member:
    return member(name, tarfile.DIRTYPE)


def symlink(name: str, target: str) -> Member:
    return member(name, tarfile.SYMTYPE, linkname=target)


def hardlink(name: str, target: str) -> Member:
    return member(name, tarfile.LNKTYPE, linkname=target)


def archive(*members: Member, kind: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar archive of these members."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=kind) as made:
        for info, content in members:
            made.addfile(info, io.BytesIO(content))
    return target.getvalue()


def checked(content: bytes) -> tuple[Checker, list[str]]:
    """The checker after an archive, and the names that it accepted."""
    checker = Checker()
    with tarfile.open(fileobj=io.BytesIO(content)) as members:
        return checker, [found.name for found in members if checker.accept(checks.Member.of(found))]


def copied(path: Path, content: bytes) -> tarfile.TarFile:
    """The archive that tar would be given."""
    path.write_bytes(content)
    sink = io.BytesIO()
    with path.open("rb", buffering=0) as raw:
        stream = Stream(raw, raw, sink, lambda _: None)
        unpack.copy_members(stream, Checker())
        stream.write(bytes(1024))
    sink.seek(0)
    return tarfile.open(fileobj=sink)


SYSTEM = (
    folder("./"),
    folder("./bin"),
    member("./bin/sh", content=b"#!", mode=0o755),
    symlink("./bin/dash", "sh"),
    hardlink("./bin/bash", "./bin/sh"),
    hardlink("./bin/ash", "./bin/dash"),
    folder("./etc"),
    symlink("./etc/localtime", "/usr/share/zoneinfo/Etc/UTC"),
    symlink("./etc/mtab", "../proc/self/mounts"),
    member("./run/initctl", tarfile.FIFOTYPE),
    member("./etc/d\u00e9j\u00e0 vu", content=b"x" * 513),
)


def test_an_honest_system_is_accepted_whole() -> None:
    checker, names = checked(archive(*SYSTEM))
    assert len(names) == checker.members == len(SYSTEM)
    assert checker.devices == 0


def test_device_nodes_are_left_out_and_counted() -> None:
    devices = (member("dev/null", tarfile.CHRTYPE), member("dev/sda", tarfile.BLKTYPE))
    checker, names = checked(archive(folder("dev"), *devices, member("dev/file")))
    assert (checker.devices, names) == (2, ["dev", "dev/file"])


HOSTILE: dict[str, tuple[tuple[Member, ...], str]] = {
    "an absolute name": ((member("/etc/passwd"),), "absolute name '/etc/passwd'"),
    "a name that leads outside": ((member("../etc/passwd"),), "leads outside: '../etc/passwd'"),
    "a name that leads outside at its end": (
        (
            folder("a"),
            folder("a/.."),
        ),
        "leads outside: 'a/..'",
    ),
    "a name that leads outside within": ((member("a/../../etc/passwd"),), "leads outside"),
    "an absolute directory": ((folder("/etc"),), "absolute name"),
    "an absolute device": ((member("/dev/sda", tarfile.BLKTYPE),), "absolute name"),
    "a device outside": ((member("../sda", tarfile.BLKTYPE),), "leads outside"),
    "an absolute symbolic link's own name": ((symlink("/etc/x", "y"),), "absolute name"),
    "a hard link to an absolute name": ((hardlink("x", "/etc/shadow"),), "hard link with the absolute name"),
    "a hard link to a name outside": ((hardlink("x", "../../etc/shadow"),), "hard link that leads outside"),
    "a hard link through a link": (
        (symlink("a", "/etc"), hardlink("x", "a/shadow")),
        "would write 'a/shadow' through a link of its own",
    ),
    "a file through a link": ((symlink("a", "/etc"), member("a/passwd")), "would write 'a/passwd' through a link"),
    "a file through a link with dots": ((symlink("./a", "/etc"), member("a/./passwd")), "through a link of its own"),
    "a file through a link deep down": (
        (folder("a"), symlink("a/b", "../.."), member("a/b/c/d/e")),
        "would write 'a/b/c/d/e' through a link",
    ),
    "a device through a link": (
        (symlink("a", "/dev"), member("a/sda", tarfile.BLKTYPE)),
        "would write 'a/sda' through a link",
    ),
    "a link through a link": ((symlink("a", "/etc"), symlink("a/x", "y")), "would write 'a/x' through a link"),
    "a directory that becomes a link": (
        (folder("a"), symlink("a", "/etc"), member("a/passwd")),
        "would write 'a/passwd' through a link",
    ),
    "a link that is a hard link to a link": (
        (symlink("a", "/etc"), hardlink("b", "a"), member("b/passwd")),
        "would write 'b/passwd' through a link",
    ),
    "a hard link to a hard link to a link": (
        (symlink("a", "/etc"), hardlink("b", "a"), hardlink("c", "./b"), member("c/passwd")),
        "would write 'c/passwd' through a link",
    ),
    "a file in place of a link": ((symlink("a", "/etc/passwd"), member("a")), "would write 'a' through a link"),
    "a directory in place of a link": ((symlink("a", "/etc"), folder("a/")), "would write 'a' through a link"),
    "a hard link in place of a link": (
        (member("f"), symlink("a", "/etc/passwd"), hardlink("a", "f")),
        "would write 'a' through a link",
    ),
    "a root that is a link": ((symlink("./", "/etc"), member("passwd")), "root is no directory"),
    "a root that is a file": ((member("."),), "root is no directory"),
    "a name that ends elsewhere for tar": (
        (symlink("a", "/etc"), member("a\0b/passwd")),
        "impossible name 'a\\x00b/passwd'",
    ),
    "a hard link to a name that ends elsewhere for tar": (
        (symlink("a", "/etc"), hardlink("b", "a\0x")),
        "impossible name 'a\\x00x'",
    ),
    "a name of dots that tar would shorten": ((member("..\0"),), "impossible name"),
    "ids past the guest's own": ((member("a", uid=65536),), "'a' belongs to 65536:0"),
    "ids of a shifted tree": ((folder("a"), member("a/b", uid=655360000, gid=655360000)), "belongs to 655360000"),
    "a group past the guest's own": ((member("a", gid=65536),), "belongs to 0:65536"),
    "an unknown type": ((member("a", b"Q"),), "of the unknown type b'Q'"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_before_its_member_is_written(kind: str, tmp_path: Path) -> None:
    members, sentence = HOSTILE[kind]
    content = raw_archive(*members)
    with pytest.raises(Refused) as caught:
        checked(content)
    assert sentence in caught.value.message
    assert caught.value.exit_code == 2
    with pytest.raises(Refused):
        copied(tmp_path / "archive.tar", content)


def raw_archive(*members: Member) -> bytes:
    """An archive whose names are as given, also those that tarfile would not write: they go into pax headers."""
    made = b""
    for info, content in members:
        names = {"path": info.name, "linkpath": info.linkname}
        info.pax_headers = {key: name for key, name in names.items() if "\0" in name}
        info.name, info.linkname = info.name.replace("\0", "0"), info.linkname.replace("\0", "0")
        made += info.tobuf(tarfile.PAX_FORMAT) + content
    return made + bytes(1024)


def test_negative_ids_are_refused() -> None:
    checker = Checker()
    info, _ = member("a", uid=-1)
    with pytest.raises(Refused, match="belongs to -1:0"):
        checker.accept(checks.Member.of(info))


def test_what_tar_is_given_is_what_was_checked_and_nothing_else(tmp_path: Path) -> None:
    with copied(tmp_path / "a.tar", archive(*SYSTEM)) as given_to_tar:
        found = {info.name: info for info in given_to_tar}
        assert list(found) == [info.name.removesuffix("/") for info, _ in SYSTEM]
        assert found["./bin/dash"].linkname == "sh"
        assert found["./bin/bash"].linkname == "./bin/sh"
        assert found["./bin/sh"].mode == 0o755
        assert given_to_tar.extractfile("./etc/d\u00e9j\u00e0 vu").read() == b"x" * 513
    assert not [path for path in tmp_path.iterdir() if path.name != "a.tar"]


def test_extended_attributes_come_through_and_no_other_header_does(tmp_path: Path) -> None:
    headers = {
        "SCHILY.xattr.security.capability": "\x01\x00",
        "path": "bin/ping",
        "comment": "x",
        "GNU.sparse.name": "elsewhere",
        "atime": "1.5",
    }
    content = archive(member("bin/ping", content=b"elf", pax_headers=headers))
    with copied(tmp_path / "a.tar", content) as given_to_tar:
        (found,) = given_to_tar
    kept = {key for key in found.pax_headers if key not in ("path", "linkpath")}
    assert kept == {"SCHILY.xattr.security.capability"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_what_has_no_content_claims_none(tmp_path: Path, kind: bytes) -> None:
    info, _ = member("a", kind, linkname="b")
    info.size = 512
    following = member("next")[0].tobuf().ljust(512, b"\0")
    with copied(tmp_path / "a.tar", info.tobuf() + following + bytes(1024)) as given_to_tar:
        assert [(found.name, found.size) for found in given_to_tar] == [("a", 0), ("next", 0)]


def test_sparse_files_arrive_whole(tmp_path: Path) -> None:
    info, _ = member("image", size=1024)
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "2048"}
    table = b"1\n1536\n512\n".ljust(512, b"\0")
    content = info.tobuf(tarfile.PAX_FORMAT) + table + b"x" * 512 + bytes(1024)
    with copied(tmp_path / "a.tar", content) as given_to_tar:
        (found,) = given_to_tar
        data = given_to_tar.extractfile(found)
        assert (found.type, found.size) == (tarfile.REGTYPE, 2048)
        assert data.read() == bytes(1536) + b"x" * 512


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:600],
        lambda content: content[: 512 + 256],
        lambda content: content[:1024] + b"garbage!" * 64 + content[1024:],
        lambda content: content[:148] + b"0000000\0" + content[156:],
    ],
)
def test_a_damaged_archive_is_an_error(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    content = archive(member("a", content=b"x" * 512), member("b", content=b"y" * 512), kind=tarfile.GNU_FORMAT)
    with pytest.raises(tarfile.TarError):
        copied(tmp_path / "a.tar", damage(content))


PARTS = st.sampled_from(["a", "b", "c", ".", "..", "", "a\0"])
NAMES = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
TYPES = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])


@given(members=st.lists(st.tuples(NAMES, TYPES, NAMES), max_size=12))
def test_no_accepted_member_is_ever_written_through_a_link(members: list[tuple[str, bytes, str]]) -> None:
    """Against a model of a file system: every directory on the way to a member is a real one inside."""
    checker, links = Checker(), set()
    for name, kind, target in members:
        info, _ = member(name, kind, linkname=target)
        try:
            accepted = checker.accept(info)
        except Refused:
            return
        assert accepted
        path = os.path.normpath(name or ".")
        assert not path.startswith(("/", ".."))
        assert "\0" not in name
        for length in range(1, len(path.split("/"))):
            assert "/".join(path.split("/")[:length]) not in links
        if kind == tarfile.SYMTYPE or (kind == tarfile.LNKTYPE and os.path.normpath(target or ".") in links):
            links.add(path)


def test_an_archive_is_known_by_its_first_bytes_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "template"
    heads = {
        b"\x1f\x8b\x08": "gzip",
        b"\xfd7zXZ\x00": "xz",
        b"\x28\xb5\x2f\xfd": "zstd",
        archive(*SYSTEM): None,
        archive(*SYSTEM, kind=tarfile.GNU_FORMAT): None,
    }
    for head, program in heads.items():
        path.write_bytes(head)
        unpack.check_archive(path)
        assert (*unpack.decompressor(path), None)[0] == program


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "does not exist"), (b"", "is empty or no file"), (b"PK\x03\x04" * 200, "is no tar archive")],
)
def test_what_cannot_be_a_template_is_refused_at_once(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    path = tmp_path / "template.tar"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Refused, match=sentence):
        unpack.check_archive(path)


def test_a_directory_or_a_pipe_is_no_template(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(Refused, match="is empty or no file"):
            unpack.check_archive(path)


@pytest.mark.parametrize(
    ("name", "program"),
    [("a.tar", None), ("a.tar.gz", "gzip"), ("a.tgz", "gzip"), ("a.tar.xz", "xz"), ("a.tar.zst", "zstd")],
)
def test_a_new_template_is_compressed_as_its_name_says(name: str, program: str | None) -> None:
    found = unpack.compressor(Path(name))
    assert (*found, None)[0] == program
    assert "-dc" not in found


@pytest.mark.parametrize("name", ["a", "a.zip", "a.tar.bz2", "tar", "a.gz"])
def test_a_template_of_an_unknown_kind_is_refused(name: str) -> None:
    with pytest.raises(Refused, match="names no kind of archive"):
        unpack.compressor(Path(name))

"""Reading and writing inside a guest's tree: nothing in it leads out of it."""

import ctypes
import errno
import os
from pathlib import Path

import pytest

from vstools import inside as module
from vstools.inside import Inside

from .made import below


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A guest's tree, beside files of the host."""
    (tmp_path / "host/private").mkdir(parents=True)
    (tmp_path / "host/private").chmod(0o700)
    (tmp_path / "host/secret").write_text("the host's own\n")
    (tmp_path / "host/private/key").write_text("a key\n")
    (tmp_path / "tree/etc").mkdir(parents=True)
    return tmp_path / "tree"


@pytest.fixture
def outside(tree: Path) -> Path:
    """The host's files, which have to stay as they are."""
    return tree.parent / "host"


@pytest.fixture
def inside(tree: Path, outside: Path):
    before = below(outside)
    with Inside(tree) as opened:
        yield opened
    assert below(outside) == before, "the host was touched"


def test_a_file_is_written_with_its_mode_and_given_to_root(
    inside: Inside, tree: Path, owners: list[tuple[str, int, int]]
) -> None:
    inside.write("etc/shadow", "root:*\n", 0o640, group=42)
    assert (tree / "etc/shadow").read_text() == "root:*\n"
    assert (tree / "etc/shadow").stat().st_mode & 0o7777 == 0o640
    assert [(uid, gid) for _, uid, gid in owners] == [(0, 42)]
    assert [path.name for path in (tree / "etc").iterdir()] == ["shadow"]


def test_directories_on_the_way_are_made_and_those_that_are_there_keep_their_mode(inside: Inside, tree: Path) -> None:
    (tree / "etc").chmod(0o711)
    inside.write("etc/a/b/file", "x")
    inside.directory("etc", 0o700)
    inside.directory("tmp", 0o1777)
    modes = {name: (tree / name).stat().st_mode & 0o7777 for name in ("etc", "etc/a", "etc/a/b", "tmp")}
    assert modes == {"etc": 0o711, "etc/a": 0o755, "etc/a/b": 0o755, "tmp": 0o1777}


def test_a_file_that_is_a_link_to_the_host_is_replaced_not_followed(inside: Inside, tree: Path, outside: Path) -> None:
    (tree / "etc/resolv.conf").symlink_to(outside / "secret")
    inside.write("etc/resolv.conf", "nameserver 10.0.3.5\n")
    assert not (tree / "etc/resolv.conf").is_symlink()
    assert (tree / "etc/resolv.conf").read_text() == "nameserver 10.0.3.5\n"


@pytest.mark.parametrize(
    "target", ["{outside}/private", "../../host/private", "/../../host/private", "../../../../host"]
)
def test_a_directory_that_is_a_link_to_the_host_is_taken_from_the_trees_own_root(
    inside: Inside, tree: Path, outside: Path, target: str
) -> None:
    (tree / "etc").rmdir()
    (tree / "etc").symlink_to(target.format(outside=outside))
    with pytest.raises(FileExistsError):
        inside.write("etc/hostname", "web\n")
    with pytest.raises(FileExistsError):
        inside.directory("etc", 0o755)
    inside.remove("etc/key")
    assert inside.read("etc/key") is None
    assert inside.names("etc") == ()
    assert not inside.exists("etc/key")


def test_an_absolute_link_within_the_tree_leads_within_the_tree(inside: Inside, tree: Path) -> None:
    (tree / "run").mkdir()
    (tree / "var").mkdir()
    (tree / "var/run").symlink_to("/run")
    (tree / "up").symlink_to("../../../../run")
    inside.write("var/run/one", "1")
    inside.write("up/two", "2")
    assert inside.names("run") == ("one", "two")
    assert (inside.read("var/run/two"), inside.read("/../../run/one")) == ("2", "1")


def test_a_magic_link_of_proc_is_not_followed(inside: Inside, tree: Path) -> None:
    (tree / "etc/shadow").symlink_to("/proc/self/root/etc/shadow")
    (tree / "proc").symlink_to("/proc")
    assert inside.read("etc/shadow") is None
    assert inside.read("proc/self/status") is None


def test_reading_follows_links_within_the_tree(inside: Inside, tree: Path) -> None:
    (tree / "etc/real").write_text("text")
    (tree / "etc/link").symlink_to("/etc/real")
    assert inside.read("etc/link") == "text"


def make_fifo(path: Path) -> None:
    """A pipe that nobody writes to: opening it would wait for ever."""
    os.mkfifo(path)


def make_loop(path: Path) -> None:
    """A link to itself."""
    path.symlink_to(path.name)


def make_socket(path: Path) -> None:
    """A socket (made by name: addresses are too short for temporary directories)."""
    import socket

    here = os.open(path.parent, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{here}/{path.name}")
    os.close(here)


NO_FILES = {
    "nothing": lambda path: None,
    "a directory": Path.mkdir,
    "a pipe": make_fifo,
    "a loop": make_loop,
    "a socket": make_socket,
    "a link to a directory": lambda path: path.symlink_to("/etc"),
    "a link to nowhere": lambda path: path.symlink_to("/no/where"),
    "a link to a name too long": lambda path: path.symlink_to("x" * 300),
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_read_as_nothing_and_copied_as_nothing(inside: Inside, tree: Path, kind: str) -> None:
    NO_FILES[kind](tree / "etc/thing")
    copy = tree.parent / "copy"
    assert inside.read("etc/thing") is None
    assert inside.copy_out("etc/thing", copy, 100) is False
    assert not copy.exists(), "the next copy takes this name"


@pytest.mark.parametrize("kind", [kind for kind in NO_FILES if kind not in ("nothing", "a directory")])
def test_what_is_no_directory_is_replaced_by_what_is_written(inside: Inside, tree: Path, kind: str) -> None:
    NO_FILES[kind](tree / "etc/thing")
    inside.write("etc/thing", "text")
    assert (tree / "etc/thing").lstat().st_mode & 0o170000 == 0o100000
    assert (tree / "etc/thing").read_text() == "text"


def test_a_directory_in_place_of_a_file_is_an_error_that_leaves_nothing_beside_it(inside: Inside, tree: Path) -> None:
    (tree / "etc/hostname").mkdir()
    with pytest.raises(IsADirectoryError):
        inside.write("etc/hostname", "web\n")
    with pytest.raises(IsADirectoryError):
        inside.link("etc/hostname", "/dev/null")
    assert inside.names("etc") == ("hostname",)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(inside: Inside, tree: Path) -> None:
    (tree / "etc/hostname").write_text("old\n")
    with pytest.raises(UnicodeEncodeError):
        inside.write("etc/hostname", "new\ud800\n")
    assert (inside.names("etc"), inside.read("etc/hostname")) == (("hostname",), "old\n")


def test_links_are_written_as_the_guest_shall_read_them(inside: Inside, tree: Path, outside: Path) -> None:
    (tree / "etc/localtime").symlink_to(outside / "secret")
    inside.link("etc/localtime", "/usr/share/zoneinfo/Etc/UTC")
    assert os.readlink(tree / "etc/localtime") == "/usr/share/zoneinfo/Etc/UTC"


def test_remove_takes_files_and_links_and_leaves_directories(inside: Inside, tree: Path, outside: Path) -> None:
    (tree / "etc/link").symlink_to(outside / "secret")
    (tree / "etc/file").write_text("x")
    (tree / "etc/folder").mkdir()
    for name in ("link", "file", "folder", "missing", "file/below"):
        inside.remove(f"etc/{name}")
    assert inside.names("etc") == ("folder",)


def test_exists_is_about_the_name_itself(inside: Inside, tree: Path) -> None:
    (tree / "etc/dangling").symlink_to("/no/where")
    assert [inside.exists(name) for name in ("etc", "etc/dangling", "etc/missing", "no/where")] == [
        True,
        True,
        False,
        False,
    ]


def test_no_more_is_read_than_asked_for(inside: Inside, tree: Path) -> None:
    (tree / "etc/long").write_text("0123456789")
    assert inside.read("etc/long", limit=4) == "0123"


def test_bytes_that_are_no_text_come_through_reading_and_writing(inside: Inside, tree: Path) -> None:
    (tree / "etc/inittab").write_bytes(b"# d\xe9marrage\n")
    inside.write("etc/inittab", inside.read("etc/inittab") or "")
    assert (tree / "etc/inittab").read_bytes() == b"# d\xe9marrage\n"


def test_a_copy_is_whole_or_none(inside: Inside, tree: Path) -> None:
    (tree / "etc/journal").write_bytes(b"x" * 100)
    copy = tree.parent / "copy"
    assert inside.copy_out("etc/journal", copy, 99) is False
    assert inside.copy_out("etc/journal", copy, 100) is True
    assert copy.read_bytes() == b"x" * 100


def test_a_tree_that_is_a_link_is_not_opened(tree: Path) -> None:
    link = tree.parent / "link"
    link.symlink_to(tree)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        Inside(link)


def test_the_kernel_is_asked_again_when_a_mount_came_between(
    inside: Inside, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refusals = module._LIBC, [errno.EAGAIN] * 3

    class Racing:
        def syscall(self, *words: object) -> int:
            if not refusals:
                return real.syscall(*words)
            ctypes.set_errno(refusals.pop())
            return -1

    (tree / "etc/file").write_text("x")
    monkeypatch.setattr(module, "_LIBC", Racing())
    assert inside.names("etc") == ("file",)
    assert not refusals


def test_no_descriptor_is_left_open(inside: Inside, tree: Path, outside: Path) -> None:
    (tree / "etc/folder").mkdir()
    (tree / "etc/file").write_text("x")
    (tree / "etc/host").symlink_to(outside)
    before = len(os.listdir("/proc/self/fd"))
    for name in ("etc/folder", "etc/file", "etc/missing", "etc/host/secret"):
        inside.read(name)
        inside.exists(name)
        inside.names(name)
        inside.remove(f"{name}/x")
    inside.write("a/b", "x")
    inside.link("a/c", "b")
    assert len(os.listdir("/proc/self/fd")) == before

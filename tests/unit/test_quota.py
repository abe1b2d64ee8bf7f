"""Project quotas: what is told to the kernel and understood of it, and the walk over a hostile tree."""

import errno
import os
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from vstools import inside
from vstools.errors import Refused, VsError
from vstools.guest import Limits
from vstools.lifecycle import disk, sweep
from vstools.paths import DOOMED, STAGED, Paths
from vstools.storage import quota, walk
from vstools.storage.quota import Use

from .made import guest, saved

MIB = 1 << 20
INHERIT = 0x200


def test_a_limit_is_written_as_the_kernels_headers_have_it() -> None:
    """struct if_dqblk: hard, soft, used of space (KiB) and of files, two times, which of them are meant, padding."""
    assert quota.encoded(3) == struct.pack("=8QII", 3072, 3072, 0, 768, 768, 0, 0, 0, 1 | 4, 0)
    assert quota.encoded(None) == bytes(64) + struct.pack("=II", 1 | 4, 0)


def test_what_the_kernel_says_of_a_project() -> None:
    said = struct.pack("=8Q", 2048, 1024, 123456, 512, 511, 7, 0, 0) + struct.pack("=II", 0x3F, 0)
    assert quota.decoded(said) == Use(123456, 2 * MIB, 7, 512)
    assert quota.decoded(bytes(72)) == Use(0, None)


@pytest.mark.parametrize(
    ("use", "full"),
    [
        (Use(9 * MIB, None, 10**6), False),
        (Use(9 * MIB, 10 * MIB, 0, 2560), False),
        (Use(9 * MIB + 1, 10 * MIB, 0, 2560), True),
        (Use(11 * MIB, 10 * MIB, 0, 2560), True),
        (Use(0, 10 * MIB, 2496, 2560), False),
        (Use(0, 10 * MIB, 2497, 2560), True),
    ],
)
def test_a_tree_is_full_when_it_has_no_room_for_what_a_start_writes(use: Use, full: bool) -> None:
    assert use.is_full is full


@pytest.mark.parametrize(("directory", "flags"), [(True, 0x80 | INHERIT), (False, 0x80)])
def test_a_mark_leaves_the_other_attributes_alone_and_directories_hand_it_on(directory: bool, flags: int) -> None:
    before = struct.pack("=5I", 0x80, 1, 2, 0, 4) + bytes(8)
    assert quota.with_mark(before, 10000, directory=directory) == struct.pack("=5I", flags, 1, 2, 10000, 4) + bytes(8)


class Kernel:
    """A file system with project quotas, as far as attributes go."""

    def __init__(self) -> None:
        self.attributes: dict[int, bytes] = {}
        self.extended: set[int] = set()
        self.refusing: dict[int, int] = {}

    def ioctl(self, descriptor: int, command: int, content: bytes) -> bytes:
        inode = os.fstat(descriptor).st_ino
        if command == 0x801C581F:
            return self.attributes.get(inode, bytes(28))
        assert (command, len(content)) == (0x401C5820, 28)
        if inode in self.refusing:
            raise OSError(self.refusing[inode], "refused")
        self.attributes[inode] = content
        return content

    def getxattr(self, descriptor: int, name: str) -> bytes:
        assert name.startswith("trusted.")
        if os.fstat(descriptor).st_ino not in self.extended:
            raise OSError(errno.ENODATA, "none")
        return b"1"

    def setxattr(self, descriptor: int, name: str, content: bytes) -> None:
        assert (name.startswith("trusted."), content) == (True, b"1")
        self.extended.add(os.fstat(descriptor).st_ino)

    def removexattr(self, descriptor: int, _: str) -> None:
        self.extended.remove(os.fstat(descriptor).st_ino)

    def projects(self, tree: Path) -> dict[str, tuple[int, int]]:
        """Each path that has been marked: project and flags."""
        paths = {path.lstat().st_ino: str(path.relative_to(tree)) for path in (tree, *tree.rglob("*"))}
        return {
            paths[inode]: (struct.unpack_from("=I", each, 12)[0], struct.unpack_from("=I", each)[0])
            for inode, each in self.attributes.items()
        }


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    found = Kernel()
    monkeypatch.setattr(quota, "ioctl", found.ioctl)
    for name in ("getxattr", "setxattr", "removexattr"):
        monkeypatch.setattr(os, name, getattr(found, name))
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with all that a hostile guest can leave, beside a file of the host's."""
    (tmp_path / "secret").write_text("host")
    made = tmp_path / "tree"
    (made / "etc/deep").mkdir(parents=True)
    (made / "etc/file").write_text("x")
    (made / "etc/deep/file").write_text("x")
    os.link(made / "etc/file", made / "etc/again")
    (made / "link").symlink_to(tmp_path / "secret")
    (made / "up").symlink_to(tmp_path)
    os.mkfifo(made / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(made / "socket"))
    (made / os.fsdecode(b"\xff\n")).mkdir()
    return made


def test_directories_and_regular_files_are_marked_and_nothing_else_is_opened(kernel: Kernel, tree: Path) -> None:
    assert quota.mark(tree, 10000) == 0
    folders = {".", "etc", "etc/deep", os.fsdecode(b"\xff\n")}
    marked = kernel.projects(tree)
    assert {path for path, (project, flags) in marked.items() if (project, flags) == (10000, INHERIT)} == folders
    assert {path for path, (project, flags) in marked.items() if (project, flags) == (10000, 0)} <= {
        "etc/again", "etc/file", "etc/deep/file",
    }  # fmt: skip
    assert len(marked) == len(folders) + 2
    assert quota.is_marked(tree, 10000)
    assert not quota.is_marked(tree, 10001)


def test_a_tree_whose_marking_was_cut_short_is_not_marked(kernel: Kernel, tree: Path) -> None:
    kernel.refusing[(tree / "etc/deep/file").stat().st_ino] = errno.EIO
    with pytest.raises(OSError, match="refused"):
        quota.mark(tree, 10000)
    assert quota.project(tree) == 10000
    assert not quota.is_marked(tree, 10000)
    kernel.refusing.clear()
    quota.mark(tree, 10000)
    assert quota.is_marked(tree, 10000)


def test_immutable_files_are_left_out_and_told(kernel: Kernel, tree: Path) -> None:
    kernel.refusing[(tree / "etc/deep/file").stat().st_ino] = errno.EPERM
    assert quota.mark(tree, 10000) == 1
    assert quota.is_marked(tree, 10000)


LEVELS, NAME = 1200, "deep"
"""More than a process may open files, and longer than a path may be."""


@pytest.fixture
def deep(tree: Path) -> Iterator[Path]:
    """The tree with a directory that is deeper than pytest could remove."""
    folders = [os.open(tree, os.O_RDONLY)]
    for _ in range(LEVELS):
        os.mkdir(NAME, dir_fd=folders[-1])
        folders.append(os.open(NAME, os.O_RDONLY, dir_fd=folders[-1]))
        if len(folders) > 2:
            os.close(folders.pop(0))
    yield tree
    here = folders.pop()
    os.close(folders.pop())
    for _ in range(LEVELS):
        above = os.open("..", os.O_RDONLY, dir_fd=here)
        os.close(here)
        os.rmdir(NAME, dir_fd=above)
        here = above
    os.close(here)


def test_a_deep_tree_needs_no_descriptor_for_each_level(deep: Path) -> None:
    most, seen = 0, Counter[bool]()

    def act(descriptor: int, *, directory: bool) -> None:
        nonlocal most
        most, seen[directory] = max(most, descriptor), seen[directory] + 1

    root = os.open(deep, os.O_RDONLY)
    walk.walk(root, act)
    assert seen[True] == LEVELS + 4
    assert most < root + 10
    os.close(root)


def test_no_descriptor_is_left_open_and_the_root_stays(tree: Path) -> None:
    root = os.open(tree, os.O_RDONLY)
    before = len(os.listdir("/proc/self/fd"))

    def fail(descriptor: int, *, directory: bool) -> None:
        if not directory:
            raise OSError(errno.EIO, "bad disk")

    with pytest.raises(OSError, match="bad disk"):
        walk.walk(root, fail)
    walk.walk(root, lambda descriptor, *, directory: None)
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(root)


def test_a_directory_that_is_moved_out_leads_nowhere_else(tree: Path) -> None:
    outside = tree.parent / "outside"
    (outside / "other").mkdir(parents=True)
    seen = []

    def act(descriptor: int, *, directory: bool) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        seen.append(name)
        if name == tree / "etc/deep":
            (tree / "etc/deep").rename(outside / "deep")

    root = os.open(tree, os.O_RDONLY)
    with pytest.raises(VsError, match="was moved"):
        walk.walk(root, act)
    os.close(root)
    assert not any("other" in name.parts for name in seen)


def test_a_link_in_a_directorys_place_is_not_entered(tree: Path) -> None:
    root = os.open(tree, os.O_RDONLY)
    assert inside.open_entry(root, "up", os.O_RDONLY) is None
    assert inside.open_entry(root, "missing", os.O_RDONLY) is None
    os.close(root)


def test_a_file_system_without_quotas_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for code in (errno.ENOSYS, errno.ESRCH, errno.EOPNOTSUPP):

        def refuse(*_: object, code: int = code) -> None:
            raise OSError(code, "no")

        monkeypatch.setattr("vstools.libc.project_quota", refuse)
        assert quota.is_on(tmp_path) is False
    assert quota.use(tmp_path / "missing", 10000) is None


@pytest.mark.parametrize(("flags", "on"), [(0x30, True), (0x10, False), (0x20, False), (0x0F, False), (0x3F, True)])
def test_quotas_count_only_where_they_are_enforced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: int, on: bool
) -> None:
    def answer(_: int, command: int, project: int, content: bytearray) -> None:
        assert (command, project, content[0]) == (0x5808, 0, 1)
        struct.pack_into("=H", content, 2, flags)

    monkeypatch.setattr("vstools.libc.project_quota", answer)
    assert quota.is_on(tmp_path) is on


class Disk:
    """A file system as lifecycle/disk.py asks it: which project each tree's root has, and each project's limit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.roots: dict[Path, int] = {}
        self.limits: dict[int, int | None] = {}
        self.used = 5 * MIB
        for name in ("project", "is_marked", "mark", "read", "put", "use"):
            monkeypatch.setattr(quota, name, getattr(self, name))
        monkeypatch.setattr(quota, "is_on", lambda _: True)

    def project(self, tree: Path) -> int:
        return self.roots.get(tree, 0)

    def is_marked(self, tree: Path, project: int) -> bool:
        return self.project(tree) == project

    def mark(self, tree: Path, project: int) -> int:
        self.roots[tree] = project
        return 0

    def read(self, _: Path, project: int) -> Use:
        return Use(self.used, self.limits.get(project))

    def put(self, _: Path, project: int, size: int | None) -> None:
        self.limits[project] = None if size is None else size * MIB

    def use(self, tree: Path, project: int) -> Use | None:
        return self.read(tree, project) if self.is_marked(tree, project) else None


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_a_start_marks_a_tree_that_needs_it_and_no_other(host: Disk, paths: Paths) -> None:
    web = saved(paths, guest("web", 10000, limits=Limits(disk=20)))
    free, moved = saved(paths, guest("free", 10001)), saved(paths, guest("moved", 10002))
    host.roots[paths.tree_of("moved")], host.limits = 10003, {10003: MIB, 10001: MIB}
    for each in (web, free, moved):
        with disk.starting(paths, each):
            pass
    assert host.roots == {paths.tree_of("web"): 10000, paths.tree_of("moved"): 10002}
    assert host.limits == {10000: 20 * MIB, 10001: None, 10003: None}


def test_a_tree_that_another_guest_had_leaves_that_guests_limit(host: Disk, paths: Paths) -> None:
    web = saved(paths, guest("web", 10000, limits=Limits(disk=20)))
    saved(paths, guest("other", 10001))
    host.roots[paths.tree_of("web")], host.limits = 10001, {10001: MIB}
    with disk.starting(paths, web):
        pass
    assert host.limits == {10000: 20 * MIB, 10001: MIB}


def test_a_full_guest_has_no_limit_while_the_host_writes_and_gets_it_back(host: Disk, paths: Paths) -> None:
    web = saved(paths, guest("web", 10000, limits=Limits(disk=4)))
    host.roots[paths.tree_of("web")], host.limits = 10000, {10000: 4 * MIB}

    def begin() -> None:
        with disk.starting(paths, web):
            assert host.limits == {10000: None}
            raise VsError("no device")

    with pytest.raises(VsError, match="no device"):
        begin()
    assert host.limits == {10000: 4 * MIB}


def test_a_tree_that_does_not_fit_is_told_before_it_has_a_limit(host: Disk, paths: Paths) -> None:
    host.roots[paths.tree_of("web")] = 10000
    with pytest.raises(VsError, match="takes 5 MiB, and --disk allows 4"):
        disk.fit(guest("web", 10000, limits=Limits(disk=4)), paths.tree_of("web"))
    assert host.limits == {}
    disk.fit(guest("web", 10000, limits=Limits(disk=5)), paths.tree_of("web"))
    assert host.limits == {10000: 5 * MIB}


@pytest.mark.parametrize("prefix", [STAGED, DOOMED])
def test_a_guest_that_goes_takes_its_limit_along(host: Disk, paths: Paths, prefix: str) -> None:
    for name, context in ((f"{prefix}web", 10000), (f"{prefix}db", 10001), ("mail", 10001)):
        folder = paths.config_of(name)
        folder.mkdir(parents=True)
        (folder / "context").write_text(f"{context}\n")
    host.limits = {10000: MIB, 10001: MIB}
    for name in ("web", "db"):
        sweep.drop_config(paths, f"{prefix}{name}")
    assert host.limits == {10000: None, 10001: MIB}


@pytest.mark.parametrize(
    ("now", "size", "refused"),
    [
        (None, 1, False),
        (Use(35 * MIB, None), 20, True),
        (Use(35 * MIB, 40 * MIB), 20, True),
        (Use(35 * MIB, 40 * MIB), 35, False),
        (Use(35 * MIB + 1, 40 * MIB), 35, True),
        (Use(35 * MIB, 20 * MIB), 30, False),
        (Use(35 * MIB, 20 * MIB), 20, False),
        (Use(35 * MIB, 40 * MIB), None, False),
    ],
)
def test_a_limit_is_not_lowered_below_what_is_in_use(now: Use | None, size: int | None, refused: bool) -> None:
    if not refused:
        disk.check(guest(), now, size)
        return
    with pytest.raises(Refused, match=rf"guest web: disk {size}: 3[56] MiB are in use"):
        disk.check(guest(), now, size)

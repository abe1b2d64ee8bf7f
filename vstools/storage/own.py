"""A tree on a logical volume of its guest's own: ext4, mounted where other guests have a directory.

It is mounted there whether the guest runs or not. The directory below the mount is empty, and a tree that is not
mounted is never taken for one. Tags say whose a volume is: what bears no such tag is never touched. A volume that is
being made is tagged as new until the guest exists, and only such a one is removed with what a killed command left.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vstools import files, libc, run
from vstools.errors import Refused, VsError
from vstools.faults import checkpoint
from vstools.guest import OwnVolume, Place
from vstools.paths import STAGED, Paths
from vstools.storage import devicemapper, lvplace, lvsnapshot, mounts, volumes
from vstools.storage.plain import Plain
from vstools.storage.protocol import Space
from vstools.storage.quota import Use
from vstools.storage.volumes import Volume

_TAG, _OWNER, _NEW = "vs-tools", "vs-tools.guest=", "vs-tools.new"
RESIZING = "vs-tools.resizing"
"""On a volume whose file system is being made smaller: it is checked before it is mounted."""
_ROOT = 2  # EXT4_ROOT_INO
_FOUND = "lost+found"
_RESERVED = 1  # MiB that only the host's root can take: a guest that is full starts all the same
_PATIENCE = 10.0
_CHECK_PATIENCE, _CHECK_DEADLINE = 900.0, 4 * 3600.0
_CLEAN, _CORRECTED = 0, 1  # man 8 e2fsck, exit code


def volume_of(paths: Paths, group: str, context: int) -> OwnVolume:
    """The volume of a guest with a context."""
    return OwnVolume(group, f"vs-{paths.mark}-{context}")


class Own(Plain):
    """The storage (protocol.py) of one guest."""

    kind = "lvm"
    snapshots = True

    def __init__(self, paths: Paths, volume: OwnVolume, name: str) -> None:
        super().__init__(paths, mounts.of(paths.trees))
        self.volume, self._name = volume, name
        self._owner = f"{_OWNER}{paths.mark}-{name}"
        self.device = f"/dev/{volume.full_name}"

    def make(self, place: Place, size: int) -> None:
        """Make the volume, of ``size`` MiB, as a new one, with an empty file system."""
        words = lvplace.words(self.volume, place, lvplace.rounded(size, volumes.group(place.group).extent))
        tags = [word for tag in (_TAG, self._owner, _NEW) for word in ("--addtag", tag)]
        run.unbroken(["lvcreate", "--quiet", "--yes", *tags, *words])
        checkpoint("create:volume")
        reserved = f"{100 * _RESERVED / size:.6f}"
        options = ["-q", "-F", "-b", "4096", "-m", reserved, "-e", "remount-ro", "-E", "nodiscard"]
        run.run([*run.TIED, "mkfs.ext4", *options, "--", self.device])
        checkpoint("create:formatted")

    def found(self) -> Volume | None:
        """The volume, None where it is gone or bears another's tags. Raises VsError."""
        found = volumes.named(self.volume.group, self.volume.name)
        return found if found is not None and {_TAG, self._owner} <= set(found.tags) else None

    def required(self) -> Volume:
        """The volume; raises Refused where it is gone, or another's."""
        try:
            found = self.found()
        except VsError as error:
            raise Refused(f"the volume {self.volume} of guest {self._name} cannot be found", str(error)) from error
        if found is None:
            said = f"guest {self._name} has no volume {self.volume} with the tags {_TAG} and {self._owner}"
            raise Refused(said, f"lvs -o +lv_tags {self.volume.group}")
        return found

    def is_at(self, tree: Path) -> bool:
        """Whether the root of the volume's file system is what one finds at ``tree``. The kernel is asked alone."""
        try:
            state = tree.stat(follow_symlinks=False)
            group, name = (word.replace("-", "--") for word in (self.volume.group, self.volume.name))
            return state.st_ino == _ROOT and devicemapper.name(state.st_dev) == f"{group}-{name}"
        except OSError:
            return False

    def _mount(self, where: Path, options: str) -> None:
        run.run(["mount", "-t", "ext4", "-o", options, "--", self.device, str(where)])

    def attach(self, name: str) -> None:
        """Mount the tree where it belongs, if it is not. The caller holds the guest's runtime lock."""
        tree = self._trees / name
        if self.is_at(tree):
            return
        found = self.required()
        _check_below(tree)
        tree.mkdir(mode=0o700, exist_ok=True)
        if not Path(self.device).exists():
            run.unbroken(["lvchange", "--quiet", "--yes", "--activate", "y", self.volume.full_name])
        unfinished = RESIZING in found.tags
        if unfinished:
            self.check()
            self.tag(RESIZING, on=False)
        self._mount(tree, "nodev,discard" if found.pool else "nodev")
        if unfinished:
            self.tidy(name)

    def tidy(self, name: str) -> None:
        """Take away the directory that a check of the file system makes anew, if it found nothing to put there."""
        with suppress(OSError):
            (self._trees / name / _FOUND).rmdir()

    def check(self) -> None:
        """Check the file system, which is not mounted, and put small things right; raises VsError where more is wrong.

        Whoever was killed while it was made smaller may have left a program that goes on: it is waited for.
        """
        if not files.wait_until(self._is_free, patience=_CHECK_PATIENCE, pause=0.2):
            raise VsError(f"{self.device} is in use", "end what uses it")
        done = run.unbroken(["e2fsck", "-f", "-p", self.device], timeout=_CHECK_DEADLINE, check=False)
        if done.code not in (_CLEAN, _CORRECTED):
            raise VsError(f"the file system of guest {self._name} has errors", f"e2fsck -f {self.device}")

    def _is_free(self) -> bool:
        try:
            os.close(os.open(self.device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            raise
        return True

    def tag(self, tag: str, *, on: bool) -> None:
        """Put a tag on the volume, or take it away."""
        run.unbroken(["lvchange", "--quiet", "--yes", "--addtag" if on else "--deltag", tag, self.volume.full_name])

    def release(self, name: str) -> None:
        """Unmount the tree, which nobody uses, so that the volume can be removed or made smaller. Raises Refused."""
        found = self.required()
        check_alone(found)
        tree = self._trees / name
        number = devicemapper.number(self.device)
        for where in mounts.of_device(number) if number else ():
            if where != tree.resolve():
                raise Refused(f"the volume {self.volume} is mounted at {where}", f"umount {where}")
        self._leave(tree)

    def become(self, later: "Own") -> None:
        """Be another guest's volume, of another name; mounted nowhere. Done again, it does what is missing."""
        if self.found() is not None:
            self.tag(later._owner, on=True)
            checkpoint("aside:tagged")
            run.unbroken(["lvrename", "--quiet", "--yes", self.volume.group, self.volume.name, later.volume.name])
            checkpoint("aside:volume")
        if self._owner in later.required().tags:
            later.tag(self._owner, on=False)

    def _leave(self, tree: Path) -> None:
        def left() -> bool:
            if not self.is_at(tree):
                return True
            try:
                libc.unmount(tree)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
            return not self.is_at(tree)

        if not files.wait_until(left, patience=_PATIENCE, pause=0.1):
            raise Refused(f"{tree} is in use", f"fuser -vm {tree} shows by whom")

    def stage(self, name: str) -> Path:
        """The empty file system, mounted under a hidden name."""
        tree = self._trees / f"{STAGED}{name}"
        tree.mkdir(mode=0o700)
        checkpoint("create:folder")
        self._mount(tree, "noatime")  # with devices: a Debian is installed there
        checkpoint("create:mounted")
        (tree / _FOUND).rmdir()
        tree.chmod(0o755)
        return tree

    def settle(self, name: str) -> None:
        """Give the directory its name and mount the tree there: what is mounted cannot be renamed."""
        staged, tree = self._trees / f"{STAGED}{name}", self._trees / name
        self._leave(staged)
        checkpoint("create:unmounted")
        if os.path.lexists(tree):
            raise VsError(f"{tree} is in the way", "it belongs to no guest: move it away")
        staged.rename(tree)
        files.sync_directory(self._trees)
        checkpoint("create:moved")
        self.attach(name)

    def finish(self, name: str) -> None:  # noqa: ARG002 - the protocol's
        """The guest exists: its volume is no new one any more."""
        found = self.found()
        if found is not None and _NEW in found.tags:
            self.tag(_NEW, on=False)

    def identity(self, tree: Path) -> str:
        """The volume's name, where it is mounted or belongs: in an empty directory."""
        tree.stat(follow_symlinks=False)
        return str(self.volume) if self.is_at(tree) or not _objection(tree) else ""

    def doom(self, name: str) -> None:
        """Unmount the tree and take the directory away."""
        tree = self._trees / name
        self._leave(tree)
        checkpoint("remove:unmounted")
        if os.path.lexists(tree):
            _check_below(tree)
            tree.rmdir()
            files.sync_directory(self._trees)

    def clear(self, entry: str) -> None:
        """Remove the volume: a new one with what was being made, one of this guest with what is being removed."""
        folder = self._trees / entry
        self._leave(folder)
        if os.path.lexists(folder):
            _check_below(folder)
            folder.rmdir()
        found = self.found()
        if found is not None and (_NEW in found.tags or not entry.startswith(STAGED)):
            self._remove()
        checkpoint("remove:volume")

    def _remove(self) -> None:
        said = ""

        def removed() -> bool:
            nonlocal said
            done = run.unbroken(["lvremove", "--quiet", "--yes", self.volume.full_name], check=False)
            said = done.err.strip()
            return done.code == 0 or self.found() is None

        if not files.wait_until(removed, patience=_PATIENCE, pause=0.25):
            raise VsError(f"the volume {self.volume} could not be removed", said)

    @contextmanager
    def snapshot(self, tree: Path) -> Iterator[Path]:
        """A snapshot of the volume, mounted for this thread and the programs that it starts."""
        if not self.is_at(tree):
            raise Refused(f"{tree} is not the volume {self.volume}", "is it mounted?")
        where = files.directory(self._paths.snapshot, 0o700)
        with lvsnapshot.snapshot(self.required(), "ext4", where, self._paths.mark, self._paths.locks) as there:
            yield there

    def sweep(self) -> None:
        """Remove the snapshots that killed commands left."""
        lvsnapshot.sweep(self.volume.group, self._paths.mark, self._paths.locks)

    def use(self) -> Use | None:
        """What the tree takes, with what ext4 keeps from it, and the volume's size; None where it is not mounted."""
        tree = self._trees / self._name
        if not self.is_at(tree):
            return None
        state = os.statvfs(tree)
        size = devicemapper.size(tree.stat().st_dev)
        return Use(size - state.f_bavail * state.f_frsize, size, state.f_files - state.f_ffree, state.f_files)

    def space(self) -> Space:
        """Of the volume group: the guest's own part is ``use``."""
        group = volumes.group(self.volume.group)
        return Space(group.size, group.size - group.free, group.free, group.name, group.size, group.free)


def check_alone(volume: Volume) -> None:
    """Raise Refused while a thick volume has snapshots: it can be neither removed nor resized."""
    if volume.pool:
        return
    for other in volumes.inventory(volume.group)[1]:
        if other.origin == volume.name:
            raise Refused(f"the volume {volume.full_name} has a snapshot, {other.name}", "wait for who reads it to end")


def _check_below(folder: Path) -> None:
    """Raise Refused where something else than an empty directory is where a volume is mounted."""
    if said := _objection(folder):
        raise Refused(said, "move it away, or unmount it")


def _objection(folder: Path) -> str:
    """What is in the way where a volume is mounted; empty: an empty directory, or nothing."""
    if not os.path.lexists(folder):
        return ""
    if folder.is_symlink() or not folder.is_dir() or folder.stat().st_dev != folder.parent.stat().st_dev:
        return f"{folder} is in the way of the guest's own volume"
    return f"{folder} holds files that are not on the guest's own volume" if any(folder.iterdir()) else ""

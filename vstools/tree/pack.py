"""A tree becomes a template: an archive without what identifies the guest it was made from."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from vstools import run
from vstools.errors import Busy, VsError
from vstools.files import sync_directory
from vstools.tree.unpack import compressor

LEFT_OUT = (
    "./dev/*", "./proc/*", "./sys/*", "./run/*", "./tmp/*", "./var/tmp/*", "./lost+found",
    "./etc/machine-id", "./var/lib/dbus/machine-id", "./etc/hostname", "./etc/hosts", "./etc/resolv.conf",
    "./etc/ssh/ssh_host_*", "./root/.ssh", "./root/.bash_history", "./root/.viminfo", "./root/.lesshst",
    "./var/lib/systemd/random-seed", "./var/lib/systemd/credential.secret", "./var/log/journal/*",
    "./var/cache/apt/archives/*.deb", "./var/cache/apt/*.bin", "./var/lib/dhcp/*.leases",
)  # fmt: skip
_DEADLINE = 3600.0


def pack(tree: Path, archive: Path) -> None:
    """Write the tree's files to ``archive``, compressed as its name says; whole or not at all.

    tar reads the tree as it lies: links stay links, no mount is crossed. Raises VsError on a full disk.
    """
    program = compressor(archive)
    argv = [
        "tar",
        "-c",
        "-f",
        "-",
        "-C",
        str(tree),
        "--numeric-owner",
        "--xattrs",
        "--xattrs-include=*",
        "--format=pax",
        "--pax-option=delete=atime,delete=ctime,delete=mtime",  # whole seconds suffice, and need no extra header
        "--one-file-system",
        "--sort=name",
        "--anchored",
        "--wildcards",
        "--no-wildcards-match-slash",
        "--warning=no-file-ignored",
        *(f"--exclude={pattern}" for pattern in LEFT_OUT),
        ".",
    ]
    with _whole(archive) as output, run.piped(argv, stdout=run.PIPE if program else output) as tar:
        if program:
            with run.piped([*program, *_threads(program)], stdin=tar.stdout, stdout=output) as packer:
                tar.stdout.close()
                _finish(packer, archive)
        _finish(tar, archive)


def _threads(program: tuple[str, ...]) -> tuple[str, ...]:
    return ("-T0",) if program[0] == "zstd" else ()


def _finish(process: run.Piped, archive: Path) -> None:
    if (words := process.finish(_DEADLINE)) is not None:
        raise VsError(f"{archive} could not be written", words)


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """A new file that takes its name only when it is complete and on the disk; readable by root alone.

    A killed command's unfinished file has the same name for the next command, which begins it anew.
    """
    temporary = path.with_name(f".{path.name}.unfinished~")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as output:  # noqa: PTH123 - a descriptor
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"{path} is being written by another command", "wait for it, or choose another name") from None
        try:
            os.ftruncate(descriptor, 0)
            yield output
            output.flush()
            os.fsync(descriptor)
            temporary.rename(path)
            sync_directory(path.parent)
        except BaseException:
            with suppress(FileNotFoundError):
                temporary.unlink()
            raise

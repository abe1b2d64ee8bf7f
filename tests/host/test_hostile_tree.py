"""What a guest's root left in its tree harms nobody when the host works there: links, pipes, devices, journals."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
from conftest import Host, create


def _replace(path: Path, target: str) -> None:
    if path.is_dir() and not path.is_symlink():
        subprocess.run(["rm", "-rf", path], check=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


UP = "../" * 20
PLACES = {
    "names": ("etc/hosts", "etc/hostname", "etc/resolv.conf"),
    "logs": ("var/log", "root"),
    **{place: (place,) for place in ("etc", "dev", "proc", "sys", "tmp", "sbin")},
}
"""Where the host, or LXC for it, writes or mounts at a start."""


@pytest.mark.parametrize("how", ["absolute", "relative"])
@pytest.mark.parametrize("what", PLACES)
def test_link_that_the_guests_root_left_leads_nowhere(
    host: Host, small: Path, outside: Path, what: str, how: str
) -> None:
    assert create(host, "web", 10, small, "--tmpfs", "16").code == 0
    for place in PLACES[what]:
        target = outside / place.rpartition("/")[2] if what == "names" else outside
        _clear(host.trees / "web" / place).symlink_to(str(target) if how == "absolute" else UP + str(target)[1:])
    assert _start_or_refuse(host) == (what in ("names", "logs"))


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "file"])
@pytest.mark.parametrize("place", ["etc", "sys", "sbin/init"])
def test_odd_file_that_the_guests_root_left_harms_nothing(host: Host, small: Path, place: str, kind: str) -> None:
    assert create(host, "web", 10, small).code == 0
    _odd(host.trees / "web" / place, kind)
    assert not _start_or_refuse(host)


def test_odd_files_where_the_host_writes_are_replaced(host: Host, small: Path) -> None:
    assert create(host, "web", 10, small).code == 0
    for name, kind in {"resolv.conf": "pipe", "hosts": "socket", "hostname": "device"}.items():
        _odd(host.trees / "web/etc" / name, kind)
    host.ok("vs-control", "--name", "web", "--start")
    assert host.inside("web", "cat /etc/hostname").out == "web\n"
    host.ok("vs-control", "--name", "web", "--stop")
    _clear(host.trees / "web/etc/resolv.conf").mkdir()
    assert not _start_or_refuse(host)


def _clear(path: Path) -> Path:
    """Nothing is left of that name."""
    subprocess.run(["rm", "-rf", path], check=True)
    return path


def _odd(path: Path, kind: str) -> None:
    types = {"pipe": stat.S_IFIFO, "socket": stat.S_IFSOCK, "device": stat.S_IFCHR, "file": stat.S_IFREG}
    os.mknod(_clear(path), types[kind] | 0o666, os.makedev(1, 3) if kind == "device" else 0)


def _start_or_refuse(host: Host) -> bool:
    """Whether the guest starts; else the command says why not in a sentence. Nothing is left after."""
    done = host.vs("vs-control", "--name", "web", "--start", timeout=60)
    if done.code == 0:
        host.ok("vs-control", "--name", "web", "--stop")
    else:
        assert done.err.startswith("vs-control: "), done
        assert "internal error" not in done.err
        sentence, _, words = done.err.partition("\n")
        assert not words or sentence.endswith("LXC and the console said:"), done
    assert host.leftovers() == []
    return done.code == 0


def _link_to_shadow(folder: Path) -> None:
    (folder / "system.journal").symlink_to("/etc/shadow")


def _relative_link(folder: Path) -> None:
    (folder / "system.journal").symlink_to(f"{UP}etc/shadow")


def _fifo(folder: Path) -> None:
    os.mkfifo(folder / "system.journal")


def _sparse(folder: Path) -> None:
    with (folder / "system.journal").open("wb") as handle:
        handle.truncate(1 << 40)


def _garbage(folder: Path) -> None:
    (folder / "system.journal").write_bytes(b"LPKSHHRH" + os.urandom(1 << 16))


def _device(folder: Path) -> None:
    os.mknod(folder / "system.journal", 0o20666, os.makedev(1, 5))


def _folder_link(folder: Path) -> None:
    folder.rmdir()
    folder.symlink_to("/etc")


def _crowd(folder: Path) -> None:
    for number in range(5000):
        (folder / f"system@{number}.journal").write_bytes(b"x")


@pytest.mark.parametrize(
    "make",
    [_link_to_shadow, _relative_link, _fifo, _sparse, _garbage, _device, _folder_link, _crowd],
    ids=lambda make: make.__name__,
)
def test_hostile_journal_of_a_stopped_guest_tells_nothing_of_the_host(host: Host, small: Path, make) -> None:
    assert create(host, "web", 10, small).code == 0
    folder = host.trees / "web/var/log/journal/0123456789abcdef0123456789abcdef"
    folder.mkdir(parents=True)
    make(folder)
    done = host.vs("vs-log", "--name", "web", timeout=30)
    assert (done.code, done.out) == (0, ""), done
    assert Path("/etc/shadow").read_text().splitlines()[0] not in done.err

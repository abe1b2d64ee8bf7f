"""A guest's files as data: what travels, what never does, and what of it could harm a host."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstools.config import carried
from vstools.config.carried import COUNT_MAX, SIZE_MAX, File
from vstools.errors import Refused
from vstools.paths import Paths

from .made import below, guest, nic, saved


def file(path: str, content: bytes = b"", mode: int = 0o644) -> File:
    return File(path, mode, content)


@pytest.fixture
def config(paths: Paths) -> Path:
    """The directory of a guest, with a hook and with what belongs to its host."""
    saved(paths, guest("web", 10000, nics=(nic("10.0.1.5", mac="02:00:00:00:00:01"),), enabled=True))
    found = paths.config_of("web")
    (found / "scripts/pre-start.d").mkdir(parents=True)
    (found / "scripts/pre-start.d/10-x").write_bytes(b"#!/bin/sh\n\xff\n")
    (found / "scripts/pre-start.d/10-x").chmod(0o4777)
    for name in ("owner", "storage", ".made", ".confirm"):
        (found / name).write_text("x\n")
    return found


def test_what_is_read_can_be_written_elsewhere(config: Path, tmp_path: Path) -> None:
    files = carried.read(config)
    assert [found.path for found in files] == [
        "context", "interfaces/0/ip", "interfaces/0/mac", "name", "scripts/pre-start.d/10-x", "uts/nodename",
    ]  # fmt: skip
    (tmp_path / "new").mkdir()
    carried.write(tmp_path / "new", files)
    assert carried.read(tmp_path / "new") == [File(found.path, found.mode & 0o755, found.content) for found in files]
    assert below(tmp_path / "new")["scripts/pre-start.d/10-x"] == ("-rwxr-xr-x", b"#!/bin/sh\n\xff\n")


def test_it_is_brought_to_the_disk(tmp_path: Path, synced: list[str]) -> None:
    (tmp_path / "new").mkdir()
    carried.write(tmp_path / "new", [file("uts/nodename", b"x\n")])
    assert synced == ["nodename", "uts", "new"]


def test_a_symbolic_link_is_refused_by_its_name(config: Path) -> None:
    (config / "interfaces/0/dev").symlink_to("/etc/shadow")
    with pytest.raises(Refused, match="interfaces/0/dev is a symbolic link"):
        carried.read(config)
    (config / "interfaces/0/dev").unlink()
    (config / "vdir").symlink_to(config)
    with pytest.raises(Refused, match="vdir is a symbolic link"):
        carried.read(config)


def test_a_pipe_is_refused_and_not_waited_for(config: Path) -> None:
    os.mkfifo(config / "domain")
    with pytest.raises(Refused, match="domain is no regular file"):
        carried.read(config)


def test_a_directory_without_end_is_refused(config: Path) -> None:
    (config / "/".join("a" * 20)).mkdir(parents=True)
    with pytest.raises(Refused, match="lies too deep"):
        carried.read(config)


def test_more_than_a_guest_has_is_refused(config: Path) -> None:
    with (config / "scripts/large").open("wb") as handle:
        handle.truncate(SIZE_MAX)
    with pytest.raises(Refused, match="has more than 8 MiB"):
        carried.read(config)


HOSTILE = (
    "", "/etc/passwd", "..", "../x", "a/../b", "a/..", "./a", "a//b", "a/", "a\0b", "a\nb", "a\x1b[2Jb", "\udcff",
    "owner", "storage", "apps/init/mark", ".made", "a/.b", "a" * 256, "/".join("a" * 20), "a/" * 600 + "b",
)  # fmt: skip


@pytest.mark.parametrize("path", HOSTILE, ids=ascii)
def test_a_path_that_leads_elsewhere_or_never_travels_is_refused(path: str) -> None:
    with pytest.raises(Refused) as error:
        carried.check([file(path)])
    assert str(error.value).isprintable()
    assert str(error.value).isascii()


@given(st.text(max_size=40))
def test_what_passes_stays_below_the_directory(path: str) -> None:
    try:
        carried.check_path(path)
    except Refused:
        return
    assert os.path.normpath(f"/base/{path}") == f"/base/{path}"
    assert path.isprintable()


def test_too_many_too_large_and_contradictory_files_are_refused() -> None:
    with pytest.raises(Refused, match="more than 4096"):
        carried.check([file(f"scripts/{number}") for number in range(COUNT_MAX + 1)])
    with pytest.raises(Refused, match="8 MiB"):
        carried.check([file("a", b"x" * SIZE_MAX), file("b", b"x")])
    with pytest.raises(Refused, match="domain is there twice"):
        carried.check([file("domain"), file("domain")])
    with pytest.raises(Refused, match="uts is a file and a directory at once"):
        carried.check([file("uts"), file("uts/nodename")])


HARMLESS = [
    file("context", b"10000\n"), file("name"), file("uts/nodename"), file("domain"), file("nameservers"),
    file("interfaces/0/ip"), file("interfaces/x/accept_ra"), file("rlimits/rss"), file("rlimits/nofile.hard"),
    file("rlimits/swap"), file("sched/tokens-max"), file("rates/io-read"), file("dlimits/0/space_total"),
    file("apps/init/depends"), file("apps/init/style"), file("monitor.conf"),
    file("firewall.conf", b"enable\ninclude   common\n include web.conf # ours\nallow from any to tcp:80\n"),
    file("fstab", b"# mounts\n\nnone\t/tmp\ttmpfs\tsize=16m,mode=1777\t0 0\n"),
]  # fmt: skip
HARMFUL = [
    file("scripts/pre-start"), file("scripts/x.d/y"), file("cgroup/memory.max"), file("bcapabilities"),
    file("ccapabilities"), file("flags"), file("devices"), file("interfaces/0/unknown"), file("something"),
    file("rlimits/other"), file("rlimits/rss.harder"),
    file("fstab", b"none /tmp tmpfs size=1m 0 0\n/etc /etc none bind 0 0\n"), file("fstab", b"none /tmp ext4 x 0 0\n"),
    file("fstab", b"#x\r/etc /mnt none bind"),
    file("firewall.conf", b"include /etc/shadow\n"), file("firewall.conf", b"enable\n\tinclude ../../x\n"),
    file("firewall.conf", b"include a/../../b\n"),
]  # fmt: skip


@pytest.mark.parametrize("found", HARMLESS, ids=lambda found: found.path)
def test_a_guests_values_are_harmless(found: File) -> None:
    assert carried.sensitive([found]) == []


@pytest.mark.parametrize("found", HARMFUL, ids=lambda found: found.path)
def test_what_could_harm_the_host_is_named_until_it_was_accepted(found: File) -> None:
    assert carried.sensitive([found]) == [found.path]
    assert carried.sensitive([*HARMLESS, found], [found]) == []
    changed = file(found.path, found.content + b"\n# changed\n")
    executable = file(found.path, found.content, 0o755)
    assert carried.sensitive([changed, *HARMLESS], [found]) == [found.path]
    assert carried.sensitive([executable], [found]) == [found.path]


def test_every_file_that_a_guest_is_saved_in_is_harmless(paths: Paths) -> None:
    from vstools.guest import Cpu, IoRate, Limits, NetRate, Rlimit

    limits = Limits(
        rss=64, disk=100, tmpfs=16, proc=50, cpu=Cpu(1, 2), burst=100, swap=None, rlimits=(("nofile", Rlimit(1, 2)),),
        net_rate=NetRate(1, 2), io_rate=IoRate(1, 2),
    )  # fmt: skip
    found = nic("10.0.1.5", prefix=24, device="eth0", mac="02:00:00:00:00:01", disabled=True, accept_ra=True)
    saved(paths, guest("web", 10000, nics=(found,), limits=limits, domain="x", depends=("db",)))
    files = carried.read(paths.config_of("web"))
    assert len(files) > 20
    assert carried.sensitive(files) == []

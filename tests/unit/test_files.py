"""Files are written whole or not at all; locks die with their holder; paths stay below their root."""

import os
from pathlib import Path

import pytest

from vstools import files, paths
from vstools.errors import Busy, Refused
from vstools.paths import Paths


def test_a_write_replaces_the_file_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "create.conf"
    path.write_text("old")
    path.chmod(0o666)
    before = path.stat().st_ino
    files.write(path, "new\n", 0o600)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new\n", 0o600)
    assert path.stat().st_ino != before, "whoever reads the old file goes on reading it"
    assert os.listdir(tmp_path) == ["create.conf"]


def test_a_write_is_on_the_disk_before_it_takes_the_name_and_the_name_is_after(
    tmp_path: Path, synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (synced.append("replaced"), replace(old, new)))
    files.write(tmp_path / "create.conf", "text")
    assert synced == [f".create.conf.{os.getpid()}~", "replaced", tmp_path.name]


@pytest.mark.parametrize("step", ["fsync", "replace", "fchmod"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "create.conf"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space left"):
        files.write(path, "new")
    assert (path.read_text(), os.listdir(tmp_path)) == ("old", ["create.conf"])


def test_a_write_replaces_a_link_and_leaves_what_it_led_to(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("other")
    (tmp_path / "link").symlink_to("other")
    files.write(tmp_path / "link", "new")
    assert ((tmp_path / "other").read_text(), (tmp_path / "link").is_symlink()) == ("other", False)


def test_bytes_that_were_no_text_are_written_as_they_were(tmp_path: Path) -> None:
    files.write(tmp_path / "fstab", b"d\xe9j\xc3\xa0\n".decode("utf-8", "surrogateescape"))
    assert (tmp_path / "fstab").read_bytes() == b"d\xe9j\xc3\xa0\n"


def test_a_directory_gets_its_mode_and_is_roots(tmp_path: Path, owners: list[tuple[str, int, int]]) -> None:
    made = files.directory(tmp_path / "a/b", 0o700)
    assert made.stat().st_mode & 0o7777 == 0o700
    made.chmod(0o755)
    assert files.directory(made, 0o700).stat().st_mode & 0o7777 == 0o700
    assert all((uid, gid) == (0, 0) for _, uid, gid in owners)


def test_a_lock_that_is_taken_is_told_with_what_it_is_for(tmp_path: Path) -> None:
    path = tmp_path / "lock/web.command"
    with files.lock(path, what="guest web"):
        with (
            pytest.raises(Busy, match="guest web is in use by another command") as caught,
            files.lock(path, what="guest web", patience=0),
        ):
            pytest.fail("two hold one lock")
        assert caught.value.exit_code == 2
    with files.lock(path, what="guest web", patience=0):
        pass
    assert path.exists(), "removing the file of a lock would make two locks of it"


def test_a_reentrant_lock_may_be_taken_again_and_is_given_back_with_the_first(tmp_path: Path) -> None:
    path = tmp_path / "lock" / "it"
    with files.lock(path, what="it", reentrant=True):
        with files.lock(path, what="it", reentrant=True):
            pass
        with pytest.raises(Busy), files.lock(path, what="it", patience=0):
            pass
    with files.lock(path, what="it", patience=0):
        pass


def test_a_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "lock/web.command"
    with pytest.raises(ValueError, match="inside"), files.lock(path, what="guest web"):
        raise ValueError("inside")
    with files.lock(path, what="guest web", patience=0):
        pass


def test_a_lock_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock/web.command"
    holder = files.lock(path, what="guest web")
    holder.__enter__()
    monkeypatch.setattr(files.time, "sleep", lambda _: holder.__exit__(None, None, None))
    with files.lock(path, what="guest web", patience=5):
        pass


def test_the_directory_of_locks_is_roots_alone(tmp_path: Path) -> None:
    with files.lock(tmp_path / "lock/web.command", what="guest web"):
        assert (tmp_path / "lock").stat().st_mode & 0o7777 == 0o700


def test_waiting_ends_when_it_is_true_or_when_patience_ends() -> None:
    answers = iter([False, False, True])
    assert files.wait_until(lambda: next(answers), patience=5, pause=0)
    assert not files.wait_until(lambda: False, patience=0)


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345678\xff")
    assert files.read_bounded(path, 9) == "12345678\N{REPLACEMENT CHARACTER}"
    with pytest.raises(Refused, match="has more than 8 bytes"):
        files.read_bounded(path, 8)


def test_every_path_lies_below_the_root_of_its_installation(tmp_path: Path) -> None:
    here = Paths(tmp_path)
    properties = [name for name, value in vars(Paths).items() if isinstance(value, property)]
    found = [value for name in properties if isinstance(value := getattr(here, name), Path)]
    found += [here.config_of("web"), here.tree_of("web"), here.runtime_of("web"), here.log_of("web")]
    assert len(found) > 10
    assert all(path.is_relative_to(tmp_path) for path in found)


def test_two_installations_have_two_cgroups(tmp_path: Path) -> None:
    assert Paths().cgroup == "vs-tools"
    names = {Paths(tmp_path / name).cgroup for name in ("one", "two")}
    assert len(names) == 2
    assert all(name.startswith("vs-tools-") for name in names)


def test_an_installation_that_is_not_the_hosts_own_is_never_systemds(tmp_path: Path) -> None:
    assert not Paths(tmp_path).systemd


def test_the_environment_names_the_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert paths.from_environment() == Paths(Path("/"))
    monkeypatch.setenv("VS_TOOLS_ROOT", "")
    assert paths.from_environment() == Paths(Path("/"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VS_TOOLS_ROOT", "here")
    assert paths.from_environment() == Paths(tmp_path / "here")

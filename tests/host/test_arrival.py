"""A guest goes from one host to another, step by step, with a kill at every place; and guests of hosts that lie."""

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import create
from moving import Here, Killed, Named, There, described, file, fill, two

from vstools.config.owner import Owner
from vstools.errors import Refused
from vstools.lifecycle.arrival import Arrival

A1, B2 = Owner("vsh-a", 1), Owner("vsh-b", 2)


@pytest.fixture
def hosts(small: Path) -> Iterator[tuple[Here, There]]:
    """Two hosts; the first has the guest web, not started, with a file of its own."""
    with two() as (here, there):
        assert create(here, "web", 10, small, "--rss", "64").code == 0
        (here.trees / "web/root/kept").write_text("kept\n")
        yield here, there


def refused_start(host: Named, owner: str) -> None:
    done = host.vs("vs-control", "--name", "web", "--start")
    assert (done.code, f"guest web belongs to host {owner}" in done.err) == (2, True), done


def arrive(here: Here, there: There, told: Arrival, **env: str) -> None:
    """All steps on the host where the guest goes."""
    fill(here, there.act("stage", told, **env))
    there.act("register", "web", **env)


def test_a_guest_moves_and_never_starts_where_it_is_not_owned(hosts: tuple[Here, There], small: Path) -> None:
    here, there = hosts
    here.ok("vs-control", "--name", "web", "--start")
    here.ok("vs-control", "--name", "web", "--enable")
    guest = described(here)
    answer = there.act("check", guest)
    assert (answer.objections, answer.context) == ((), 60000)
    assert there.leftovers() == [path for path in there.leftovers() if "vs60000" in path], "nothing but web's own"
    tree = there.act("stage", guest)
    fill(here, tree)
    assert there.act("stage", guest) == tree, "the same transfer goes on"
    assert (tree / "root/kept").exists()
    with pytest.raises(Refused, match="another transfer brings a guest 'web' here"):
        there.act("stage", replace(guest, transfer="t2"))
    for name, number in (("web", 20), ("other", 10)):
        assert create(there, name, number, small).code == 2
    assert there.ok("vs-control", "--all") == ""
    assert (tree / "root/kept").exists(), "other commands leave it alone"
    assert there.act("register", "web") == 0
    assert there.ok("vs-control", "--all") == "vsh-b:web:disabled:stopped\n"
    refused_start(there, "vsh-a")
    here.act("release", "web", B2)
    refused_start(here, "vsh-b")
    refused_start(there, "vsh-a")
    there.act("own", "web", B2)
    there.ok("vs-control", "--name", "web", "--start")
    assert there.inside("web", "cat /root/kept").out == "kept\n"
    assert here.ok("vs-control", "--all") == "vsh-a:web:enabled:stopped\n"
    here.act("forget", "web")
    here.act("forget", "web")
    assert here.ok("vs-control", "--all") == ""
    assert not (here.trees / "web").exists()
    there.ok("vs-control", "--name", "web", "--stop")
    with pytest.raises(Refused, match="belongs to this host"):
        there.act("forget", "web")


def test_what_is_staged_waits_for_a_day(hosts: tuple[Here, There]) -> None:
    here, there = hosts
    tree = there.act("stage", described(here))
    mark = there.guests / ".new-web/.arriving"
    for hours, stays in ((23, True), (25, False)):
        at = mark.stat().st_mtime - hours * 3600
        os.utime(mark, (at, at))
        there.ok("vs-control", "--all", "--start")
        assert tree.exists() == stays
        if stays:
            there.act("stage", described(here))
    assert there.leftovers() == []


def test_everything_that_speaks_against_it_is_said_at_once(hosts: tuple[Here, There], small: Path) -> None:
    here, there = hosts
    assert create(there, "db", 10, small).code == 0
    (there.conf / "networks.conf").write_text("0:192.0.2.0/24\n")
    guest = replace(described(here), size=1 << 50, arch="sparc", version="7.0")
    answer = there.act("check", guest)
    said = "\n".join(answer.objections)
    for words in ("the address of guest db", "programs are for 'sparc'", "vs-tools '7.0'", "in no network", "MiB free"):
        assert words in said
    before = there.state()
    with pytest.raises(Refused, match=r"sparc.*in no network"):
        there.act("stage", guest)
    assert there.state() == before


def test_a_context_that_is_taken_is_another_one(hosts: tuple[Here, There], small: Path) -> None:
    here, there = hosts
    (there.guests / ".defaults/context.next").write_text("60000\n")
    assert create(there, "db", 11, small).code == 0
    (there.guests / ".defaults/context.next").write_text("61000\n")
    answer = there.act("check", described(here))
    assert (answer.objections, answer.context) == ((), 61000)
    assert any("it gets 61000" in note for note in answer.notes)
    arrive(here, there, described(here))
    assert (there.guests / "web/context").read_text() == "61000\n"
    there.act("own", "web", B2)
    there.ok("vs-control", "--name", "web", "--start")


def steps(trace: Path) -> list[str]:
    """The places that were passed, each once."""
    return list(dict.fromkeys(trace.read_text().split()))


def complete(here: Here, there: There, told: Arrival) -> None:
    """What the next command does after a kill: it goes on where the first one was."""
    if not (there.guests / "web").exists():
        if not (there.trees / "web").exists():
            fill(here, there.act("stage", told))
        there.act("register", "web")
    there.ok("vs-control", "--all", "--stop")
    assert (there.guests / "web/owner").read_text() == "vsh-a 1\n"
    assert (there.trees / "web/root/kept").read_text() == "kept\n"
    assert list((there.guests / "web").glob(".*")) == []
    there.ok("vs-remove", "--name", "web", "--yes")


def test_a_killed_arrival_goes_on_or_is_given_up(hosts: tuple[Here, There], tmp_path: Path) -> None:
    here, there = hosts
    told = described(here)
    arrive(here, there, told, VS_TOOLS_FAULT_TRACE=str(tmp_path / "trace"))
    passed = steps(tmp_path / "trace")
    assert {"arrive:files", "arrive:staged", "register:synced", "create:settled", "create:finished"} <= set(passed)
    there.ok("vs-remove", "--name", "web", "--yes")
    for step in passed:
        with pytest.raises(Killed):
            arrive(here, there, told, VS_TOOLS_FAULT=step)
        complete(here, there, told)
        assert there.leftovers() == [], step
        with pytest.raises(Killed):
            arrive(here, there, told, VS_TOOLS_FAULT=step)
        there.act("abandon", "web")
        if (there.guests / "web").exists():  # it took its name before it was killed
            there.ok("vs-remove", "--name", "web", "--yes")
        assert there.leftovers() == [], step
        assert not (there.trees / "web").exists(), step
    assert not (there.run / "arriving").exists()


def test_an_abandonment_that_is_killed_is_done_by_the_next_command(hosts: tuple[Here, There]) -> None:
    here, there = hosts
    fill(here, there.act("stage", described(here)))
    with pytest.raises(Killed):
        there.act("abandon", "web", VS_TOOLS_FAULT="abandon:unmarked")
    there.ok("vs-control", "--all", "--stop")
    assert there.leftovers() == []


def test_a_killed_departure_is_before_or_after(hosts: tuple[Here, There], small: Path, tmp_path: Path) -> None:
    here, _ = hosts
    here.act("release", "web", B2, VS_TOOLS_FAULT_TRACE=str(tmp_path / "release"))
    passed = steps(tmp_path / "release")
    assert passed[-2:] == ["depart:held", "depart:released"]
    for step in passed:
        (here.guests / "web/owner").write_text(f"{A1}\n")
        with pytest.raises(Killed):
            here.act("release", "web", B2, VS_TOOLS_FAULT=step)
        owned = (here.guests / "web/owner").read_text()
        assert owned == (f"{B2}\n" if step == "depart:released" else f"{A1}\n")
        here.act("release", "web", B2)
        refused_start(here, "vsh-b")
    here.act("forget", "web", VS_TOOLS_FAULT_TRACE=str(tmp_path / "forget"))
    for step in steps(tmp_path / "forget"):
        assert create(here, "web", 10, small, "--enable").code == 0
        (here.guests / "web/owner").write_text(f"{B2}\n")
        with pytest.raises(Killed):
            here.act("forget", "web", VS_TOOLS_FAULT=step)
        here.act("forget", "web")
        assert not (here.guests / "web").exists(), step
        assert here.leftovers() == [], step


def test_a_running_guest_is_not_released_and_one_that_was_killed_is(hosts: tuple[Here, There]) -> None:
    here, _ = hosts
    here.ok("vs-control", "--name", "web", "--start")
    (here.guests / "web/owner").write_text("vsh-c 7\n")
    with pytest.raises(Refused, match="belongs to host vsh-c"):
        here.act("release", "web", B2)
    (here.guests / "web/owner").write_text("vsh-a 2\n")
    with pytest.raises(Refused, match="epoch 2 already"):
        here.act("release", "web", B2)
    with pytest.raises(Refused, match="is this host itself"):
        here.act("release", "web", Owner("vsh-a", 3))
    here.act("release", "web", Owner("vsh-b", 3))
    assert here.leftovers() == []
    refused_start(here, "vsh-b")


def test_a_hostile_tree_gets_no_device_and_leads_nowhere(
    hosts: tuple[Here, There], outside: Path, tmp_path: Path
) -> None:
    here, there = hosts
    tree = there.act("stage", described(here))
    fill(here, tree)
    deep = tree / "root/dev ice\n/x"
    deep.mkdir(parents=True)
    os.mknod(deep / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(tree / "sda", stat.S_IFBLK | 0o666, os.makedev(8, 0))
    os.mknod(tree / "whiteout", stat.S_IFCHR, os.makedev(0, 0))
    os.mkfifo(tree / "pipe")
    kept = tmp_path / "kept"
    os.mknod(kept, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (tree / "away").symlink_to(tmp_path)
    (tree / "kept").symlink_to(kept)
    (tree / "setuid").write_text("x")
    (tree / "setuid").chmod(0o4755)
    (tree / "etc/hostname").unlink(missing_ok=True)
    (tree / "etc/hostname").symlink_to(outside / "hostname")
    assert there.act("register", "web") == 2
    assert kept.is_char_device()
    found = there.trees / "web"
    assert not list(found.rglob("null")) + list(found.rglob("sda"))
    assert (found / "whiteout").is_char_device()
    assert (found / "setuid").stat().st_mode & stat.S_ISUID, "it is the guest's own"
    assert there.trees.stat().st_mode & 0o777 == 0o700
    there.act("own", "web", B2)
    there.ok("vs-control", "--name", "web", "--start")


LIES = {
    "a path out of the directory": ("files", file("../../cron.d/x", "x")),
    "an owner among the files": ("files", file("owner", "vsh-b 9\n")),
    "a hidden file": ("files", file(".made", "x")),
    "the host's own context": ("context", "0\n"),
    "a context past all": ("context", "65535\n"),
    "an address that is none": ("interfaces/0/ip", "10.99.7\n"),
    "an address of the network": ("interfaces/0/ip", "10.99.7.0\n"),
    "a device with a path": ("interfaces/0/dev", "../eth0\n"),
    "a firewall that is none": ("firewall.conf", "allow everything\n"),
    "a name": ("name", "../other"),
    "a transfer": ("transfer", "../x"),
    "an owner": ("owner", Owner("a b", 1)),
    "a size": ("size", -1),
}


def lying(told: Arrival, what: str, value: Any) -> Arrival:
    """The description with a lie: of one of its own words, or of a file."""
    if what in ("name", "transfer", "owner", "size"):
        return replace(told, **{what: value})
    new = value if what == "files" else file(what, value)
    return replace(told, files=(*(each for each in told.files if each.path != new.path), new))


def test_a_host_that_lies_is_refused_and_nothing_is_changed(hosts: tuple[Here, There]) -> None:
    here, there = hosts
    told = described(here)
    assert there.act("check", told).objections == ()
    before = there.state()
    for lie, (what, value) in LIES.items():
        with pytest.raises(Refused) as error:
            there.act("stage", lying(told, what, value))
        assert "\n" not in str(error.value), lie
        assert there.state() == before, lie
        assert there.leftovers() == [], lie


def test_a_link_among_the_files_does_not_travel(hosts: tuple[Here, There], outside: Path) -> None:
    here, _ = hosts
    (here.guests / "web/domain").symlink_to(outside / "shadow")
    with pytest.raises(Refused, match="web/domain is a symbolic link"):
        here.act("files", "web")

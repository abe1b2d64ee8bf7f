"""A guest's directory of an old host is translated: nothing is dropped in silence."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import oldguests
from vstools.config import carried, guests, oldguest
from vstools.config.carried import File
from vstools.config.oldguest import Old, Translated
from vstools.config.text import Faults
from vstools.errors import Refused
from vstools.guest import Address, Cpu, Guest, Rlimit


def translated(tmp_path: Path, device: str | None = None, *, known: bool = True, **instead: str | None) -> Translated:
    """The example, with other files, translated on a host whose networks.conf knows its addresses or not."""
    oldguests.write(tmp_path, "/vservers", **instead)
    return oldguest.translate("vs", oldguest.read(tmp_path / "vs"), known=lambda _: known, device=device)


def as_guest(tmp_path: Path, found: Translated) -> Guest:
    """The guest that the files tell, as this host reads them."""
    folder, faults = tmp_path / "here", Faults()
    folder.mkdir()
    carried.write(folder, found.files)
    guest = guests.read(folder, "vs", faults)
    faults.check()
    return guest


def test_the_guest_has_the_values_that_it_had(tmp_path: Path) -> None:
    found = translated(tmp_path)
    guest = as_guest(tmp_path, found)
    assert (guest.context, guest.nodename, guest.depends, guest.enabled) == (33, "vs.example.org", ("ldap",), False)
    assert [(str(nic.address), nic.prefix, nic.device, nic.disabled) for nic in guest.nics] == [
        ("10.1.1.2", None, None, False), ("10.1.1.3", None, None, True),
    ]  # fmt: skip
    limits = guest.limits
    assert (limits.rss, limits.proc, limits.disk, limits.tmpfs) == (128, 150, 1024, 16)
    assert (limits.cpu, limits.burst) == (Cpu(9, 10), 500)
    assert dict(limits.rlimits) == {"as": Rlimit(30 * 1024 * 4096, 30 * 1024 * 4096), "nofile": Rlimit(1024, 1024)}
    assert found.runlevel == "2"


def test_every_file_is_taken_over_or_named(tmp_path: Path) -> None:
    found = translated(tmp_path)
    taken = {file.path for file in found.files}
    said = "\n".join(found.notes)
    silent = {"name", "interfaces/dev", "interfaces/prefix", "interfaces/0/name", "interfaces/1/mask", "flags",
              "apps/init/runlevel.start", "dlimits/root/directory", "dlimits/root/space_total"}  # fmt: skip
    for path in oldguests.FILES.keys() - taken - silent:
        parts = path.split("/")
        assert any(f"{'/'.join(parts[:depth])}" in said for depth in range(1, len(parts) + 1)), path
    assert "secret plan: vs-tools knows no such file" in said
    assert "fstab: /data: /usr/share/misc of this host is bound there, with this host's ids" in said
    assert "bcapabilities: NET_ADMIN: no guest has it" in said
    assert "bcapabilities: ~SYS_CHROOT: nothing is taken away" in said
    assert "bcapabilities: DAC_OVERRIDE: its root has it within the guest" in said
    assert "interfaces/2: 127.0.0.33: a guest has a loopback of its own" in said
    assert "scripts/pre-stop: it is not executable" in said
    assert "scripts/initialize: no such phase" in said


def test_what_can_do_more_than_a_guest_may_is_held(tmp_path: Path) -> None:
    assert carried.sensitive(translated(tmp_path).files) == ["fstab", "scripts/post-stop.d/10-x", "scripts/pre-start"]


def test_an_address_that_networks_conf_does_not_know_keeps_device_and_prefix(tmp_path: Path) -> None:
    for number, (device, expected) in enumerate(((None, "eth0"), ("br0", "br0"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        found = translated(folder, device, known=False, **{"interfaces/0/dev": "eth0:vs"})
        nics = as_guest(folder, found).nics
        assert [(nic.prefix, nic.device) for nic in nics] == [(24, expected), (24, expected)]
        words = f"no line of networks.conf has it: device {expected}, prefix 24 (--device says another one)"
        assert f"interfaces/0: 10.1.1.2: {words}" in found.notes


def test_the_older_schedule_is_one_file(tmp_path: Path) -> None:
    gone = {path: None for path in oldguests.FILES if path.startswith("sched/")}
    found = translated(tmp_path, schedule="1\n4\n100\n30\n250\n0\n", cflags="virt_mem\n", **gone)
    limits = as_guest(tmp_path, found).limits
    assert (limits.cpu, limits.burst) == (Cpu(1, 4), 250)
    assert any("without the flag sched_hard it bound nothing there" in note for note in found.notes)


@pytest.mark.parametrize(
    ("values", "mib"), [({"": "256", ".hard": "512"}, 2), ({".hard": "512", ".soft": "256"}, 2), ({".soft": "768"}, 3)]
)
def test_one_memory_limit_is_made_of_soft_and_hard(tmp_path: Path, values: dict[str, str], mib: int) -> None:
    limits = {f"rlimits/rss{part}": text for part, text in values.items()}
    instead: dict[str, str | None] = {"rlimits/rss": None, **limits}
    found = translated(tmp_path, **instead)
    assert as_guest(tmp_path, found).limits.rss == mib
    assert any("there is one limit here" in note for note in found.notes) == (len(values) > 1)


def test_what_is_half_there_is_named(tmp_path: Path) -> None:
    half = {"sched/interval": None, "fstab": "none /tmp\n# nothing\n", "apps/init/runlevel.start": "9\n",
            "bcapabilities": "# what it needs\nCHOWN # too\nCHOWN\n"}  # fmt: skip
    oldguests.write(tmp_path, "/vservers", **half)
    (tmp_path / "vs/name").write_text("x\n")
    found = oldguest.translate("vs", oldguest.read(tmp_path / "vs"), known=lambda _: True)
    for note in (
        "sched: fill-rate or interval is missing: its share of the CPUs is not bounded",
        "fstab: 'none /tmp' mounts nothing: not taken over",
        "apps/init/runlevel.start: '9' is none to start in: not taken over",
        "name: 'x': it is called like its directory here",
        "dlimits/root/reserved: its root has no space of its own here: everybody may fill it",
    ):
        assert note in found.notes
    assert [note for note in found.notes if note.startswith("bcapabilities")] == [
        "bcapabilities: CHOWN: its root has it within the guest"
    ]


def test_words_without_an_end_are_not_all_said(tmp_path: Path) -> None:
    found = translated(tmp_path, bcapabilities=" ".join(f"word{number}" for number in range(5000)), cflags="x" * 5000)
    assert len(found.notes) == 1001
    assert "there is more than these 1000 lines to say" in found.notes[-1]
    assert max(len(note) for note in found.notes) <= 1000


def test_a_hook_that_calls_util_vserver_is_named(tmp_path: Path) -> None:
    oldguests.write(tmp_path, "/vservers")
    hook = tmp_path / "vs/scripts/pre-start"
    hook.write_text("#!/bin/sh\nchcontext --xid 33 true\n")
    found = oldguest.translate("vs", oldguest.read(tmp_path / "vs"), known=lambda _: True)
    assert "scripts/pre-start: it calls chcontext, which is not here: change it before the first start" in found.notes


def test_links_and_what_is_no_file_are_named_and_not_followed(tmp_path: Path) -> None:
    import os

    oldguests.write(tmp_path, "/vservers")
    (tmp_path / "vs/domain").symlink_to("/etc/shadow")
    os.mkfifo(tmp_path / "vs/uts/pipe")
    found = oldguest.translate("vs", oldguest.read(tmp_path / "vs"), known=lambda _: True)
    assert "domain: a symbolic link, which is not followed: not taken over" in found.notes
    assert "uts/pipe: vs-tools knows no such file: not taken over" in found.notes
    assert not any(file.path == "domain" for file in found.files)


def test_a_directory_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a" / "/".join("b" * 30)).mkdir(parents=True)
    with pytest.raises(Refused, match="too much in it"):
        oldguest.read(tmp_path / "a")
    with (tmp_path / "large").open("wb") as handle:
        handle.truncate(9 << 20)
    with pytest.raises(Refused, match="larger than 8 MiB"):
        oldguest.read(tmp_path)


OTHERS = ("sched/0/x", "interfaces//ip", "rlimits/rss.x", "ncapabilities", "dlimits/x")
paths = st.sampled_from([*oldguests.FILES, *OTHERS])


@given(st.dictionaries(paths, st.binary(max_size=40)), st.booleans())
def test_any_content_is_translated_into_files_that_can_travel(values: dict[str, bytes], known: bool) -> None:
    def knows(_: Address) -> bool:
        return known

    old = Old(tuple(File(path, 0o755, content) for path, content in sorted(values.items())), {}, ())
    found = oldguest.translate("vs", old, known=knows)
    assert all(note.isprintable() for note in found.notes)
    assert len({file.path for file in found.files}) == len(found.files)

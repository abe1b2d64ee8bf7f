"""/etc/vservers/NAME: util-vserver's layout, its units, and not one byte changed that was not asked for."""

import contextlib
import shutil
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from vstools.config import guests, registry, values
from vstools.config import limits as limits_files
from vstools.config.text import Faults
from vstools.errors import BadFiles, Refused
from vstools.guest import Cpu, Guest, IoRate, Limits, NetRate, Nic, Rlimit
from vstools.paths import STAGED, Paths

from .made import DATA, below, guest, nic, saved, written


@pytest.fixture
def crit(paths: Paths) -> Path:
    """A guest's directory as util-vserver and the VS-Tools of 2008 left it."""
    target = paths.config_of("crit")
    target.parent.mkdir(parents=True)
    shutil.copytree(DATA / "guest-2008", target, symlinks=True)
    return target


def faults_of(config: Path) -> list[str]:
    """What reading a guest's directory complains of, without its path."""
    faults = Faults()
    guests.read(config, config.name, faults)
    with pytest.raises(BadFiles) as caught:
        faults.check()
    return [line.removeprefix(f"{config}/") for line in caught.value.faults]


def put(config: Path, name: str, text: str) -> None:
    """Write one value."""
    path = config / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


AS = ("as", Rlimit(256 << 20, 256 << 20))
CRIT = Limits(128, 1024, 16, 150, Cpu(9, 10), 500, 0, (AS, ("nofile", Rlimit(1024, 1024))))


def test_a_guest_of_2008_is_read(paths: Paths, crit: Path) -> None:
    assert guests.load(paths, "crit") == Guest(
        name="crit",
        context=10012,
        nodename="crit.univ-reims.fr",
        nics=(
            Nic("0", ip_address("10.0.1.27"), 24, "eth0", None, "crit"),
            Nic("1", ip_address("2001:660:4601::27"), 64, "eth0", disabled=True),
        ),
        limits=CRIT,
        enabled=True,
        depends=("ldap", "nagios"),
    )


def test_reading_and_writing_back_changes_no_byte_and_no_unknown_file(paths: Paths, crit: Path) -> None:
    before = below(crit)
    assert written(crit, guests.load(paths, "crit")) == set()
    assert below(crit) == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rlimits/rss", "inf\n"),
        ("rlimits/nproc", "-1\n"),
        ("dlimits/0/space_total", "-1\n"),
        ("sched/fill-rate", "3\n"),
        ("apps/init/mark", "on-demand\n"),
        ("apps/init/depends", "\n"),
        ("nameservers", ""),
        ("fstab", "none /tmp tmpfs defaults 0 0"),
    ],
)
def test_a_value_that_says_as_much_as_no_file_stays_as_it_is_written(paths: Paths, name: str, text: str) -> None:
    config = paths.config_of("old")
    put(config, "context", "77")
    put(config, name, text)
    before = below(config)
    guests.save(config, guests.load(paths, "old"))
    assert below(config) == before


CHANGES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "another context": ({"context": 10013}, {"context"}),
    "another node name": ({"nodename": "crit2"}, {"uts/nodename"}),
    "no longer enabled": ({"enabled": False}, {"apps/init/mark"}),
    "depends on nobody": ({"depends": ()}, {"apps/init/depends"}),
    "a domain": ({"domain": "foo.bar"}, {"domain"}),
    "name servers": ({"nameservers": (ip_address("10.0.3.5"), ip_address("::5"))}, {"nameservers"}),
    "more memory": ({"limits": replace(CRIT, rss=256)}, {"rlimits/rss"}),
    "no disk limit": ({"limits": replace(CRIT, disk=None)}, {"dlimits/0/space_total"}),
    "a larger /tmp": ({"limits": replace(CRIT, tmpfs=32)}, {"fstab"}),
    "more processes": ({"limits": replace(CRIT, proc=151)}, {"rlimits/nproc"}),
    "a share of another length": ({"limits": replace(CRIT, cpu=Cpu(9, 20))}, {"sched/interval"}),
    "no share": ({"limits": replace(CRIT, cpu=None)}, {"sched/fill-rate", "sched/interval"}),
    "no burst": ({"limits": replace(CRIT, burst=None)}, {"sched/tokens-max"}),
    "a rate of its links": ({"limits": replace(CRIT, net_rate=NetRate(10, None))}, {"rates/net-sent"}),
    "a rate of its disk": ({"limits": replace(CRIT, io_rate=IoRate(1, 2))}, {"rates/io-read", "rates/io-written"}),
    "some swap": ({"limits": replace(CRIT, swap=64)}, {"rlimits/swap"}),
    "more files": ({"limits": replace(CRIT, rlimits=(AS, ("nofile", Rlimit(9, 9))))}, {"rlimits/nofile"}),
    "files up to a hard limit": (
        {"limits": replace(CRIT, rlimits=(AS, ("nofile", Rlimit(9, None))))},
        {"rlimits/nofile", "rlimits/nofile.soft", "rlimits/nofile.hard"},
    ),
    "no rlimits": ({"limits": replace(CRIT, rlimits=())}, {"rlimits/nofile", "rlimits/as"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_only_the_files_of_changed_values_are_written(paths: Paths, crit: Path, change: str) -> None:
    fields, files = CHANGES[change]
    changed = replace(guests.load(paths, "crit"), **fields)
    assert written(crit, changed) == files
    assert guests.load(paths, "crit") == changed


def test_changing_an_address_writes_its_file_alone(paths: Paths, crit: Path) -> None:
    old = guests.load(paths, "crit")
    changed = replace(old, nics=(replace(old.nics[0], address=ip_address("10.0.1.28")), old.nics[1]))
    assert written(crit, changed) == {"interfaces/0/ip"}


def test_an_interface_that_is_gone_is_gone_on_disk(paths: Paths, crit: Path) -> None:
    old = guests.load(paths, "crit")
    changed = replace(old, nics=old.nics[:1])
    guests.save(crit, changed)
    assert guests.load(paths, "crit") == changed
    assert (crit / "interfaces/scope").exists()


def test_resizing_tmp_changes_its_number_in_fstab_and_nothing_else(paths: Paths, crit: Path) -> None:
    before = (crit / "fstab").read_bytes()
    old = guests.load(paths, "crit")
    guests.save(crit, replace(old, limits=replace(old.limits, tmpfs=48)))
    assert (crit / "fstab").read_bytes() == before.replace(b"nosuid,size=16m,", b"nosuid,size=48m,")


def test_tmp_without_a_limit_drops_its_line_from_fstab(paths: Paths, crit: Path) -> None:
    before = (crit / "fstab").read_bytes()
    old = guests.load(paths, "crit")
    guests.save(crit, replace(old, limits=replace(old.limits, tmpfs=None)))
    line = b"none\t/tmp\t\ttmpfs\tnosuid,size=16m,mode=1777\t0 0\n"
    assert line in before
    assert (crit / "fstab").read_bytes() == before.replace(line, b"")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", "none\t/tmp\ttmpfs\tsize=16m,mode=1777\t0 0\n"),
        ("proc /proc proc", "proc /proc proc\nnone\t/tmp\ttmpfs\tsize=16m,mode=1777\t0 0\n"),
        ("none /tmp tmpfs defaults 0 0\n", "none /tmp tmpfs size=16m,defaults 0 0\n"),
        ("none /tmp tmpfs mode=1777,size=1g 0 0\n", "none /tmp tmpfs mode=1777,size=16m 0 0\n"),
        ("#none /tmp tmpfs size=8m\n", "#none /tmp tmpfs size=8m\nnone\t/tmp\ttmpfs\tsize=16m,mode=1777\t0 0\n"),
        ("none /tmp tmpfs size=50% 0 0\r\n", "none /tmp tmpfs size=16m 0 0\r\n"),
    ],
)
def test_a_size_for_tmp_finds_its_place_in_fstab(paths: Paths, old: str, new: str) -> None:
    config = paths.config_of("web")
    saved(paths, guest())
    (config / "fstab").write_bytes(old.encode())
    guests.save(config, guest(limits=Limits(tmpfs=16)))
    assert (config / "fstab").read_bytes().decode() == new
    assert guests.load(paths, "web").limits.tmpfs == 16


@pytest.mark.parametrize(
    ("line", "mib"),
    [
        ("none /tmp tmpfs size=16m,mode=1777 0 0", 16),
        ("  none\t/tmp\ttmpfs\tmode=1777,size=16M\t0 0", 16),
        ("none /tmp tmpfs size=1g 0 0", 1024),
        ("none /tmp tmpfs size=16384k 0 0", 16),
        ("none /tmp tmpfs size=1048577 0 0", 2),
        ("none /tmp tmpfs mode=1777 0 0", None),
        ("none /tmp tmpfs size=0 0 0", None),
        ("none /tmp tmpfs size=50% 0 0", None),
        ("#none /tmp tmpfs size=16m 0 0", None),
        ("# none /tmp tmpfs size=16m 0 0", None),
        ("none /tmp/x tmpfs size=16m 0 0", None),
        ("none /tmp ext3 size=16m 0 0", None),
        ("none\n/tmp tmpfs size=16m", None),
        ("none /tmp tmpfs max_size=16m", None),
    ],
)
def test_the_limit_of_tmp_is_the_size_in_fstab(paths: Paths, line: str, mib: int | None) -> None:
    config = paths.config_of("web")
    saved(paths, guest())
    (config / "fstab").write_text(f"proc /proc proc defaults 0 0\n{line}\n")
    assert guests.load(paths, "web").limits.tmpfs == mib


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("256", 1),
        ("257", 2),
        ("1", 1),
        ("32768", 128),
        ("32K", 128),
        ("1M", 4096),
        ("inf", None),
        ("-1", None),
        (f"{256 * ((1 << 43) - 1)}", (1 << 43) - 1),
    ],
)
def test_memory_counts_pages_of_4_kib_and_their_suffixes_count_pages_too(
    paths: Paths, text: str, mib: int | None
) -> None:
    saved(paths, guest())
    put(paths.config_of("web"), "rlimits/rss", text + "\n")
    assert guests.load(paths, "web").limits.rss == mib


def test_memory_is_written_in_pages(paths: Paths) -> None:
    saved(paths, guest(limits=Limits(rss=128)))
    assert (paths.config_of("web") / "rlimits/rss").read_text() == "32768\n"


def test_disk_is_written_in_kib_and_names_the_guests_tree_even_while_it_is_being_made(paths: Paths) -> None:
    staged = paths.guests / f"{STAGED}web"
    guests.save(staged, guest(limits=Limits(disk=1024)))
    folder = staged / "dlimits/0"
    assert (folder / "space_total").read_text() == "1048576\n"
    assert (folder / "directory").read_text() == "/var/lib/vservers/web\n"


@pytest.mark.parametrize(("text", "mib"), [("1", 1), ("1024", 1), ("1025", 2), ("inf", None), ("-1", None)])
def test_disk_counts_kib_rounded_up(paths: Paths, text: str, mib: int | None) -> None:
    saved(paths, guest())
    put(paths.config_of("web"), "dlimits/0/space_total", text)
    assert guests.load(paths, "web").limits.disk == mib


def test_a_new_guest_writes_one_value_a_file(paths: Paths) -> None:
    limits = Limits(rss=128, proc=150, cpu=Cpu(9, 10))
    nics = (nic("10.0.1.5", mac="02:00:00:00:00:01"), nic("2001:db8::5", "1", prefix=64, device="br0", disabled=True))
    saved(paths, guest(limits=limits, nics=nics, enabled=True, depends=("db", "ldap")))
    content = {name: text.decode() for name, (kind, text) in below(paths.config_of("web")).items() if kind[0] == "-"}
    assert content == {
        "context": "10000\n",
        "name": "web\n",
        "uts/nodename": "web\n",
        "apps/init/mark": "default\n",
        "apps/init/depends": "db\nldap\n",
        "interfaces/0/ip": "10.0.1.5\n",
        "interfaces/0/mac": "02:00:00:00:00:01\n",
        "interfaces/1/ip": "2001:db8::5\n",
        "interfaces/1/prefix": "64\n",
        "interfaces/1/dev": "br0\n",
        "interfaces/1/disabled": "",
        "rlimits/rss": "32768\n",
        "rlimits/nproc": "150\n",
        "sched/fill-rate": "9\n",
        "sched/interval": "10\n",
    }


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("context", "0", "0 cannot be a context"),
        ("context", "1", "1 cannot be a context"),
        ("context", "65535", "65535 cannot be a context"),
        ("context", "ten", "'ten' is not a whole number from 0 to 4294967296"),
        ("uts/nodename", "a b", "'a b' is not a host name"),
        ("interfaces/0/ip", "10.0.1", "'10.0.1' is not an IPv4 or IPv6 address"),
        ("interfaces/0/prefix", "33", "'33' is not a whole number from 1 to 32"),
        ("interfaces/0/dev", "../x", "'../x' is not the name of a network device"),
        ("interfaces/0/mac", "01:00:00:00:00:01", "'01:00:00:00:00:01' is not the MAC address of one device"),
        ("rlimits/rss", "0", "'0' is not a number of 4 KiB pages"),
        ("rlimits/rss", "32k", "'32k' is not a number of 4 KiB pages"),
        ("rlimits/rss", "99999999999M", "'99999999999M' is past what a kernel counts (2^63 bytes)"),
        ("rlimits/nproc", "many", "'many' is not a whole number of at least 1, nor inf"),
        ("dlimits/0/space_total", "1G", "'1G' is not a whole number from 1 to 9007199254740992"),
        ("rlimits/swap", "much", "'much' is not a number of 4 KiB pages"),
        ("rlimits/as", "1k", "'1k' is not a number of 4 KiB pages"),
        ("rlimits/nofile", "-2", "'-2' is not a number, nor inf"),
        ("rlimits/stack.hard", "9223372036854775807K", "'9223372036854775807K' is past what a kernel counts (2^63)"),
        ("rlimits/core.soft", "", "'' is not a number, nor inf"),
        ("sched/tokens-max", "0", "'0' is not a whole number from 1 to 1000000000"),
        ("sched/fill-rate", "11", "11 is more than the interval 10"),
        (
            "fstab",
            "none /tmp tmpfs size=99999999999999g",
            "size=99999999999999g is past what a kernel counts (2^63 bytes)",
        ),
        ("apps/init/depends", "ldap ../x", "'../x' cannot name a guest"),
        ("domain", "", "'' is not a domain name"),
        ("nameservers", "10.0.3.5 ns", "'ns' is not an IPv4 or IPv6 address"),
    ],
)
def test_a_wrong_value_is_an_error_of_its_file(crit: Path, name: str, text: str, sentence: str) -> None:
    put(crit, name, text)
    assert faults_of(crit) == [f"{name}:1:1: {sentence}"]


def test_all_wrong_values_of_a_guest_are_told_at_once(crit: Path) -> None:
    for name in ("context", "interfaces/0/ip", "rlimits/nproc", "domain"):
        put(crit, name, "wrong value")
    assert [line.split(":")[0] for line in faults_of(crit)] == ["context", "interfaces/0/ip", "rlimits/nproc", "domain"]


def test_a_guest_without_a_context_is_an_error(crit: Path) -> None:
    (crit / "context").unlink()
    assert faults_of(crit) == ["context:1:1: the file is missing: every guest has a context"]


def test_an_interface_without_an_address_is_an_error(crit: Path) -> None:
    (crit / "interfaces/1/ip").unlink()
    assert faults_of(crit) == ["interfaces/1/ip:1:1: the file is missing: an interface has an address"]


def test_a_directory_in_place_of_a_value_is_an_error(crit: Path) -> None:
    (crit / "rlimits/rss").unlink()
    (crit / "rlimits/rss").mkdir()
    assert faults_of(crit) == ["rlimits/rss:1:1: the file cannot be read: Is a directory"]


def test_a_value_far_too_large_is_an_error(crit: Path) -> None:
    put(crit, "fstab", "#" * (1 << 20) + "\n")
    assert faults_of(crit) == [f"fstab:1:1: {crit}/fstab has more than 1048576 bytes"]


def test_one_broken_guest_hides_no_other_ones_context_and_address(paths: Paths, crit: Path) -> None:
    saved(paths, guest(nics=(nic("10.0.1.5"),)))
    (crit / "context").unlink()
    (crit / "context").mkdir()
    (crit / "interfaces/²").mkdir()
    assert guests.contexts_in_use(paths) == {10000: "web"}
    assert set(guests.addresses_in_use(paths)) == {"10.0.1.5", "10.0.1.27", "[2001:660:4601::27]"}


def test_addresses_and_contexts_of_guests_that_are_being_made_are_in_use(paths: Paths) -> None:
    guests.save(paths.guests / f"{STAGED}new", guest("new", 10007, nics=(nic("10.0.1.9"), nic("2001:db8::9", "1"))))
    assert guests.contexts_in_use(paths) == {10007: "new"}
    assert guests.addresses_in_use(paths) == {"10.0.1.9": "new", "[2001:db8::9]": "new"}


def test_a_context_that_two_guests_have_is_found_from_both(paths: Paths) -> None:
    for name in ("db", "web"):
        saved(paths, guest(name, 10000))
    assert guests.contexts_in_use(paths, but="db") == {10000: "web"}
    assert guests.contexts_in_use(paths, but="web") == {10000: "db"}


def test_interfaces_are_in_the_order_of_their_numbers(paths: Paths) -> None:
    keys = ("0", "2", "9", "10", "100", "lan", "wan")
    made = guest(nics=tuple(nic(f"10.0.1.{index + 1}", key) for index, key in enumerate(keys)))
    saved(paths, made)
    assert tuple(one.key for one in guests.load(paths, "web").nics) == keys


def test_an_unknown_guest_is_refused(paths: Paths) -> None:
    with pytest.raises(Refused, match="there is no guest 'nobody' on this host"):
        guests.load(paths, "nobody")


@pytest.mark.parametrize("name", ["", ".", "..", ".defaults", "a/b", "web/../web", "w\0b", "x" * 300])
def test_what_cannot_be_a_guest_is_none(paths: Paths, name: str) -> None:
    saved(paths, guest())
    (paths.guests / ".defaults").mkdir()
    assert not registry.exists(paths, name)


def test_the_guests_of_a_host_are_its_directories_without_hidden_ones(paths: Paths) -> None:
    assert registry.names(paths) == ()
    for name in ("web", "db", "ldap"):
        saved(paths, guest(name))
    (paths.guests / ".defaults").mkdir()
    (paths.guests / f"{STAGED}new").mkdir()
    (paths.guests / "README").touch()
    assert registry.names(paths) == ("db", "ldap", "web")


@pytest.mark.parametrize(
    ("mark", "enabled"), [("default\n", True), ("default", True), ("on-demand\n", False), ("", False)]
)
def test_enabled_is_the_mark_default(paths: Paths, mark: str, enabled: bool) -> None:
    saved(paths, guest())
    put(paths.config_of("web"), "apps/init/mark", mark)
    assert registry.is_enabled(paths.config_of("web")) is enabled
    assert guests.load(paths, "web").enabled is enabled


def test_enabling_and_disabling_writes_and_removes_the_mark(paths: Paths) -> None:
    saved(paths, guest())
    config = paths.config_of("web")
    before = below(config)
    guests.set_enabled(config, True)
    assert (config / "apps/init/mark").read_text() == "default\n"
    guests.set_enabled(config, False)
    assert below(config).keys() - before.keys() <= {"apps", "apps/init"}


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"nofile": "1024"}, Rlimit(1024, 1024)),
        ({"nofile": "1K", "nofile.hard": "4k"}, Rlimit(1024, 4000)),
        ({"nofile": "4096", "nofile.soft": "1024"}, Rlimit(1024, 4096)),
        ({"nofile.soft": "1024", "nofile.hard": "inf"}, Rlimit(1024, None)),
        ({"nofile.hard": "512"}, Rlimit(512, 512)),
        ({"nofile.soft": "512"}, Rlimit(512, None)),
        ({"nofile.min": "512", "nsock": "5", "openfd": "7"}, None),
    ],
)
def test_soft_and_hard_limits_have_files_of_their_own_or_one(
    paths: Paths, files: dict[str, str], limit: Rlimit | None
) -> None:
    config = paths.config_of("web")
    put(config, "context", "77")
    for name, text in files.items():
        put(config, f"rlimits/{name}", text)
    assert dict(guests.load(paths, "web").limits.rlimits).get("nofile") == limit


def test_a_soft_limit_above_the_hard_one_is_a_fault_of_its_file(paths: Paths) -> None:
    config = paths.config_of("web")
    put(config, "context", "77")
    put(config, "rlimits/core", "10")
    put(config, "rlimits/core.soft", "inf")
    assert faults_of(config) == ["rlimits/core.soft:1:1: the soft limit inf is above the hard limit 10"]


def test_sizes_are_kept_in_pages_and_the_rest_as_the_kernel_counts(paths: Paths) -> None:
    limits = Limits(rlimits=(("as", Rlimit(8192, 1 << 30)), ("memlock", Rlimit(4096, 4096)), ("stack", Rlimit(1, 2))))
    saved(paths, guest(limits=limits))
    folder = paths.config_of("web") / "rlimits"
    found = {path.name: path.read_text().strip() for path in folder.iterdir()}
    assert found == {"as.soft": "2", "as.hard": "262144", "memlock": "1", "stack.soft": "1", "stack.hard": "2"}


@pytest.mark.parametrize("old", [Rlimit(1, 2), Rlimit(5, 5), Rlimit(9, None), Rlimit(None, None), None])
@pytest.mark.parametrize("new", [Rlimit(1, 2), Rlimit(3, 4), Rlimit(7, 7), Rlimit(0, None), Rlimit(None, None), None])
@pytest.mark.parametrize("cpu", [Cpu(1, 2), Cpu(50, 100), Cpu(7, 7), None])
def test_what_a_kill_between_two_files_leaves_can_be_read_and_completed(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, old: Rlimit | None, new: Rlimit | None, cpu: Cpu | None
) -> None:
    before = guest(limits=Limits(cpu=Cpu(5, 9), rlimits=(("nofile", old),) if old else ()))
    after = guest(limits=Limits(cpu=cpu, rlimits=(("nofile", new),) if new else ()))
    for left in range(1, 8):
        shutil.rmtree(paths.guests, ignore_errors=True)
        saved(paths, before)
        steps = iter(range(left))
        with monkeypatch.context() as patch:
            patch.setattr(limits_files, "update", lambda *words, steps=steps: next(steps) + 1 and values.update(*words))
            with contextlib.suppress(StopIteration):
                saved(paths, after)
        guests.load(paths, "web")
        assert saved(paths, after) == guests.load(paths, "web")


@pytest.mark.parametrize("fails", range(9))
def test_a_full_disk_leaves_the_interfaces_as_they_were(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    nics = (nic("10.0.1.5", "0", mac="02:00:00:00:00:01"), nic("10.0.1.6", "1", prefix=24))
    was = saved(paths, guest(nics=nics))
    put(paths.config_of("web"), "interfaces/0/foreign", "somebody else's\n")
    before, real, left = below(paths.config_of("web")), values.write, [fails]

    def write(path: Path, text: str, mode: int = 0o644) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        real(path, text, mode)

    monkeypatch.setattr(values, "write", write)
    new = replace(was, nics=(nic("10.0.2.5", "0", prefix=25, mac="02:00:00:00:00:02"), nic("fd00::1", "7", device="b")))
    try:
        guests.save(paths.config_of("web"), new)
    except OSError:
        assert below(paths.config_of("web")) == before
    else:
        assert guests.load(paths, "web") == new
        assert (paths.config_of("web") / "interfaces/0/foreign").read_text() == "somebody else's\n"

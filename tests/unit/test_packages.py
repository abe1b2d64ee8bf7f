"""vs-pkg's decisions: which manager, what it is told, what it says, what its databases hold, and what may be opened."""

from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstools.cli import pkg as cli
from vstools.cli.pkg import gathered
from vstools.inside import Inside
from vstools.packages import databases, managers, sources, stale, upgrades
from vstools.packages.managers import MANAGERS, Wishes
from vstools.packages.sources import End
from vstools.packages.upgrades import Upgrade
from vstools.packages.versions import compare


@pytest.mark.parametrize(
    ("os_release", "name"),
    [
        ('PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nID=debian\n', "apt"),
        ("ID=linuxmint\nID_LIKE='ubuntu debian'\n", "apt"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "dnf"),
        ("ID=alpine\nVERSION_ID=3.20.3\n", "apk"),
        ("ID=arch\n", "pacman"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "zypper"),
        ("ID=plan9\n", None),
        ("#ID=debian\n", None),
        ("", None),
    ],
)
def test_the_manager_follows_from_os_release(os_release: str, name: str | None) -> None:
    assert managers.choose(os_release) == (MANAGERS[name] if name else None)


def test_steps_come_in_an_order_and_what_is_half_done_is_mended_first() -> None:
    wishes = Wishes(True, True, True, ("a",), ("b",), "")
    acts = [step.act for step in managers.steps(MANAGERS["apt"], wishes)]
    expected = "mend update_sources unbreak remove install upgrade_all list_upgrades"
    assert acts == expected.split()
    assert str(wishes) == "update_sources, list_upgrades, upgrade_all, remove b, install a"
    assert [step.act for step in managers.steps(MANAGERS["apk"], wishes)] == acts[1:2] + acts[3:]


@pytest.mark.parametrize("name", MANAGERS)
def test_every_manager_knows_every_act_and_takes_packages_as_packages(name: str) -> None:
    manager = MANAGERS[name]
    asked = {"update_sources", "list_upgrades", "upgrade_all", "install", "remove", "search"}
    assert asked <= manager.acts.keys()
    for act in ("install", "remove", "search"):
        (step,) = (step for step in managers.steps(manager, Wishes(**{act: ("x",) if act != "search" else "x"}))
                   if step.act == act)  # fmt: skip
        assert step.words[0].startswith(manager.name[:3])
        assert step.words[-2:] == ("--", "x")


def test_apt_asks_nothing_and_keeps_configuration_files() -> None:
    wishes = Wishes(upgrade_all=True)
    (*_, step) = managers.steps(MANAGERS["apt"], wishes, "http://10.0.0.1:3128")
    assert step.words[:3] == (
        "apt-get",
        "-oAcquire::http::Proxy=http://10.0.0.1:3128",
        "-oAcquire::https::Proxy=http://10.0.0.1:3128",
    )
    assert {"-y", "-oDpkg::Options::=--force-confold", "-oDpkg::Options::=--force-confdef"} <= set(step.words)
    environment = managers.environment(MANAGERS["apt"], "http://10.0.0.1:3128")
    assert environment["DEBIAN_FRONTEND"] == "noninteractive"
    assert environment["https_proxy"] == "http://10.0.0.1:3128"


@pytest.mark.parametrize(
    ("name", "wishes", "asks"),
    [
        ("apt", Wishes(remove=("a",)), False),
        ("apt", Wishes(list_upgrades=True, search="a"), False),
        ("apt", Wishes(install=("a",)), True),
        ("dnf", Wishes(list_upgrades=True), True),
        ("dnf", Wishes(remove=("a",)), False),
        ("pacman", Wishes(update_sources=True), True),
    ],
)
def test_a_window_is_opened_where_repositories_are_asked(name: str, wishes: Wishes, asks: bool) -> None:
    assert managers.asks_repositories(MANAGERS[name], managers.steps(MANAGERS[name], wishes)) == asks


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        (
            "apt",
            "Reading package lists...\nInst libc6 [2.36-9] (2.36-10 Debian:12/stable [amd64])\n"
            "Inst linux-doc (6.1-1 Debian:12/stable [all]) []\nConf libc6 (2.36-10 Debian:12/stable [amd64])\n"
            "Inst libx:i386 [1:1-1] (1:2-1 Debian [i386])\nInst \x1b[31m [1] (2 x)\n",
            [Upgrade("libc6", "2.36-9", "2.36-10"), Upgrade("linux-doc", "", "6.1-1"),
             Upgrade("libx", "1:1-1", "1:2-1")],
        ),
        (
            "dnf",
            "\nbash.x86_64             5.1.8-9.el9     baseos\nopenssl-libs.x86_64  1:3.0.7-27.el9  baseos\n"
            "Obsoleting Packages\ngrub2.x86_64 1:2.06-80.el9 baseos\n",
            [Upgrade("bash", "", "5.1.8-9.el9"), Upgrade("openssl-libs", "", "1:3.0.7-27.el9")],
        ),
        (
            "apk",
            "(1/2) Upgrading musl (1.2.4-r0 -> 1.2.4-r2)\n(2/2) Installing new (1.0-r0)\nOK: 8 MiB in 15 packages\n",
            [Upgrade("musl", "1.2.4-r0", "1.2.4-r2"), Upgrade("new", "", "1.0-r0")],
        ),
        ("pacman", "zlib 1:1.3-1 -> 1:1.3.1-2\nlinux 6.1-1 -> 6.2-1 [ignored]\n",
         [Upgrade("zlib", "1:1.3-1", "1:1.3.1-2"), Upgrade("linux", "6.1-1", "6.2-1")]),
        (
            "zypper",
            "S | Repository | Name | Current Version | Available Version | Arch\n--+---+---+---+---+---\n"
            "v | Main       | curl | 8.0.1-1.1       | 8.0.1-2.1         | x86_64\n",
            [Upgrade("curl", "8.0.1-1.1", "8.0.1-2.1")],
        ),
    ],
)  # fmt: skip
def test_upgrades_are_read_from_what_managers_say(name: str, text: str, found: list[Upgrade]) -> None:
    assert list(upgrades.parse(name, text)) == found


@given(st.sampled_from(sorted(MANAGERS)), st.text())
def test_no_word_of_a_guest_brings_the_parsers_down(name: str, text: str) -> None:
    upgrades.parse(name, text)
    databases.of_rpm(text)
    stale.uses_deleted(text)
    list(sources.named(name, text))


STATUS = """Package: one
Status: install ok installed
Architecture: amd64
Version: 1:2.0-1
Description: first
 Status: install ok not-installed

Package: one
Status: install ok installed
Architecture: i386
Version: 1:2.0-1

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1

Package: half
Status: install ok half-configured
Architecture: all
Version: 3

Package: ../evil
Status: install ok installed
Version: 1
"""


def test_databases_are_read_inside_the_tree(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "var/lib/dpkg").mkdir(parents=True)
    (tree / "var/lib/dpkg/status").write_text(STATUS)
    (tree / "lib/apk/db").mkdir(parents=True)
    (tree / "lib/apk/db/installed").write_text("C:Q1\nP:musl\nV:1.2.4-r2\n\nP:busybox\nV:1.36.1-r5\n")
    for name in ("zlib-1:1.3.1-2", "gcc-libs-14.1-1", "ALPM_DB_VERSION"):
        (tree / "var/lib/pacman/local" / name).mkdir(parents=True)
    with Inside(tree) as inside:
        assert databases.installed(inside, "apt") == {"one": "1:2.0-1", "one:i386": "1:2.0-1", "half": "3"}
        assert databases.half_done(inside, "apt") == ("half",)
        assert databases.installed(inside, "apk") == {"musl": "1.2.4-r2", "busybox": "1.36.1-r5"}
        assert databases.installed(inside, "pacman") == {"zlib": "1:1.3.1-2", "gcc-libs": "14.1-1"}
        assert databases.installed(inside, "dnf") is None


def test_a_link_out_of_the_tree_leads_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(STATUS)
    (tmp_path / "tree/var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "tree/var/lib/dpkg/status").symlink_to(tmp_path / "secret")
    with Inside(tmp_path / "tree") as inside:
        assert databases.installed(inside, "apt") is None


def test_what_only_looks_like_the_end_of_a_line_begins_no_package(tmp_path: Path) -> None:
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    text = "Package: a\nStatus: install ok installed\nVersion: 1\nMaintainer: x\x0c\x1c\x85\u2028Version: 2\n\n"
    (tmp_path / "var/lib/dpkg/status").write_text(text)
    with Inside(tmp_path) as inside:
        assert databases.installed(inside, "apt") == {"a": "1"}
        for name in ("apk", "pacman", "dnf"):
            assert databases.installed(inside, name) is None


def test_of_a_directory_without_end_only_so_many_names_are_read(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / str(number)).touch()
    with Inside(tmp_path) as inside:
        assert len(inside.names(".", 7)) == 7
        assert len(inside.names(".")) == 20


def test_what_changed_is_what_the_database_has_otherwise() -> None:
    before, after = {"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1"}
    assert list(databases.changes(before, after)) == [("b", "1", "2"), ("c", "1", ""), ("d", "", "1")]


@pytest.mark.parametrize(
    ("manager", "order"),
    [
        ("apt", "1.0~~ 1.0~rc1 1.0 1.0-0.1 1.0-1 1.0-1+deb12u2 1.0-1+deb12u10 1.0a 1.0+b 1.2 1.10 1:0.5"),
        ("dnf", "1.0~rc1-1 1.0-1 1.0^git1-1 1.0a-1 1.0.1-1 1.9-1 1.10-1 1:0.1-1"),
        ("apk", "1.2_alpha1-r0 1.2_rc1-r0 1.2-r0 1.2-r1 1.2-r10 1.2.1-r0 1.10-r0"),
        ("pacman", "1.0rc1-1 1.0.1-1 1.2-1 1.10-1 1:1.0-1"),
    ],
)
def test_versions_have_an_order(manager: str, order: str) -> None:
    versions = order.split()
    for index, one in enumerate(versions):
        for place, other in enumerate(versions):
            found = compare(manager, one, other)
            assert (found > 0) - (found < 0) == (index > place) - (index < place), (one, other)


@pytest.mark.parametrize(
    ("manager", "text", "found"),
    [
        ("apt", "# deb http://no.example/ x main\ndeb [signed-by=/k] http://A.example/debian x main\n",
         [End("a.example", 80)]),
        ("apt", "deb https://user:pw@b.example:8443/ x main\ndeb cdrom:[x]/ y main\ndeb file:/srv ./\n",
         [End("b.example", 8443)]),
        ("apt", "Types: deb\nURIs: http://c.example/ https://d.example\nSuites: x\n\nEnabled: no\nURIs: http://no.example/\n",
         [End("c.example", 80), End("d.example", 443)]),
        ("apt", "deb http://[fd00::1]:3142/debian x main\n", [End("fd00::1", 3142)]),
        ("apk", "https://e.example/alpine/v3.20/main\n@edge http://f.example/edge\n/local\n",
         [End("e.example", 443), End("f.example", 80)]),
        ("dnf", "[one]\nbaseurl=https://g.example/$releasever/\nenabled=1\n[two]\nenabled = 0\nbaseurl=http://no.example/\n"
         "[three]\nmetalink=https://h.example/?x\ngpgkey=https://no.example/key\n",
         [End("g.example", 443), End("h.example", 443)]),
        ("pacman", "#Server = http://no.example/\nServer = https://i.example/$repo/os/$arch\n",
         [End("i.example", 443)]),
        ("apt", "deb http://x:99999/ y\ndeb http://-x/ y\ndeb http:///etc y\ndeb gopher://x/ y\n", []),
    ],
)  # fmt: skip
def test_repositories_are_read_from_their_files(manager: str, text: str, found: list[End]) -> None:
    assert list(sources.named(manager, text)) == found


def test_mirrors_in_a_file_are_repositories_too(tmp_path: Path) -> None:
    """Debian's images for clouds have their hosts there (``man 1 apt-transport-mirror``)."""
    for name, text in {
        "sources.list": "deb http://a.example/ x main\n",
        "sources.list.d/debian.sources": "Types: deb\nURIs: mirror+file:///etc/apt/mirrors/debian.list\nSuites: x\n",
        "sources.list.d/old.sources.save": "URIs: http://no.example/\n",
        "mirrors/debian.list": "https://b.example/debian\tpriority:1\nhttp://c.example/debian\n",
    }.items():
        (tmp_path / "etc/apt" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "etc/apt" / name).write_text(text)
    with Inside(tmp_path) as tree:
        assert sources.ends(tree, "apt") == (End("a.example", 80), End("b.example", 443), End("c.example", 80))


PUBLIC, PRIVATE = ip_address("93.184.216.34"), ip_address("10.1.0.5")


INNER = """10.1.0.5 127.0.0.1 169.254.169.254 224.0.0.1 100.64.0.1 0.0.0.0 ::1 fe80::1 fd00::1 ff02::1
::ffff:10.1.0.5 2002:a01:5:: 64:ff9b::a01:5 fec0::1 ::a01:5"""


@pytest.mark.parametrize("address", INNER.split())
def test_a_guest_opens_no_way_into_a_network_that_is_not_public(address: str) -> None:
    assert sources.fitting(End("x", 80), [ip_address(address)], (), ()) == []


def test_what_may_be_opened_is_public_and_web_or_what_the_admin_named() -> None:
    assert sources.fitting(End("x", 443), [PUBLIC], (), ()) == [PUBLIC]
    assert sources.fitting(End("x", 22), [PUBLIC], (), ()) == []
    assert sources.fitting(End("x", 443), [PUBLIC], (), [PUBLIC]) == []
    words = (End("x", 0), End("y", 3142))
    assert sources.fitting(End("x", 80), [PRIVATE], words, ()) == [PRIVATE]
    assert sources.fitting(End("x", 22), [PRIVATE], words, ()) == []
    assert sources.fitting(End("y", 3142), [PRIVATE], words, [PRIVATE]) == [PRIVATE]
    assert sources.fitting(End("y", 80), [PRIVATE], words, ()) == []
    assert sources.fitting(End("z", 443), [PUBLIC], words, ()) == []


def test_who_runs_what_was_replaced_is_named_by_its_service() -> None:
    line = "7f00-7f10 r-xp 00000000 00:2d 1234 {}"
    assert stale.uses_deleted(
        "55-56 r--p 0 0:0 0 /x\n" + line.format("                 /usr/lib/libssl.so.3 (deleted)")
    )
    for path in ("/usr/lib/libssl.so.3", "/memfd:x (deleted)", "/tmp/x (deleted)"):
        assert not stale.uses_deleted(line.format(path))
    group = "0::/vsguests.slice/vs-guest@web.service/payload/guest/system.slice/ssh.service"
    assert stale.service(group, "sshd\n") == "ssh"
    assert stale.service("0::/vsguests.slice/vs-guest@web.service/payload/guest", "my \x1b[1mprog") == "my???1mprog"


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        ("--name web --install a b --upgrade_all", "--name web --install a --install b --upgrade_all"),
        ("--install a --remove b c --name web", "--install a --remove b --remove c --name web"),
        ("--install a --install b", "--install a --install b"),
        ("--install=a b", "--install=a --install b"),
        ("--inventory --all", "--inventory --all"),
        ("--inventory a b<1 --all", "--inventory --of a --of b<1 --all"),
        ("--install --name web", "--install --name web"),
        ("--name web --install", "--name web --install"),
    ],
)
def test_the_words_behind_an_option_belong_to_it(argv: str, found: str) -> None:
    assert gathered(argv.split()) == found.split()


@pytest.mark.parametrize(
    ("query", "version", "found"),
    [
        ("openssl<3.5", "1:3.0.7-27.el9", True),
        ("openssl<3.0", "1:3.0.7-27.el9", False),
        ("openssl<1:3.0", "1:3.0.7-27.el9", False),
        ("openssl>=0:3.5", "1:3.0.7-27.el9", True),
        ("openssl=3.0.7-27.el9", "1:3.0.7-27.el9", True),
        ("openssl<3.5", "3.0.7-27.el9", True),
    ],
)
def test_an_epoch_counts_where_it_is_asked_for(query: str, version: str, found: bool) -> None:
    package, sign, than = cli._query(query)
    assert (package, cli._HOLDS[sign](compare("dnf", cli._like(than, version), than))) == ("openssl", found)

"""Where a fresh Debian comes from, and what is in it."""

import pytest

from vstools import run
from vstools.config.create import CreateConf
from vstools.errors import Refused
from vstools.tree import bootstrap
from vstools.tree.bootstrap import Mirrors

from .made import DATA

HOST = Mirrors("http://mirror.example/debian", "http://mirror.example/debian-security")


@pytest.fixture
def apt(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The programs that were asked; apt answers as on Debian 12."""
    asked: list[str] = []

    def fake(argv: list[str], **_: object) -> run.Result:
        asked.append(argv[0])
        return run.Result(tuple(argv), 0, (DATA / "indextargets").read_text(), "")

    monkeypatch.setattr(run, "run", fake)
    return asked


def test_the_mirrors_of_a_host_are_those_of_its_apt() -> None:
    assert bootstrap.parse_indextargets((DATA / "indextargets").read_text()) == HOST


def test_other_peoples_packages_and_other_lists_are_no_mirror() -> None:
    lines = [
        "Sources\thttp://sources.example/debian\tbookworm\tDebian\tDebian\tmain",
        "Packages\thttp://other.example/debian\tstable\tDocker\tDocker CE\tmain",
        "Packages\thttp://backports.example/debian\tbookworm-backports\tDebian Backports\tDebian Backports\tmain",
        "Packages\thttp://nonfree.example/debian\tbookworm\tDebian\tDebian\tnon-free",
        "Packages\thttp://short.example/debian",
        "Packages\thttp://first.example/debian\tbookworm\tDebian\tDebian\tmain",
        "Packages\thttp://second.example/debian\tbookworm\tDebian\tDebian\tmain",
    ]
    assert bootstrap.parse_indextargets("\n".join(lines)) == Mirrors("http://first.example/debian", "")
    with pytest.raises(Refused, match="knows no Debian mirror"):
        bootstrap.parse_indextargets("\n".join(lines[:5]))


def test_without_mirrors_in_create_conf_the_hosts_own_are_used(apt: list[str]) -> None:
    assert bootstrap.mirrors(CreateConf()) == HOST
    assert apt == ["apt-get"]


def test_a_mirror_in_create_conf_is_used_without_asking_the_hosts_apt(apt: list[str]) -> None:
    conf = CreateConf(main_mirror="http://own.example/debian")
    assert bootstrap.mirrors(conf) == Mirrors("http://own.example/debian", "")
    both = CreateConf(main_mirror="http://own.example/debian", update_mirror="file:/srv/security")
    assert bootstrap.mirrors(both) == Mirrors("http://own.example/debian", "file:/srv/security")
    assert apt == []


def test_a_security_mirror_alone_goes_with_the_hosts_main_one(apt: list[str]) -> None:
    assert bootstrap.mirrors(CreateConf(update_mirror="http://own.example/s")) == Mirrors(
        HOST.main, "http://own.example/s"
    )


@pytest.mark.parametrize(
    "url",
    ["<miroir Debian>/debian", "mirror.example/debian", "http://a b", "http://x/[trusted=yes]", "http:/x'y", "-o x"],
)
@pytest.mark.parametrize("field", ["main_mirror", "update_mirror"])
def test_what_is_no_address_of_a_mirror_is_refused_when_it_is_needed(apt: list[str], url: str, field: str) -> None:
    with pytest.raises(Refused, match=r"in create\.conf is no address of a mirror"):
        bootstrap.mirrors(CreateConf(**{field: url}))
    assert apt == []


def test_a_suite_comes_with_its_updates_and_its_security_updates() -> None:
    assert bootstrap.sources(HOST, "trixie") == (
        "deb http://mirror.example/debian trixie main",
        "deb http://mirror.example/debian trixie-updates main",
        "deb http://mirror.example/debian-security trixie-security main",
    )


def test_unstable_has_no_updates_and_a_mirror_may_have_no_security() -> None:
    assert bootstrap.sources(HOST, "sid") == ("deb http://mirror.example/debian sid main",)
    assert len(bootstrap.sources(Mirrors(HOST.main, ""), "trixie")) == 2


def test_a_guest_has_systemd_unless_another_init_is_asked_for() -> None:
    assert bootstrap.packages(())[0] == "systemd-sysv"
    for init in ("sysvinit-core", "openrc", "runit-init"):
        assert "systemd-sysv" not in bootstrap.packages((init,))
        assert init in bootstrap.packages((init,))


def test_no_package_is_named_twice() -> None:
    found = bootstrap.packages(("vim", "openssh-server", "vim"))
    assert len(found) == len(set(found))
    assert "vim" in found


@pytest.mark.parametrize("distro", ["", "../x", "Trixie", "trixie main", "-o"])
def test_what_is_no_suite_is_refused(distro: str) -> None:
    assert bootstrap.check("trixie") == "trixie"
    with pytest.raises(Refused, match="is not a Debian suite like trixie"):
        bootstrap.check(distro)


def test_the_disk_being_full_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    said = "I: running\ntar: etc: No space left on device\nE: setup failed\n"
    monkeypatch.setattr(
        run, "run", lambda argv, **_: run.Result(tuple(argv), 1 if "mmdebstrap" in argv else 0, "", said)
    )
    with pytest.raises(run.VsError, match="the disk is full: E: setup failed"):
        bootstrap.bootstrap(tmp_path, "trixie", CreateConf(main_mirror=HOST.main))


def test_proxies_of_the_hosts_apt_are_the_guests_while_it_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    lines: list[list[str]] = []
    dump = (
        "APT::Arch amd64\nAcquire::http::Proxy http://proxy.example:3128\n"
        'Acquire::https::Proxy \nAcquire::Check-Date a"b\n'
    )

    def fake(argv: list[str], **_: object) -> run.Result:
        lines.append(list(argv))
        return run.Result(tuple(argv), 0, dump if argv[0] == "apt-config" else "", "")

    monkeypatch.setattr(run, "run", fake)
    bootstrap.bootstrap(tmp_path, "trixie", CreateConf(main_mirror=HOST.main), ("vim",))
    (made,) = (line for line in lines if "mmdebstrap" in line)
    assert [word for word in made if word.startswith("--aptopt")] == [
        '--aptopt=Acquire::http::Proxy "http://proxy.example:3128"'
    ]
    assert made[made.index("trixie") :] == [
        "trixie",
        str(tmp_path),
        *bootstrap.sources(Mirrors(HOST.main, ""), "trixie"),
    ]

"""What makes a tree one guest's own, in honest trees and in hostile ones."""

import os
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import pytest

from vstools.guest import Names
from vstools.inside import Inside
from vstools.tree import identity
from vstools.tree.identity import MASKED_UNITS, SKELETON, SSH_KEYS, Wishes

from .made import below, guest, nic

NAMES = Names("lan.test", (ip_address("10.0.1.53"), ip_address("2001:db8::53")))
WISHES = Wishes("Europe/Paris", "fr_FR.UTF-8", ("ssh-ed25519 AAAA one", "ssh-rsa BBBB two"))
WEB = guest(nics=(nic("10.0.1.5"), nic("10.0.1.6", "1", disabled=True), nic("2001:db8::5", "2")))


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """New ssh host keys, as ssh-keygen leaves them."""
    folder = tmp_path / "keys"
    folder.mkdir()
    for kind in SSH_KEYS:
        (folder / kind).write_text(f"private {kind}\n")
        (folder / f"{kind}.pub").write_text(f"public {kind}\n")
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A Debian tree as a template holds it: it has been somebody else."""
    root = tmp_path / "tree"
    files = {
        "etc/hostname": "template",
        "etc/hosts": "127.0.0.1 template",
        "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
        "etc/shadow": "root:$y$known:19000:0:99999:7:::\ndaemon:*:19000::::::\n",
        "etc/group": "root:x:0:\nshadow:x:42:\n",
        "etc/ssh/sshd_config": "",
        "etc/ssh/ssh_host_dsa_key": "old private key",
        "etc/ssh/ssh_host_ed25519_key": "old private key",
        "etc/ssh/moduli": "",
        "etc/network/interfaces": "auto eth0\niface eth0 inet dhcp\n",
        "etc/systemd/network/10-eth0.network": "[Match]\n",
        "etc/systemd/network/br0.netdev": "[NetDev]\n",
        "etc/systemd/network/99-default.link": "[Match]\n",
        "etc/systemd/network/README": "",
        "etc/netplan/01.yaml": "network: {}\n",
        "etc/netplan/old/01.yaml": "network: {}\n",
        "etc/systemd/system/getty.target": "",
        "etc/default/locale": "LANG=C\n",
        "usr/share/zoneinfo/Europe/Paris": "TZif",
        "var/lib/dbus/machine-id": "0123456789abcdef0123456789abcdef\n",
        "var/lib/systemd/random-seed": "seed",
        "var/lib/systemd/credential.secret": "secret",
        "root/.bashrc": "",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    (root / "etc/localtime").symlink_to("/usr/share/zoneinfo/Etc/UTC")
    return root


def personalized(tree: Path, keys: Path, wishes: Wishes = WISHES) -> Path:
    """The tree after it was made the guest's own."""
    with Inside(tree) as inside:
        identity.personalize(inside, WEB, NAMES, wishes, keys)
    return tree


def test_names_and_name_servers_are_the_guests(tree: Path, keys: Path) -> None:
    personalized(tree, keys)
    assert (tree / "etc/hostname").read_text() == "web\n"
    assert (tree / "etc/hosts").read_text() == (
        "# Written by the host at each start of this guest.\n"
        "127.0.0.1\tlocalhost\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        "10.0.1.5\tweb.lan.test web\n"
        "2001:db8::5\tweb.lan.test web\n"
    )
    assert not (tree / "etc/resolv.conf").is_symlink()
    assert (tree / "etc/resolv.conf").read_text() == (
        "# Written by the host at each start of this guest.\n"
        "search lan.test\n"
        "nameserver 10.0.1.53\n"
        "nameserver 2001:db8::53\n"
    )


@pytest.mark.parametrize(
    ("nodename", "domain", "names"),
    [
        ("web", "lan.test", "web.lan.test web"),
        ("web", None, "web"),
        ("web.own.test", "lan.test", "web.own.test web"),
    ],
)
def test_the_full_name_comes_first_in_hosts(tree: Path, nodename: str, domain: str | None, names: str) -> None:
    made = guest(nodename=nodename, nics=(nic("10.0.1.5"),))
    with Inside(tree) as inside:
        identity.write_names(inside, made, Names(domain, ()))
    assert (tree / "etc/hosts").read_text().splitlines()[-1] == f"10.0.1.5\t{names}"
    assert (tree / "etc/hostname").read_text() == f"{nodename}\n"


def test_a_guest_without_domain_and_name_servers_has_an_empty_resolv_conf(tree: Path) -> None:
    with Inside(tree) as inside:
        identity.write_names(inside, WEB, Names(None, ()))
    assert (tree / "etc/resolv.conf").read_text() == "# Written by the host at each start of this guest.\n"


def test_what_identified_the_template_is_gone(tree: Path, keys: Path) -> None:
    personalized(tree, keys)
    assert (tree / "etc/machine-id").read_text() == ""
    assert (tree / "etc/machine-id").stat().st_mode & 0o777 == 0o444
    for name in ("var/lib/dbus/machine-id", "var/lib/systemd/random-seed", "var/lib/systemd/credential.secret"):
        assert not (tree / name).exists()
    assert "old private key" not in "".join(path.read_text() for path in (tree / "etc/ssh").iterdir() if path.is_file())
    assert not (tree / "etc/ssh/ssh_host_dsa_key").exists()


def test_new_ssh_host_keys_are_private(tree: Path, keys: Path) -> None:
    personalized(tree, keys)
    for kind in SSH_KEYS:
        private, public = tree / f"etc/ssh/ssh_host_{kind}_key", tree / f"etc/ssh/ssh_host_{kind}_key.pub"
        assert (private.read_text(), private.stat().st_mode & 0o777) == (f"private {kind}\n", 0o600)
        assert (public.read_text(), public.stat().st_mode & 0o777) == (f"public {kind}\n", 0o644)
    assert (tree / "etc/ssh/moduli").exists()


def test_the_network_configuration_of_the_tree_is_harmless(tree: Path, keys: Path) -> None:
    personalized(tree, keys)
    assert "eth0" not in (tree / "etc/network/interfaces").read_text()
    assert sorted(os.listdir(tree / "etc/systemd/network")) == ["README"]
    assert not (tree / "etc/netplan/01.yaml").exists()


def test_units_that_configure_links_and_devices_are_masked(tree: Path, keys: Path) -> None:
    personalized(tree, keys)
    masked = {path.name for path in (tree / "etc/systemd/system").iterdir() if path.is_symlink()}
    assert masked == set(MASKED_UNITS)
    assert {os.readlink(tree / "etc/systemd/system" / unit) for unit in masked} == {"/dev/null"}


def test_time_zone_and_locale_are_as_configured(tree: Path, keys: Path) -> None:
    personalized(tree, keys)
    assert os.readlink(tree / "etc/localtime") == "/usr/share/zoneinfo/Europe/Paris"
    assert (tree / "etc/timezone").read_text() == "Europe/Paris\n"
    assert (tree / "etc/locale.conf").read_text() == "LANG=fr_FR.UTF-8\n"
    assert os.readlink(tree / "etc/default/locale") == "../locale.conf"


def test_a_time_zone_that_the_tree_does_not_know_changes_nothing(tree: Path, keys: Path) -> None:
    personalized(tree, keys, Wishes("Mars/Olympus", "C.UTF-8"))
    assert os.readlink(tree / "etc/localtime") == "/usr/share/zoneinfo/Etc/UTC"
    assert not (tree / "etc/timezone").exists()


def test_roots_password_is_locked_whatever_the_template_said(
    tree: Path, keys: Path, owners: list[tuple[str, int, int]]
) -> None:
    personalized(tree, keys)
    assert (tree / "etc/shadow").read_text() == "root:*:19000:0:99999:7:::\ndaemon:*:19000::::::\n"
    assert (tree / "etc/shadow").stat().st_mode & 0o777 == 0o640
    assert [gid for name, _, gid in owners if "shadow" in name] == [42]


@pytest.mark.parametrize("group", ["", "shadow\n", "shadow:x:many:\n", "shadow:x:65536:\n", "shadow:x:²:\n"])
def test_without_a_usable_shadow_group_shadow_is_roots(
    tree: Path, keys: Path, owners: list[tuple[str, int, int]], group: str
) -> None:
    (tree / "etc/group").write_text(group)
    personalized(tree, keys)
    assert [gid for name, _, gid in owners if "shadow" in name] == [0]


def test_roots_ssh_keys_are_the_ones_asked_for(tree: Path, keys: Path) -> None:
    personalized(tree, keys)
    authorized = tree / "root/.ssh/authorized_keys"
    assert authorized.read_text() == "ssh-ed25519 AAAA one\nssh-rsa BBBB two\n"
    assert (authorized.stat().st_mode & 0o777, authorized.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_without_ssh_keys_asked_for_root_gets_none(tree: Path, keys: Path) -> None:
    personalized(tree, keys, Wishes("Etc/UTC", "C.UTF-8"))
    assert not (tree / "root/.ssh").exists()


def test_sysvinit_gets_a_login_on_the_console_and_no_virtual_terminals(tree: Path, keys: Path) -> None:
    (tree / "etc/inittab").write_bytes(
        b"# d\xe9marrage\nid:2:initdefault:\n1:2345:respawn:/sbin/getty --noclear 38400 tty1\n"
        b"2:23:respawn:/sbin/getty 38400 tty2\nca:12345:ctrlaltdel:/sbin/shutdown -t1 -a -r now\n"
    )
    expected = (
        b"# d\xe9marrage\nid:2:initdefault:\nca:12345:ctrlaltdel:/sbin/shutdown -t1 -a -r now\n"
        b"co:2345:respawn:/sbin/getty 38400 console\n"
    )
    for _ in range(2):
        personalized(tree, keys)
        assert (tree / "etc/inittab").read_bytes() == expected


def test_doing_it_twice_is_doing_it_once(tree: Path, keys: Path) -> None:
    once = below(personalized(tree, keys))
    assert below(personalized(tree, keys)) == once


def test_a_skeleton_is_the_minimal_directories_and_becomes_a_guests_too(tmp_path: Path, keys: Path) -> None:
    tree = tmp_path / "skeleton"
    tree.mkdir()
    with Inside(tree) as inside:
        identity.skeleton(inside)
    assert {name: (tree / name).stat().st_mode & 0o7777 for name, _ in SKELETON} == dict(SKELETON)
    personalized(tree, keys)
    assert {str(path.relative_to(tree)) for path in tree.rglob("*") if not path.is_dir()} == {
        "etc/hostname",
        "etc/hosts",
        "etc/resolv.conf",
        "etc/locale.conf",
        "root/.ssh/authorized_keys",
    }


def hostile_file(tree: Path, host: Path, name: str) -> None:
    """A file of the tree is a link to one of the host's."""
    path = tree / name
    path.unlink(missing_ok=True)
    path.symlink_to(host / "passwd")


FILES = [
    "etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/machine-id", "etc/shadow", "etc/group", "etc/inittab",
    "etc/network/interfaces", "etc/systemd/system/systemd-udevd.service", "etc/localtime", "etc/timezone",
    "etc/locale.conf", "etc/default/locale", "etc/ssh/ssh_host_ed25519_key", "etc/ssh/ssh_host_ed25519_key.pub",
    "etc/ssh/sshd_config", "var/lib/dbus/machine-id", "usr/share/zoneinfo/Europe/Paris",
]  # fmt: skip
FOLDERS = [
    "etc", "etc/ssh", "etc/network", "etc/netplan", "etc/systemd", "etc/systemd/system", "etc/systemd/network",
    "etc/default", "root", "var", "var/lib", "var/lib/dbus", "usr/share/zoneinfo",
]  # fmt: skip


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Files of the host under the names that a tree has."""
    folder = tmp_path / "host"
    for name in ("ssh", "network", "system", "dbus"):
        (folder / name).mkdir(parents=True)
        (folder / name).chmod(0o700)
    for name in ("passwd", "shadow", "hostname", "machine-id", "ssh/ssh_host_rsa_key", "network/interfaces"):
        (folder / name).write_text("the host's own\n")
    folder.chmod(0o750)
    return folder


def attempt(tree: Path, keys: Path) -> None:
    """Personalize a tree that may be impossible: an error is an answer, touching the host is none."""
    with suppress(OSError):
        personalized(tree, keys)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_a_link_to_the_host_leaves_the_host_alone(tree: Path, keys: Path, host: Path, name: str) -> None:
    hostile_file(tree, host, name)
    before = below(host.parent / "host")
    personalized(tree, keys)
    assert below(host) == before
    assert (host.stat().st_mode & 0o7777) == 0o750


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("absolute", [True, False])
def test_a_directory_that_is_a_link_to_the_host_leaves_the_host_alone(
    tree: Path, keys: Path, host: Path, name: str, absolute: bool
) -> None:
    folder = tree / name
    if folder.exists():
        folder.rename(tree / "moved")
    folder.symlink_to(host if absolute else "../" * (name.count("/") + 1) + "host")
    before = below(host)
    attempt(tree, keys)
    assert below(host) == before
    assert (host.stat().st_mode & 0o7777) == 0o750


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_pipe_or_a_directory_in_place_of_a_file_neither_hangs_nor_goes_astray(
    tree: Path, keys: Path, name: str, make
) -> None:
    (tree / name).unlink(missing_ok=True)
    make(tree / name)
    attempt(tree, keys)
    assert not list(tree.rglob(".*~")), "something was left beside it"


def test_the_names_are_written_at_each_start_without_following_the_guests_links(tree: Path, host: Path) -> None:
    for name in ("etc/hostname", "etc/hosts", "etc/resolv.conf"):
        hostile_file(tree, host, name)
    before = below(host)
    with Inside(tree) as inside:
        identity.write_names(inside, WEB, NAMES)
    assert below(host) == before
    assert (tree / "etc/hostname").read_text() == "web\n"

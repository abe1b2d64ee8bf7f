"""Decisions about guests, the order of several, and what dead commands left."""

import fcntl
import json
from dataclasses import asdict, replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from vstools.config import guests
from vstools.errors import BadFiles, Refused, VsError
from vstools.guest import Cpu, Limits
from vstools.lifecycle import addresses, control, create, phases, records, removal, several, staging
from vstools.lifecycle.create import Request
from vstools.lifecycle.host import settings
from vstools.network import devices, kernel
from vstools.paths import STAGED, Paths

from .made import below, guest, nic, saved

NETWORKS = "0:10.0.1.0/24,10.0.1.1,lan.test,10.0.1.53\n7:10.0.7.0/24,10.0.7.1\n"
CONF = "DEFAULT_DEVICE=eth0\nDEFAULT_METHOD=skeleton\nDEFAULT_RSS_LIMIT=128\nDEFAULT_CPU_LIMIT=9/10\n"


@pytest.fixture
def host(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A configured host with the address 10.0.1.2, whose devices are all there."""
    paths.conf.mkdir(parents=True)
    paths.guests.mkdir(parents=True)
    (paths.conf / "networks.conf").write_text(NETWORKS)
    (paths.conf / "create.conf").write_text(CONF)
    monkeypatch.setattr(devices, "check_devices", lambda _: None)
    monkeypatch.setattr(devices, "has_address", lambda address: address == ip_address("10.0.1.2"))
    return paths


def request(*addresses: str, name: str = "web", **more: object) -> Request:
    """What the command line asked for."""
    return Request(name=name, addresses=tuple(map(ip_address, addresses or ("10.0.1.5",))), **more)


def test_two_arguments_make_a_guest(host: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "new_mac", lambda: "02:00:00:00:00:05")
    creation = create.decide(host, request())
    assert create.describe(creation) == (
        "guest web from an empty skeleton",
        "eth0 on eth0: 10.0.1.5/24, gateway 10.0.1.1, MAC 02:00:00:00:00:05",
        "domain lan.test, name servers 10.0.1.53",
        "limits rss 128, disk inf, tmpfs inf, proc inf, cpu 9/10",
    )
    assert creation.guest(10000).nics == (nic("10.0.1.5", mac="02:00:00:00:00:05"),)


def test_the_command_line_wins_over_both_files(host: Paths) -> None:
    asked = request(
        "10.0.7.5",
        domain="own.test",
        nameservers=(ip_address("10.9.9.9"),),
        device="br0",
        prefix=28,
        limits={"rss": None, "proc": 150, "cpu": Cpu(1, 2)},
    )
    creation = create.decide(host, asked)
    _, link, names, limits = create.describe(creation)
    assert link.startswith("eth0 on br0 VLAN 7: 10.0.7.5/28, gateway 10.0.7.1, MAC 02:")
    assert names == "domain own.test, name servers 10.9.9.9"
    assert limits == "limits rss inf, disk inf, tmpfs inf, proc 150, cpu 1/2"


def test_macs_are_locally_administered_unicast_and_random() -> None:
    macs = {addresses.new_mac() for _ in range(50)}
    assert len(macs) == 50
    assert all(mac.startswith("02:") and len(mac) == 17 for mac in macs)


REFUSED = {
    "a bad name": (request(name="We b"), "cannot name a guest"),
    "capitals": (request(name="Web"), "capitals are not allowed"),
    "a reserved name": (request(name="TEMPLATES"), "cannot name a guest"),
    "a taken name": (request(name="db"), "there is a guest 'db' already"),
    "a tree in the way": (request(name="stray"), "stray is in the way"),
    "a taken address": (request("10.0.1.9"), "10.0.1.9 is the address of guest db"),
    "an address of a guest being made": (request("10.0.1.8"), "10.0.1.8 is the address of guest new"),
    "an address twice": (request("10.0.1.5", "10.0.1.5"), "an address was given twice"),
    "no address": (Request("web", ()), "a guest needs an address"),
    "an address outside": (request("10.0.2.5"), "10.0.2.5 is in no network of networks.conf"),
    "an address outside with only a prefix": (request("10.0.2.5", prefix=24), "is in no network of networks.conf"),
    "an address outside with only a device": (request("10.0.2.5", device="eth0"), "is in no network of networks.conf"),
    "the host's own address": (request("10.0.1.2"), "10.0.1.2 is this host's own address"),
    "the gateway": (request("10.0.1.1"), "10.0.1.1 is the gateway"),
    "the network": (request("10.0.1.0"), "10.0.1.0 is the address of the network"),
    "the broadcast address": (request("10.0.1.255"), "10.0.1.255 is the broadcast address"),
    "a prefix too long": (request("10.0.1.5", prefix=64), "/64 is no prefix length for 10.0.1.5"),
    "a missing template": (request(template=Path("/no/where.tar")), "the template /no/where.tar does not exist"),
    "a bad suite": (request(distro="../x"), "is not a Debian suite"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_refused_before_anything_is_changed(host: Paths, case: str) -> None:
    saved(host, guest("db", nics=(nic("10.0.1.9"),)))
    guests.save(host.guests / f"{STAGED}new", guest("new", 10001, nics=(nic("10.0.1.8"),)))
    (host.trees / "stray").mkdir(parents=True)
    before = below(host.root)
    asked, sentence = REFUSED[case]
    with pytest.raises(Refused) as caught:
        create.decide(host, asked)
    assert sentence in str(caught.value)
    assert below(host.root) == before


def test_an_address_outside_every_network_needs_prefix_and_device_on_the_command_line(host: Paths) -> None:
    creation = create.decide(host, request("10.0.2.5", prefix=24, device="eth0"))
    assert create.describe(creation)[1].startswith("eth0 on eth0: 10.0.2.5/24, gateway none")


def test_default_prefix_counts_where_networks_conf_has_no_line(host: Paths) -> None:
    with (host.conf / "create.conf").open("a") as conf:
        conf.write("DEFAULT_PREFIX=22\n")
    with pytest.raises(Refused, match="is in no network"):
        create.decide(host, request("10.0.2.5"))
    (host.conf / "networks.conf").write_text("# none\n")
    assert "10.0.2.5/22" in create.describe(create.decide(host, request("10.0.2.5")))[1]


@pytest.mark.parametrize(
    ("lines", "source"),
    [
        ("DEFAULT_TEMPLATE={template}", "the template {template}"),
        ("DEFAULT_METHOD=template\nDEFAULT_TEMPLATE={template}\nDEFAULT_DISTRO=trixie", "the template {template}"),
        ("DEFAULT_METHOD=debootstrap\nDEFAULT_TEMPLATE={template}\nDEFAULT_DISTRO=trixie", "trixie from packages"),
        ("DEFAULT_METHOD=skeleton\nDEFAULT_TEMPLATE={template}", "an empty skeleton"),
    ],
)
def test_how_the_tree_is_made_is_create_confs_word(host: Paths, tmp_path: Path, lines: str, source: str) -> None:
    template = tmp_path / "debian.tar.gz"
    template.write_bytes(b"\x1f\x8b\x08")
    text = f"DEFAULT_DEVICE=eth0\nMAIN_MIRROR=http://mirror.example/debian\n{lines}\n"
    (host.conf / "create.conf").write_text(text.format(template=template))
    assert create.decide(host, request()).source == source.format(template=template)
    assert create.decide(host, request(skeleton=True)).source == "an empty skeleton"


@pytest.mark.parametrize(("method", "key"), [("template", "DEFAULT_TEMPLATE"), ("debootstrap", "DEFAULT_DISTRO")])
def test_nothing_to_make_the_guest_from_is_refused(host: Paths, method: str, key: str) -> None:
    (host.conf / "create.conf").write_text(f"DEFAULT_DEVICE=eth0\nDEFAULT_METHOD={method}\n")
    with pytest.raises(Refused, match=f"set {key} in create.conf"):
        create.decide(host, request())


def test_faults_of_both_files_are_told_at_once(host: Paths) -> None:
    (host.conf / "create.conf").write_text("NO_KEY=1\n")
    (host.conf / "networks.conf").write_text("nonsense\n")
    with pytest.raises(BadFiles) as caught:
        settings(host)
    assert [Path(fault.split(":")[0]).name for fault in caught.value.faults] == ["create.conf", "networks.conf"]


def test_contexts_are_counted_from_10000(host: Paths) -> None:
    assert [staging.draw_context(host) for _ in range(3)] == [10000, 10001, 10002]
    assert (host.defaults / "context.next").read_text() == "10003\n"


def test_a_context_in_use_is_passed_over_and_the_counter_goes_round(host: Paths) -> None:
    for name, context in {"a": 65534, "b": 2, "c": 4}.items():
        saved(host, guest(name, context))
    host.defaults.mkdir(exist_ok=True)
    (host.defaults / "context.next").write_text("65533\n")
    assert [staging.draw_context(host) for _ in range(4)] == [65533, 3, 5, 6]


@pytest.mark.parametrize("text", ["0", "1", "65535", "-5", "99999999"])
def test_a_counter_out_of_its_range_begins_anew(host: Paths, text: str) -> None:
    host.defaults.mkdir()
    (host.defaults / "context.next").write_text(text)
    assert staging.draw_context(host) == 10000


@pytest.mark.parametrize("text", ["", "ten", "10000 10001"])
def test_a_counter_that_holds_no_number_is_an_error_with_its_place(host: Paths, text: str) -> None:
    host.defaults.mkdir()
    (host.defaults / "context.next").write_text(text)
    with pytest.raises(Refused, match=r"context\.next:1:1: it holds no number"):
        staging.draw_context(host)


def test_a_host_whose_contexts_are_all_taken_says_so(host: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guests, "contexts_in_use", lambda _: dict.fromkeys(range(2, 65535), "x"))
    with pytest.raises(VsError, match="every context of this host is taken"):
        staging.draw_context(host)


def test_a_start_is_decided_from_the_guests_directory(host: Paths) -> None:
    saved(host, guest(context=10007, nics=(nic("10.0.1.5"), nic("10.0.7.5", "1")), limits=Limits(tmpfs=16)))
    host.tree_of("web").mkdir(parents=True)
    before = below(host.root)
    start = phases.decide(host, "web")
    assert (start.record.netns, start.record.host_names, start.record.names) == (
        "vs10007",
        ("vs10007.0", "vs10007.1"),
        ("eth0", "eth1"),
    )
    assert start.record.cgroup == f"{host.cgroup}/web"
    assert start.names.domain == "lan.test"
    assert below(host.root) == before


def test_a_guest_without_a_tree_does_not_start(host: Paths) -> None:
    saved(host, guest(nics=(nic("10.0.1.5"),)))
    with pytest.raises(Refused, match="guest web has no tree"):
        phases.decide(host, "web")
    host.trees.mkdir(parents=True)
    host.tree_of("web").symlink_to("/")
    with pytest.raises(Refused, match="guest web has no tree"):
        phases.decide(host, "web")


@pytest.mark.parametrize("name", ["db", "web"])
def test_a_guest_whose_context_is_anothers_does_not_start(host: Paths, name: str) -> None:
    for other in ("db", "web"):
        saved(host, guest(other, 10000))
        host.tree_of(other).mkdir(parents=True)
    with pytest.raises(Refused, match=f"guest {name} has the context 10000 of guest"):
        phases.decide(host, name)


def test_the_record_of_a_start_comes_back_as_it_was_written(host: Paths) -> None:
    assert records.read(host, "web") is None
    folder = host.runtime_of("web")
    folder.mkdir(parents=True)
    record = records.Record("token", "vs10000", "vs-tools/web", ("vs10000.0",), ("eth0",))
    (folder / "record").write_text(json.dumps(asdict(record)))
    assert records.read(host, "web") == record
    (folder / "record").write_text('{"token": "to')
    assert records.read(host, "web") is None


def test_of_two_guests_that_leave_a_vlan_at_once_the_second_is_the_last(
    host: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[tuple[str, ...]] = []
    monkeypatch.setattr(kernel, "drop_vlans", dropped.append)
    record = records.Record("token", "vs10000", "vs-tools/web", vlans=("eth0.2", "eth0.3"))
    for name in ("web", "db"):
        host.runtime_of(name).mkdir(parents=True)
        records.write(host, name, record)
    records.leave_vlans(host, "web", record, replace(record, vlans=("eth0.3",)))
    records.leave_vlans(host, "db", record, replace(record, vlans=()))
    assert dropped == [(), ("eth0.2",)]
    assert records.read(host, "db") == replace(record, vlans=())
    records.leave_vlans(host, "web", record, replace(record, vlans=()))
    assert dropped[2:] == [("eth0.2", "eth0.3")]


def ordered(paths: Paths, names: tuple[str, ...], *, backwards: bool = False) -> list[set[str]]:
    """The guests in the groups that are acted on at once."""
    order = several._order(paths, names, backwards=backwards)
    groups = []
    while order.is_active():
        ready = order.get_ready()
        groups.append(set(ready))
        order.done(*ready)
    return groups


@pytest.fixture
def family(paths: Paths) -> tuple[str, ...]:
    """web needs ldap and db, db needs ldap; mail needs nobody here."""
    for number, (name, depends) in enumerate(
        {"web": ("ldap", "db"), "db": ("ldap",), "ldap": (), "mail": ("elsewhere",)}.items()
    ):
        saved(paths, guest(name, 10000 + number, depends=depends))
    return ("web", "db", "ldap", "mail")


def test_guests_start_after_those_they_depend_on_and_stop_before(paths: Paths, family: tuple[str, ...]) -> None:
    assert ordered(paths, family) == [{"ldap", "mail"}, {"db"}, {"web"}]
    assert ordered(paths, family, backwards=True) == [{"web", "mail"}, {"db"}, {"ldap"}]


def test_a_dependency_that_was_not_asked_for_is_not_waited_for(paths: Paths, family: tuple[str, ...]) -> None:
    assert ordered(paths, ("web", "mail")) == [{"web", "mail"}]


@pytest.mark.parametrize("backwards", [True, False])
def test_guests_that_depend_on_each_other_in_a_circle_are_done_in_any_order(
    paths: Paths, family: tuple[str, ...], backwards: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(paths, guest("ldap", 10002, depends=("web",)))
    turns = ordered(paths, family, backwards=backwards)
    assert set().union(*turns) == set(family)
    said = capsys.readouterr().err
    assert "guests depend on each other in a circle" in said
    assert {"web", "ldap"} <= set(said.split(": ")[-1].split())


def test_one_guest_that_fails_is_named_and_stops_no_other(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Paths, name: str) -> None:
        raise {"a": VsError("guest a did not start", "see its log"), "b": OSError(28, "No space left")}[name]

    monkeypatch.setattr(control, "start", fail)
    assert [several._guarded(paths, name, ["start"]) for name in ("a", "b")] == [1, 1]
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "vs-test: guest a did not start: see its log",
        "vs-test: guest b: OSError: [Errno 28] No space left",
    ]


def test_a_guest_that_runs_or_is_enabled_is_not_removed(paths: Paths) -> None:
    with pytest.raises(Refused, match="there is no guest 'web'"):
        removal.check_removable(paths, "web")
    saved(paths, guest(enabled=True))
    with pytest.raises(Refused, match="guest web is enabled: vs-control --name web --disable"):
        removal.check_removable(paths, "web")
    saved(paths, guest())
    removal.check_removable(paths, "web")
    paths.runtime_of("web").mkdir(parents=True)
    with (paths.runtime_of("web") / "runner").open("w") as runner:
        fcntl.flock(runner, fcntl.LOCK_EX)
        with pytest.raises(Refused, match="guest web is running: vs-control --name web --stop"):
            removal.check_removable(paths, "web")


def test_a_template_takes_no_existing_name_and_no_unknown_place(paths: Paths, tmp_path: Path) -> None:
    saved(paths, guest())
    (tmp_path / "old.tar").touch()
    for archive, sentence in {
        tmp_path / "old.tar": "exists already",
        tmp_path / "no/where.tar": "does not exist",
        tmp_path / "new.zip": "names no kind of archive",
    }.items():
        with pytest.raises(Refused, match=sentence):
            removal.check_template(paths, "web", archive)
    removal.check_template(paths, "web", tmp_path / "new.tar")

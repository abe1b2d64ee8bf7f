"""Other addresses for a guest: what becomes of its interfaces and MACs; and what a change goes back to."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from vstools import run
from vstools.config.create import CreateConf
from vstools.config.networks import Network, Networks
from vstools.errors import Busy, Refused, VsError
from vstools.guest import Guest, Nic
from vstools.lifecycle import addresses, change, confirm
from vstools.lifecycle.change import Edits
from vstools.lifecycle.host import Settings
from vstools.network import arp, devices, plan
from vstools.paths import Paths

from .made import guest, nic, saved

LINES = tuple(
    Network(vlan, ip_network(net), ip_address(gateway))
    for vlan, net, gateway in ((2, "10.2.0.0/24", "10.2.0.1"), (3, "10.3.0.0/24", "10.3.0.1"))
)
HOST = Settings(CreateConf(device="eth1"), Networks(LINES))
M0, M1, NEW = (f"02:00:00:00:00:0{digit}" for digit in "019")


@pytest.fixture(autouse=True)
def _mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "new_mac", lambda: NEW)


def edited(nics: tuple[Nic, ...], edits: Edits) -> Guest:
    return change._edited(guest(nics=nics), edits, HOST)


def told(found: Guest) -> list[tuple[str, str]]:
    return [(each.key, str(each.address)) for each in found.nics]


def macs(found: Guest) -> list[tuple[int, str]]:
    return [(link.vlan, link.mac) for link in plan.links(found, HOST.networks, HOST.conf)]


BOTH = (nic("10.2.0.5", "0", mac=M0), nic("10.2.0.6", "1", mac=M1))


def test_an_address_takes_the_first_free_key() -> None:
    nics = (nic("10.2.0.5", "0"), nic("10.2.0.6", "2"))
    assert told(edited(nics, Edits(add=(ip_address("10.3.0.5"),)))) == [
        ("0", "10.2.0.5"), ("1", "10.3.0.5"), ("2", "10.2.0.6"),
    ]  # fmt: skip


def test_a_link_that_stays_keeps_its_mac_whichever_address_goes() -> None:
    found = edited(BOTH, Edits(drop=(ip_address("10.2.0.5"),)))
    assert (told(found), macs(found)) == ([("1", "10.2.0.6")], [(2, M0)])


def test_an_address_that_moves_alone_takes_its_mac_along_and_one_of_several_gets_another() -> None:
    alone = edited(BOTH[:1], Edits(put=(("0", ip_address("10.3.0.5")),)))
    assert macs(alone) == [(3, M0)]
    of_two = edited(BOTH, Edits(put=(("0", ip_address("10.3.0.5")),)))
    assert macs(of_two) == [(3, NEW), (2, M0)]


def test_a_prefix_of_its_own_stays_in_the_network_that_it_was_for() -> None:
    own = (nic("10.2.0.5", "0", prefix=16),)
    assert edited(own, Edits(put=(("0", ip_address("10.2.0.9")),))).nics[0].prefix == 16
    assert edited(own, Edits(put=(("0", ip_address("10.3.0.9")),))).nics[0].prefix is None


@pytest.mark.parametrize(
    ("edits", "sentence"),
    [
        (Edits(put=(("4", ip_address("10.2.0.9")),)), "it has 0=10.2.0.5, 1=10.2.0.6, 2=10.2.0.7"),
        (Edits(put=(("0", ip_address("10.2.0.6")),)), "one address twice"),
        (Edits(put=(("0", ip_address("10.2.0.1")),)), "gateway"),
        (Edits(add=(ip_address("10.4.0.1"),)), "in no network"),
        (Edits(add=(ip_address("10.2.0.7"),)), "has 10.2.0.7, switched off: remove interfaces/2/disabled"),
    ],
)
def test_what_makes_no_sense_is_refused(edits: Edits, sentence: str) -> None:
    with pytest.raises(Refused, match=sentence):
        edited((*BOTH, nic("10.2.0.7", "2", disabled=True)), edits)


def test_an_address_that_is_there_may_be_asked_for_again() -> None:
    assert edited(BOTH, Edits(add=(ip_address("10.2.0.6"),), put=(("0", ip_address("10.2.0.5")),))).nics == BOTH


def waiting(paths: Paths, pending: confirm.Pending) -> None:
    from dataclasses import asdict

    (paths.config_of("web") / ".confirm").write_text(json.dumps(asdict(pending), default=str))


def test_a_waiting_change_is_read_back_and_keeps_its_addresses(as_root: Paths) -> None:
    saved(as_root, guest(nics=BOTH))
    pending = confirm.Pending(
        "t", confirm._boot(), confirm._now() + 60, "life", "auto", "rules", before=BOTH[:1], after=BOTH
    )
    waiting(as_root, pending)
    assert confirm.read(as_root, "web") == pending
    assert list(confirm.reserved(as_root)) == [(BOTH[0].address, "web")]
    assert not pending.is_over
    assert replace(pending, deadline=0.0).is_over
    assert replace(pending, boot="another").is_over


def test_a_start_after_the_deadline_finds_the_files_as_they_were(as_root: Paths) -> None:
    from vstools.config import guests

    saved(as_root, guest(nics=BOTH))
    waiting(as_root, confirm.Pending("t", "yesterday", 0, before=BOTH[:1], after=BOTH))
    confirm.before_start(as_root, "web")
    assert guests.load(as_root, "web").nics == BOTH[:1]
    assert confirm.read(as_root, "web") is None


def test_interfaces_that_were_edited_meanwhile_stay(as_root: Paths) -> None:
    from vstools.config import guests

    saved(as_root, guest(nics=BOTH))
    waiting(as_root, confirm.Pending("t", "yesterday", 0, before=BOTH[1:], after=BOTH[:1]))
    confirm.before_start(as_root, "web")
    assert guests.load(as_root, "web").nics == BOTH


def test_a_file_that_somebody_spoilt_is_told(as_root: Paths) -> None:
    saved(as_root, guest(nics=BOTH))
    for text in ("{", "[]", '{"token": 1}'):
        (as_root.config_of("web") / ".confirm").write_text(text)
        with pytest.raises(Refused, match=r"\.confirm:1:1: "):
            confirm.read(as_root, "web")


def test_in_a_vlan_of_a_bridge_the_host_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would ask its own network, where the address may be another machine's by right."""
    link = plan.Link("eth0", "vs2.0", "br1", 7, M0, None, (ip_interface("10.2.0.5/24"),), member=True)
    monkeypatch.setattr(devices, "has_device", lambda _: True)
    monkeypatch.setattr(arp, "probe", lambda *_: M1)
    addresses.check_wire((link,), (ip_address("10.2.0.5"),))
    with pytest.raises(Refused, match=M1):
        addresses.check_wire((replace(link, member=False, vlan=0),), (ip_address("10.2.0.5"),))


def test_the_rules_of_a_long_firewall_conf_wait_as_well(as_root: Paths) -> None:
    saved(as_root, guest(nics=BOTH))
    pending = confirm.Pending("t", "yesterday", 0, rules="-A from_all -s 10.0.0.1/32 -j ACCEPT\n" * 200_000)
    waiting(as_root, pending)
    assert confirm.read(as_root, "web") == pending


def test_where_no_process_can_wait_nothing_waits(as_root: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise VsError("no process")

    saved(as_root, guest(nics=BOTH))
    monkeypatch.setattr(run, "start", fails)
    with pytest.raises(VsError, match="no process"), confirm.around(as_root, "web", 60, confirm.Pending):
        raise AssertionError("the change is begun")
    assert confirm.read(as_root, "web") is None


def test_the_waiting_process_outlasts_who_holds_the_guest(as_root: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def lock(*_: object) -> Iterator[None]:
        if busy:
            raise busy.pop()
        yield

    saved(as_root, guest(nics=BOTH))
    waiting(as_root, confirm.Pending("t", "yesterday", 0))
    busy = [Busy("guest web is in use by another command")]
    monkeypatch.setattr(confirm, "guest_lock", lock)
    confirm.expire(as_root, "web", "t")
    assert confirm.read(as_root, "web") is None

"""A window in a guest's firewall: what it lets pass, in both back ends' words, and what is known of it in /run."""

import time
from ipaddress import ip_address, ip_interface

import pytest

from vstools import files
from vstools.config.firewall import Policy
from vstools.errors import Refused, VsError
from vstools.firewall import backend, explain, iptables, model, nftables
from vstools.firewall.packet import Packet
from vstools.lifecycle import filtering, leftovers, records, window
from vstools.paths import Paths

OWN = (ip_interface("10.7.1.2/24"), ip_interface("2001:db8:7::2/64"))
SINCE, UNTIL = 1795335200, 1795335288
ENDS = ((ip_address("192.0.2.1"), 80), (ip_address("192.0.2.2"), 80), (ip_address("2001:db8::1"), 443))
CLOSED = model.chains(Policy(), OWN, ())
OPEN = model.window(ENDS, SINCE, UNTIL)
MARK = model.MARK | UNTIL


def test_what_is_established_passes_unless_a_window_opened_it() -> None:
    for chain in ("from_known", "to_known"):
        first = CLOSED[chain][0]
        assert (first.match.states, first.match.marked, first.verdict) == (("established", "related"), 0, "accept")
    packet = Packet(True, ENDS[0][0], OWN[0].ip, 6, 80, 80, state="established")
    assert all(found.allowed for found in explain.decide(CLOSED, packet))


def test_a_window_says_until_when_everywhere_and_marks_what_it_opens() -> None:
    entries = [entry for chain in OPEN.values() for entry in chain]
    assert {(entry.match.since, entry.match.until) for entry in entries} == {(SINCE, UNTIL)}
    assert all(entry.match.marked == MARK or entry.marks == MARK for entry in entries)
    assert [entry.marks for entry in OPEN["from_known"]] == [0]
    later = model.window(ENDS, SINCE, UNTIL + 1)
    assert later["to_known"][1].marks != MARK, "an earlier window's connections stay closed"


def test_nft_gets_a_window_before_the_other_rules_in_the_same_act() -> None:
    text = nftables.opened(nftables.text(CLOSED), OPEN)
    lines = [line for line in text.splitlines() if line.startswith("insert ")]
    time = f"meta time >= {SINCE} meta time < {UNTIL}"
    assert lines == [
        f'insert rule inet vs {chain} {words} counter accept comment "a window for packages"'
        for chain, words in (
            ("from_known", f"ct state established,related ct mark {MARK} {time}"),
            *(
                ("to_known", f"{end} ct state new {time} ct mark set {MARK}")
                for end in (
                    "ip6 daddr { 2001:db8::1 } tcp dport { 443 }",
                    "ip daddr { 192.0.2.2 } tcp dport { 80 }",
                    "ip daddr { 192.0.2.1 } tcp dport { 80 }",
                )
            ),
            ("to_known", f"ct state established,related ct mark {MARK} {time}"),
        )
    ], "the last one that is inserted is the first"
    assert text.startswith(nftables.text(CLOSED))


def test_iptables_gets_a_window_before_the_other_rules_of_each_family() -> None:
    stop = "-m time --datestart 2026-11-22T08:13:20 --datestop 2026-11-22T08:14:48"
    comment = '-m comment --comment "a window for packages" -j ACCEPT'
    _, *blocks = iptables.opened(iptables.text(CLOSED), OPEN).split("# IPv")
    _, *plain = iptables.text(CLOSED).split("# IPv")
    new = [
        [line for line in block.splitlines() if line not in before.splitlines()]
        for block, before in zip(blocks, plain, strict=True)
    ]
    going_on = f"-m conntrack --ctstate RELATED,ESTABLISHED -m connmark --mark {MARK:#x} {stop} {comment}"
    for lines, ends in zip(new, (ENDS[:2], ENDS[2:]), strict=True):
        expected = [f"-A from_known {going_on}", f"-A to_known {going_on}"]
        for address, port in ends:
            way = f"-A to_known -d {address}/{address.max_prefixlen} -p tcp -m tcp --dport {port}"
            way += f" -m conntrack --ctstate NEW {stop}"
            expected += [f"{way} -j CONNMARK --set-mark {MARK:#x}", f"{way} {comment}"]
        assert lines == expected
    for block in blocks:
        chain = [line for line in block.splitlines() if line.startswith("-A to_known ")]
        assert chain.index(f"-A to_known {going_on}") == 0


def test_the_back_ends_read_a_mark_and_a_time_in_the_same_words() -> None:
    line = "[0:0] -A to_known -m connmark --mark {} -m time --datestart 2026-11-22T08:13:20 "
    line += "--datestop 2026-11-22T08:14:48 -j ACCEPT"
    found = [iptables._live(line.format(mark), "4") for mark in (f"{MARK:#x}", "0x0/0x80000000")]
    assert [rule.match if rule else "" for rule in found] == [
        f"meta nfproto ipv4 ct mark {mark} meta time >= 2026-11-22 08:13:20 meta time < 2026-11-22 08:14:48"
        for mark in (MARK, f"< {model.MARK}")
    ]
    assert iptables._live(f"[0:0] -A to_known -j CONNMARK --set-xmark {MARK:#x}/0xffffffff", "4") is None


BEFORE = nftables.text(CLOSED)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are loaded, the last one in force; the guest web runs."""
    loaded = [BEFORE]
    monkeypatch.setattr(records, "started", lambda paths, name: records.Record("life", "vs10000", "vs-tools/web"))
    monkeypatch.setattr(filtering, "saved", lambda netns: ("nftables", loaded[-1]))
    monkeypatch.setattr(backend, "choose", lambda name: nftables)
    monkeypatch.setattr(nftables, "load", lambda netns, words: loaded.append(words))
    return loaded


def test_rules_are_those_of_before_when_a_window_is_closed(paths: Paths, kernel: list[str]) -> None:
    with window.alone(paths, "web"):
        before = int(time.time())
        until = window.opened(paths, "web", (("192.0.2.1", 80),), 60)
        assert before + 60 <= until <= time.time() + 60
        assert kernel[-1].startswith(BEFORE)
        assert "192.0.2.1" in kernel[-1]
        assert window.rules(paths, "web", "vs10000") == ("nftables", BEFORE)
        assert leftovers.names(paths) == []
        window.closed(paths, "web")
        assert kernel[-1] == BEFORE
        window.closed(paths, "web")
        assert len(kernel) == 3
        window.forget(paths, "web")


def test_a_reload_is_what_a_window_goes_back_to(paths: Paths, kernel: list[str]) -> None:
    with window.alone(paths, "web"):
        until = window.opened(paths, "web", (("192.0.2.1", 80),), 60)
        kernel.append("other rules")
        window.again(paths, "web", "vs10000")
        assert kernel[-1] == nftables.opened("other rules", model.window(ENDS[:1], until - 120, until))
        window.closed(paths, "web")
        assert kernel[-1] == "other rules"


def test_nobody_opens_the_window_of_a_dead_command_again(paths: Paths, kernel: list[str]) -> None:
    with window.alone(paths, "web"):
        window.opened(paths, "web", (("192.0.2.1", 80),), 60)
    kernel.append("other rules")
    window.again(paths, "web", "vs10000")
    assert kernel[-1] == "other rules"
    assert leftovers.names(paths) == ["web"]
    window.closed(paths, "web")
    assert kernel[-1] == "other rules", "those of before the window are long forgotten"


def test_a_reload_after_the_deadline_is_what_stays(paths: Paths, kernel: list[str]) -> None:
    with window.alone(paths, "web"):
        window.opened(paths, "web", (("192.0.2.1", 80),), 0)
        kernel.append("other rules")
        window.again(paths, "web", "vs10000")
        window.closed(paths, "web")
        assert kernel[-1] == "other rules"


def test_a_window_does_not_come_again_in_another_life_of_the_guest(
    paths: Paths, kernel: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with window.alone(paths, "web"):
        window.opened(paths, "web", (("192.0.2.1", 80),), 60)
        monkeypatch.setattr(records, "started", lambda paths, name: records.Record("next", "vs10000", "vs-tools/web"))
        kernel.append("rules of the next life")
        assert window.rules(paths, "web", "vs10000") == ("nftables", "rules of the next life")
        window.again(paths, "web", "vs10000")
        window.closed(paths, "web")
        assert kernel[-1] == "rules of the next life"


def test_no_window_is_opened_in_rules_that_would_not_close_it(paths: Paths, kernel: list[str]) -> None:
    kernel.append(nftables.text(model.unmarked(CLOSED)))
    with window.alone(paths, "web"), pytest.raises(Refused, match="would go on accepting"):
        window.opened(paths, "web", (("192.0.2.1", 80),), 60)
    assert len(kernel) == 2


def test_a_kernel_without_conntrack_marks_filters_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load(netns: str, words: str) -> None:
        if "ct mark" in words:
            raise VsError("nft -f - failed", "Operation not supported")
        loaded.append(words)

    monkeypatch.setattr(nftables, "load", load)
    filtering.load("vs10000", CLOSED, "nftables")
    assert loaded == [nftables.text(model.unmarked(CLOSED))]
    assert not nftables.tells_marks(loaded[0])


def test_whether_rules_end_what_a_window_opened_is_seen_in_them() -> None:
    for tool in (nftables, iptables):
        assert tool.tells_marks(tool.text(CLOSED))
        assert not tool.tells_marks(tool.text(model.unmarked(CLOSED)))
        assert not tool.tells_marks("")
        half = {**CLOSED, "to_known": model.unmarked(CLOSED)["to_known"]}
        assert not tool.tells_marks(tool.text(half))


def test_a_start_knows_nothing_of_what_a_dead_command_began(paths: Paths) -> None:
    with window.alone(paths, "web"):
        window.write(paths, "web", window.State(idle=True))
        assert window.is_idle(paths, "web")
        window.forget_abandoned(paths, "web")
        assert window.is_idle(paths, "web")
    with pytest.raises(Refused, match="was to be started for its packages by a command that is dead"):
        window.forget_abandoned(paths, "web")
    assert not window.is_idle(paths, "web")
    window.forget_abandoned(paths, "web")
    with window.alone(paths, "web"):
        window.write(paths, "web", window.State())
    window.forget_abandoned(paths, "web")
    assert window.read(paths, "web") is None
    assert not files.is_locked(paths.locks / "web.packages")

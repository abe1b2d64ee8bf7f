"""vs-net: its options, its lines, and what it makes of nft's words."""

import json
import os
from ipaddress import ip_address
from typing import Any

import pytest

from vstools.cli import app, manual
from vstools.firewall import live, nftables
from vstools.lifecycle import net
from vstools.paths import Paths

from .made import guest, nic, saved

HOST = os.uname().nodename.partition(".")[0]


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str], list[str]]:
    """Status, lines of stdout, lines of stderr."""
    command = manual.command("vs-net")
    code = app.status_of("vs-net", lambda: command.main(list(words), prog_name="vs-net", standalone_mode=False))
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


@pytest.fixture
def stopped(as_root: Paths) -> Paths:
    """A host with one guest, which does not run; its third address is switched off."""
    nics = (nic("10.0.0.2"), nic("2001:db8::2", "1"), nic("10.0.0.3", "2", disabled=True))
    saved(as_root, guest(nics=nics))
    return as_root


def test_a_stopped_guest_has_nothing_up(capsys: pytest.CaptureFixture[str], stopped: Paths) -> None:
    lines = [f"{HOST}:web:{ip}:down:down:down:down" for ip in ("10.0.0.2", "[2001:db8::2]")]
    assert said(capsys, "--name", "web") == (0, lines, [])
    assert said(capsys, "--all") == (0, lines, [])
    assert said(capsys, "--all", "--rules") == (0, [], [])
    _, out, _ = said(capsys, "--all", "--json")
    assert json.loads("".join(out))[1] == {
        **{"host": HOST, "guest": "web", "ip": "2001:db8::2", "vlan": False, "route": False},
        **{"fw IN": False, "fw OUT": False},
    }


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "give either --name"),
        (("--name", "nobody"), "there is no guest"),
        (("--name", "web", "--fw", "sideways"), "sideways"),
        (("--name", "web", "--fw", "up", "--rules"), "contradict"),
        (("--name", "web", "--json", "--table"), "contradict"),
        (("--name", "web", "--fw", "up", "--dry-run", "--json"), "contradict"),
        (("--name", "web", "--dry-run"), "--dry-run goes with --vlan"),
        (("--name", "web", "--fw", "up"), "guest web does not run"),
        (("--name", "web", "--fw", "down", "--dry-run"), "guest web does not run"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(
    capsys: pytest.CaptureFixture[str], stopped: Paths, words: tuple[str, ...], sentence: str
) -> None:
    code, out, err = said(capsys, *words)
    assert (code, out, len(err)) == (2, [], 1), err
    assert sentence in err[0]


def test_with_all_stopped_guests_are_left_alone(capsys: pytest.CaptureFixture[str], stopped: Paths) -> None:
    assert said(capsys, "--all", "--fw", "up")[::2] == (0, [])


def test_an_ipv6_address_stands_in_brackets(
    capsys: pytest.CaptureFixture[str], stopped: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(net, "state", lambda *_: (net.Line(ip_address("2001:db8::2"), True, False, True, False),))
    assert said(capsys, "--name", "web")[1] == [f"{HOST}:web:[2001:db8::2]:up:down:up:down"]


def entry(chain: str, *expr: dict[str, Any], comment: str = "") -> dict[str, Any]:
    return {"rule": {"family": "inet", "table": "vs", "chain": chain, "comment": comment, "expr": list(expr)}}


COUNTER = {"counter": {"packets": 3, "bytes": 180}}
INPUT = [
    entry("input", {"goto": {"target": "from_known"}}),
    entry("from_known", {"goto": {"target": "from_all"}}),
    entry("from_all", {"drop": None}),
]
OUTPUT = [
    entry("output", {"goto": {"target": "to_known"}}),
    entry("to_known", {"goto": {"target": "to_all"}}),
    entry("to_all", {"drop": None}),
]


def base(name: str, policy: str = "drop") -> dict[str, Any]:
    return {"chain": {"family": "inet", "table": "vs", "name": name, "hook": name, "policy": policy}}


@pytest.mark.parametrize(
    ("entries", "up"),
    [
        ([], (False, False)),
        ([base("input"), base("output")], (False, False)),
        *(([base("input"), *INPUT[:gone], *INPUT[gone + 1 :]], (False, False)) for gone in range(3)),
        ([base("input"), *INPUT], (True, False)),
        ([base("input", "accept"), *INPUT], (False, False)),
        ([base("output"), *OUTPUT], (False, True)),
    ],
)
def test_a_firewall_is_up_where_the_kernel_drops_and_the_way_leads_to_the_rules(
    monkeypatch: pytest.MonkeyPatch, entries: list[dict[str, Any]], up: tuple[bool, bool]
) -> None:
    monkeypatch.setattr(nftables, "_table", lambda _: entries)
    assert live.is_up(nftables.read("vs2")) == {"input": up[0], "output": up[1]}


def test_a_live_rule_reads_as_nft_would_write_it(monkeypatch: pytest.MonkeyPatch) -> None:
    saddr = {"payload": {"protocol": "ip", "field": "saddr"}}
    prefix = {"prefix": {"addr": "10.0.0.0", "len": 8}}
    dport = {"payload": {"protocol": "tcp", "field": "dport"}}
    log = {"log": {"prefix": "/x:1", "group": 30323}}
    parts = [
        {"match": {"op": "!=", "left": saddr, "right": {"set": ["10.0.0.1", prefix]}}},
        {"match": {"op": "==", "left": dport, "right": {"set": [22, {"range": [80, 90]}]}}},
        {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}},
    ]
    entries = [entry("from_all", *parts, COUNTER, log, {"drop": None}, comment="/x:1")]
    monkeypatch.setattr(nftables, "_table", lambda _: entries)
    (found,) = nftables.read("vs2").rules
    text = "ip saddr != { 10.0.0.1, 10.0.0.0/8 } tcp dport { 22, 80-90 } ct state established,related"
    assert found == live.LiveRule("from_all", 3, 180, "drop", text, "/x:1")


def test_what_the_kernel_has_otherwise_is_named() -> None:
    wanted = live.Live({"input": "drop"}, tuple(live.LiveRule("a", 1, 9, "drop", word, "") for word in "xyz"))
    (x, y, z) = wanted.rules
    assert not list(live.differences(wanted, wanted))
    assert list(live.differences(wanted, live.Live({}, (x, z)))) == [
        "the firewall's chain input is missing",
        "the rule a: y drop is missing",
    ]
    more = live.LiveRule("b", 0, 0, "accept", "all", "/f:3")
    assert list(live.differences(wanted, live.Live({"input": "accept"}, (x, y, z, more)))) == [
        "the firewall's chain input has the policy accept",
        "the rule b: all accept (/f:3) is too much",
    ]
    assert len(list(live.differences(wanted, live.Live({"input": "drop"}, (z, y, x))))) == 1


def test_a_guest_whose_files_have_faults_hides_no_other(capsys: pytest.CaptureFixture[str], stopped: Paths) -> None:
    saved(stopped, guest("bad", 10001))
    (stopped.config_of("bad") / "context").write_text("x\n")
    code, out, err = said(capsys, "--all")
    assert (code, len(out), len(err)) == (1, 2, 1)
    assert err[0].startswith(f"{stopped.config_of('bad')}/context:1:1: ")
    assert said(capsys, "--name", "bad")[0] == 2

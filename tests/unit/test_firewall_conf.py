"""firewall.conf: the slide's file, every kind of fault at its place, and the text that nft gets of it."""

import re
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstools.config import firewall
from vstools.config.firewall import EVERYBODY, Policy, Rule, Service
from vstools.config.text import Faults
from vstools.errors import BadFiles
from vstools.firewall import model, nftables
from vstools.guest import Address, Interface

from .made import DATA

OWN = (ip_interface("10.7.1.2/24"), ip_interface("2001:db8:7::2/64"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "firewall.conf"


def read(path: Path, text: str) -> Policy:
    """The policy of a file of this text; raises BadFiles."""
    path.write_text(text, newline="")
    faults = Faults()
    found = firewall.load(path, path.parent, faults)
    faults.check()
    return found


def rule(path: Path, line: str) -> Rule:
    """The one rule of a line."""
    (found,) = read(path, line).rules
    return found


def faults_of(path: Path, text: str) -> list[str]:
    """The faults of a file of this text, without the directory."""
    with pytest.raises(BadFiles) as caught:
        read(path, text)
    return [line.removeprefix(f"{path.parent}/").removeprefix("firewall.conf:") for line in caught.value.faults]


def chains(policy: Policy, **more: bool) -> dict[str, list[str]]:
    """The rules of each chain of the text for nft, without counters."""
    text = ruleset(policy, OWN, (ip_address("10.7.1.1"),), **more)
    found: dict[str, list[str]] = {}
    for name, body in re.findall(r"chain (\w+) \{\n(.*?)    \}\n", text, re.DOTALL):
        found[name] = [
            re.sub(r'counter (log prefix "[^"\\]*" group 30323 )?', "", line.strip()) for line in body.splitlines()
        ]
    return found


def ruleset(policy: Policy, own: tuple[Interface, ...], host: tuple[Address, ...], **more: bool) -> str:
    """The text for nft."""
    return nftables.text(model.chains(policy, own, host, **more))


def test_the_lines_on_the_slide_load_as_printed() -> None:
    faults = Faults()
    found = firewall.load(DATA / "firewall.conf.2008", DATA, faults)
    faults.check()
    told = [
        (each.incoming, [str(net) for net in each.nets], [(one.protocol, one.low) for one in each.services])
        for each in found.rules
    ]
    assert found.enabled
    assert all(each.allow for each in found.rules)
    assert told == [
        (False, ["10.9.53.27/32", "10.7.21.12/32"], [(17, 53)]),
        (False, ["10.7.21.47/32"], [(6, 25)]),
        (True, ["10.8.3.5/32"], [(6, 5666), (6, 4949)]),
        (True, ["10.10.1.0/24", "10.9.1.62/32"], [(6, 22)]),
        (True, ["0.0.0.0/0"], [(6, 80)]),
    ]
    assert found.rules[0].place == f"{DATA}/firewall.conf.2008:3"


def test_a_missing_and_an_empty_file_deny_everything(path: Path) -> None:
    assert firewall.load(path, path.parent, Faults()) == Policy(enabled=True, rules=())
    assert read(path, "# nothing\n\n") == Policy(enabled=True, rules=())


def test_a_file_can_be_disabled(path: Path) -> None:
    assert read(path, " disable # for a while\nallow from any to all\n").enabled is False


@pytest.mark.parametrize(
    ("words", "nets"),
    [
        ("any", EVERYBODY),
        ("0/0", EVERYBODY[:1]),
        ("0.0.0.0/0", EVERYBODY[:1]),
        ("::/0", EVERYBODY[1:]),
        ("2001:db8::/32,10.0.0.1", (ip_network("2001:db8::/32"), ip_network("10.0.0.1"))),
        ("10.0.0.1,10.0.0.1", (ip_network("10.0.0.1"),)),
        ("10.0.0.1:10.0.0.2:10.0.0.3,any", (*map(ip_network, ("10.0.0.1", "10.0.0.2", "10.0.0.3")), *EVERYBODY)),
    ],
)
def test_addresses(path: Path, words: str, nets: tuple[object, ...]) -> None:
    assert rule(path, f"deny to {words} to all").nets == nets


@pytest.mark.parametrize(
    ("words", "services"),
    [
        ("all", [Service(None)]),
        ("tcp,udp", [Service(6), Service(17)]),
        ("tcp:1-65535", [Service(6, 1, 65535)]),
        ("udp:53,47", [Service(17, 53, 53), Service(47)]),
        ("icmp,icmp6", [Service(1, family=4), Service(58, family=6)]),
        ("icmp:echo-request,icmp6:echo-request", [Service(1, 8, 8, 4), Service(58, 128, 128, 6)]),
        ("icmp:0,icmp6:255", [Service(1, 0, 0, 4), Service(58, 255, 255, 6)]),
    ],
)
def test_protocols(path: Path, words: str, services: list[Service]) -> None:
    assert rule(path, f"\tallow   from any to {words}\t# x\r\n").services == tuple(services)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("permit from any to all", "1:1: 'permit' is not enable, disable, allow, deny or include"),
        ("  ALLOW from any to all", "1:3: 'ALLOW' is not enable, disable, allow, deny or include"),
        ("enable now", "1:8: nothing follows enable, but 'now' does"),
        ("enable\ndisable", "2:1: enable or disable is said once, and it was said already"),
        ("allow", "1:6: the line ends here"),
        ("allow in any to all", "1:7: 'in' is not from or to"),
        ("allow from any", "1:15: the line ends here"),
        ("allow from any tcp:80", "1:16: 'tcp:80' is not to"),
        ("allow from any to", "1:18: it ends here"),
        ("allow from any to tcp:80 tcp:81", "1:26: 'tcp:81' is too much"),
        ("allow from 10.0.0.1, 10.0.0.2 to all", "1:22: '10.0.0.2' is not to"),
        ("allow from www.foo.bar to all", "1:12: 'www.foo.bar' is not an address"),
        ("allow from 10.0.0.1,10.0.0.256 to all", "1:21: '10.0.0.256' is not an address"),
        ("allow from 10.0.0.1/24 to all", "1:12: 10.0.0.1/24 has host bits set"),
        ("allow from 10.0.0.0/0.0.0.255 to all", "1:12: '10.0.0.0/0.0.0.255' is not ADDRESS/PREFIX"),
        ("allow from 10.0.0.0/33 to all", "1:12: '10.0.0.0/33'"),
        ("allow from fe80::1%eth0 to all", "1:12: 'fe80::1%eth0' has a zone"),
        ("allow from 10.0.0.1:80 to all", "1:12: '10.0.0.1:80' is not an address"),
        ("allow from ::1, to all", "1:16: '' is not an address"),
        ("allow from @admins to all", "1:12: there is no alias 'admins'"),
        ("allow from any to http", "1:19: 'http' is not tcp, udp, icmp, icmp6, all or the number"),
        ("allow from any to tcp:80,443", "1:26: '443' is no protocol number (0 to 255); a port is written tcp:443"),
        ("allow from any to tcp:0", "1:19: '0' is not a range of ports"),
        ("allow from any to tcp:90-80", "1:19: '90-80' is not a range of ports"),
        ("allow from any to tcp:65536", "1:19: '65536' is not a range of ports"),
        ("allow from any to tcp:²", "1:19: '²' is not a port"),
        ("allow from any to tcp:", "1:19: '' is not a port"),
        ("allow from any to all:80", "1:19: 'all:80': all takes no ports"),
        ("allow from any to 6:80", "1:19: '6:80': a protocol number takes no ports"),
        ("allow from any to icmp:256", "1:19: '256' is no ICMP type"),
        ("allow from any to icmp:packet-too-big", "1:19: 'packet-too-big' is no ICMP type"),
        ("include", "1:1: a line is include FILE"),
        ("include a b", "1:11: a line is include FILE"),
        ('include a"b', "1:9: a line is include FILE"),
        ("include missing.conf", "1:9: there is no file"),
        ("include /dev", "/dev:1:1: it is not a file"),
        ("allow from any to tcp:80#http", "1:19: '80#http' is not a port"),
        ("allow from any to\xa0all", "1:16: 'to\\xa0all' is not to"),
    ],
)
def test_a_wrong_word_is_an_error_at_its_place(path: Path, line: str, fault: str) -> None:
    (found,) = faults_of(path, line + "\n")
    assert found.startswith(fault)


def test_the_name_of_a_host_is_refused_with_the_reason(path: Path) -> None:
    assert "a resolver must not decide a firewall" in faults_of(path, "allow from localhost to all")[0]


def test_all_faults_are_told_at_once(path: Path) -> None:
    (path.parent / "aliases.conf").write_text("admins = 10.0.0.1,x\n= 10.0.0.1\nadmins = ::1\n")
    text = "enable\nallow from a,b to c,tcp:0\n# fine\nnonsense\ninclude more.conf\n"
    (path.parent / "more.conf").write_text("disable\nallow from any to y\n")
    assert [fault.split(": ")[0] for fault in faults_of(path, text)] == [
        *("aliases.conf:1:19", "aliases.conf:2:1", "aliases.conf:3:1"),
        *("2:12", "2:14", "2:19", "2:21", "4:1", "more.conf:1:1", "more.conf:2:19"),
    ]


def test_aliases_are_addresses(path: Path) -> None:
    (path.parent / "aliases.conf").write_text("# who\nadmins = 10.0.0.1,2001:db8::/32 # us\n  dns=10.0.0.53:10.0.0.4\n")
    nets = rule(path, "allow from @admins,10.9.0.1,@dns to all").nets
    assert [str(net) for net in nets] == [
        *("10.0.0.1/32", "2001:db8::/32", "10.9.0.1/32", "10.0.0.53/32", "10.0.0.4/32")
    ]
    (path.parent / "aliases.conf").write_text("one = 10.0.0.1\ntwo = @one\n")
    assert faults_of(path, "enable")[0].startswith("aliases.conf:2:7: '@one' is not an address")


def test_what_is_included_stands_in_its_place(path: Path) -> None:
    (path.parent / "common.conf").write_text("allow from 10.0.0.2 to tcp:22\n")
    text = "allow from 10.0.0.1 to all\ninclude common.conf\nallow from 10.0.0.3 to all\ninclude common.conf\n"
    found = read(path, text).rules
    assert [str(each.nets[0].network_address) for each in found] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert found[1].place == f"{path.parent}/common.conf:1"


def test_files_that_include_each_other_are_an_error(path: Path) -> None:
    (path.parent / "a.conf").write_text("include b.conf\n")
    (path.parent / "b.conf").write_text(" include a.conf\n")
    assert faults_of(path, "include a.conf") == [f"b.conf:1:10: {path.parent}/a.conf includes itself"]


def test_sizes_are_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firewall, "RULES_MAX", 2)
    assert faults_of(path, "deny to any to all\n" * 3)[0].startswith("3:1: a guest has at most 2 rules")
    monkeypatch.setattr(firewall, "FILES_MAX", 1)
    (path.parent / "a.conf").write_text("")
    assert faults_of(path, "include a.conf") == ["1:9: more than 1 files are included"]
    (path.parent / "aliases.conf").write_text("x" * (1 << 20) + "y")
    assert "has more than 1048576 bytes" in faults_of(path, "enable")[0]


def test_only_a_newline_ends_a_line(path: Path) -> None:
    """An editor shows this as one comment."""
    for char in "\x0b\x0c\x1c\x85\u2028\r":
        assert read(path, f"# never{char}allow from any to all\n") == Policy()


WORDS = st.sampled_from(
    ["allow", "deny", "from", "to", "any", "0/0", "10.0.0.0/8", "10.0.0.1:10.0.0.2", "::1", "@a", "tcp:80", "udp:1-2",
     "all", "47", "icmp:8", "icmp6", ",", "#", "enable", "include", "x", "", '"', "{", "}", ";", "\x0b", "$(id)", "\n"]
)  # fmt: skip
SAFE = re.compile(r'([io]if "lo" )?[a-z0-9_ .:/{},!=<-]*( comment "[^"\\]*")?')


@given(lines=st.lists(st.one_of(st.text(), st.lists(WORDS, max_size=8).map(" ".join))))
def test_whatever_the_file_holds_it_is_read_or_refused_and_nothing_else_reaches_nft(
    path: Path, lines: list[str]
) -> None:
    path.write_bytes("\n".join(lines).encode("utf-8", "replace"))
    text = path.read_bytes().decode("utf-8", "replace").split("\n")
    faults = Faults()
    found = firewall.load(path, path.parent, faults)
    if faults:
        with pytest.raises(BadFiles) as caught:
            faults.check()
        for fault in caught.value.faults:
            if fault.startswith(f"{path}:"):
                line, column, _ = fault.removeprefix(f"{path}:").split(":", 2)
                assert 1 <= int(column) <= len(text[int(line) - 1]) + 1
        return
    allowed = [line for line in text if line.lstrip(" \t").startswith("allow")]
    assert len([each for each in found.rules if each.allow]) == len(allowed)
    for rules in chains(found).values():
        assert all(SAFE.fullmatch(rule) for rule in rules), rules


ADDRESS = st.sampled_from(["any", "0/0", "::/0", "10.0.0.0/8", "10.0.0.1", "2001:db8::/32", "2001:db8::1", "10.7.1.1"])
SERVICE = st.sampled_from(["tcp", "tcp:80", "udp:1-9", "icmp", "icmp:8", "icmp6:128", "47", "all"])
LINE = st.tuples(st.sampled_from(["from", "to"]), ADDRESS, SERVICE)
WIDTH = {
    "tcp": "meta l4proto 6",
    "tcp:80": "tcp dport { 80 }",
    "udp:1-9": "udp dport { 1-9 }",
    "icmp": "meta l4proto 1",
    "icmp:8": "icmp type { 8 }",
    "icmp6:128": "icmpv6 type { 128 }",
    "47": "meta l4proto 47",
    "all": "",
}


@given(lines=st.lists(LINE, max_size=6))
def test_no_rule_of_the_kernels_is_wider_than_its_line(path: Path, lines: list[tuple[str, str, str]]) -> None:
    policy = read(path, "".join(f"allow {way} {address} to {service}\n" for way, address, service in lines))
    found = chains(policy)
    for chain in ("from_all", "from_host", "to_all", "to_host"):
        places = [each for each in found[chain] if f"{path}:" in each]
        for each in places:
            number = int(each.rpartition(":")[2].rstrip('"'))
            way, address, service = lines[number - 1]
            assert chain.startswith(way)
            assert each.removesuffix(f' accept comment "{path}:{number}"').endswith(WIDTH[service])
            families = {"any": ("ipv4", "ipv6"), "0/0": ("ipv4",), "::/0": ("ipv6",)}.get(address)
            if families:
                assert each.startswith(tuple(f"meta nfproto {family}" for family in families))
                assert chain.endswith("_all"), "the host is not anybody"
            else:
                assert f"addr {{ {address} }}" in each
                assert chain.endswith("_all") or "/" not in address
        assert found[chain][-1].startswith("drop comment")


def test_a_ruleset_denies_what_it_does_not_allow(path: Path) -> None:
    found = chains(read(path, "allow from any,10.7.1.1 to tcp:80,tcp:79-85,tcp:443\ndeny to 10.0.0.0/8 to all\n"))
    assert found["from_all"] == [
        f'meta nfproto ipv4 tcp dport {{ 79-85, 443 }} accept comment "{path}:1"',
        f'meta nfproto ipv6 tcp dport {{ 79-85, 443 }} accept comment "{path}:1"',
        'drop comment "no rule allows it"',
    ]
    assert found["from_host"] == [
        f'ip saddr {{ 10.7.1.1 }} tcp dport {{ 79-85, 443 }} accept comment "{path}:1"',
        'drop comment "the host is isolated"',
    ]
    assert found["to_all"] == [
        f'ip daddr {{ 10.0.0.0/8 }} drop comment "{path}:2"',
        'drop comment "no rule allows it"',
    ]
    assert found["input"][2:] == [
        'ip saddr { 10.7.1.2 } drop comment "a forged address"',
        'ip6 saddr { 2001:db8:7::2 } drop comment "a forged address"',
        "ip daddr { 10.7.1.2 } goto from_known",
        "ip6 daddr { 2001:db8:7::2 } goto from_known",
        'drop comment "not an address of the guest"',
    ]
    assert found["output"][-1] == 'drop comment "a forged address"'
    assert found["from_known"][-1] == "goto from_all"
    assert found["to_known"][-1] == "goto to_all"


@pytest.mark.parametrize("words", ["", "disable\n"])
def test_what_is_down_lets_everything_pass_but_the_host_and_what_is_forged(path: Path, words: str) -> None:
    found = chains(read(path, f"{words}allow to 10.7.1.1 to udp:53\n"), up=bool(words))
    assert found["from_known"][-1] == found["to_known"][-1] == 'accept comment "no firewall"'
    assert found["from_all"] == found["to_all"] == []
    assert found["input"][-1] == "goto from_known"
    assert found["output"][-1] == 'drop comment "a forged address"'
    assert [each for each in found["to_host"] if "udp" in each] == [
        f'ip daddr {{ 10.7.1.1 }} udp dport {{ 53 }} accept comment "{path}:2"'.replace(":2", ":2" if words else ":1")
    ]


def test_a_guest_without_a_family_has_nothing_of_it() -> None:
    found = model.chains(Policy(), OWN[:1], ())
    for chain in ("input", "output"):
        ways = [entry for entry in found[chain] if entry.verdict not in ("accept", "drop")]
        assert [entry.match.family for entry in ways] == [4]
        assert (found[chain][-1].verdict, found[chain][-1].match) == ("drop", model.Match())


def test_a_long_name_in_a_comment_is_cut_and_quotes_are_replaced() -> None:
    place = '/x"' + "y" * 200 + ":7"
    text = ruleset(Policy(True, (Rule(True, True, EVERYBODY, (Service(None),), place),)), OWN, ())
    comments = re.findall(r'comment "(.*)"$', text, re.MULTILINE)
    assert max(map(len, comments)) == 120
    assert any(comment.startswith("...y") and comment.endswith("y:7") for comment in comments)
    assert not any('"' in comment for comment in comments)

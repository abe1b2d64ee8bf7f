"""create.conf: the slides' file, quotes and comments, and every fault at its place."""

import shutil
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstools.config import create
from vstools.config.create import CreateConf
from vstools.config.text import Faults, lines_of, whole_number
from vstools.errors import BadFiles, Refused
from vstools.guest import Cpu

from .made import DATA, REPO
from .parsed import fault_lines, reader

read = reader(create.load)
faults_of = fault_lines(create.load)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "create.conf"


def test_the_file_on_the_slide_loads_as_printed() -> None:
    faults = Faults()
    conf = create.load(DATA / "create.conf.2008", faults)
    faults.check()
    assert conf == CreateConf(
        device="eth0",
        domain="univ-reims.fr",
        nameservers=(ip_address("193.50.208.4"),),
        disk=1024,
        rss=128,
        tmpfs=16,
        proc=150,
        cpu=Cpu(9, 10),
        fake_os="2.6.8",
        context_method="crit",
        method="template",
        template="/vservers/TEMPLATES/etch1.tgz",
        distro="etch",
        main_mirror="<miroir Debian>/debian",
        update_mirror="<miroir Debian securite>",
    )


def test_a_missing_file_is_an_empty_one(path: Path) -> None:
    faults = Faults()
    assert create.load(path, faults) == CreateConf()
    assert not faults


@pytest.mark.parametrize(
    ("line", "template"),
    [
        ('DEFAULT_TEMPLATE="/a b.tgz"', "/a b.tgz"),
        ("DEFAULT_TEMPLATE='/a b.tgz'", "/a b.tgz"),
        ("DEFAULT_TEMPLATE=/a b.tgz", "/a b.tgz"),
        ("  DEFAULT_TEMPLATE=/a.tgz  ", "/a.tgz"),
        ("DEFAULT_TEMPLATE=/a.tgz # ours", "/a.tgz"),
        ("DEFAULT_TEMPLATE=/a.tgz\t# ours", "/a.tgz"),
        ("DEFAULT_TEMPLATE=/a#b.tgz", "/a#b.tgz"),
        ('DEFAULT_TEMPLATE="/a # b.tgz" # ours', "/a # b.tgz"),
        ('DEFAULT_TEMPLATE="/it\'s.tgz"', "/it's.tgz"),
        ("DEFAULT_TEMPLATE=/$HOME/`id`.tgz", "/$HOME/`id`.tgz"),
        ("DEFAULT_TEMPLATE=", ""),
        ("DEFAULT_TEMPLATE= # none", ""),
        ('DEFAULT_TEMPLATE=""', ""),
        ("#DEFAULT_TEMPLATE=/a.tgz", ""),
        ("\n   # a comment\n\n", ""),
    ],
)
def test_a_value_is_quoted_or_runs_to_the_end_or_to_a_comment(path: Path, line: str, template: str) -> None:
    assert read(path, line + "\n").template == template


def test_the_last_line_needs_no_end(path: Path) -> None:
    assert read(path, "MTU=1496").mtu == 1496


def test_name_servers_are_separated_by_spaces_or_commas(path: Path) -> None:
    conf = read(path, "DEFAULT_NAMESERVER=10.0.3.5, 10.0.3.6  2001:db8::53\n")
    assert [str(server) for server in conf.nameservers] == ["10.0.3.5", "10.0.3.6", "2001:db8::53"]


def test_inf_is_no_limit(path: Path) -> None:
    keys = ("DISK", "RSS", "TMPFS", "PROC", "CPU")
    conf = read(path, "".join(f"DEFAULT_{key}_LIMIT=inf\n" for key in keys))
    assert (conf.disk, conf.rss, conf.tmpfs, conf.proc, conf.cpu) == (None,) * 5


def test_unknown_key_is_an_error_with_file_line_and_column(path: Path) -> None:
    assert faults_of(path, "# sizes\n  DEFAULT_RAM_LIMIT=1\n") == ["2:3: DEFAULT_RAM_LIMIT is not a key of this file"]


def test_a_key_that_is_set_twice_is_an_error_that_names_the_first_line(path: Path) -> None:
    text = "MTU=1496\n\nMTU=1500\n"
    assert faults_of(path, text) == ["3:1: MTU was set in line 1 already"]


def test_a_key_in_small_letters_is_an_unknown_one(path: Path) -> None:
    assert faults_of(path, "mtu=1500\n") == ["1:1: mtu is not a key of this file"]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("DEFAULT_DEVICE", "1:1: a line is KEY=VALUE or begins with #"),
        ("   export MTU=1500", "1:4: a line is KEY=VALUE or begins with #"),
        ("MTU =1500", "1:1: a line is KEY=VALUE or begins with #"),
        ('DEFAULT_DOMAIN="foo.bar', '1:16: the quote " is not closed'),
        ("DEFAULT_DOMAIN='foo.bar' baz", "1:16: 'baz' stands after the closing quote"),
        ("DEFAULT_DOMAIN=foo..bar", "1:16: 'foo..bar' is not a domain name"),
        ("DEFAULT_DEVICE=a/b", "1:16: 'a/b' is not the name of a network device"),
        ("DEFAULT_DEVICE=sixteen-letters-", "1:16: 'sixteen-letters-' is not the name of a network device"),
        ("DEFAULT_NAMESERVER=10.0.0.300", "1:20: '10.0.0.300' is not an IPv4 or IPv6 address"),
        ("DEFAULT_NAMESERVER=fe80::1%eth0", "1:20: 'fe80::1%eth0' has a zone, which means nothing to another host"),
        ("DEFAULT_PREFIX=0", "1:16: '0' is not a whole number from 1 to 128"),
        ("DEFAULT_PREFIX=129", "1:16: '129' is not a whole number from 1 to 128"),
        ("MTU=-1", "1:5: '-1' is not a whole number from 576 to 65535"),
        ("MTU=15²0", "1:5: '15²0' is not a whole number from 576 to 65535"),
        ("DEFAULT_RSS_LIMIT=0", "1:19: '0' is not a whole number of at least 1, nor inf"),
        ("DEFAULT_RSS_LIMIT=128M", "1:19: '128M' is not a whole number of at least 1, nor inf"),
        ("DEFAULT_CPU_LIMIT=0.9", "1:19: '0.9' is not a share like 9/10"),
        ("DEFAULT_CPU_LIMIT=11/10", "1:19: '11/10' is not a share of the host: the first number is 1 to 10"),
        ("CONTEXT_METHOD=hash", "1:16: 'hash' is not one of: crit"),
        ("DEFAULT_METHOD=copy", "1:16: 'copy' is not one of: template, debootstrap, skeleton"),
        ("DEFAULT_TEMPLATE=etch1.tgz", "1:18: 'etch1.tgz' is not an absolute path"),
        ("DEFAULT_TIMEZONE=../../etc/passwd", "1:18: '../../etc/passwd' is not a time zone like Europe/Paris"),
        ("DEFAULT_LOCALE=fr FR", "1:16: 'fr FR' is not a locale like fr_FR.UTF-8"),
        ("STOP_TIMEOUT=0", "1:14: '0' is not a whole number from 1 to 3600"),
    ],
)
def test_a_wrong_value_is_an_error_at_its_place(path: Path, line: str, fault: str) -> None:
    assert faults_of(path, line + "\n") == [fault]


def test_all_faults_of_a_file_are_told_at_once(path: Path) -> None:
    text = "MTU=1\nDEFAULT_CPU_LIMIT=9/10\nNO_KEY=1\nnonsense\nDEFAULT_DISK_LIMIT=much\n"
    assert [fault.split(":")[0] for fault in faults_of(path, text)] == ["1", "3", "4", "5"]


def test_a_refused_configuration_has_changed_nothing() -> None:
    assert BadFiles(("x",)).exit_code == 2


def test_a_file_far_too_large_is_refused(path: Path) -> None:
    path.write_text("# " + "x" * (1 << 20))
    with pytest.raises(Refused, match="has more than 1048576 bytes"):
        create.load(path, Faults())


@pytest.mark.parametrize("text", ["0" * 20 + "99999", "9" * 5000, "", "+1", "1_0", "²"])
def test_a_whole_number_is_nothing_but_a_few_digits(text: str) -> None:
    with pytest.raises(ValueError, match="is not a whole number from 0 to 4094"):
        whole_number(0, 4094)(text)


LINES = st.one_of(
    st.text(),
    st.builds("{}={}".format, st.sampled_from([setting.key for setting in create.SETTINGS]), st.text()),
    st.builds(
        '{}="{}"'.format,
        st.sampled_from([setting.key for setting in create.SETTINGS]),
        st.sampled_from(["1", "inf", "9/10", "eth0", "/x", "10.0.0.1", "crit", "9" * 5000, "0" * 30 + "1"]),
    ),
)


@given(lines=st.lists(LINES))
def test_whatever_the_file_holds_reading_it_collects_faults_and_raises_nothing(path: Path, lines: list[str]) -> None:
    path.write_bytes("\n".join(lines).encode("utf-8", "replace"))
    faults = Faults()
    conf = create.load(path, faults)
    assert isinstance(conf, CreateConf)
    if faults:
        with pytest.raises(BadFiles) as caught:
            faults.check()
        last = len(lines_of(path))
        for fault in caught.value.faults:
            line, column, sentence = fault.removeprefix(f"{path}:").split(":", 2)
            assert 1 <= int(line) <= last
            assert int(column) >= 1
            assert sentence.strip()


@given(content=st.binary())
def test_bytes_that_are_no_text_are_faults_too(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert isinstance(create.load(path, Faults()), CreateConf)


def test_change_sets_a_key_where_it_is_set_now(path: Path) -> None:
    path.write_text("MTU=1496\n#DEFAULT_DEVICE=eth0\n  DEFAULT_DEVICE=eth1 # ours\n")
    create.change(path, {"DEFAULT_DEVICE": "vsbr0"})
    assert path.read_text() == "MTU=1496\n#DEFAULT_DEVICE=eth0\nDEFAULT_DEVICE=vsbr0\n"


def test_change_sets_a_new_key_below_its_commented_sample(path: Path) -> None:
    path.write_text("# device\n#DEFAULT_DEVICE=eth0\n\n# more\n")
    create.change(path, {"DEFAULT_DEVICE": "vsbr0"})
    assert path.read_text() == "# device\n#DEFAULT_DEVICE=eth0\nDEFAULT_DEVICE=vsbr0\n\n# more\n"


def test_change_adds_a_key_that_the_file_does_not_know(path: Path) -> None:
    create.change(path, {"DEFAULT_DEVICE": "vsbr0", "MTU": "1496"})
    assert path.read_text() == "DEFAULT_DEVICE=vsbr0\nMTU=1496\n"


def test_change_twice_is_change_once(path: Path) -> None:
    shutil.copy(REPO / "etc/create.conf.sample", path)
    wanted = {"DEFAULT_DEVICE": "vsbr0", "DEFAULT_TEMPLATE": "/var/lib/vservers/TEMPLATES/debian 13.tar.zst"}
    create.change(path, wanted)
    once = path.read_text()
    create.change(path, wanted)
    assert path.read_text() == once
    faults = Faults()
    conf = create.load(path, faults)
    faults.check()
    assert (conf.device, conf.template) == ("vsbr0", "/var/lib/vservers/TEMPLATES/debian 13.tar.zst")


@pytest.mark.parametrize("template", ["/t.tar", "/a b.tar", "/a#1.tar", "/it's.tar", '/a"b".tar', "/#.tar"])
def test_what_change_writes_is_what_load_reads(path: Path, template: str) -> None:
    create.change(path, {"DEFAULT_TEMPLATE": template})
    faults = Faults()
    assert create.load(path, faults).template == template
    faults.check()


def test_what_copies_leave_free_is_a_share_or_mebibytes(path: Path) -> None:
    size = 1000 << 20
    assert read(path, "").store_reserve.of(size) == 50 << 20
    assert read(path, "STORE_RESERVE=10%\n").store_reserve.of(size) == 100 << 20
    assert read(path, "STORE_RESERVE=300\n").store_reserve.of(size) == 300 << 20
    assert read(path, "STORE_RESERVE=3000\n").store_reserve.of(size) == size
    for text in ("100%", "-1", "5 GiB", "%"):
        assert faults_of(path, f"STORE_RESERVE={text}\n") == [
            f"1:15: '{text}' is neither a number of MiB nor a share like 5%"
        ]

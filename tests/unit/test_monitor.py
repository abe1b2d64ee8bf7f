"""Alerts, their mails and what is remembered of them: each begins once and ends once, whatever a guest does."""

import email
import json
import re
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from math import exp, inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstools.errors import VsError
from vstools.monitor import alerts, deliver, ends, load, owners, rate, sockets, spool, state, text
from vstools.monitor.alerts import NOTHING, Alert, Count, Event, Fact, Level, Seen, Standing, step
from vstools.monitor.diag import MOST, Socket
from vstools.monitor.owners import UNKNOWN, Owner
from vstools.monitor.sieve import Sieve
from vstools.monitor.sockets import Known
from vstools.storage import lxcfs

ABOUT = text.About("vsh", "vsh.example.org", "web", ("root", "ops@example.org"), "/etc/vservers/web/monitor.conf")
RANGE = (32768, 60999)


def level(value: float | None, limit: float = 90) -> Level:
    return Level("memory", value, limit, f"memory {value}%")


def run(*rounds: list[Seen]) -> list[list[tuple[bool, str]]]:
    """What is told in each round, a minute apart."""
    standing, told = NOTHING, []
    for number, seen in enumerate(rounds):
        standing, events = step(standing, seen, 60.0 * number)
        told.append([(event.began, event.key) for event in events])
    return told


def test_a_level_begins_at_its_limit_and_ends_well_below_it() -> None:
    values = (89, 90, 95, 89, 81, 90, 80.9, 89, None, 91, None, 10)
    told = run(*([level(value)] for value in values))
    began, over = [(True, "memory")], [(False, "memory")]
    assert told == [[], began, [], [], [], [], over, [], [], began, [], over]


def test_hits_are_one_alert_until_there_was_none_for_a_while() -> None:
    totals = [5, 5, 7, *range(8, 20), *([19] * 20)]
    told = run(*([Count("hits", total, "limit reached")] for total in totals))
    flat = [(number, began) for number, each in enumerate(told) for began, _ in each]
    assert [began for _, began in flat] == [True, False]
    assert flat[0][0] == 2, "what was there at the first look is not ours to tell"
    assert (flat[1][0] - 14) * 60 == alerts.QUIET
    standing, events = step(Standing({}, {"hits": 7}), [Count("hits", 3, "limit reached")], 0)
    assert (events, standing.counts["hits"]) == ([], 3), "a cgroup went, and what was counted in it"
    _, events = step(standing, [Count("hits", 5, "limit reached")], 60)
    assert events[0].text == "limit reached 2 times"


def test_hits_are_over_after_a_while_also_when_the_clock_was_set_back() -> None:
    standing = Standing({}, {"hits": 0})
    standing, _ = step(standing, [Count("hits", 1, "limit reached")], 2e9)
    for seconds, told in ((0, 0), (alerts.QUIET - 1, 0), (alerts.QUIET, 1)):
        standing, events = step(standing, [Count("hits", 1, "limit reached")], 1e9 + seconds)
        assert len(events) == told


def test_what_is_no_longer_seen_or_watched_ends_and_what_is_not_known_stays() -> None:
    socket = Fact("socket tcp", True, "new socket")
    assert run([socket], [socket], [], []) == [[(True, "socket tcp")], [], [(False, "socket tcp")], []]
    assert run([socket], [Fact("socket tcp", None, "")], [socket]) == [[(True, "socket tcp")], [], []]
    assert run([level(95)], [level(95, inf)]) == [[(True, "memory")], [(False, "memory")]]


SEEN = st.one_of(
    st.builds(
        Level,
        st.sampled_from("ab"),
        st.one_of(st.none(), st.floats(0, 200)),
        st.sampled_from([50.0, 90.0, inf]),
        st.just("t"),
    ),
    st.builds(Count, st.sampled_from("cd"), st.one_of(st.none(), st.integers(0, 9)), st.just("t")),
    st.builds(Fact, st.sampled_from("ef"), st.sampled_from([True, False, None]), st.just("t")),
)


@given(st.lists(st.lists(SEEN, max_size=6, unique_by=lambda each: each.key), max_size=40))
def test_whatever_is_seen_an_alert_begins_and_ends_in_turn_and_what_is_open_has_begun(rounds: list[list[Seen]]) -> None:
    standing, is_open = NOTHING, dict[str, bool]()
    for number, seen in enumerate(rounds):
        standing, events = step(standing, seen, 300.0 * number)
        for event in events:
            assert event.began != is_open.get(event.key, False)
            is_open[event.key] = event.began
        assert set(standing.open) == {key for key, value in is_open.items() if value}
        for each in seen:
            if isinstance(each, Level) and each.value is not None and each.value >= each.limit:
                assert is_open[each.key]


def test_a_guest_that_sways_all_day_sends_few_mails_and_everything_is_counted() -> None:
    bucket, waiting, mails, told = rate.full(rate.GUEST, 0), rate.Waiting(), 0, 0
    for minute in range(24 * 60):
        event = Event(minute % 2 == 0, "memory", "memory", minute * 60.0)
        waiting = waiting.including([event])
        bucket = bucket.filled(rate.GUEST, minute * 60.0)
        if bucket.tokens >= 1:
            bucket, mails, told = bucket.taken(), mails + 1, told + len(waiting.events) + waiting.dropped
            waiting = rate.Waiting()
    assert mails <= rate.GUEST.burst + 24 * 3600 / rate.GUEST.seconds
    assert told + len(waiting.events) + waiting.dropped == 24 * 60
    many = rate.Waiting().including([event] * 1000)
    assert (len(many.events), many.dropped) == (rate.HOLD, 1000 - rate.HOLD)


@given(st.lists(st.floats(0, 1e6), max_size=30), st.floats(0, 60))
def test_a_bucket_never_holds_more_than_its_burst_even_when_the_clock_begins_anew(
    times: list[float], tokens: float
) -> None:
    bucket = rate.Bucket(tokens, 5e5)
    for at in times:
        bucket = bucket.filled(rate.HOST, at)
        assert 0 <= bucket.tokens <= rate.HOST.burst


def test_the_subject_says_host_guest_what_value_and_limit() -> None:
    events = (Event(False, "load", "load 0.5", 0), Event(True, "memory", "memory 93% (60M of 64M), threshold 90%", 0))
    assert text.subject(ABOUT, events[1:]) == "vsh: web: memory 93% (60M of 64M), threshold 90%"
    assert text.subject(ABOUT, events, 3) == "vsh: web: memory 93% (60M of 64M), threshold 90% (and 4 more)"
    assert text.subject(ABOUT, events[:1]) == "vsh: web: over: load 0.5"


def test_a_mail_as_a_person_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_clock", lambda at: f"<{at:.0f}>")
    events = (
        Event(
            True, "socket x", "new socket tcp 0.0.0.0:4444 by /bin/nc, uid 0", 60, details=("process /bin/nc, pid 77",)
        ),
        Event(False, "load", "load 0.50", 120),
    )
    still = [("socket x", Alert(60, "new socket")), ("memory", Alert(1, "memory 93%"))]
    found = email.message_from_string(text.mail(ABOUT, events, 0, still, 0, 7))
    assert (found["To"], found["From"]) == ("root, ops@example.org", "vs-monitor <root@vsh.example.org>")
    assert (found["Date"], found["Message-ID"]) == (
        "Thu, 01 Jan 1970 00:00:00 +0000",
        "<vs-monitor.7.0@vsh.example.org>",
    )
    assert found.get_payload() == (
        "Guest web on vsh.example.org\n"
        "\n"
        "<60>  BEGAN  new socket tcp 0.0.0.0:4444 by /bin/nc, uid 0\n"
        "    process /bin/nc, pid 77\n"
        "<120>  over   load 0.50\n"
        "\n"
        "Still so:\n"
        "    since <1>: memory 93%\n"
        "\n"
        "What is watched: /etc/vservers/web/monitor.conf; now: vs-stats --name web\n"
    )


@given(st.text(), st.text(), st.text())
def test_no_string_of_a_guests_ends_a_header_or_a_line(guest: str, words: str, detail: str) -> None:
    about = text.About("vsh", words, guest, ("root",), detail)
    event = Event(True, "socket", words, 0, details=(detail,))
    whole = text.mail(about, (event, event), 0, [("x", Alert(0, words))], 0, 1)
    whole.encode("ascii")
    head, _, body = whole.partition("\n\n")
    assert [line.partition(":")[0] for line in head.split("\n")] == [
        "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type",
        "Content-Transfer-Encoding",
    ]  # fmt: skip
    assert body.count("\n") == 11
    assert all(line.isprintable() and len(line) <= 998 for line in whole.split("\n"))
    assert deliver.envelope(whole)[1] == ["root"]


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("/bin/x\r\nBcc: all@example.org", r"/bin/x\x0d\x0aBcc: all@example.org"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\\n", r"a\\n"),
        ("\udcff\u202e\U0001f600", r"\xff\u202e\U0001f600"),
        (b"\xc3\xa9\xff", r"\xe9\xff"),
    ],
)
def test_hostile_names_are_shown_as_they_are(hostile: str | bytes, shown: str) -> None:
    assert text.escaped(hostile) == shown


def test_the_load_decays_as_the_kernels() -> None:
    assert load.decay(0, 2, 900) == pytest.approx(2 * (1 - exp(-1)))
    twice = load.decay(load.decay(1.5, 3, 60), 3, 60)
    assert twice == pytest.approx(load.decay(1.5, 3, 120)), "it does not matter how often one looks"
    assert load.decay(4, 0, -5) == 4


def test_active_tasks_are_counted_thread_by_thread_whatever_they_are_called(tmp_path: Path) -> None:
    def stat(where: str, state: str, threads: int) -> None:
        (tmp_path / where).mkdir(parents=True)
        (tmp_path / where / "stat").write_text(f"1 (a) R b) {state}{' 0' * 16} {threads} 0 0\n")

    stat("7", "S", 3)
    for tid, letter in ((7, "S"), (8, "R"), (9, "D")):
        stat(f"7/task/{tid}", letter, 3)
    stat("10", "R", 1)
    stat("11", "S", 1)
    (tmp_path / "12").mkdir()
    (tmp_path / "12/stat").write_text("nonsense")
    assert load.active([7, 10, 11, 12, 13], str(tmp_path)) == 3


def test_more_tasks_than_are_looked_at_count_with_the_same_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "LOOK", 10)
    monkeypatch.setattr(load, "_state", lambda _: ("R", 1))
    assert load.active(range(30)) == 30


def found(port: int = 22, inode: int = 1, protocol: str = "tcp", uid: int = 655360) -> Socket:
    return Socket(protocol, "0.0.0.0", port, uid, inode)  # noqa: S104 - as the kernel shows it


def judged(
    known: Known,
    *each: Socket,
    owner: Owner = Owner(7, "/usr/sbin/sshd"),
    filtered: str = "",
    told: Iterable[Fact] = (),
    cut: bool = False,
    blind: bool = False,
) -> tuple[Known, list[Fact]]:
    look = sockets.Look(list(each), {one.inode: owner for one in each}, RANGE, 655360, cut, blind)
    sieve = Sieve(tuple(re.compile(word) for word in filtered.split()))
    return sockets.judge(look, known, sieve, {fact.key: Alert(0, fact.text) for fact in told})


def ended(facts: list[Fact], told: list[Fact], why: str = "closed") -> list[str]:
    """What is said to be over, of what was told."""
    standing = Standing({fact.key: Alert(0, fact.text) for fact in told}, {})
    return [event.text for event in step(standing, facts, 60, lambda _: why)[1] if not event.began]


def test_the_first_look_is_the_baseline_and_another_program_on_a_known_port_is_new() -> None:
    known, facts = judged(Known(), found())
    assert facts == []
    assert judged(known, found(inode=99))[1] == [], "started anew"
    (fact,) = judged(known, found(), owner=Owner(9, "/tmp/sshd"))[1]
    assert fact.text == "new socket tcp 0.0.0.0:22 by /tmp/sshd, uid 0"
    assert "process /tmp/sshd, pid 9 on the host" in fact.details
    (unknown,) = judged(known, found(80), owner=UNKNOWN)[1]
    assert unknown.text.endswith("by ?, uid 0")


def test_a_resolvers_many_ports_are_one_socket_and_a_backdoor_at_such_a_port_is_told() -> None:
    unbound = Owner(7, "/usr/sbin/unbound")
    known, _ = judged(Known(), found(40000, protocol="udp"), owner=unbound)
    assert judged(known, *(found(port, port, "udp") for port in range(50000, 50200)), owner=unbound)[1] == []
    assert len(judged(known, found(50000, protocol="udp"), owner=Owner(8, "/tmp/x"))[1]) == 1


@pytest.mark.parametrize(
    ("pattern", "is_told"),
    [("/sshd$", False), (r"^0\.0\.0\.0:80$", False), (r"sshd\s0\.0", False), ("nothing :80$", False), (":8080$", True)],
)
def test_the_filter_is_looked_for_in_executable_and_address(pattern: str, is_told: bool) -> None:
    assert bool(judged(Known(frozenset()), found(80), filtered=pattern)[1]) is is_told


def test_the_slides_filter_works_on_the_slides_sockets() -> None:
    words = "/apache2$ /var/run/apache2/cgi.sockl."
    web = Owner(7, "/usr/sbin/apache2")
    assert judged(Known(frozenset()), found(80), owner=web, filtered=words)[1] == []
    gate = Socket("unix", "/var/run/apache2/cgi.sockl.123", 0, None, 5)
    assert judged(Known(frozenset()), gate, owner=Owner(8, "/x"), filtered=words)[1] == []


def test_many_sockets_are_told_in_few_words() -> None:
    facts = judged(Known(frozenset()), *(found(number, number) for number in range(1, MOST + 1)), cut=True)[1]
    assert len(facts) == 22
    assert facts[-2].text == f"{MOST - 20} further new listening sockets"
    assert len({fact.key for fact in facts}) == 22


def test_a_listener_is_told_however_many_udp_sockets_were_told_before() -> None:
    known = Known(frozenset())
    flood = [found(port, port, "udp") for port in range(1, 100)]
    told = judged(known, *flood)[1]
    assert [fact.text for fact in told[20:]] == ["79 further new UDP sockets"]
    facts = judged(known, found(4444, 4444), *flood, told=told)[1]
    assert {fact.key for fact in facts} - {fact.key for fact in told} == {"socket tcp 0.0.0.0:4444 /usr/sbin/sshd"}
    assert ended(facts, told) == []


@pytest.mark.parametrize("bound", ["cut", "blind"])
def test_a_look_that_was_not_at_everything_ends_no_alert_and_others_do_not_pile_up(bound: str) -> None:
    known, told = Known(frozenset()), list[Fact]()
    for number in range(1, 200, 10):
        each = [found(port, port) for port in range(number, number + 10)]
        facts = judged(known, *each, told=told, **{bound: True})[1]  # type: ignore[arg-type]
        assert ended(facts, told) == []
        assert sum(fact.key.startswith("socket ") for fact in facts) <= 20
        told = [fact for fact in facts if fact.holds or fact.holds is None]
    assert f"sockets-{'many' if bound == 'cut' else 'owners'}" in {fact.key for fact in told}
    assert len(ended(judged(known)[1], told)) == len(told)


def test_a_socket_that_is_no_longer_watched_is_not_said_to_be_closed() -> None:
    _, told = judged(Known(frozenset()), found(4444))
    facts = judged(Known(frozenset()), found(4444), told=told, filtered=":4444$")[1]
    assert ended(facts, told) == [f"{told[0].text}: no longer watched"]
    assert ended(judged(Known(frozenset()), told=told)[1], told) == [f"{told[0].text}: closed"]
    known, facts = judged(Known(), found(4444), told=told)
    assert ended(facts, told) == [f"{told[0].text}: listens at the first look, known from now on"]
    assert judged(known, found(4444))[1] == []


def test_a_program_that_an_upgrade_replaced_is_the_same_and_one_that_hides_its_file_is_told() -> None:
    old, new = Owner(7, "/usr/sbin/nginx"), Owner(7, "/usr/sbin/nginx (deleted)")
    known, _ = judged(Known(), found(80), owner=old)
    assert judged(known, found(80), owner=new)[1] == []
    assert judged(Known(frozenset()), found(80), owner=new, filtered="/nginx$")[1] == []
    assert judged(judged(Known(), found(80), owner=new)[0], found(80), owner=old)[1] == []
    (fact,) = judged(known, found(80), owner=Owner(7, "/tmp/nginx (deleted)"))[1]
    assert "by /tmp/nginx (deleted)" in fact.text


@given(st.text(), st.text())
def test_what_is_remembered_of_a_socket_is_short_and_its_own(path: str, other: str) -> None:
    def name(path: str) -> str:
        return sockets.name_of(Socket("unix", path, 0, None, 1), Owner(1, "/x" * 150), RANGE)

    long = "/" + "\udc80" * 200
    assert (name(long + path) == name(long + other)) is (path == other)
    assert (name(path) == name(other)) is (path == other)
    assert len(json.dumps(name(long + path))) <= 110


def test_an_expression_that_takes_for_ever_on_a_guests_string_is_given_up_and_the_socket_told() -> None:
    hostile = Socket("unix", "/" + "a" * 200 + "!", 0, None, 1)
    begun = time.monotonic()
    facts = judged(Known(frozenset()), hostile, found(80, 2), filtered="(a+)+$ :80$")[1]
    assert time.monotonic() - begun < 60, "it would take longer than anybody lives"
    assert [fact.key.split(" ")[0] for fact in facts] == ["socket", "sockets-filter"]
    assert facts[0].text.startswith("new socket unix /aaa")
    many = [Socket("unix", f"/{'a' * 200}!{number}", 0, None, number) for number in range(400)]
    begun = time.monotonic()
    assert len(judged(Known(frozenset()), *many, filtered="(a+)+$")[1]) == 22
    assert time.monotonic() - begun < 60


def test_owners_are_found_by_open_files_and_the_search_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pid, inode in ((7, 70), (8, 80), (9, 70)):
        (tmp_path / f"{pid}/fd").mkdir(parents=True)
        (tmp_path / f"{pid}/fd/0").symlink_to("/dev/null")
        (tmp_path / f"{pid}/fd/3").symlink_to(f"socket:[{inode}]")
        (tmp_path / f"{pid}/exe").symlink_to(f"/bin/{pid}")
    every = {70: Owner(7, "/bin/7"), 80: Owner(8, "/bin/8")}
    assert owners.find([9, 8, 7, 6], {70, 80, 90}, str(tmp_path)) == (every, True)
    for bound, least in (("PROCESSES", 1), ("DESCRIPTORS", 1)):
        with monkeypatch.context() as patch:
            patch.setattr(owners, bound, least)
            assert owners.find([9, 8, 7, 6], {90}, str(tmp_path)) == ({}, False), "that is no longer everything"
    monkeypatch.setattr(owners, "PROCESSES", 2)
    assert owners.find([9, 8, 7, 6], {70}, str(tmp_path)) == ({70: every[70]}, True), "what was asked for was found"
    assert UNKNOWN.executable == "?"


@pytest.mark.parametrize(
    ("left", "kind", "words"),
    [
        ("asked", ends.ASKED, "stopped by a command on this host"),
        ("signal Interrupt(2)", ends.BY_ITSELF, "it powered itself off"),
        ("signal Killed(9)", ends.DIED, "its init was ended by signal 9 (SIGKILL)"),
        ("signal (11)", ends.DIED, "its init was ended by signal 11 (SIGSEGV)"),
        ("error (3)", ends.DIED, "its init ended with status 3"),
        ("lxc 0", ends.DIED, "its init ended with status 0, without powering off"),
        ("lxc 137", ends.DIED, "how is not known, LXC's own process ended first (lxc 137)"),
    ],
)
def test_how_a_guest_ended(left: str, kind: str, words: str) -> None:
    assert ends.ending(f"a1 error (3)\nb2 {left}\nc3 error (4)\n", "b2") == (kind, words)


@pytest.mark.parametrize("left", ["", "b2 asked\n", "asked\n", "a12 asked\n"])
def test_the_end_of_another_life_says_nothing_of_this_one(left: str) -> None:
    assert ends.ending(left, "a1") == (ends.DIED, "nothing is known of its end, its runner left no word")


MOUNT = "812 790 0:{} /proc/meminfo {} rw,nosuid,nodev,relatime shared:9 - fuse.lxcfs lxcfs rw,user_id=0\n"


@pytest.mark.parametrize(
    ("guest", "host", "gone", "where"),
    [
        ("", MOUNT.format(55, "/var/lib/lxcfs"), False, ""),
        (MOUNT.format(55, "/proc/meminfo"), MOUNT.format(55, "/var/lib/lxcfs"), False, "/var/lib/lxcfs"),
        (MOUNT.format(55, "/proc/meminfo"), MOUNT.format(56, "/var/lib/lxcfs"), True, ""),
        (MOUNT.format(55, "/proc/meminfo"), "", True, ""),
        ("fuse.lxcfs", "fuse.lxcfs", False, ""),
    ],
)
def test_an_lxcfs_is_gone_where_the_host_has_another_or_none(guest: str, host: str, gone: bool, where: str) -> None:
    assert lxcfs.is_gone(guest, host) == (gone, where)


LIFE = state.Life(
    token="a1", load=0.25,  # noqa: S106
    standing=Standing({"memory": Alert(1.0, "memory 93%", 2, 3.0)}, {"oom-kills": 4}),
    load_at=100.0,
    known=Known(frozenset({"tcp 0.0.0.0:22 /usr/sbin/sshd", "unix @\udcff /x"})), disk=state.Disk(5, 9, 1.0),
    bucket=rate.Bucket(2.5, 90.0),
    waiting=rate.Waiting((Event(True, "memory", "memory 93%", 1.0, 93.0, 90.0, ("more",)),), 3),
)  # fmt: skip
STATE = state.State("boot", 12, rate.Bucket(3.0, 4.0), {"web": LIFE, "db": state.Life()})


def test_what_is_remembered_is_read_as_it_was_written() -> None:
    assert state.loads(state.dumps(STATE), "boot") == STATE


def test_after_a_boot_of_the_host_no_guest_has_died_and_open_alerts_are_still_known() -> None:
    life = state.loads(state.dumps(STATE), "another").guests["web"]
    assert (life.token, life.known, life.load_at, life.bucket.at) == ("", Known(), None, 0.0)
    assert life.standing.open == LIFE.standing.open
    assert life.waiting == LIFE.waiting


@given(st.one_of(st.text(), st.binary().map(repr)))
def test_a_broken_state_is_an_error_of_one_kind(broken: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json has sentences of its own
        state.loads(broken, "boot")


@pytest.mark.parametrize("key", ["version", "number", "bucket", "guests"])
def test_a_state_that_lacks_something_is_one_too(key: str) -> None:
    fields = json.loads(state.dumps(STATE))
    del fields[key]
    with pytest.raises(ValueError, match="not a state of vs-monitor"):
        state.loads(json.dumps(fields), "boot")


class Relay:
    """Takes mails, or fails; the clock is its own."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.tried = 0
        self.works: Callable[[str], bool] = lambda _: True
        self.now = 1000.0

    def __call__(self, mail: str) -> str:
        self.tried += 1
        if not self.works(mail):
            raise VsError("the relay did not take it")
        self.taken.append(mail)
        return ""


def kept(tmp_path: Path, number: int = 1) -> tuple[spool.Spool, Relay]:
    found, relay = spool.Spool(tmp_path / "spool"), Relay()
    for each in range(number):
        found.put(each, f"mail {each}\n", relay.now)
    found.committed = number
    return found, relay


def test_mails_are_sent_in_order_and_gone_then(tmp_path: Path) -> None:
    found, relay = kept(tmp_path, 3)
    assert found.send(relay, lambda: relay.now) == 0
    assert relay.taken == ["mail 0\n", "mail 1\n", "mail 2\n"]
    assert (found.count(), found.is_due(relay.now)) == (0, False)


def test_a_mail_that_is_not_taken_is_tried_ever_more_rarely_and_dropped_at_last(
    tmp_path: Path, logged: list[str]
) -> None:
    found, relay = kept(tmp_path)
    relay.works = lambda _: False
    tries = []
    for _ in range(6 * 24 * 60):
        before = relay.tried
        found.send(relay, lambda: relay.now)
        if relay.tried > before:
            tries.append(relay.now)
        relay.now += 60
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (60, 3600)
    assert 5 * 86400 < tries[-1] - tries[0] < 5.1 * 86400
    assert found.count() == 0
    assert "was dropped" in logged[-1]


def test_a_clock_that_is_set_drops_no_mail_and_delays_none_for_long(tmp_path: Path, logged: list[str]) -> None:
    found, relay = kept(tmp_path)
    relay.works = lambda _: False
    for relay.now in (1000.0, 2e9, 1.8e9, 1.7e9):
        assert found.is_due(relay.now)
        found.send(relay, lambda: relay.now)
        assert not found.is_due(relay.now)
    relay.works = lambda _: True
    relay.now += 3600
    assert (found.send(relay, lambda: relay.now), relay.taken, found.count()) == (0, ["mail 0\n"], 0)
    assert not any("dropped" in line for line in logged)


def test_whatever_goes_wrong_with_a_mail_the_next_one_is_tried(tmp_path: Path, logged: list[str]) -> None:
    def deliver(mail: str) -> str:
        if mail == "mail 0\n":
            raise UnicodeError
        return relay(mail)

    found, relay = kept(tmp_path, 2)
    assert found.send(deliver, lambda: relay.now) == 1
    assert relay.taken == ["mail 1\n"]
    assert logged[-1].endswith("the next try is in 30 s: UnicodeError")


def test_one_mail_that_nobody_takes_holds_no_other_back_and_a_dead_relay_is_not_asked_for_all(tmp_path: Path) -> None:
    found, relay = kept(tmp_path, 9)
    relay.works = lambda mail: mail != "mail 0\n"
    assert found.send(relay, lambda: relay.now) == 1
    assert len(relay.taken) == 8
    found, relay = kept(tmp_path / "dead", 9)
    relay.works = lambda _: False
    found.send(relay, lambda: relay.now)
    assert relay.tried == 2


def test_the_spool_is_bounded_and_only_roots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: list[str]
) -> None:
    monkeypatch.setattr(spool, "MOST", 5)
    found, relay = kept(tmp_path, 9)
    assert found.count() == 5
    found.send(relay, lambda: relay.now)
    assert relay.taken[0] == "mail 4\n"
    found.put(9, "x" * (spool.SIZE + 1), 0)
    (path,) = (tmp_path / "spool").iterdir()
    assert path.stat().st_size == spool.SIZE
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert "spool" in synced, "its name is durable"


def test_mails_of_a_round_that_was_cut_short_are_not_sent_and_written_anew(tmp_path: Path) -> None:
    found, relay = kept(tmp_path, 3)
    found.committed = 2
    found.send(relay, lambda: relay.now)
    assert len(relay.taken) == 2
    assert found.next_number() == 3
    found.forget_from(2)
    assert (found.count(), found.next_number()) == (0, 0)


@pytest.mark.parametrize(
    ("relay", "place"),
    [("mail", ("mail", 25)), ("mail:2525", ("mail", 2525)), ("[::1]", ("::1", 25)), ("[::1]:26", ("::1", 26))],
)
def test_the_relay_is_a_host_with_or_without_a_port(relay: str, place: tuple[str, int]) -> None:
    assert deliver.endpoint(relay) == place


def test_a_port_that_cannot_be_is_an_error() -> None:
    with pytest.raises(VsError, match="is no mail relay"):
        deliver.endpoint("mail:99999")


def test_without_an_mta_and_without_a_relay_the_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver, "SENDMAIL", "/nonexistent")
    with pytest.raises(VsError, match=r"set MONITOR_SMTP in create\.conf"):
        deliver.way("")("mail")


def test_the_hosts_own_mta_gets_the_mail_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[list[str], str]] = []
    monkeypatch.setattr(deliver, "SENDMAIL", "/bin/sh")  # something that can be run
    monkeypatch.setattr(deliver.run, "run", lambda argv, *, stdin, timeout: given.append((argv, stdin)))
    deliver.way("")("To: root\n\nhello\n")
    assert given == [(["/bin/sh", "-i", "-t"], "To: root\n\nhello\n")]


def test_sockets_that_were_told_stay_so_when_others_are_opened() -> None:
    known = Known(frozenset())
    first = judged(known, *(found(number, number) for number in range(9000, 9020)))[1]
    later = [found(number, number) for number in range(1000, 9020)][-400:]
    facts = judged(known, *later, told=first)[1]
    assert {fact.key for fact in facts if fact.key != "sockets"} == {fact.key for fact in first}

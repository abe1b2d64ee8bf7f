"""vs-diff: what changed between two manifests, the most alarming first, and who is new."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstools.pool import manifest
from vstools.pool.compare import KINDS, Change, accounts, compare

BASE = {
    "tree": "type=dir mode=0755 uid=0 gid=0 time=1.000000000 inode=1",
    "tree/etc/passwd": "type=file mode=0644 uid=0 gid=0 size=9 time=1.000000000 inode=2 sha256digest=aa",
    "tree/usr/bin/su": "type=file mode=04755 uid=0 gid=0 size=9 time=1.000000000 inode=3 sha256digest=bb",
    "tree/usr/bin/ping": "type=file mode=0755 uid=0 gid=0 size=9 time=1.000000000 inode=4 sha256digest=cc",
    "tree/var/log/syslog": "type=file mode=0640 uid=0 gid=4 size=9 time=1.000000000 inode=5 sha256digest=dd",
    "tree/bin": "type=link mode=0777 uid=0 gid=0 time=1.000000000 inode=6 link=usr/bin",
    "config/context": "type=file mode=0644 uid=0 gid=0 size=6 time=1.000000000 inode=7 sha256digest=ee",
}
NEW = "type=file mode=0644 uid=0 gid=0 size=1 time=2.000000000 inode=99 sha256digest=99"


def lines(entries: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(b"./" + manifest.quoted(name.encode()), words.encode()) for name, words in entries.items()]


def told(change: dict[str, str | None], *, full: bool = False) -> list[tuple[str, str, str, str]]:
    """(kind, what, name, details) of all changes, when BASE becomes BASE with these entries, None for gone ones."""
    after = {name: words for name, words in {**BASE, **change}.items() if words is not None}
    found = compare(lines(BASE), lines(after), full=full)
    return [(each.kind, each.what, each.shown, each.details) for each in found]


def test_nothing_changed_is_nothing_said() -> None:
    assert told({}) == []
    assert told({"tree": BASE["tree"].replace("time=1", "time=2").replace("inode=1", "inode=50")}) == []
    assert told({"tree/usr/bin/su": BASE["tree/usr/bin/su"].replace("inode=3", "inode=50")}) == []


def other(name: str, *pairs: tuple[str, str]) -> dict[str, str | None]:
    words = BASE[name]
    for one, another in pairs:
        assert one in words
        words = words.replace(one, another)
    return {name: words}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (other("tree/usr/bin/ping", ("=cc", "=xx")), ("program", "changed", "/usr/bin/ping", "content")),
        (
            other("tree/usr/bin/ping", ("=0755", "=04755")),
            ("privilege", "changed", "/usr/bin/ping", "mode 0755 -> 04755"),
        ),
        (
            other("tree/usr/bin/su", ("=04755", "=0755"), ("uid=0", "uid=5")),
            ("privilege", "changed", "/usr/bin/su", "mode 04755 -> 0755, owner 0:0 -> 5:0"),
        ),
        ({"tree/usr/bin/su": None}, ("privilege", "removed", "/usr/bin/su", "file 04755 0:0")),
        (
            other("tree/usr/bin/ping", ("=cc", "=cc tags=xattrs:00,capability:01")),
            ("privilege", "changed", "/usr/bin/ping", "capabilities"),
        ),
        (
            other("tree/usr/bin/ping", ("=cc", "=cc tags=xattrs:00")),
            ("program", "changed", "/usr/bin/ping", "attributes"),
        ),
        (other("tree/bin", ("=usr/bin", "=/tmp")), ("program", "changed", "/bin", "link usr/bin -> /tmp")),
        (
            {"tree/bin": BASE["tree"]},
            ("program", "changed", "/bin", "link 0777 0:0 to usr/bin -> dir 0755 0:0"),
        ),
        (
            {"tree/dev/sda": "type=block mode=0660 uid=0 gid=6 time=1.0 inode=9 device=native,8,0"},
            ("privilege", "added", "/dev/sda", "block 0660 0:6 8,0"),
        ),
        (
            {"tree/tmp/.x/run": NEW.replace("0644", "0755")},
            ("executable", "added", "/tmp/.x/run", "file 0755 0:0"),
        ),
        ({"tree/etc/a:b\n": NEW}, ("etc", "added", r"/etc/a\072b\012", "file 0644 0:0")),
        ({"config/scripts/pre-start": NEW}, ("config", "added", "config/scripts/pre-start", "file 0644 0:0")),
        ({"tree/var/log/new": NEW}, ("other", "several", "/var/log/", "1 added")),
    ],
)
def test_a_change_is_one_line(change: dict[str, str | None], line: tuple[str, str, str, str]) -> None:
    assert told(change) == [line]


PLACES = {
    "program": "bin/ls sbin/init lib/x.so lib64/ld.so usr/bin/x usr/sbin/x usr/lib/x usr/lib32/x usr/local/bin/x "
    "usr/local/lib/x usr/libexec/x usr/games/x",
    "user": "etc/passwd etc/shadow etc/group etc/gshadow etc/sudoers etc/sudoers.d/x etc/subuid",
    "cron": "etc/crontab etc/cron.d/x etc/cron.daily/x etc/anacrontab etc/at.allow var/spool/cron/crontabs/root "
    "etc/systemd/system/x.timer usr/lib/systemd/system/x.timer",
    "key": "root/.ssh/authorized_keys home/a/.ssh/authorized_keys2 home/a/.ssh/rc etc/ssh/sshd_config root/.rhosts",
    "unit": "etc/systemd/system/x.service lib/systemd/system/x.service usr/lib/systemd/system-generators/x "
    "etc/init.d/x etc/rc.local etc/rc2.d/S01x etc/inittab home/a/.config/systemd/user/x.service",
    "preload": "etc/ld.so.preload etc/ld.so.conf.d/x.conf",
    "module": "lib/modules/6.1/x.ko usr/lib/modules/x etc/modules etc/modules-load.d/x etc/modprobe.d/x",
    "pam": "etc/pam.d/su etc/pam.conf etc/security/x lib/x86_64-linux-gnu/security/pam_unix.so usr/lib/security/x",
    "etc": "etc/hosts etc/passwd- etc/sshx/y etc/modified.d",
    "other": "var/log/x home/a/.ssh/known_hosts usr/share/doc/x srv/etc/passwd var/spool/anacron/cron.daily binx",
}


@pytest.mark.parametrize("kind", PLACES)
def test_what_a_file_is_about_is_said_by_its_place(kind: str) -> None:
    found = told({f"tree/{name}": NEW for name in PLACES[kind].split() if name != "etc/passwd"}, full=True)
    assert {(each[0], each[2]) for each in found} == {
        (kind, f"/{name}") for name in PLACES[kind].split() if name != "etc/passwd"
    }


def test_the_most_alarming_comes_first_and_the_rest_is_summed_up() -> None:
    change: dict[str, str | None] = {f"tree/{name.split()[0]}-new/x": NEW for name in PLACES["other"].split()}
    change |= {f"tree/{words.split()[1]}": NEW for kind, words in PLACES.items() if kind != "other"}
    change |= {f"tree/var/lib/app/cache/{number}/file": NEW for number in range(5)}
    change |= {"tree/tmp/setuid": NEW.replace("0644", "06755"), "tree/var/log/syslog": None}
    found = told(change)
    ranks = [KINDS.index(each[0]) for each in found]
    assert ranks == sorted(ranks)
    assert found[0] == ("privilege", "added", "/tmp/setuid", "file 06755 0:0")
    assert ("other", "several", "/var/lib/app/", "5 added") in found
    assert ("other", "several", "/var/log/", "1 removed") in found
    assert len(told(change, full=True)) == len(change)


def test_a_time_alone_is_told_where_everything_is() -> None:
    change = other("tree/usr/bin/su", ("time=1", "time=2"))
    assert told(change) == []
    assert told(change, full=True) == [("privilege", "changed", "/usr/bin/su", "time")]


NAMES = st.sampled_from(["etc/a", "usr/bin/b", "var/c", "tmp/d", "root/.ssh/e", "etc/cron.d/f g"])
WORDS = st.builds(
    "type=file mode={} uid={} gid=0 size=1 time={}.000000000 inode={} sha256digest={}".format,
    st.sampled_from(["0644", "04755"]), st.integers(0, 2), st.integers(0, 2), st.integers(), st.sampled_from("ab"),
)  # fmt: skip
ENTRIES = st.dictionaries(NAMES.map("tree/".__add__), WORDS)


@given(one=ENTRIES, two=ENTRIES)
def test_there_and_back_the_same_names_are_told(one: dict[str, str], two: dict[str, str]) -> None:
    there, back = (compare(lines(a), lines(b), full=True) for a, b in ((one, two), (two, one)))
    mirror = {"added": "removed", "removed": "added", "changed": "changed"}
    assert {(mirror[each.what], each.name) for each in there} == {(each.what, each.name) for each in back}
    assert all(isinstance(each, Change) and each.kind in KINDS for each in there)


PASSWD = "root:x:0:0:root:/root:/bin/bash\nwww:x:33:33:www:/var/www:/usr/sbin/nologin\n"


@pytest.mark.parametrize(
    ("file", "before", "after", "said"),
    [
        ("passwd", PASSWD, PASSWD, ""),
        ("passwd", PASSWD, PASSWD + "eve:x:0:0::/:/bin/sh\n", "new eve (uid 0)"),
        ("passwd", PASSWD, PASSWD[:32], "gone www"),
        ("passwd", PASSWD, PASSWD.replace(":33:33:", ":0:33:"), "www (uid 33 -> 0)"),
        ("passwd", PASSWD, PASSWD.replace("/usr/sbin/nologin", "/bin/sh"), "www (shell /usr/sbin/nologin -> /bin/sh)"),
        (
            "passwd",
            PASSWD,
            "www:x:0:0::/:/bin/sh\n" + PASSWD,
            "www (uid 33 -> 0 gid 33 -> 0 name www ->  home /var/www -> / shell /usr/sbin/nologin -> /bin/sh)",
        ),
        ("passwd", PASSWD, PASSWD + "x\x1b[2J:x:5:5::/:/bin/sh\n", r"new x\033[2J (uid 5)"),
        ("passwd", PASSWD, PASSWD + "a,b\udcff\n\n:\n#c\n", r"new a,b\377, new "),
        ("shadow", "root:!:1::::::\n", "root:$y$secret:2::::::\n", "root (password)"),
        ("shadow", "root:!:1::::::\n", "root:!:2::::::\n", "root"),
        ("shadow", "", "eve:$y$secret:2::::::\n", "new eve"),
        ("group", "sudo:x:27:ann,bob\n", "sudo:x:27:bob,eve\n", "sudo (+eve -ann)"),
        ("group", "", "docker:x:999:\n", "new docker (gid 999)"),
    ],
)
def test_who_is_new_is_said_and_no_password(file: str, before: str, after: str, said: str) -> None:
    assert accounts(file, before, after) == said


@given(file=st.sampled_from(["passwd", "shadow", "group"]), before=st.text(), after=st.text())
def test_whatever_a_guest_calls_its_users_is_one_line(file: str, before: str, after: str) -> None:
    assert accounts(file, before, after).isprintable()


@given(name=st.binary())
def test_a_name_comes_back_from_a_line_as_it_was(name: bytes) -> None:
    written = manifest.quoted(name)
    assert manifest.unquoted(written) == name
    assert not set(written) & set(b' \n\t#=*?["')
    assert written.isascii()

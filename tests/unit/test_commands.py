"""What every command shares, and what each refuses: exit statuses, sentences, lines, JSON, tables."""

import json
import os
import re
from pathlib import Path

import pytest

from vstools.cli import app, manual
from vstools.errors import BadFiles, Refused, VsError
from vstools.paths import Paths
from vstools.storage import plain

from .made import below, guest, saved

HOST = os.uname().nodename.partition(".")[0]


def call(name: str, *words: str) -> int:
    """The exit status of a command line."""
    command = manual.command(name)
    return app.status_of(name, lambda: command.main(list(words), prog_name=name, standalone_mode=False))


def said(capsys: pytest.CaptureFixture[str], name: str, *words: str) -> tuple[int, list[str], list[str]]:
    """Status, lines of stdout, lines of stderr."""
    status = call(name, *words)
    out, err = capsys.readouterr()
    return status, out.splitlines(), err.splitlines()


@pytest.fixture
def pool(as_root: Paths) -> Paths:
    """Three guests: db is enabled."""
    for number, name in enumerate(("web", "db", "my_guest")):
        saved(as_root, guest(name, 10000 + number, enabled=name == "db"))
    return as_root


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (None, 0, ""),
        (7, 7, ""),
        (VsError("it failed", "try again"), 1, "vs-x: it failed: try again\n"),
        (Refused("no such guest"), 2, "vs-x: no such guest\n"),
        (BadFiles(("/etc/a:1:2: one", "/etc/b:3:4: two")), 2, "/etc/a:1:2: one\n/etc/b:3:4: two\n"),
        (KeyboardInterrupt(), 130, "vs-x: interrupted\n"),
        (FileNotFoundError(2, "No such file or directory", "/x"), 1, "vs-x: No such file or directory: /x\n"),
        (OSError("odd"), 1, "vs-x: odd\n"),
        (KeyError("key"), 1, "vs-x: internal error: KeyError: 'key' (VS_TOOLS_DEBUG=1 shows where)\n"),
    ],
)
def test_every_end_is_a_status_and_every_error_a_sentence(
    capsys: pytest.CaptureFixture[str], error: BaseException | int | None, status: int, sentence: str
) -> None:
    def act() -> int | None:
        if isinstance(error, BaseException):
            raise error
        return error

    assert app.status_of("vs-x", act) == status
    assert capsys.readouterr() == ("", sentence)


@pytest.mark.parametrize("name", manual.COMMANDS)
def test_who_is_not_root_is_told_so_and_nothing_is_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, paths: Paths, name: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("VS_TOOLS_ROOT", str(paths.root))
    words = {"vs-create": ["--interface", "10.0.1.5"], "vs-template": ["--file", "x.tar"]}.get(name, [])
    if name not in ("vs-control", "vs-fonctions", "vs-hosts", "vs-monitor", "vs-update"):
        words += ["--name", "web"]
    assert said(capsys, name, *words) == (2, [], [f"{name}: this command is for root: try it with sudo"])
    assert below(paths.root) == {}


@pytest.mark.parametrize("name", manual.COMMANDS)
def test_help_is_for_everybody_and_names_every_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for word in ("--help", "-h"):
        status, out, err = said(capsys, name, word)
        assert (status, err) == (0, [])
        assert out[0].startswith(f"Usage: {name} ")
        options = {option for found in manual.command(name).params for option in found.opts if option[0] == "-"}
        assert all(option in "\n".join(out) for option in options)


USAGE = {
    "no guest": ("vs-control",),
    "one guest and all": ("vs-control", "--name", "web", "--all"),
    "an unknown guest": ("vs-control", "--name", "nobody"),
    "an unknown guest among others": ("vs-control", "--name", "web", "--name", "nobody", "--enable"),
    "a name that cannot be": ("vs-control", "--name", "../web"),
    "a name far too long": ("vs-control", "--name", "x" * 5000),
    "start and stop": ("vs-control", "--name", "web", "--start", "--stop"),
    "stop and restart": ("vs-control", "--name", "web", "--stop", "--restart"),
    "enable and disable": ("vs-control", "--name", "web", "--enable", "--disable"),
    "boot of one": ("vs-control", "--name", "web", "--boot"),
    "json and table": ("vs-control", "--all", "--json", "--table"),
    "an unknown option": ("vs-control", "--all", "--quickly"),
    "a word too many": ("vs-control", "--all", "web"),
    "an option without its value": ("vs-control", "--name"),
    "no name": ("vs-create", "--interface", "10.0.1.5"),
    "no address": ("vs-create", "--name", "new"),
    "no address at all": ("vs-create", "--name", "new", "--interface", "web"),
    "an address with a prefix": ("vs-create", "--name", "new", "--interface", "10.0.1.5/24"),
    "two ways to make a tree": ("vs-create", "--name", "n", "--interface", "10.0.1.5", "--skeleton", "--template", "x"),
    "no number": ("vs-create", "--name", "new", "--interface", "10.0.1.5", "--rss", "much"),
    "no share": ("vs-create", "--name", "new", "--interface", "10.0.1.5", "--cpu", "2"),
    "a prefix too long": ("vs-create", "--name", "new", "--interface", "10.0.1.5", "--prefix", "129"),
    "no package": ("vs-create", "--name", "new", "--interface", "10.0.1.5", "--include", "-x"),
    "a private key": ("vs-create", "--name", "new", "--interface", "10.0.1.5", "--ssh-key", "ssh-rsa"),
    "no file of keys": ("vs-create", "--name", "new", "--interface", "10.0.1.5", "--ssh-key", "/no/where"),
    "an adoption that nobody confirms": ("vs-adopt", "--name", "web"),
    "an adoption of nobody": ("vs-adopt", "--name", "nobody", "--yes"),
    "an adoption of two": ("vs-adopt", "--name", "web", "--name", "db", "--yes"),
    "a removal that nobody confirms": ("vs-remove", "--name", "web"),
    "a removal of an enabled guest": ("vs-remove", "--name", "db", "--yes"),
    "a removal of nobody": ("vs-remove", "--name", "nobody", "--yes"),
    "a template of nothing": ("vs-template", "--file", "x.tar"),
    "a template of two things": ("vs-template", "--file", "x.tar", "--name", "web", "--debootstrap", "trixie"),
    "a template of nobody": ("vs-template", "--file", "x.tar", "--name", "nobody"),
    "packages of nobody in particular": ("vs-pkg", "--upgrade-all"),
    "packages of running guests and one": ("vs-pkg", "--running", "--name", "web", "--upgrade-all"),
    "nothing about packages": ("vs-pkg", "--name", "web"),
    "a package that is an option": ("vs-pkg", "--name", "web", "--install=-x"),
    "a package that is a path": ("vs-pkg", "--name", "web", "--install", "/etc/passwd"),
    "a package to be removed by a sign": ("vs-pkg", "--name", "web", "--install", "bash-"),
    "a store without an inventory": ("vs-pkg", "--all", "--store", "--upgrade-all"),
    "an inventory that changes": ("vs-pkg", "--name", "web", "--inventory", "--upgrade-all"),
    "an inventory of a sentence": ("vs-pkg", "--name", "web", "--inventory", "a b"),
    "a window without an end": ("vs-pkg", "--name", "web", "--upgrade-all", "--window", "0"),
    "unification of nobody in particular": ("vs-unify",),
    "unification of one and all": ("vs-unify", "--name", "web", "--all"),
    "unification of a stranger": ("vs-unify", "--name", "web", "--name", "nobody"),
    "unification as json and table": ("vs-unify", "--all", "--json", "--table"),
    "an update from nowhere": ("vs-update",),
    "an update from what is none": ("vs-update", "--from", "/no/where"),
    "an evacuation from nowhere": ("vs-move", "--all"),
    "an evacuation of one guest": ("vs-move", "--all", "--src-host", "one", "--name", "web"),
    "a restore of no copies": ("vs-restore", "--name", "web"),
    "a restore of a directory of nothing": ("vs-restore", "--name", "web", "--to", "/tmp"),
    "an undo of what was not set aside": ("vs-restore", "--name", "web", "--undo"),
    "an undo of one file": ("vs-restore", "--name", "web", "--undo", "--file", "/etc"),
    "a restore of two": ("vs-restore", "--name", "web", "--name", "db"),
    "an import from nowhere": ("vs-import", "--name", "new"),
    "an import from what is none": ("vs-import", "--name", "new", "--from", "/no/where"),
    "an import by another way": ("vs-import", "--name", "new", "--from", "http://old-01"),
    "an import of what cannot be": ("vs-import", "--name", "../new", "--from", "/tmp"),
    "a machine that does not run": ("vs-import", "--name", "web", "--physical", "/tmp"),
    "a machine and an old guest": ("vs-import", "--name", "web", "--physical", "ssh://a", "--from", "ssh://b"),
    "a machine into nobody": ("vs-import", "--name", "nobody", "--physical", "ssh://a"),
    "a final import that is given up": ("vs-import", "--name", "new", "--final", "--abandon"),
    "a comparison of no copies": ("vs-diff", "--name", "web"),
    "a comparison of what is none": ("vs-diff", "--name", "web", "2026", "2027"),
    "a comparison of three": ("vs-diff", "--name", "web", "1", "2", "3"),
    "a comparison of two guests": ("vs-diff", "--name", "web", "--name", "db"),
    "a comparison of a name that cannot be": ("vs-diff", "--name", "../web"),
    "a comparison as json and table": ("vs-diff", "--name", "web", "--json", "--table"),
    "a shell in a stopped guest": ("vs-enter", "--name", "web"),
    "a shell in nobody": ("vs-enter", "--name", "nobody", "--", "ls"),
    "a console and a rescue": ("vs-enter", "--name", "web", "--rescue", "--console"),
    "a log of nobody": ("vs-log", "--name", "nobody"),
    "an unknown function": ("vs-fonctions", "rm"),
    "a function without its argument": ("vs-fonctions", "guest_state"),
    "a function with one too many": ("vs-fonctions", "guest_names", "x"),
    "a function of nobody": ("vs-fonctions", "guest_state", "nobody"),
}


@pytest.mark.parametrize("case", USAGE)
def test_what_is_refused_ends_2_with_one_sentence_and_changes_nothing(
    capsys: pytest.CaptureFixture[str], pool: Paths, case: str
) -> None:
    before = below(pool.root)
    name, *words = USAGE[case]
    status, out, err = said(capsys, name, *words)
    assert (status, out, len(err)) == (2, [], 1)
    assert err[0].startswith(f"{name}: ")
    assert "Traceback" not in err[0]
    assert below(pool.root) == before


def test_a_usage_error_says_where_help_is(capsys: pytest.CaptureFixture[str], pool: Paths) -> None:
    assert said(capsys, "vs-create", "--name", "new")[2] == [
        "vs-create: Missing option '--interface' (vs-create --help)"
    ]


def test_a_broken_configuration_is_told_with_its_places(capsys: pytest.CaptureFixture[str], pool: Paths) -> None:
    pool.conf.mkdir(parents=True)
    conf = pool.conf / "create.conf"
    conf.write_text("NO_KEY=1\nMTU=x\n")
    status, _, err = said(capsys, "vs-create", "--name", "new", "--interface", "10.0.1.5", "--dry-run")
    assert status == 2
    assert [line.split(": ")[0] for line in err] == [f"{conf}:1:1", f"{conf}:2:5"]


def test_the_state_of_guests_is_a_line_each(capsys: pytest.CaptureFixture[str], pool: Paths) -> None:
    assert said(capsys, "vs-control", "--all") == (
        0,
        [f"{HOST}:db:enabled:stopped", f"{HOST}:my_guest:disabled:stopped", f"{HOST}:web:disabled:stopped"],
        [],
    )
    assert said(capsys, "vs-control", "--name", "web", "--name", "db", "--name", "web")[1] == [
        f"{HOST}:web:disabled:stopped",
        f"{HOST}:db:enabled:stopped",
    ]


def test_underscores_and_hyphens_in_options_are_the_same_and_in_values_are_not(
    capsys: pytest.CaptureFixture[str], pool: Paths
) -> None:
    answers = [
        said(capsys, "vs-control", *words)
        for words in (
            ("--name", "my_guest", "--stop", "--dry-run"),
            ("--name", "my_guest", "--stop", "--dry_run"),
            ("--name=my_guest", "--stop", "--dry_run"),
        )
    ]
    assert answers == [(0, ["my_guest: would stop"], [])] * 3


def test_json_is_an_array_of_objects_one_a_line(capsys: pytest.CaptureFixture[str], pool: Paths) -> None:
    status, lines, _ = said(capsys, "vs-control", "--all", "--json")
    assert (status, lines[0], lines[-1], len(lines)) == (0, "[", "]", 5)
    assert json.loads(lines[1].rstrip(",")) == {"host": HOST, "guest": "db", "enabled": True, "running": False}
    assert [row["guest"] for row in json.loads("\n".join(lines))] == ["db", "my_guest", "web"]


def test_json_of_nothing_is_an_empty_array(capsys: pytest.CaptureFixture[str], as_root: Paths) -> None:
    assert said(capsys, "vs-control", "--all", "--json")[1] == ["[]"]
    assert said(capsys, "vs-control", "--all") == (0, [], [])
    assert said(capsys, "vs-control", "--all", "--table") == (0, [], [])


def test_a_table_has_a_heading_and_straight_columns(capsys: pytest.CaptureFixture[str], pool: Paths) -> None:
    _, lines, _ = said(capsys, "vs-control", "--all", "--table")
    assert lines[0].split() == ["HOST", "GUEST", "ENABLED", "RUNNING"]
    assert [line.split()[1:] for line in lines[1:]] == [
        ["db", "yes", "no"],
        ["my_guest", "no", "no"],
        ["web", "no", "no"],
    ]
    assert {line.index(word) for line, word in zip(lines, ("GUEST", "db", "my_guest", "web"), strict=True)} == {
        lines[0].index("GUEST")
    }


def test_a_value_that_is_missing_is_a_hyphen_in_a_table_and_null_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"guest": "web", "rss": None, "proc": 150}]
    app.show(rows, str, as_json=False, table=True)
    app.show(rows, str, as_json=True, table=False)
    assert capsys.readouterr().out.splitlines() == [
        "GUEST  RSS  PROC",
        "web    -    150",
        "[",
        '{"guest": "web", "rss": null, "proc": 150}',
        "]",
    ]


def test_several_values_are_words_in_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"guest": "web", "addresses": ["10.1.0.2", "fd00::2"]}, {"guest": "db", "addresses": []}]
    app.show(rows, str, as_json=False, table=True)
    assert capsys.readouterr().out.splitlines() == [
        "GUEST  ADDRESSES",
        "web    10.1.0.2 fd00::2",
        "db     -",
    ]


def test_enabling_changes_the_state_and_shows_it_after_the_change(
    capsys: pytest.CaptureFixture[str], pool: Paths
) -> None:
    assert said(capsys, "vs-control", "--name", "web", "--enable")[1] == [f"{HOST}:web:enabled:stopped"]
    assert said(capsys, "vs-control", "--name", "web", "--enable") == (0, [f"{HOST}:web:enabled:stopped"], [])
    assert said(capsys, "vs-control", "--name", "web", "--disable")[1] == [f"{HOST}:web:disabled:stopped"]
    assert said(capsys, "vs-control", "--name", "web", "--stop") == (0, [f"{HOST}:web:disabled:stopped"], [])


def test_every_change_is_logged_with_who_what_which_guest_and_the_result(pool: Paths, logged: list[str]) -> None:
    call("vs-control", "--name", "web", "--enable")
    call("vs-control", "--name", "web")
    assert len(logged) == 1
    assert re.fullmatch(r"who=\S+ what=enable guest=web result=ok", logged[0])


def test_a_dry_run_says_what_would_be_done_and_does_nothing(capsys: pytest.CaptureFixture[str], pool: Paths) -> None:
    before = below(pool.root)
    assert said(capsys, "vs-control", "--all", "--enable", "--restart", "--dry-run")[1] == [
        f"{name}: would enable and restart" for name in ("db", "my_guest", "web")
    ]
    assert said(capsys, "vs-control", "--all", "--boot", "--dry-run")[1] == ["db: would start"]
    status, out, err = said(capsys, "vs-remove", "--name", "web", "--dry-run")
    assert (status, len(out), err) == (0, 1, [])
    assert all(str(path) in out[0] for path in (pool.config_of("web"), pool.tree_of("web"), pool.log_of("web")))
    archive = pool.root / "web.tar"
    assert said(capsys, "vs-template", "--name", "web", "--file", str(archive), "--dry-run") == (
        0,
        [f"would write {archive} of web"],
        [],
    )
    assert below(pool.root) == before


def test_vs_create_dry_run_describes_the_guest(
    capsys: pytest.CaptureFixture[str], pool: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vstools.network import devices

    monkeypatch.setattr(devices, "check_devices", lambda _: None)
    pool.conf.mkdir(parents=True)
    (pool.conf / "networks.conf").write_text("0:10.0.1.0/24,10.0.1.1\n")
    before = below(pool.root)
    key = "ssh-ed25519 AAAAC3Nza me@home"
    words = (
        "--name",
        "new",
        "--interface",
        "10.0.1.5",
        "--device",
        "eth0",
        "--skeleton",
        "--rss",
        "128",
        "--cpu",
        "inf",
    )
    status, out, err = said(capsys, "vs-create", *words, "--ssh_key", key, "--dry_run")
    assert (status, err) == (0, [])
    assert out[0] == "guest new from an empty skeleton"
    assert out[-1] == "limits rss 128, disk inf, tmpfs inf, proc inf, cpu inf"
    assert below(pool.root) == before


def test_ssh_keys_are_given_or_read_from_a_file(tmp_path: Path) -> None:
    from vstools.cli.create import _ssh_keys

    file = tmp_path / "authorized_keys"
    file.write_text(
        "# mine\n\n ssh-ed25519 AAAA one\necdsa-sha2-nistp256 BBBB\nsk-ssh-ed25519@openssh.com CCCC two words\n"
    )
    assert _ssh_keys("ssh-rsa AAAA= me@home") == ("ssh-rsa AAAA= me@home",)
    assert [key.split()[1] for key in _ssh_keys(str(file))] == ["AAAA", "BBBB", "CCCC"]
    for text in ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", "ssh-rsa AAAA\ncommand=x ssh-rsa BBBB\n", "# none\n"):
        file.write_text(text)
        with pytest.raises(Refused, match=r"is no public key|holds no key"):
            _ssh_keys(str(file))


@pytest.mark.parametrize(
    ("answer", "goes_on"), [("y\n", True), ("Yes\n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_what_loses_something_is_asked_for(monkeypatch: pytest.MonkeyPatch, answer: str, goes_on: bool) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return answer

    monkeypatch.setattr(app.sys, "stdin", Terminal())
    if goes_on:
        app.confirm("Remove?", yes=False)
    else:
        with pytest.raises(Refused, match="it was not confirmed"):
            app.confirm("Remove?", yes=False)


def test_the_library_can_be_called_by_hand(capsys: pytest.CaptureFixture[str], pool: Paths, logged: list[str]) -> None:
    status, out, _ = said(capsys, "vs-fonctions", "guest_names")
    assert (status, json.loads("\n".join(out))) == (0, ["db", "my_guest", "web"])
    _, out, _ = said(capsys, "vs-fonctions", "guest_read", "db")
    read = json.loads("\n".join(out))
    assert (read["name"], read["context"], read["enabled"], read["limits"]["rss"]) == ("db", 10001, True, None)
    assert said(capsys, "vs-fonctions", "host_barrier") == (0, [], [])
    assert pool.trees.stat().st_mode & 0o777 == 0o700
    assert [line.partition("what=")[2] for line in logged] == [
        '"function host_barrier" guest=- result=ok',
    ], "only changes are logged"


def test_functions_are_listed_with_what_they_do(capsys: pytest.CaptureFixture[str], as_root: Paths) -> None:
    _, out, _ = said(capsys, "vs-fonctions")
    assert len(out) % 2 == 0
    listed = dict(zip(out[::2], out[1::2], strict=True))
    assert listed["  host_barrier "].strip() == plain.barrier.__doc__.splitlines()[0]
    assert all(text.strip() for text in listed.values())


def test_names_of_guests_are_completed(pool: Paths) -> None:
    assert app.complete_guest("") == ["db", "my_guest", "web"]
    assert app.complete_guest("w") == ["web"]


def test_the_host_is_its_name_up_to_the_first_dot(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = list(os.uname())
    fields[1] = "vsh-00.univ.test"
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(fields))
    assert app.host_name() == "vsh-00"

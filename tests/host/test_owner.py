"""A guest that another host owns does not start here, whoever asks; one whose copy runs elsewhere is explained."""

import json
from pathlib import Path

import pytest
from conftest import NET, Host, create
from wire import bridge, machine, sh

from vstools.paths import host_name


@pytest.fixture
def web(host: Host, small: Path) -> Host:
    """A host with a guest, not started."""
    host.configure(MONITOR_SMTP="127.0.0.1:9")
    assert create(host, "web", 10, small).code == 0
    return host


def told(host: Host) -> list[tuple[str, bool, str]]:
    """A round of vs-monitor: guest, whether an alert began, which one. Nobody takes its mails."""
    rows = json.loads(host.ok("vs-monitor", "--once", "--json"))
    return [(row["guest"], row["began"], row["what"]) for row in rows]


def test_a_guest_of_another_host_starts_only_when_it_was_adopted(web: Host) -> None:
    (web.guests / "web/owner").write_text("elsewhere 4\n")
    web.ok("vs-control", "--name", "web", "--enable")
    for words in (("--name", "web", "--start"), ("--all", "--boot")):
        done = web.vs("vs-control", *words)
        assert done.code != 0
        assert "guest web belongs to host elsewhere (epoch 4)" in done.err
        assert "vs-adopt --name web" in done.err
        assert web.leftovers() == []
    assert told(web) == [("web", True, "refused")]
    assert told(web) == []
    web.ok("vs-adopt", "--name", "web", "--yes")
    assert (web.guests / "web/owner").read_text() == f"{host_name()} 5\n"
    assert told(web) == [("web", False, "refused")]
    web.ok("vs-control", "--name", "web", "--start")
    web.ok("vs-control", "--name", "web", "--stop")
    assert told(web) == []


def test_a_broken_owner_starts_nothing(web: Host) -> None:
    (web.guests / "web/owner").write_text("elsewhere\n")
    done = web.vs("vs-control", "--name", "web", "--start")
    assert (done.code, f"{web.guests}/web/owner:1:10: the epoch is missing" in done.err) == (2, True), done


def test_a_copy_that_answers_is_told_of_and_mailed(host: Host, small: Path) -> None:
    with bridge("vst0") as lan:
        sh(f"ip address add {NET}.1/24 dev {lan}")
        host.configure(DEFAULT_DEVICE=lan, MONITOR_SMTP="127.0.0.1:9")
        assert create(host, "web", 10, small).code == 0
        (host.guests / "web/owner").write_text(f"{host_name()} 4\n")
        with machine("vsother", lan, f"{NET}.10/24") as other:
            done = host.vs("vs-control", "--name", "web", "--start")
            assert (done.code, len(done.err.strip().splitlines())) == (1, 1), done
            for words in (other.mac, "epoch 4", "a copy of it on another host", "vs-adopt --name web there"):
                assert words in done.err
            assert told(host) == [("web", True, "refused")]
        host.ok("vs-control", "--name", "web", "--start")
        assert told(host) == [("web", False, "refused")]
        host.ok("vs-control", "--name", "web", "--stop")
        assert told(host) == [], "a stopped guest is nothing to tell of"

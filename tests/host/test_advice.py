"""vs-limit --advise about guests that really met their limits."""

import json
import os
from pathlib import Path

import pytest
from conftest import Host, create

from tests.host.test_limits import FORKS
from tests.host.test_stats import needs_memory, needs_pids


def advised(host: Host, *words: str) -> list[str]:
    return host.ok("vs-limit", *words, "--advise").splitlines()


@needs_memory
@needs_pids
def test_a_guest_that_met_its_limits_is_advised_more_of_them(host: Host, small: Path) -> None:
    assert create(host, "web", 10, small, "--rss", "64", "--proc", "60", "--tmpfs", "16", "--start").code == 0
    assert create(host, "next", 11, small, "--start").code == 0
    assert create(host, "idle", 12, small, "--rss", "64").code == 0
    assert advised(host, "--name", "web") == []
    host.inside("web", "/bin/busybox dd if=/dev/zero of=/dev/null bs=100M count=1")
    host.inside("web", "/bin/busybox dd if=/dev/zero of=/tmp/full bs=1M count=15")
    host.inside("web", FORKS)
    name = os.uname().nodename.partition(".")[0]
    found = [line.split(":") for line in advised(host, "--name", "web")]
    assert [line[:5] for line in found] == [
        [name, "web", "rss", "64", "96"],
        [name, "web", "proc", "60", "96"],
        [name, "web", "tmpfs", "16", "32"],
    ]
    assert found[0][5].startswith("processes killed for want of memory")
    assert found[1][5].startswith("forks refused")
    before = host.state()
    rows = json.loads(host.ok("vs-limit", "--all", "--advise", "--json"))
    peaks = [row for row in rows if row["guest"] == "next"]
    assert (peaks[0]["limit"], peaks[0]["now"]) == ("rss", None)
    assert "the peak was" in peaks[0]["reason"]
    assert {row["guest"] for row in rows} == {"web", "next"}, "a stopped guest used nothing"
    assert host.state() == before


@pytest.mark.parametrize("words", [("--rss", "100"), ("--dry-run",), ("--force",)])
def test_advice_changes_nothing(host: Host, words: tuple[str, ...]) -> None:
    done = host.vs("vs-limit", "--all", "--advise", *words)
    assert (done.code, "--advise changes nothing" in done.err) == (2, True)

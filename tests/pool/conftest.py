"""A pool of real hosts: the lab's, in QEMU, with vs-tools installed by install.sh and a trunk between them.

Every test begins with hosts as their first boot left them. When one fails, the ends of their journals are shown,
without what ssh says of each command.
"""

import os
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import pool as lab
from lab.places import CHECKOUT, Places
from tests.templates import debian_template

OWN = CHECKOUT / os.environ.get("PYTEST_XDIST_WORKER", "")
"""Whose lab it is: tests that run side by side have one each."""
KEEP = "VS_TOOLS_KEEP_LAB"  # set: the hosts stay up after the tests, for a look
FIREWALL = "enable\nallow from any to icmp\nallow to any to all\n"
TEMPLATES = "/var/lib/vservers/TEMPLATES"


class Hosts:
    """The lab's hosts as a test uses them; who was used is put back before the next test."""

    def __init__(self, places: Places, release: str = "trixie") -> None:
        self.places = places
        self.used: set[str] = set()
        self._release, self._count = release, 0

    def bring_up(self, count: int) -> None:
        """Let there be so many hosts at least, with this checkout installed and a template of Debian 13."""
        if count > self._count:
            template = debian_template("trixie")
            lab.up(self.places, count=count, release=self._release, templates=[template], renew=True, say=_say)
            self._count = count

    def call(self, host: str, line: str, timeout: float = 300) -> tuple[int, str]:
        """Run a shell line on a host: its exit status, and all it said."""
        self.used.add(host)
        done = lab.call(self.places, host, line, timeout=timeout)
        return done.returncode, done.stdout + done.stderr

    def ok(self, host: str, line: str, timeout: float = 300) -> str:
        """Run a shell line that must succeed; its standard output."""
        self.used.add(host)
        return lab.check(self.places, host, line, timeout=timeout)

    def inside(self, host: str, guest: str, script: str) -> str:
        """Run a shell script in a guest; its standard output."""
        return self.ok(host, f"vs-enter --name {guest} -- sh -c {shlex.quote(script)}")

    def copy(self, host: str, source: Path, folder: str) -> None:
        """Copy a file or directory to a host."""
        self.used.add(host)
        lab.copy_to(self.places, host, source, folder)

    def power(self, host: str, what: str) -> None:
        """off: the button; cut: the plug; on: boot and wait."""
        self.used.add(host)
        lab.power(self.places, host, what)

    def reboot(self, host: str) -> None:
        """Let a host reboot itself and wait until it is up again."""
        self.used.add(host)
        lab.reboot(self.places, host)

    def configure(self, host: str, networks: str, **settings: str) -> None:
        """Write a host's networks.conf and create.conf; new guests can be pinged and may talk to everybody."""
        template = f"{TEMPLATES}/{debian_template('trixie').name}"
        values = {"DEFAULT_DEVICE": "eth1", "DEFAULT_TEMPLATE": template, **settings}
        conf = "".join(f"{key}={value}\n" for key, value in values.items())
        for name, text in (("networks", networks), ("create", conf), ("firewall", FIREWALL)):
            self.ok(host, f"printf %s {shlex.quote(text)} > /etc/vs-tools/{name}.conf")

    def wait(self, host: str, line: str, patience: float = 180) -> str:
        """Repeat a shell line until it succeeds; what it said then."""
        deadline = time.monotonic() + patience
        while True:
            code, said = self.call(host, line)
            if code == 0:
                return said
            assert time.monotonic() < deadline, f"{host}: never came true: {line}\n{said}"
            time.sleep(0.5)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@pytest.fixture(scope="session")
def pool() -> Iterator[Hosts]:
    """The pool, whose hosts come up when a test needs them and stay for the whole session."""
    places = Places.of(OWN)
    try:
        yield Hosts(places)
    finally:
        if not os.environ.get(KEEP):
            lab.down(places)


@pytest.fixture(scope="session")
def bookworm_host() -> Iterator[Hosts]:
    """A host that runs Debian 12, in a lab of its own beside the pool."""
    places = Places.of(OWN / "bookworm")
    try:
        yield Hosts(places, "bookworm")
    finally:
        if not os.environ.get(KEEP):
            lab.down(places)


@pytest.fixture
def hosts(pool: Hosts, request: pytest.FixtureRequest) -> Iterator[Hosts]:
    """Fresh hosts of the pool: vsh-00, or as many as the test's mark ``hosts`` says, numbered from there."""
    mark = request.node.get_closest_marker("hosts")
    pool.bring_up(mark.args[0] if mark else 1)
    yield from fresh(pool, request)


@pytest.fixture
def bookworm(bookworm_host: Hosts, request: pytest.FixtureRequest) -> Iterator[Hosts]:
    """A fresh host vsh-00 that runs Debian 12."""
    bookworm_host.bring_up(1)
    yield from fresh(bookworm_host, request)


def fresh(hosts: Hosts, request: pytest.FixtureRequest) -> Iterator[Hosts]:
    """Put back whom the test before used; after a failure, show what the hosts' journals say."""
    if hosts.used:
        lab.reset(hosts.places, sorted(hosts.used))
        hosts.used.clear()
    yield hosts
    report = request.node.stash.get(REPORT, None)
    if report is not None and report.failed:
        for host in sorted(hosts.used):
            print(f"--- the journal of {host} ---\n{lab.journal(hosts.places, host)}")


REPORT = pytest.StashKey[pytest.TestReport]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> object:
    """Keep the report of a test's call for its fixtures."""
    report: pytest.TestReport = yield
    if report.when == "call":
        item.stash[REPORT] = report
    return report

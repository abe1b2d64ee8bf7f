"""The systems that guests are tried with, each from packages: Debian 12 and 13 with systemd, and one with sysvinit."""

import os
import subprocess
import time

import pytest
from conftest import BIN, NET, Host, wait

pytestmark = pytest.mark.slow

KINDS = {
    "Debian 12": ("bookworm", (), "systemd"),
    "Debian 13": ("trixie", (), "systemd"),
    "Debian 12 with sysvinit": ("bookworm", ("sysvinit-core",), "init"),
}


@pytest.fixture(params=KINDS)
def guest(host: Host, request: pytest.FixtureRequest) -> tuple[Host, str]:
    """A host with the guest ``web`` just made from packages, and the name of its init."""
    suite, more, init = KINDS[request.param]
    host.configure(STOP_TIMEOUT="20")
    script = 'exec nsenter --net="$VS_TOOLS_TESTS_NET" "$0" "$@"'  # packages come over the real network
    words = ["--name", "web", "--interface", f"{NET}.10", "--debootstrap", suite]
    words += [word for package in more for word in ("--include", package)]
    subprocess.run(
        ["sh", "-c", script, BIN / "vs-create", *words],
        env={**os.environ, "VS_TOOLS_ROOT": str(host.root)}, check=True, timeout=1200,
    )  # fmt: skip
    return host, init


def test_life_of_a_system_from_packages(guest: tuple[Host, str]) -> None:
    """Boot to a login, stop within its time, its own reboot and poweroff: one test, for making it takes long."""
    host, init = guest
    assert "-security main" in (host.trees / "web/etc/apt/sources.list").read_text()
    assert not (host.trees / "web/usr/sbin/policy-rc.d").exists()
    host.ok("vs-control", "--name", "web", "--start")
    _is_up(host, init)
    assert host.inside("web", "id -u; hostname").out.split() == ["0", "web"]

    begun = time.monotonic()
    done = host.vs("vs-control", "--name", "web", "--stop")
    assert (done.code, done.err) == (0, ""), "not killed"
    assert time.monotonic() - begun < 20
    assert host.leftovers() == []

    host.ok("vs-control", "--name", "web", "--start")
    _is_up(host, init)
    host.inside("web", "touch /run/before")
    host.inside("web", "reboot")
    wait(lambda: host.inside("web", "test ! -e /run/before").code == 0)
    _is_up(host, init)
    wait(lambda: _log(host).count("login:") >= 2)

    host.inside("web", "poweroff")
    wait(lambda: host.ok("vs-control", "--name", "web").endswith(":stopped\n"))
    wait(lambda: host.leftovers() == [])


def _is_up(host: Host, init: str) -> None:
    """It has a login on its console and answers on its address; all its services are well."""
    wait(lambda: "login:" in _log(host))
    assert host.inside("web", "cat /proc/1/comm").out == f"{init}\n"
    if init == "systemd":
        state = host.inside("web", "systemctl is-system-running --wait; systemctl --failed --no-legend")
        assert state.out == "running\n", state
    wait(lambda: _answers(22))


def _log(host: Host) -> str:
    return host.ok("vs-log", "--name", "web", "--boot")


def _answers(port: int) -> bool:
    argv = ["busybox", "nc", "-w", "3", f"{NET}.10", str(port)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return done.stdout.startswith(b"SSH-2.0-")

"""install.sh on a fresh Debian: what it brings, that it can be run again, and that it takes everything back."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import wait
from fresh import Machine, machine

from tests.templates import REPO

COMMANDS = (
    "vs-adopt", "vs-backup", "vs-create", "vs-control", "vs-diff", "vs-enter", "vs-get", "vs-hosts",
    "vs-limit", "vs-log", "vs-monitor", "vs-move", "vs-net", "vs-ps", "vs-put", "vs-remove", "vs-restore", "vs-scan",
    "vs-stats", "vs-template", "vs-unify", "vs-update", "vs-fonctions",
)  # fmt: skip


def _install(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([REPO / "install.sh", *words], capture_output=True, text=True, timeout=60, check=False)


def test_help_changes_nothing() -> None:
    done = _install("--help")
    assert done.returncode == 0
    for option in ("--demo", "--uninstall", "--packages", "--help"):
        assert option in done.stdout


@pytest.mark.parametrize("words", [("--frob",), ("--demo", "--uninstall"), ("demo",)], ids=" ".join)
def test_bad_options_are_refused(words: tuple[str, ...]) -> None:
    done = _install(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage" in done.stderr


@pytest.mark.parametrize(
    "release",
    ['ID=ubuntu\nVERSION_ID="24.04"\nPRETTY_NAME="Ubuntu 24.04"\n', 'ID=debian\nVERSION_ID="11"\n', ""],
    ids=repr,
)
def test_other_systems_are_refused(tmp_path: Path, release: str) -> None:
    fake = tmp_path / "os-release"
    fake.write_text(release)
    script = f"mount --bind {fake} /etc/os-release; exec {REPO}/install.sh --packages"
    done = subprocess.run(["unshare", "--mount", "sh", "-ec", script], capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done
    assert "vs-tools runs on Debian 12 and 13" in done.stderr


def test_plain_user_is_refused() -> None:
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--", "bash", "-s", "--", "--packages"]
    script = (REPO / "install.sh").read_text()
    done = subprocess.run(argv, input=script, capture_output=True, text=True, cwd="/", check=False)
    assert (done.returncode, "this is for root" in done.stderr) == (2, True), done


@pytest.fixture(params=["bookworm", "trixie"])
def fresh(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A fresh Debian with a checkout."""
    with machine(request.param) as found:
        yield found


@pytest.mark.slow
def test_life_of_an_installation(fresh: Machine) -> None:
    """One test, for a fresh Debian takes minutes to make: --demo, again, used, updated, taken away."""
    before = _files(fresh)
    assert "gcc" not in fresh.ok("ls /usr/bin")
    (fresh.root / "etc/vs-tools").mkdir()
    (fresh.root / "etc/vs-tools/create.conf").write_text("# mine\nDEFAULT_TIMEZONE=Europe/Paris\n")
    out = fresh.ok("./install.sh --demo")
    assert "demo answers on 10.77.0.2:22: SSH-2.0-" in out
    assert out.splitlines()[-1].strip().startswith("vs-control --name demo --stop"), "how to undo it"
    assert "fresh:demo:disabled:running\n" in out
    _commands(fresh)
    _host(fresh)
    _again(fresh)
    _completion(fresh)
    _used(fresh)
    _uninstall(fresh)
    assert _left(before, _files(fresh)) == set()


def _files(fresh: Machine) -> set[str]:
    """Every file of the host's but packages, caches, guests and logs."""
    skip = "-path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /usr -o -path /root"
    kept = "-path /var/cache -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/lib/vservers -o -path /var/log"
    found = fresh.ok(f"find / \\( {skip} -o {kept} \\) -prune -o -print; find /usr/local /opt")
    return set(found.splitlines())


def _left(before: set[str], after: set[str]) -> set[str]:
    """What is there after the removal and belongs neither to guests, nor to the configuration, nor to a package."""
    kept = ("/etc/vs-tools", "/etc/vservers", "/var/lib/vs-tools")
    return {path for path in after - before if "vs-" in path and not path.startswith(kept)}


def _commands(fresh: Machine) -> None:
    """On the PATH as links, with a manual page each; no compiler was needed."""
    for name in COMMANDS:
        assert fresh.ok(f"readlink $(command -v {name})") == f"/opt/vs-tools/bin/{name}\n"
        page = (fresh.root / f"usr/local/share/man/man8/{name}.8").read_text()
        assert page.startswith(f".TH {name.upper()} 8"), page[:80]
        assert name in fresh.ok(f"{name} --help")
        assert (fresh.root / f"usr/local/share/bash-completion/completions/{name}").exists()
    assert fresh.sh("command -v gcc cc make").out == ""
    fresh.ok("apt-get install -q -y --no-install-recommends groff-base")
    manual = fresh.ok("nroff -man -ww /usr/local/share/man/man8/vs-control.8 2>&1")
    assert "vs-control" in manual
    assert "warning" not in manual


def _host(fresh: Machine) -> None:
    """What INTERFACE promises of a host: ids, kernel settings, no LXC of its own, the barrier, the samples."""
    for file in ("subuid", "subgid"):
        assert fresh.ok(f"grep -c root:131072:4294836224 /etc/{file}") == "1\n"
    assert "fs.inotify.max_user_instances" in (fresh.root / "etc/sysctl.d/vs-tools.conf").read_text()
    assert fresh.ok("sysctl -n fs.inotify.max_user_instances") == "2147483647\n"
    for unit in ("lxc.service", "lxc-net.service"):
        assert fresh.ok(f"readlink /etc/systemd/system/{unit}") == "/dev/null\n"
    assert "lxcbr0" not in fresh.ok("ip -o link")
    assert fresh.ok("stat -c %a:%u /var/lib/vservers /var/lib/vservers/TEMPLATES") == "700:0\n700:0\n"
    for name in ("create.conf", "firewall.conf", "monitor.conf", "networks.conf"):
        assert (fresh.root / f"etc/vs-tools/{name}.sample").read_text() == (REPO / f"etc/{name}.sample").read_text()
    settings = (fresh.root / "etc/vs-tools/create.conf").read_text()
    assert settings.startswith("# mine\nDEFAULT_TIMEZONE=Europe/Paris\n"), "it was there before"
    assert "DEFAULT_DEVICE=vsbr0" in settings
    assert fresh.ok("vs-enter --name demo -- readlink /etc/localtime") == "/usr/share/zoneinfo/Europe/Paris\n"


def _again(fresh: Machine) -> None:
    """The guest stays as it is, the configuration too; samples are brought up to date; a stopped guest is started."""
    fresh.ok("vs-enter --name demo -- touch /run/since")
    (fresh.root / "etc/vs-tools/create.conf.sample").write_text("old\n")
    conf = {path.name: path.read_text() for path in (fresh.root / "etc/vs-tools").glob("*.conf")}
    # as after one that was killed, and as after a release upgrade: Python has other directories
    fresh.ok("mkdir /opt/.vs-tools.new; cd /opt/vs-tools/lib && mv python3.* python3.1")
    out = fresh.ok("./install.sh --demo")
    assert "demo answers on 10.77.0.2:22" in out
    assert not {".vs-tools.new", "python3.1"} & set(fresh.ok("ls -A /opt /opt/vs-tools/lib").split())
    assert fresh.sh("vs-enter --name demo -- test -e /run/since").code == 0
    assert {path.name: path.read_text() for path in (fresh.root / "etc/vs-tools").glob("*.conf")} == conf
    assert (fresh.root / "etc/vs-tools/create.conf.sample").read_text() == (REPO / "etc/create.conf.sample").read_text()
    assert fresh.ok("grep -c root:131072 /etc/subuid") == "1\n"
    fresh.ok("vs-control --name demo --stop")
    assert "fresh:demo:disabled:running" in fresh.ok("./install.sh --demo")


def _completion(fresh: Machine) -> None:
    """bash completes options and the names of guests."""
    script = """bash -c '
    source /usr/local/share/bash-completion/completions/vs-control
    COMP_WORDS=(vs-control {words}); COMP_CWORD={last}
    _vs_control vs-control; echo "${{COMPREPLY[*]}}"'"""
    assert fresh.ok(script.format(words="--name d", last=2)) == "demo\n"
    assert "--start" in fresh.ok(script.format(words="--sta", last=1))


def _used(fresh: Machine) -> None:
    """A second guest from two arguments, as README shows; it reaches the host, the first guest and the world."""
    assert fresh.ok("vs-create --name web --interface 10.77.0.20 --start") == "fresh:web:disabled:running\n"
    wait(lambda: fresh.sh("ping -c 1 -W 2 10.77.0.20 || bash -c '< /dev/tcp/10.77.0.20/22'").code == 0)
    assert fresh.ok("vs-control --all") == "fresh:demo:disabled:running\nfresh:web:disabled:running\n"
    assert fresh.sh("vs-enter --name web -- ping -c 1 -W 1 10.77.0.1").code != 0, "nothing is allowed yet"
    fresh.ok("echo allow to any,10.77.0.1 to all >> /etc/vservers/web/firewall.conf")
    fresh.ok("echo allow from 10.77.0.20 to icmp >> /etc/vservers/demo/firewall.conf")
    up = "fresh:demo:10.77.0.2:up:up:up:up\nfresh:web:10.77.0.20:up:up:up:up\n"
    assert fresh.ok("vs-net --all --fw up") == up
    assert fresh.sh("vs-enter --name web -- ping -c 1 -W 3 10.77.0.1").code == 0
    assert fresh.sh("vs-enter --name web -- ping -c 1 -W 3 10.77.0.2").code == 0
    assert fresh.sh("vs-enter --name web -- apt-get update").code == 0, "by NAT"
    fresh.ok("vs-control --name web --stop")
    fresh.ok("vs-remove --name web --yes")


def _uninstall(fresh: Machine) -> None:
    refused = fresh.sh("./install.sh --uninstall")
    assert (refused.code, "guest demo runs" in refused.err) == (2, True), refused
    assert fresh.sh("vs-control --name demo").code == 0
    fresh.ok("vs-control --name demo --stop")
    fresh.ok("./install.sh --uninstall")
    for name in COMMANDS:
        assert fresh.sh(f"command -v {name}").code != 0
    assert "vsbr0" not in fresh.ok("ip -o link")
    assert "vs_local" not in fresh.ok("nft list tables")
    assert fresh.sh("grep root:131072 /etc/subuid /etc/subgid").code != 0
    gone = ("/opt/vs-tools", "/etc/sysctl.d/vs-tools.conf", "/etc/systemd/system/lxc.service", "/run/vs-tools")
    for path in (*gone, "/opt/.vs-tools.new"):
        assert fresh.sh(f"test -e {path} || test -L {path}").code != 0, path
    for path in ("/etc/vs-tools/create.conf", "/etc/vservers/demo/context", "/var/lib/vservers/demo/etc/hostname"):
        assert fresh.sh(f"test -e {path}").code == 0, path
    fresh.ok("./install.sh --uninstall")

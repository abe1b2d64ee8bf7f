"""A guest on real hosts: made with two arguments, it outlives reboots, power cuts and upgrades of its host."""

from typing import TYPE_CHECKING

from tests.templates import REPO, debian_template

if TYPE_CHECKING:
    from conftest import Hosts

HOST = "vsh-00"
NETWORKS = "7:10.99.7.0/24,10.99.7.1,lab.test\n"
RUNS = f"{HOST}:web:enabled:running\n"
LEFT = """
ls -A /etc/vservers /var/lib/vservers | grep -E '^\\.(new|old)-'
find /etc/vservers -name .made
ls /run/vs-tools/guests 2> /dev/null | grep -vx web
ip netns list | grep -v '^vs10000\\b'
systemctl list-units --failed --plain --no-legend
true
"""
"""What must not be there while the guest web is all there is."""


def make_web(hosts: "Hosts") -> None:
    """A Debian guest by two arguments, enabled and started; its systemd has finished booting."""
    hosts.configure(HOST, NETWORKS)
    assert hosts.ok(HOST, "vs-create --name web --interface 10.99.7.5") == f"{HOST}:web:disabled:stopped\n"
    assert hosts.ok(HOST, "vs-control --name web --enable --start") == RUNS
    wait_booted(hosts)


def wait_booted(hosts: "Hosts") -> None:
    """Wait until the guest runs and its systemd has finished booting, with no unit failed."""
    hosts.wait(HOST, f"vs-control --name web | grep -qx {RUNS.strip()}")
    state = hosts.wait(HOST, "vs-enter --name web -- systemctl is-system-running --wait | grep -E 'running|degraded'")
    assert state == "running\n", hosts.inside(HOST, "web", "systemctl --failed --no-legend; journalctl -b -p err")


def life(hosts: "Hosts") -> str:
    """What tells one life of the guest from another: its init's pid and start time."""
    return hosts.ok(HOST, "pid=$(vs-fonctions guest_init_pid web); echo $pid $(cut -d ' ' -f 22 /proc/$pid/stat)")


def test_the_checkout_is_installed_as_a_user_does_it_and_opens_nothing(hosts: "Hosts") -> None:
    installed = hosts.ok(HOST, "cat /opt/vs-tools/lib/python3*/site-packages/vstools/lifecycle/phases.py")
    assert installed == (REPO / "vstools/lifecycle/phases.py").read_text()
    commands = "vs-create vs-control vs-enter vs-log vs-remove vs-template vs-fonctions"
    hosts.ok(HOST, f"for c in {commands}; do type $c && test -s /usr/local/share/man/man8/$c.8 || exit; done")
    assert "Usage" in hosts.ok(HOST, "vs-create --help")
    assert hosts.ok(HOST, "stat -c %a /var/lib/vservers") == "700\n"
    for unit in ("lxc.service", "lxc-net.service", "lxc-monitord.service"):
        assert hosts.call(HOST, f"systemctl is-enabled {unit}")[1] == "masked\n"
    listening = hosts.ok(HOST, "ss -tulpnH").splitlines()
    assert listening
    assert not [line for line in listening if '"sshd"' not in line]


def test_a_guest_is_confined_and_outlives_what_its_host_is_put_through(hosts: "Hosts") -> None:
    make_web(hosts)
    pid = hosts.ok(HOST, "vs-fonctions guest_init_pid web").strip()
    profile = hosts.ok(HOST, f"cat /proc/{pid}/attr/current")
    assert profile.startswith("lxc-web_"), profile
    assert "(enforce)" in profile
    assert hosts.ok(HOST, f"cat /proc/{pid}/cgroup").startswith("0::/vsguests.slice/vs-guest@web.service/payload/")
    assert "10.99.7.5/24" in hosts.inside(HOST, "web", "ip -4 address show dev eth0")

    first = life(hosts)
    hosts.ok(HOST, "systemctl daemon-reload")
    newer = "sed -i 's/^version = .*/version = \"9.9.9\"/' pyproject.toml"
    hosts.ok(HOST, f"cd /root/vs-tools && {newer} && ./install.sh", 900)
    assert hosts.ok(HOST, "/opt/vs-tools/bin/pip list 2> /dev/null | grep vs-tools").split() == ["vs-tools", "9.9.9"]
    assert hosts.ok(HOST, "vs-control --name web; systemctl is-active vs-guest@web") == f"{RUNS}active\n"
    assert life(hosts) == first

    hosts.reboot(HOST)
    wait_booted(hosts)
    ended = hosts.inside(HOST, "web", "journalctl -b -1 --no-pager -o cat")
    assert "Stopped target multi-user.target" in ended
    assert "Journal stopped" in ended
    said = hosts.ok(HOST, "journalctl -b -1 -u vs-guest@web --no-pager -o cat")
    assert "Stopped vs-guest@web.service" in said
    assert "was killed" not in said
    assert hosts.ok(HOST, LEFT) == ""


def test_a_power_cut_leaves_nothing_stale(hosts: "Hosts") -> None:
    make_web(hosts)
    hosts.ok(HOST, "sync")
    hosts.power(HOST, "cut")
    hosts.power(HOST, "on")
    wait_booted(hosts)
    assert hosts.ok(HOST, LEFT) == ""
    assert hosts.ok(HOST, "vs-control --name web --restart") == RUNS
    assert hosts.ok(HOST, "vs-control --name web --disable --stop") == f"{HOST}:web:disabled:stopped\n"
    assert hosts.ok(HOST, f"{LEFT}ls /run/vs-tools/guests; ip netns list") == ""


def test_a_power_cut_while_a_guest_is_made_leaves_no_half_guest(hosts: "Hosts") -> None:
    hosts.configure(HOST, NETWORKS)
    hosts.ok(HOST, "setsid vs-create --name web --interface 10.99.7.5 > /dev/null 2>&1 < /dev/null &")
    hosts.wait(HOST, "test -e /var/lib/vservers/.new-web/usr/share && sync")
    hosts.power(HOST, "cut")
    hosts.power(HOST, "on")
    assert hosts.ok(HOST, "ls -A /var/lib/vservers").split() == [".new-web", "TEMPLATES", "lost+found"]
    assert hosts.ok(HOST, "vs-control --all") == ""
    assert hosts.ok(HOST, "vs-create --name web --interface 10.99.7.5") == f"{HOST}:web:disabled:stopped\n"
    assert hosts.ok(HOST, LEFT) == ""


def test_a_guest_of_another_release_than_its_host(hosts: "Hosts") -> None:
    template = debian_template("bookworm")
    hosts.configure(HOST, NETWORKS)
    hosts.copy(HOST, template, "/root")
    create = "vs-create --name web --interface 10.99.7.5 --enable --start"
    assert hosts.ok(HOST, f"{create} --template /root/{template.name}") == RUNS
    wait_booted(hosts)
    assert hosts.inside(HOST, "web", ". /etc/os-release; echo $VERSION_CODENAME") == "bookworm\n"


def test_the_main_path_on_debian_12(bookworm: "Hosts") -> None:
    assert bookworm.ok(HOST, ". /etc/os-release; echo $VERSION_CODENAME") == "bookworm\n"
    make_web(bookworm)
    bookworm.power(HOST, "cut")
    bookworm.power(HOST, "on")
    wait_booted(bookworm)
    assert bookworm.ok(HOST, LEFT) == ""

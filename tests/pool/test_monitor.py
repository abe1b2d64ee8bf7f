"""vs-monitor as a service of systemd's, on cgroup version 2: what happens to a guest comes as mail, and once."""

from pathlib import Path
from typing import TYPE_CHECKING

from test_main_path import HOST, NETWORKS

from tests.templates import small_template

if TYPE_CHECKING:
    from conftest import Hosts

MIB = 1 << 20
STATE = "/var/lib/vs-tools/monitor/state.json"
SPOOL = "/var/lib/vs-tools/monitor/spool"
SINK = "/var/lib/sink"
SETUP = f"""
cat > /usr/sbin/sendmail <<'END'
#!/bin/sh
{{ cat; echo; }} >> {SINK}
END
chmod 755 /usr/sbin/sendmail
touch {SINK}
echo MONITOR_POOLING=2 > /etc/vs-tools/monitor.conf
printf '%s_THRESHOLD=inf\\n' RSS PROC LOADAVG_15 >> /etc/vs-tools/monitor.conf
vs-create --name web --interface 10.99.7.5 --rss 64 --proc 40 --template /root/small.tar --start
systemctl enable --now vs-monitor.service
"""
TROUBLE = """
nc -ll -p 4444 -e /bin/cat > /dev/null 2>&1 < /dev/null &
dd if=/dev/zero of=/dev/null bs=200M count=1
for i in 1 2 3 4 5 6; do for j in 1 2 3 4 5 6 7 8; do sleep 1000 > /dev/null 2>&1 & done; done 2> /dev/null
"""
RESTART = f"""
systemctl stop vs-monitor.service
before=$(stat -c %i {STATE})
systemctl start vs-monitor.service
while [ "$(stat -c %i {STATE})" = "$before" ]; do sleep 0.5; done
while ls {SPOOL} | grep -q .; do sleep 0.5; done
grep -c ^Subject: {SINK}
"""


def told(hosts: "Hosts", words: str) -> None:
    """Wait until a mail says it in its subject or below."""
    hosts.wait(HOST, f"grep -F {words!r} {SINK}")


def test_what_happens_to_a_guest_is_told_once_by_a_service_that_stays_small(hosts: "Hosts", tmp_path: Path) -> None:
    hosts.configure(HOST, NETWORKS)
    hosts.copy(HOST, small_template(tmp_path), "/root")
    hosts.ok(HOST, f"set -e{SETUP}")
    hosts.wait(HOST, f"grep -F '\"baseline\":[' {STATE}")
    assert hosts.ok(HOST, f"cat {SINK}") == "", "a quiet guest is no news"
    hosts.call(HOST, f"vs-enter --name web -- sh -c '{TROUBLE}'")
    told(hosts, "out of memory, a process was killed")
    told(hosts, "process limit reached, fork refused")
    told(hosts, "tcp [::]:4444 by /bin/busybox")
    before = hosts.ok(HOST, f"grep -c ^Subject: {SINK}")
    assert hosts.ok(HOST, RESTART) == before, "a new process knows what the old one told"
    show = "for key in UnitFileState NRestarts MemoryPeak; do systemctl show --value -p $key vs-monitor.service; done"
    state, restarts, peak = hosts.ok(HOST, show).split()
    assert (state, restarts) == ("enabled", "0")
    assert 0 < int(peak) < 40 * MIB
    resident = "awk '/VmRSS/ {print $2}' /proc/$(systemctl show --value -p MainPID vs-monitor.service)/status"
    assert 0 < int(hosts.ok(HOST, resident)) < 40 * 1024
    hosts.ok(HOST, "kill -9 $(vs-fonctions guest_init_pid web)")
    told(hosts, "web: died: its init was ended by signal 9 (SIGKILL)")
    assert hosts.ok(HOST, "systemctl is-failed vs-monitor.service || true") == "active\n"

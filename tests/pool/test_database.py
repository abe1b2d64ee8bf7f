"""A database under load is read as it is at one moment: each copy starts and holds every row that was committed."""

import shlex
from typing import TYPE_CHECKING

import pytest

from tests.templates import debian_template

if TYPE_CHECKING:
    from conftest import Hosts

HOST = "vsh-00"
COPIES = 10
TREES = "/var/lib/vservers"
HOME = "var/lib/postgresql"
LOAD = """
su postgres -c 'psql -qc "create table rows (id serial primary key, made timestamp default now())"'
systemd-run --quiet --unit load --property User=postgres sh -c '
while :; do echo "insert into rows default values returning id;"; sleep 0.02; done |
    stdbuf -oL psql -qAt > ~postgres/committed'
"""
"""One session that commits row after row and notes each number when it is committed."""
COPY = f"""
set -eu
for copy in $(seq {COPIES}); do
    tail -n 2 {TREES}/db/{HOME}/committed | head -n 1 >> /root/committed
    vs-fonctions guest_snapshot db cp -a --no-target-directory {HOME}/17/main {TREES}/copy/{HOME}/$copy
done
cat /root/committed
"""
"""Which row was the last one before each snapshot: the line before the last one is whole."""
READ = f"""
cd /
for copy in $(seq {COPIES}); do
    folder=/{HOME}/$copy
    settings="-c config_file=/etc/postgresql/17/main/postgresql.conf -c data_directory=$folder"
    pg_ctl="/usr/lib/postgresql/17/bin/pg_ctl --silent -w -D $folder -l /tmp/log"
    su postgres -c "$pg_ctl -o '$settings' start" || cat /tmp/log
    su postgres -c 'psql -qAt -F " " -c "select max(id), count(*) from rows"'
    su postgres -c "$pg_ctl -m immediate stop"
done
"""  # noqa: S608 - for a shell
"""The last row of each copy, and how many there are."""


@pytest.mark.thorough
def test_every_copy_of_a_database_under_load_holds_what_was_committed(hosts: "Hosts") -> None:
    template = debian_template("trixie", "postgresql")
    hosts.configure(HOST, "7:10.99.7.0/24\n")
    hosts.copy(HOST, template, "/root")
    make = f"vs-create --template /root/{template.name} --start --interface 10.99.7"
    hosts.ok(HOST, f"{make}.5 --name db && {make}.6 --name copy", timeout=900)
    hosts.wait(HOST, "vs-enter --name db -- systemctl is-active postgresql@17-main")
    hosts.wait(HOST, "vs-enter --name copy -- systemctl stop postgresql postgresql@17-main")
    hosts.inside(HOST, "db", LOAD)
    hosts.wait(HOST, f"test $(wc -l < {TREES}/db/{HOME}/committed) -gt 50")
    committed = [int(line) for line in hosts.ok(HOST, COPY, timeout=1800).splitlines()]
    assert len(committed) == COPIES
    assert committed == sorted(set(committed)), "the load went on"
    assert hosts.inside(HOST, "db", "systemctl is-active load postgresql@17-main") == "active\n" * 2
    hosts.inside(HOST, "db", "systemctl stop load")
    said = hosts.ok(HOST, f"vs-enter --name copy -- sh -c {shlex.quote(READ)}", timeout=1800)
    found = [tuple(int(word) for word in line.split()) for line in said.splitlines()]
    assert len(found) == COPIES, said
    for before, (last, count) in zip(committed, found, strict=True):
        assert last >= before, (committed, found)
        assert count == last, (committed, found)  # one session, nothing rolled back: no number is left out
    assert hosts.ok(HOST, "lvs --noheadings -o lv_name vs").split() == ["vservers"]

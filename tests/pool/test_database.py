"""A database under load is read as it is at one moment: each copy starts and holds every row that was committed."""

from typing import TYPE_CHECKING

from tests.templates import debian_template

if TYPE_CHECKING:
    from conftest import Hosts

HOST = "vsh-00"
COPIES = 10
DATA = "var/lib/postgresql"
TREES = "/var/lib/vservers"
LOAD = """
su postgres -c 'psql -qc "create table rows (id serial primary key, made timestamp default now())"'
systemd-run --unit load --property User=postgres sh -c \
    'while :; do echo "insert into rows default values;"; done | psql -q'
"""
COPY = f"""
set -eu
committed=$(vs-enter --name db -- su postgres -c 'psql -qAtc "select max(id) from rows"')
rm -rf {TREES}/copy/{DATA}
vs-fonctions guest_snapshot db cp -a --no-target-directory {DATA} {TREES}/copy/{DATA}
vs-enter --name copy -- systemctl start postgresql
found=$(vs-enter --name copy -- su postgres -c 'psql -qAtc "select max(id), count(*) from rows"')
vs-enter --name copy -- systemctl stop postgresql
echo "$committed|$found"
"""  # noqa: S608 - for a shell
"""Rows that were committed before the snapshot; then, of the copy, the last row and how many there are."""


def test_every_copy_of_a_database_under_load_holds_what_was_committed(hosts: "Hosts") -> None:
    template = debian_template("trixie", "postgresql")
    hosts.configure(HOST, "7:10.99.7.0/24\n")
    hosts.copy(HOST, template, "/root")
    make = f"vs-create --template /root/{template.name} --start --interface 10.99.7"
    hosts.ok(HOST, f"{make}.5 --name db && {make}.6 --name copy", timeout=900)
    ready = "systemctl is-active postgresql@17-main"
    hosts.wait(HOST, f"vs-enter --name db -- {ready} && vs-enter --name copy -- {ready}")
    hosts.inside(HOST, "copy", "systemctl stop postgresql")
    hosts.inside(HOST, "db", LOAD)
    hosts.wait(HOST, "test $(vs-enter --name db -- su postgres -c 'psql -qAtc \"select count(*) from rows\"') -gt 100")
    copies = [hosts.ok(HOST, COPY, timeout=600) for _ in range(COPIES)]
    numbers = [tuple(int(word) for word in copy.strip().split("|")) for copy in copies]
    for committed, last, count in numbers:
        assert last >= committed, numbers
        assert count == last, numbers  # one session, nothing rolled back: no number is left out
    assert [first for first, *_ in numbers] == sorted({first for first, *_ in numbers}), "the load went on"
    assert hosts.inside(HOST, "db", "systemctl is-active load postgresql@17-main") == "active\n" * 2
    assert hosts.ok(HOST, "lvs --noheadings -o lv_name vs").split() == ["vservers"]

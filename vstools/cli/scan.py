"""vs-scan: every guest of the pool, where it is and whether it runs; and what is wrong with the pool."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from vstools import log
from vstools import paths as installation
from vstools.cli import app, pooled

if TYPE_CHECKING:
    from vstools.pool.scan import Seen


def scan(
    name: Annotated[list[str] | None, typer.Option("--name", help=app.NAME_HELP, metavar="GUEST")] = None,
    host: pooled.Hosts = None,
    as_json: app.Json = False,
    table: app.Table = False,
    ansible: Annotated[bool, typer.Option("--ansible", help="a dynamic inventory for Ansible")] = False,
    timeout: pooled.Timeout = 10.0,
) -> int:
    """Ask all hosts of the pool for their guests, at once.

    Prints <host>:<guest>:<enabled|disabled>:<running|stopped>. What is wrong is said on stderr: hosts that do not
    answer, guests on several hosts, enabled or running twice, addresses that two guests have, copies that belong to no
    host. The exit status is 1 where a host did not answer, or a guest runs, is enabled or is owned twice, or by nobody.
    """
    from vstools.pool import scan as pool

    app.exclusive(json=as_json, table=table, ansible=ansible)
    paths = installation.from_environment()
    slaves = pool.hosts(paths, host or ())
    found = pool.scan(paths, slaves, timeout)
    guests = [seen for seen in found.guests if not name or seen.guest in name]
    if ansible:
        print(json.dumps(inventory(found.guests), indent=1))
    else:
        app.show(map(_row, guests), app.control_line, as_json=as_json, table=table)
    for _, sentence in found.missing:
        log.warn(sentence)
    wrong = [problem for problem in pool.problems(found.guests) if not name or problem.guest in name]
    for problem in wrong:
        log.warn(problem.sentence)
    for missing in sorted(set(name or ()) - {seen.guest for seen in found.guests}):
        log.warn(f"there is no guest {missing} on the hosts that answered")
    unknown = bool(name) and not guests
    return int(bool(found.missing) or unknown or any(problem.grave for problem in wrong))


def _row(seen: "Seen") -> dict[str, object]:
    return {
        "host": seen.host, "guest": seen.guest, "enabled": seen.enabled, "running": seen.running,
        "addresses": list(seen.addresses), "owner": seen.owner, "epoch": seen.epoch,
    }  # fmt: skip


def inventory(guests: "Iterable[Seen]") -> dict[str, object]:
    """Ansible's dynamic inventory: groups by host, by running and stopped; of a guest on several hosts, who owns it."""
    groups: dict[str, dict[str, list[str]]] = {}
    variables: dict[str, dict[str, object]] = {}
    for seen in sorted(guests, key=lambda seen: (seen.owned, seen.running)):
        if seen.guest in variables and not seen.owned:
            continue
        address = seen.addresses[0].strip("[]") if seen.addresses else None
        variables[seen.guest] = {"vs_host": seen.host, **({"ansible_host": address} if address else {})}
        variables[seen.guest]["vs_running"] = seen.running
    for guest, values in sorted(variables.items()):
        for group in (str(values["vs_host"]).replace("-", "_"), "running" if values["vs_running"] else "stopped"):
            groups.setdefault(group, {"hosts": []})["hosts"].append(guest)
    return {"_meta": {"hostvars": variables}, **groups}


def main() -> None:
    """The command."""
    app.execute(scan)

"""vs-hosts: the hosts of the pool, and the first contact with a new one."""

from typing import TYPE_CHECKING, Annotated

import typer

from vstools import log
from vstools import paths as installation
from vstools.cli import app, pooled
from vstools.errors import Refused

if TYPE_CHECKING:
    from vstools.config.slaves import Slave


def hosts(
    add: Annotated[str | None, typer.Option("--add", help="make the first contact with a host", metavar="HOST")] = None,
    address: Annotated[
        str | None, typer.Option("--address", help="with --add: where it is reached", metavar="ADDRESS")
    ] = None,
    port: Annotated[int | None, typer.Option("--port", help="with --add: of its sshd", min=1, max=65535)] = None,
    user: Annotated[str | None, typer.Option("--user", help="with --add: root by default", metavar="USER")] = None,
    fingerprint: Annotated[
        str | None, typer.Option("--fingerprint", help="with --add: the key it must show", metavar="SHA256:...")
    ] = None,
    remove: Annotated[
        str | None,
        typer.Option("--remove", help="take a host out", metavar="HOST", autocompletion=pooled.complete_host),
    ] = None,
    forget_key: Annotated[
        str | None,
        typer.Option(
            "--forget-key", help="of a host installed anew", metavar="HOST", autocompletion=pooled.complete_host
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="with --remove: do not ask")] = False,
    as_json: app.Json = False,
    table: app.Table = False,
    timeout: pooled.Timeout = 10.0,
) -> int:
    """Show the hosts of the pool, or make the first contact with one.

    Prints <host>:<up|down>:<version>. --add shows the key of the host, which its admin compares with what ssh-keygen -l
    says there; stores it; installs the pool's key there, by the admin's own key or password; and adds the host to
    slaves.conf. Nothing is sent to a host before its key was accepted.
    """
    from vstools.pool import contact, scan

    app.exclusive(add=bool(add), remove=bool(remove), forget_key=bool(forget_key))
    paths = installation.from_environment()
    if (address or port or user or fingerprint) and not add:
        raise Refused("--address, --port, --user and --fingerprint go with --add")
    if add:
        slave = _slave(add, address, port or 22, user or "root")
        version = contact.add(paths, slave, lambda key: pooled.accept_key(slave.host, key, fingerprint), timeout)
        print(f"{slave.host}:up:{version}")
        return 0
    if remove:
        (slave,) = scan.hosts(paths, [remove])
        app.confirm(f"Take {slave.host} out of the pool?", yes)
        with log.change(f"remove host {slave.host} from the pool", "-"):
            contact.remove(paths, slave)
        return 0
    if forget_key:
        (slave,) = scan.hosts(paths, [forget_key])
        with log.change(f"forget the key of host {slave.host}", "-"):
            contact.forget_key(paths, slave.name)
        return 0
    return _show(as_json, table, timeout)


def _slave(name: str, address: str | None, port: int, user: str) -> "Slave":
    from vstools.config import slaves

    try:
        place = None if address is None else slaves.parse_place(address)
        return slaves.Slave(slaves.parse_host(name), address=place, port=port, user=slaves.parse_user(user))
    except ValueError as error:
        raise Refused(f"--add: {error}") from None


def _show(as_json: bool, table: bool, timeout: float) -> int:
    from vstools.errors import VsError
    from vstools.pool import remote, scan

    paths = installation.from_environment()

    def ask(slave: "Slave") -> str:
        with remote.agent(paths, slave, timeout) as agent:
            return agent.version

    rows: list[dict[str, object]] = []
    for slave, answer in scan.each(scan.hosts(paths), ask).items():
        failed = isinstance(answer, VsError)
        rows.append({"host": slave.host, "up": not failed, "version": None if failed else answer})
        if failed:
            log.warn(str(answer))
    app.show(
        rows,
        lambda row: f"{row['host']}:{'up' if row['up'] else 'down'}:{row['version'] or ''}",
        as_json=as_json, table=table,
    )  # fmt: skip
    return int(not all(row["up"] for row in rows))


def main() -> None:
    """The command."""
    app.execute(hosts)

"""vs-import: a guest of an old Linux-VServer host becomes a guest of this host."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vstools import log
from vstools import paths as installation
from vstools.cli import app, pooled
from vstools.cli.limitwords import parsed
from vstools.errors import Refused
from vstools.guest import parse_device

if TYPE_CHECKING:
    from vstools.config.slaves import Slave
    from vstools.paths import Paths


def importing(
    name: Annotated[str, typer.Option("--name", help="the guest's name there, and here", metavar="GUEST")],
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="the old host, a directory with its files, or a tar of them",
            metavar="ssh://[USER@]HOST[:PORT]|DIR|TAR",
        ),
    ] = None,
    physical: Annotated[
        str | None,
        typer.Option(
            "--physical",
            help="a whole machine, into a guest made by vs-create --skeleton",
            metavar="ssh://[USER@]HOST[:PORT]",
        ),
    ] = None,
    tree: Annotated[
        str | None, typer.Option("--tree", help="where its tree is there, if not at its vdir", metavar="PATH")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option("--device", help="device here of addresses that networks.conf does not know", metavar="DEV"),
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="ssh key that the old host takes; the pool's", metavar="FILE")
    ] = None,
    fingerprint: Annotated[
        str | None, typer.Option("--fingerprint", help="the key that the old host must show", metavar="SHA256:...")
    ] = None,
    final: Annotated[
        bool, typer.Option("--final", help="stop it there, bring the rest, and make it a guest of this host")
    ] = False,
    accept_config: pooled.AcceptConfig = False,
    abandon: Annotated[bool, typer.Option("--abandon", help="give up what was copied of it so far")] = False,
    dry_run: app.DryRun = False,
) -> int:
    """Bring a guest over from a Linux-VServer host: /etc/vservers/GUEST and its tree.

    What its files mean here, and what of them has no equivalent, is said line by line on stderr. From a host it is
    copied while it runs there, each run brings what changed; --final stops it there (vserver GUEST stop) and makes it a
    guest of this host, disabled and stopped. From a directory or an archive that happens at once. Nothing is installed
    on the old host, and nothing else changed. Prints the guest's line of vs-control when it is one.

    --physical copies a running machine, physical or virtual, into a stopped skeleton guest: all but its kernel, boot
    loader and what is mounted from elsewhere; each run brings what changed, until the guest takes its place.
    """
    from vstools.pool import importing as pool
    from vstools.pool import oldhost

    app.exclusive(final=final, abandon=abandon, dry_run=dry_run)
    paths = installation.from_environment()
    if abandon:
        if pool.abandon(paths, name):
            log.note(f"where --final stopped {name} and was cut off, it is still stopped: vserver {name} start there")
        return 0
    if physical is not None:
        if source or tree or device or final or accept_config:
            raise Refused("--physical goes with --name, --key, --fingerprint and --dry-run")
        return _physical(paths, name, physical, key, fingerprint, dry_run=dry_run)
    if source is None:
        raise Refused("say where it is: --from ssh://HOST, a directory or a tar archive")
    where = parsed("--from", oldhost.parse, source)
    checked = parsed("--device", parse_device, device) if device else None
    if isinstance(where, Path):
        final = True
    else:
        _meet(paths, where, fingerprint)
    with oldhost.opened(paths, where, name, tree, key) as place:
        found = pool.plan(paths, place, name, device=checked)
        for line in found.notes:
            log.note(line)
        pool.require(found, place, accept=accept_config or dry_run)
        if dry_run:
            init = found.system.init or "unknown"
            print(f"would bring {name} from {place.words}, {found.arrival.size >> 20} MiB, init {init}")
            for path in found.held:
                print(f"would need --accept-config for {path}")
            return 0
        with pooled.bar(f"{name} from {place.words}") as progress:
            changed = pool.bring(paths, place, found, final=final, progress=progress)
    if not final:
        log.note(f"{name} is copied and no guest yet: --final stops it on {place.words} and brings the rest")
        return 0
    return _done(paths, name, pool.report(paths, name, (*found.notes, *changed)), changed)


def _physical(paths: "Paths", name: str, text: str, key: Path | None, fingerprint: str | None, *, dry_run: bool) -> int:
    from vstools.config import registry
    from vstools.pool import importing as reports
    from vstools.pool import oldhost
    from vstools.pool import physical as pool

    where = parsed("--physical", oldhost.parse, text)
    if isinstance(where, Path):
        raise Refused("--physical takes ssh://HOST: the machine runs")
    registry.require(paths, name)
    _meet(paths, where, fingerprint)
    place = oldhost.reached(paths, where, key)
    found = pool.plan(paths, place)
    for line in found.notes:
        log.note(line)
    if dry_run:
        init = found.system.init or "unknown"
        print(f"would copy {found.size >> 20} MiB of {place.words}, init {init}, into guest {name}")
        return 0
    with pooled.bar(f"{place.words} to {name}") as progress:
        changed = pool.bring(paths, place, name, found, progress)
    return _done(paths, name, reports.report(paths, name, (*found.notes, *changed)), changed)


def _done(paths: "Paths", name: str, report: Path, changed: list[str]) -> int:
    for line in changed:
        log.note(line)
    log.note(f"all of this is in {report}")
    print(app.control_line(app.control_row(paths, name)))
    return 0


def _meet(paths: "Paths", slave: "Slave", fingerprint: str | None) -> None:
    """The host's key is the one that was accepted once, for this pool."""
    from vstools.pool import contact

    contact.pool_key(paths)
    contact.recognize(paths, slave, lambda key: pooled.accept_key(slave.host, key, fingerprint))


def main() -> None:
    """The command."""
    app.execute(importing)

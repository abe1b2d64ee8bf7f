"""vs-pkg: what guests have installed, shown and changed from the host."""

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vstools import paths as installation
from vstools.cli import app
from vstools.errors import BadFiles, Refused, VsError, said
from vstools.paths import Paths

if TYPE_CHECKING:
    from vstools.lifecycle.packages import Report
    from vstools.packages.managers import Wishes
    from vstools.pool.store import Generation

PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_:~=/@-]{0,199}(?<!-)")
_QUERY = re.compile(r"([A-Za-z0-9][A-Za-z0-9.+_-]*)(?:(<=|>=|<|>|=)([A-Za-z0-9][A-Za-z0-9.+:~^_-]{0,199}))?")
_HOLDS = {
    "<": lambda found: found < 0,
    "<=": lambda found: found <= 0,
    "=": lambda found: found == 0,
    ">=": lambda found: found >= 0,
    ">": lambda found: found > 0,
}
_OWNERS = {"--install": "--install", "--remove": "--remove", "--inventory": "--of"}
"""Option -> the one that each word behind it is given to."""


def pkg(
    name: app.Names = None,
    everyone: app.All = False,
    running: Annotated[bool, typer.Option("--running", help="all guests that run")] = False,
    update_sources: Annotated[bool, typer.Option("--update-sources", help="fetch new lists of packages")] = False,
    list_upgrades: Annotated[bool, typer.Option("--list-upgrades", help="what could be upgraded")] = False,
    upgrade_all: Annotated[bool, typer.Option("--upgrade-all", help="upgrade everything that can be")] = False,
    install: Annotated[
        list[str] | None, typer.Option("--install", help="the words that follow, too", metavar="PKG...")
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", help="the words that follow, too", metavar="PKG...")
    ] = None,
    search: Annotated[str, typer.Option("--search", help="packages in the lists", metavar="WORD")] = "",
    inventory: Annotated[bool, typer.Option("--inventory", help="what is installed")] = False,
    of: Annotated[
        list[str] | None,
        typer.Option("--of", help="with --inventory: these alone", metavar="PKG[<VERSION]"),
    ] = None,
    store: Annotated[
        bool, typer.Option("--store", help="with --inventory: of the copies in this master's store")
    ] = False,
    window: Annotated[
        int,
        typer.Option("--window", help="the firewall is open no longer than this", min=1, max=86400, metavar="SECONDS"),
    ] = 1800,
    as_json: app.Json = False,
    table: app.Table = False,
    snapshot: Annotated[
        bool, typer.Option("--snapshot", help="keep the guest's tree before (btrfs), for --rollback")
    ] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="back to the tree that --snapshot kept")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="with --rollback: do not ask")] = False,
    dry_run: app.DryRun = False,
) -> int:
    """Install, upgrade and remove packages in guests, running or stopped, by their own apt, dnf, apk, pacman or zypper.

    Prints <host>:<guest>:<what>:<package>:<versions>, a line for each package that was upgraded, installed or removed,
    is upgradable, or was found; what is restart: a service that still runs what was replaced. The guest's firewall
    is opened for that: to its repositories alone, and the kernel closes it after SECONDS whatever becomes of this
    command. Hosts that may be opened are those of the guest's own files where they are public, or PKG_HOSTS of
    create.conf, or PKG_PROXY. Nothing asks; an admin's configuration files are kept. A stopped guest is started without
    its services, and stopped again. Several guests are done at once, and one that fails stops no other.

    --rollback gives guests back their whole trees as --snapshot kept them: what they wrote since is lost. They are
    stopped for that, and started again where they ran; it ends with their lines of vs-control.

    --inventory prints <host>:<guest>:<package>:<version> from the guests' databases, and starts nothing:
    --inventory 'openssl<3.0.15' tells who has an older one. With --store it looks into all copies of guests that this
    master keeps, and the copy's time is at the end of the line.
    """
    app.exclusive(json=as_json, table=table)
    wishes = _wishes(update_sources, list_upgrades, upgrade_all, install or [], remove or [], search)
    if snapshot and not wishes.changes:
        raise Refused("--snapshot goes with what changes packages")
    if yes and not rollback:
        raise Refused("--yes goes with --rollback")
    if rollback and (str(wishes) or inventory):
        raise Refused("--rollback stands alone", "give what is to be done in another command")
    if not inventory and not rollback and not str(wishes):
        raise Refused("nothing to do is given", "--upgrade-all, --list-upgrades, --install PKG, --inventory, ...")
    if (of or store) and not inventory:
        raise Refused(f"--{'of' if of else 'store'} goes with --inventory")
    if inventory and (str(wishes) or dry_run):
        raise Refused("--inventory changes nothing", "give what is to be done in another command")
    paths = installation.from_environment()
    if store:
        return _stored(paths, name, of or [], everyone=everyone, running=running, as_json=as_json, table=table)
    names = _selected(paths, name, everyone=everyone, running=running)
    if inventory:
        return _inventory(paths, names, of or [], as_json=as_json, table=table)
    if rollback:
        return _rollback(paths, names, yes=yes, dry_run=dry_run, as_json=as_json, table=table)
    wishes = replace(wishes, snapshot=snapshot)
    if dry_run:
        return _foresee(paths, names, wishes)
    return _work(paths, names, wishes, window, as_json=as_json, table=table)


def _selected(paths: Paths, name: list[str] | None, *, everyone: bool, running: bool) -> tuple[str, ...]:
    from vstools.alive import is_running

    if not running:
        return app.selected(paths, name, everyone)
    if name or everyone:
        raise Refused("--running stands alone: it is all guests that run")
    return tuple(guest for guest in app.selected(paths, None, True) if is_running(paths, guest))


def _wishes(
    update_sources: bool, list_upgrades: bool, upgrade_all: bool, install: list[str], remove: list[str], search: str
) -> "Wishes":
    from vstools.packages.managers import Wishes

    for word in (*install, *remove):
        if not PACKAGE.fullmatch(word):
            raise Refused(f"{word!r} is not the name of a package")
    if search.startswith("-") or not search.isprintable():
        raise Refused(f"--search: {search!r} is not a word to look for")
    return Wishes(update_sources, list_upgrades, upgrade_all, tuple(install), tuple(remove), search)


def _foresee(paths: Paths, names: tuple[str, ...], wishes: "Wishes") -> int:
    import shlex

    from vstools.lifecycle import packages

    def foresee(guest: str) -> None:
        plan = packages.decide(paths, guest, wishes)
        if wishes.snapshot:
            print(f"{guest}: would keep its tree")
        for address, port in plan.ends:
            print(f"{guest}: would open tcp:{port} to {address}")
        for sentence in plan.closed:
            print(f"{guest}: would not open {sentence}")
        for step in plan.steps:
            print(f"{guest}: would run {shlex.join(step.words)}")

    return max((_tried(guest, lambda guest=guest: foresee(guest), alone=len(names) == 1) for guest in names), default=0)


def _tried(guest: str, act: Any, *, alone: bool) -> int:
    """1 where the act failed for a guest that is one of several: the others follow."""
    try:
        act()
    except (VsError, OSError) as error:  # a guest's tree may be missing, or change while it is read
        if alone:
            raise
        _complain(guest, said(error) if isinstance(error, OSError) else str(error), plain=isinstance(error, BadFiles))
        return 1
    return 0


def _complain(guest: str, words: str, *, plain: bool = False) -> None:
    about = "" if words.startswith(f"guest {guest}") else f"guest {guest}: "
    print(words if plain else f"vs-pkg: {about}{words}", file=sys.stderr)


def _work(paths: Paths, names: tuple[str, ...], wishes: "Wishes", seconds: int, *, as_json: bool, table: bool) -> int:
    from vstools.lifecycle import rounds

    reports: list[Report] = []
    try:
        rounds.work(paths, names, wishes, seconds, reports.append)
    finally:  # whatever ended it: what was changed is told
        if reports or len(names) != 1:
            _tell(names, reports, as_json=as_json, table=table)
    failed = [report.status for report in reports if report.failed]
    return max(failed, default=0) if len(names) == 1 else int(bool(failed))


def _tell(names: tuple[str, ...], reports: list["Report"], *, as_json: bool, table: bool) -> None:
    reports = sorted(reports, key=lambda report: names.index(report.guest))
    rows = [row for report in reports for row in _rows(report)]
    app.show(rows, _line, as_json=as_json, table=table)
    for report in reports:
        if report.failed:
            _complain(report.guest, report.failed)
    if len(names) > 1:
        print(_summary(names, reports), file=sys.stderr)


def _rows(report: "Report") -> Iterator[dict[str, object]]:
    start: dict[str, object] = {"host": app.host_name(), "guest": report.guest}
    for package, old, new in report.changes:
        what = "removed" if not new else "installed" if not old else "upgraded"
        yield {**start, "what": what, "package": package, "old": old or None, "new": new or None}
    for package in report.mended:
        yield {**start, "what": "mended", "package": package, "old": None, "new": None}
    for each in report.upgradable:
        yield {**start, "what": "upgradable", "package": each.name, "old": each.old or None, "new": each.new}
    for words in report.found:
        yield {**start, "what": "found", "package": words, "old": None, "new": None}
    for service in report.restart:
        yield {**start, "what": "restart", "package": service, "old": None, "new": None}


def _line(row: Mapping[str, Any]) -> str:
    versions = " -> ".join(version for version in (row["old"], row["new"]) if version)
    return ":".join((row["host"], row["guest"], row["what"], row["package"], *([versions] if versions else [])))


def _summary(names: tuple[str, ...], reports: list["Report"]) -> str:
    """What was changed where, in one line."""
    changed = [f"{len(report.changes)} in {report.guest}" for report in reports if report.changes]
    failed = [report.guest for report in reports if report.failed]
    parts = [f"packages changed: {', '.join(changed)}" if changed else "no package was changed"]
    parts += [f"failed: {', '.join(failed)}"] if failed else []
    done = {report.guest for report in reports}
    left = [name for name in names if name not in done]
    parts += [f"not begun: {', '.join(left)}"] if left else []
    return f"vs-pkg: {len(names)} guests; {'; '.join(parts)}"


def _rollback(paths: Paths, names: tuple[str, ...], *, yes: bool, dry_run: bool, as_json: bool, table: bool) -> int:
    """One guest after the other: each is stopped meanwhile."""
    from vstools.lifecycle import rollback

    alone = len(names) == 1
    check = partial(rollback.check, paths)
    able = [guest for guest in names if not _tried(guest, partial(check, guest), alone=alone)]
    status = int(len(able) < len(names))
    if dry_run:
        for guest in able:
            print(f"would give guest {guest} the tree that is kept of it")
        return status
    if able:
        app.confirm(f"What these guests wrote since is lost: {', '.join(able)}. Roll them back?", yes)
    for guest in able:
        status |= _tried(guest, partial(rollback.roll_back, paths, guest), alone=alone)
    rows = [app.control_row(paths, guest) for guest in able]
    app.show(rows, app.control_line, as_json=as_json, table=table)
    return status


def _inventory(paths: Paths, names: tuple[str, ...], queries: list[str], *, as_json: bool, table: bool) -> int:
    from vstools.lifecycle import packages

    asked = [_query(text) for text in queries]
    rows: list[dict[str, object]] = []

    def ask(guest: str) -> None:
        rows.extend(_asked(guest, *packages.inventory(paths, guest), asked))

    status = [_tried(guest, lambda guest=guest: ask(guest), alone=len(names) == 1) for guest in names]
    app.show(rows, lambda row: ":".join(str(word) for word in row.values()), as_json=as_json, table=table)
    return max(status, default=0)


def _stored(
    paths: Paths,
    name: list[str] | None,
    queries: list[str],
    *,
    everyone: bool,
    running: bool,
    as_json: bool,
    table: bool,
) -> int:
    """The inventory of all copies in the store. One that cannot be read hides no other."""
    from vstools.pool import inventory
    from vstools.pool.store import of

    if running or bool(name) == everyone:
        raise Refused("give either --name GUEST (repeatable) or --all: copies do not run")
    asked, copies = [_query(text) for text in queries], of(paths)
    for guest in name or ():
        copies.generation(guest, None)
    rows: list[dict[str, object]] = []
    status = 0
    for guest in dict.fromkeys(name or copies.names()):
        for copy in copies.generations(guest):

            def ask(copy: "Generation" = copy) -> None:
                found = _asked(copy.guest, *inventory.of(copy), asked)
                rows.extend({**row, "generation": copy.name} for row in found)

            if copy.path.exists():  # retention may have taken it meanwhile
                status |= _tried(f"{guest}, copy {copy.name}", ask, alone=False)
    app.show(rows, lambda row: ":".join(str(word) for word in row.values()), as_json=as_json, table=table)
    return status


def _asked(
    guest: str, manager: str, installed: Mapping[str, str], asked: list[tuple[str, str, str]]
) -> Iterator[dict[str, object]]:
    """A row for each package that is asked for; for all, where none is."""
    from vstools.packages.versions import compare

    for package, version in sorted(installed.items()):
        plain = package.partition(":")[0]
        if not asked or any(
            plain == wanted and (not sign or _HOLDS[sign](compare(manager, _like(than, version), than)))
            for wanted, sign, than in asked
        ):
            yield {"host": app.host_name(), "guest": guest, "package": plain, "version": version}


def _like(than: str, version: str) -> str:
    """A version without its epoch where nobody asks for one: openssl 1:3.0.7 is older than 3.5."""
    return version if ":" in than else version.partition(":")[2] or version


def _query(text: str) -> tuple[str, str, str]:
    """(package, sign, version) of ``PKG`` or ``PKG<VERSION``."""
    found = _QUERY.fullmatch(text)
    if found is None:
        raise Refused(f"--inventory: {text!r} is not PKG or PKG<VERSION", "signs are < <= = >= >, in quotes")
    return found[1], found[2] or "", found[3] or ""


def gathered(argv: list[str]) -> list[str]:
    """The arguments with each word behind --install, --remove and --inventory given to that option."""
    found: list[str] = []
    owner, waits = "", False
    for word in argv:
        if word.startswith("-"):
            found += [owner] if waits else []  # an option without its words: that is said
            option, sign, _ = word.replace("_", "-").partition("=")
            owner = _OWNERS.get(option, "")
            waits = owner == option and not sign
            found += [] if waits else [word]
        else:
            found += [owner, word] if owner else [word]
            waits = False
    return [*found, *([owner] if waits else [])]


def main() -> None:
    """The command."""
    sys.argv[1:] = gathered(sys.argv[1:])
    app.execute(pkg)

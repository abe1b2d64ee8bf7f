"""vs-backup: what backup.conf lists, several hosts side by side, one guest's failure stopping no other."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from vstools import files, log
from vstools.config import backup
from vstools.config.backup import Entry
from vstools.config.slaves import Slave
from vstools.config.text import Faults
from vstools.errors import Refused, VsError
from vstools.paths import Paths, host_name
from vstools.pool import get, scan
from vstools.pool.store import Full, Store

_HOSTS_AT_ONCE = 4
"""Hosts that send at the same time; each sends one guest at a time."""


@dataclass(frozen=True)
class Job:
    """One guest to copy, and from where."""

    entry: Entry
    slave: Slave


@dataclass(frozen=True)
class Outcome:
    """What became of one line of backup.conf. ``error`` is empty where a generation was made."""

    guest: str
    host: str
    generation: str = ""
    error: str = ""
    seconds: float = 0.0
    sent: int = 0
    pruned: int = 0
    full: bool = False
    """The store's reserve was reached."""


def entries(paths: Paths, names: Sequence[str] | None = None) -> list[Entry]:
    """The lines of backup.conf (those of the guests named). Raises Refused, BadFiles."""
    faults = Faults()
    found = backup.load(paths.conf / "backup.conf", faults)
    faults.check()
    if not found:
        raise Refused(f"{paths.conf / 'backup.conf'} lists no guest", "a line is GUEST:hot or GUEST:cool")
    known = {entry.guest: entry for entry in found}
    for name in names or ():
        if name not in known:
            raise Refused(f"backup.conf has no line for {name}", "vs-get copies any guest")
    return [known[name] for name in names or known]


def plan(
    entries: Sequence[Entry], pool: scan.Pool, slaves: Sequence[Slave], *, named: bool
) -> tuple[list[Job], list[Outcome]]:
    """Which guest comes from which host, and what cannot be; ``named``: the hosts were asked for, noselect or not."""
    noselect = frozenset() if named else frozenset(slave.host for slave in slaves if slave.noselect)
    by_host = {slave.host: slave for slave in slaves}
    jobs: list[Job] = []
    failed: list[Outcome] = []
    for entry in entries:
        try:
            seen = scan.chosen(pool.guests, entry.guest, noselect)
        except Refused as error:
            failed.append(Outcome(entry.guest, "", error=_why(str(error), pool)))
        else:
            jobs.append(Job(entry, by_host[seen.host]))
    return jobs, failed


def _why(sentence: str, pool: scan.Pool) -> str:
    """A guest that is nowhere may be on a host that does not answer."""
    silent = ", ".join(host for host, _ in pool.missing)
    return f"{sentence} (no answer from {silent})" if silent else sentence


def run(
    paths: Paths, store: Store, jobs: Sequence[Job], done: Callable[[Outcome], None] = lambda _: None, *,
    accept: bool = False,
) -> list[Outcome]:  # fmt: skip
    """Do the jobs: hosts side by side, the guests of a host one after the other. Each outcome is told as it comes.

    A copy that came to the store's reserve is tried once more when no other one comes, if there may be more room then:
    others took it while they came, or older copies went since.
    """
    again: list[tuple[Job, Outcome]] = []
    by_host: dict[Slave, list[Job]] = defaultdict(list)
    for job in jobs:
        by_host[job.slave].append(job)

    def of_host(slave: Slave) -> list[Outcome]:
        found = []
        for job in by_host[slave]:
            outcome = _one(paths, store, job, accept=accept)
            if outcome.full:
                again.append((job, outcome))
                continue
            done(outcome)
            found.append(outcome)
        return found

    with ThreadPoolExecutor(max_workers=_HOSTS_AT_ONCE) as threads:
        outcomes = [outcome for outcomes in threads.map(of_host, by_host) for outcome in outcomes]
    hope = len(by_host) > 1 or any(outcome.pruned for _, outcome in again)
    for job, outcome in again:
        outcomes.append(_one(paths, store, job, accept=accept, pruned=outcome.pruned) if hope else outcome)
        done(outcomes[-1])
    return outcomes


def _one(paths: Paths, store: Store, job: Job, *, accept: bool, pruned: int = 0) -> Outcome:
    """Copy one guest, and remove what retention says; ``pruned`` of its copies went before."""
    entry, slave = job.entry, job.slave
    begun = time.monotonic()
    try:
        mode = "hot" if entry.hot else "cool"
        made = get.get(paths, store, slave, entry.guest, mode=mode, accept=accept)
        pruned += len(store.prune(entry.guest, entry.keep))
    except (VsError, OSError) as error:
        seconds, full = time.monotonic() - begun, isinstance(error, Full)
        if full:
            pruned += _pruned(store, entry)
        return Outcome(entry.guest, slave.host, error=str(error), seconds=seconds, pruned=pruned, full=full)
    sent = get.about(made).sent
    return Outcome(entry.guest, slave.host, made.name, seconds=time.monotonic() - begun, sent=sent, pruned=pruned)


def _pruned(store: Store, entry: Entry) -> int:
    """How many copies retention removed for whoever found no room: numbers that were made smaller make some."""
    try:
        return len(store.prune(entry.guest, entry.keep))
    except (VsError, OSError) as error:
        log.warn(str(error))
        return 0


def summary(outcomes: Sequence[Outcome], missing: Sequence[str] = ()) -> list[str]:
    """A mail's lines: what failed first, then what was copied. ``missing``: why hosts did not answer."""
    failed = [outcome for outcome in outcomes if outcome.error]
    fine = [outcome for outcome in outcomes if not outcome.error]
    lines = [
        f"FAILED {outcome.guest} ({outcome.host or 'no host'}): {outcome.error}{_removed(outcome)}"
        for outcome in failed
    ]
    lines += [f"FAILED {sentence}" for sentence in missing]
    lines += [
        f"copied {outcome.guest} ({outcome.host}): {outcome.generation}, {outcome.sent / (1 << 20):.1f} MiB sent, "
        f"{outcome.seconds:.0f} s{_removed(outcome)}"
        for outcome in fine
    ]
    return lines


def _removed(outcome: Outcome) -> str:
    return f", {outcome.pruned} older removed" if outcome.pruned else ""


def title(lines: Sequence[str]) -> str:
    """A mail's subject: how much failed and the first that did, or how much was copied."""
    failed = [line.removeprefix("FAILED ") for line in lines if line.startswith("FAILED ")]
    if failed:
        return f"{host_name()}: backup: {len(failed)} FAILED: {failed[0]}"
    return f"{host_name()}: backup: {len(lines)} copied"


def mail(paths: Paths, lines: Sequence[str]) -> None:
    """Send a summary the way that vs-monitor's mails go; one that nobody takes is kept, and tried with the next one."""
    import os

    from vstools.config import create
    from vstools.lifecycle.monitor import send
    from vstools.monitor import text
    from vstools.monitor.spool import Spool

    to = create.load(paths.conf / "create.conf", Faults()).backup_mailto
    spool = Spool(paths.mails, attended=False)
    with files.lock(paths.locks / "_mails", what="the mails"):
        number, now = spool.next_number(), time.time()
        body = [text.escaped(line, 900) for line in lines]
        subject = text.escaped(title(lines), 180)
        spool.put(number, text.letter("vs-backup", os.uname().nodename, to, subject, body, now, number), now)
        spool.committed = number + 1
        send(paths, spool)
        if waiting := spool.count():
            which = "a summary waits" if waiting == 1 else f"{waiting} summaries wait"
            log.warn(f"{which} in {paths.mails}: the next vs-backup --mail tries again")

"""What the hosts of the pool say of their guests, asked all at once; and what is wrong with the whole."""

import ipaddress
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from vstools.config import slaves
from vstools.config.owner import EPOCH_MAX, NOBODY
from vstools.config.slaves import Slave
from vstools.config.text import Faults
from vstools.errors import Refused, VsError
from vstools.guest import check_name
from vstools.paths import Paths
from vstools.pool import remote, ssh

T = TypeVar("T")
_MOST_GUESTS = 10_000


@dataclass(frozen=True)
class Seen:
    """One guest on one host. ``owner``: None where no file names one (it belongs to where it is); NOBODY: set aside."""

    host: str
    guest: str
    enabled: bool
    running: bool
    addresses: tuple[str, ...] = ()
    owner: str | None = None
    epoch: int = 0
    broken: bool = False

    @property
    def owned(self) -> bool:
        """Whether the host may start it, as far as the host knows."""
        return not self.broken and self.owner in (None, self.host)


@dataclass(frozen=True)
class Pool:
    """What was seen: guests by host and name, and the hosts that did not answer with the reason."""

    guests: tuple[Seen, ...]
    missing: tuple[tuple[str, str], ...] = ()


def hosts(paths: Paths, wanted: Sequence[str] = ()) -> tuple[Slave, ...]:
    """The hosts of slaves.conf (those wanted, by any of their names); raises Refused for an unknown one."""
    faults = Faults()
    known = slaves.load(paths.conf / slaves.FILE, faults)
    faults.check()
    if not known:
        raise Refused("this node is no master: it has no slaves.conf with hosts", "vs-hosts --add HOST")
    if not wanted:
        return known
    names = {name: slave for slave in known for name in (slave.host, slave.name)}
    for name in wanted:
        if name not in names:
            raise Refused(f"there is no host {name!r} in the pool", f"see {paths.conf / slaves.FILE}")
    return tuple(dict.fromkeys(names[name] for name in wanted))


def each(slaves_: Sequence[Slave], act: Callable[[Slave], T]) -> dict[Slave, T | VsError]:
    """Do something with all hosts at once, a thread a host; what failed is the error in place of the result."""

    def guarded(slave: Slave) -> T | VsError:
        try:
            return act(slave)
        except VsError as error:
            return error

    with ThreadPoolExecutor(max_workers=len(slaves_) or 1) as threads:
        return dict(zip(slaves_, threads.map(guarded, slaves_), strict=True))


def scan(paths: Paths, slaves_: Sequence[Slave], timeout: float = ssh.CONNECT_TIMEOUT) -> Pool:
    """Ask the hosts; one that does not answer costs its timeout once."""

    def ask(slave: Slave) -> tuple[Seen, ...]:
        with remote.agent(paths, slave, timeout, timeout) as agent:
            return checked(slave.host, agent.call("states", timeout=timeout))

    found: list[Seen] = []
    missing: list[tuple[str, str]] = []
    for slave, answer in each(slaves_, ask).items():
        if isinstance(answer, VsError):
            missing.append((slave.host, str(answer)))
        else:
            found += answer
    return Pool(tuple(sorted(found, key=lambda seen: (seen.host, seen.guest))), tuple(missing))


def checked(host: str, answer: Any) -> tuple[Seen, ...]:
    """A host's guests from what it says; raises VsError where that cannot be."""
    try:
        return tuple(_seen(host, row) for row in answer[:_MOST_GUESTS])
    except (ValueError, TypeError, KeyError, Refused) as error:
        raise VsError(f"host {host} says of its guests what cannot be", ascii(str(error))[:200]) from error


def _seen(host: str, row: dict[str, Any]) -> Seen:
    addresses = [str(address) for address in row["addresses"]]
    for address in addresses:
        if ipaddress.ip_address(address.strip("[]")).compressed != address.strip("[]") or "%" in address:
            raise ValueError("an address is written in no usual way")
    flags = [row[key] for key in ("enabled", "running", "broken")]
    if not all(isinstance(flag, bool) for flag in flags) or type(row["epoch"]) is not int:
        raise ValueError("flags are true or false, epochs are numbers")
    if not 0 <= row["epoch"] <= EPOCH_MAX:
        raise ValueError("an epoch is too large")
    owner = row["owner"] if row["owner"] in (None, NOBODY) else slaves.parse_host(row["owner"])
    return Seen(
        host=host, guest=check_name(row["guest"], imported=True), enabled=flags[0], running=flags[1],
        addresses=tuple(addresses), owner=owner, epoch=row["epoch"], broken=flags[2],
    )  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """What is wrong with a guest in the pool. ``grave``: data or services are at stake."""

    guest: str
    sentence: str
    grave: bool = False


def problems(guests: Iterable[Seen]) -> tuple[Problem, ...]:
    """What is wrong with a pool, the grave things first."""
    by_name: dict[str, list[Seen]] = defaultdict(list)
    by_address: dict[str, set[str]] = defaultdict(set)
    for seen in guests:
        by_name[seen.guest].append(seen)
        for address in seen.addresses:
            by_address[address].add(seen.guest)
    found = [problem for name, copies in sorted(by_name.items()) for problem in _of_copies(name, copies)]
    for address, names in sorted(by_address.items()):
        if len(names) > 1:
            words = f"address {address} belongs to several guests: {', '.join(sorted(names))}"
            found += [Problem(name, words) for name in sorted(names)[:1]]
    return tuple(sorted(found, key=lambda problem: not problem.grave))


def _of_copies(name: str, copies: list[Seen]) -> Iterator[Problem]:
    """What is wrong with the copies of one guest."""

    def where(chosen: Iterable[Seen]) -> str:
        return ", ".join(seen.host for seen in chosen)

    running = [seen for seen in copies if seen.running]
    enabled = [seen for seen in copies if seen.enabled]
    owned = [seen for seen in copies if seen.owned]
    if len(running) > 1:
        yield Problem(name, f"guest {name} runs on several hosts: {where(running)}", grave=True)
    if len(owned) > 1:
        yield Problem(name, f"guest {name} belongs to several hosts: {where(owned)}", grave=True)
    if len(enabled) > 1:
        yield Problem(name, f"guest {name} is enabled on several hosts: {where(enabled)}", grave=True)
    if not owned and any(seen.owner != NOBODY for seen in copies):
        named = ", ".join(sorted({str(seen.owner) for seen in copies}))
        sentence = f"guest {name} on {where(copies)} belongs to {named}, which has no copy: vs-adopt there"
        yield Problem(name, sentence, grave=True)
    if len(copies) > 1 and len(owned) < 2:
        yield Problem(name, f"guest {name} is on several hosts: {where(copies)}")
    for seen in copies:
        if seen.broken:
            yield Problem(name, f"guest {name} on {seen.host} has files that cannot be read")


def chosen(guests: Iterable[Seen], name: str, noselect: frozenset[str], where: str = "in the pool") -> Seen:
    """The copy of a guest that is meant where no host was named: running, then owned and enabled, then owned.

    ``where`` says what was asked. Hosts marked noselect are never chosen. Raises Refused with the candidates where that
    leaves none or several.
    """
    copies = [seen for seen in guests if seen.guest == name]
    if not copies:
        raise Refused(f"there is no guest {name!r} {where}", "vs-scan lists the guests")
    free = [seen for seen in copies if seen.host not in noselect]
    if not free:
        raise Refused(f"guest {name} is only on hosts marked noselect: {copies[0].host}", "name it with --host")
    for test in (
        lambda seen: seen.running,
        lambda seen: seen.owned and seen.enabled,
        lambda seen: seen.owned,
        lambda _: True,
    ):
        if found := [seen for seen in free if test(seen)]:
            break
    if len(found) > 1:
        raise Refused(f"guest {name} is on several hosts: {', '.join(seen.host for seen in found)}", "name one: --host")
    return found[0]

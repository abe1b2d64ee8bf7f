"""Listening sockets that were not there before: the first thing that most intruders need. Pure.

The sockets of the first look after the guest has settled are its own; from then on each other one is told, until it
goes. What counts is protocol, address and executable together: another program on a known port is new.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from vstools.monitor.alerts import Fact
from vstools.monitor.diag import MOST, Socket
from vstools.monitor.owners import UNKNOWN, Owner

_TEXT = 300
_TOLD = 20
"""New sockets of a guest that are told one by one; how many more there are is one alert."""


@dataclass(frozen=True)
class Known:
    """What is remembered of a guest's sockets: the baseline, None before the first look."""

    baseline: frozenset[str] | None = None


def name_of(found: Socket, owner: Owner, ephemeral: tuple[int, int]) -> str:
    """What a socket is compared by: a program's UDP sockets at ports that the kernel chose are one."""
    address = found.address
    if found.protocol == "udp" and ephemeral[0] <= found.port <= ephemeral[1]:
        address = f"{found.where}:*"
    return f"{found.protocol} {_clip(address)} {_clip(owner.executable)}"


def _clip(text: str) -> str:
    return text[:_TEXT]


def is_filtered(found: Socket, owner: Owner, patterns: Iterable[re.Pattern[str]]) -> bool:
    """Whether a pattern is found in the executable, in the address or path, or in ``executable address``."""
    executable, address = _clip(owner.executable), _clip(found.address)
    texts = (executable, address, f"{executable} {address}")
    return any(pattern.search(text) for pattern in patterns for text in texts)


def judge(
    found: list[Socket],
    owners: Mapping[int, Owner],
    known: Known,
    patterns: tuple[re.Pattern[str], ...],
    ephemeral: tuple[int, int],
    id_base: int,
    told: Collection[str] = (),
) -> tuple[Known, list[Fact]]:
    """A look at a guest's sockets: what is remembered then, and an alert for each one that is new.

    Those whose alert is open already (``told``) come first: others that are opened later do not end it.
    """
    names = {name_of(each, owners.get(each.inode, UNKNOWN), ephemeral): each for each in reversed(found[:MOST])}
    if known.baseline is None:
        return Known(frozenset(names)), []
    facts = []
    for name, each in sorted(names.items(), key=lambda item: (f"socket {item[0]}" not in told, item[0])):
        owner = owners.get(each.inode, UNKNOWN)
        if name not in known.baseline and not is_filtered(each, owner, patterns):
            facts.append(_fact(name, each, owner, id_base))
    if len(facts) > _TOLD:
        more = f"{len(facts) - _TOLD} further new listening sockets"
        facts = [*facts[:_TOLD], Fact("sockets", True, more)]
    if len(found) > MOST:
        facts.append(Fact("sockets-many", True, f"more than {MOST} listening sockets: the rest is not looked at"))
    return known, facts


def _fact(name: str, found: Socket, owner: Owner, id_base: int) -> Fact:
    user = (
        "not known"
        if found.uid is None
        else str(found.uid - id_base)
        if found.uid >= id_base
        else f"host's {found.uid}"
    )
    text = f"new socket {found.protocol} {_clip(found.address)} by {_clip(owner.executable)}, uid {user}"
    details = (
        f"protocol {found.protocol}",
        f"address {_clip(found.address)}",
        f"process {_clip(owner.executable)}, pid {owner.pid or 'not known'} on the host",
        f"user {user}",
    )
    return Fact(f"socket {name}", True, text, details)

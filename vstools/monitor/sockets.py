"""Listening sockets that were not there before: the first thing that most intruders need.

The sockets of the first look after the guest has settled are its own; from then on each other one is told, until it
goes. What counts is protocol, address and executable together: another program on a known port is new.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from vstools.monitor.alerts import Alert, Fact
from vstools.monitor.diag import MOST, Socket
from vstools.monitor.owners import UNKNOWN, Owner
from vstools.monitor.sieve import Sieve

_TEXT = 300
_NAME, _HEAD = 96, 32
_TOLD = 20
"""New sockets of a guest that are told one by one, listeners and UDP each; how many more there are is one alert."""
_FURTHER = (("sockets", False, "listening"), ("sockets-udp", True, "UDP"))


@dataclass(frozen=True)
class Known:
    """What is remembered of a guest's sockets: the baseline, None before the first look."""

    baseline: frozenset[str] | None = None


@dataclass(frozen=True)
class Look:
    """One look: sockets, whose they are by inode, the ports that the kernel chooses from, the host's uid of root there.

    ``cut``: there are more sockets than were looked at; ``blind``: there are processes that were not looked at, so a
    socket's owner may have been missed.
    """

    found: list[Socket]
    owners: Mapping[int, Owner]
    ephemeral: tuple[int, int]
    id_base: int
    cut: bool = False
    blind: bool = False


def name_of(found: Socket, owner: Owner, ephemeral: tuple[int, int]) -> str:
    """What a socket is compared by: a program's UDP sockets at ports that the kernel chose are one.

    A long one is shortened: its whole is in a hash, and no short one is as long as that.
    """
    address = found.address
    if found.protocol.startswith("udp") and ephemeral[0] <= found.port <= ephemeral[1]:
        address = f"{found.where}:*"
    whole = f"{found.protocol} {address} {owner.path}"
    plain = whole.encode("ascii", "backslashreplace").decode()
    if len(plain) <= _NAME:
        return whole
    import hashlib

    return f"{plain[:_HEAD]}...{hashlib.sha256(whole.encode('utf-8', 'surrogateescape')).hexdigest()}"


def _clip(text: str) -> str:
    return text[:_TEXT]


def judge(look: Look, known: Known, sieve: Sieve, standing: Mapping[str, Alert]) -> tuple[Known, list[Fact]]:
    """A look at a guest's sockets: what is remembered then, and an alert for each one that is new.

    Those whose alert is open already (``standing``) come first: others that are opened later do not end it. Nor does
    a look that was not at everything: what was not seen there is not known.
    """
    names = {name_of(each, look.owners.get(each.inode, UNKNOWN), look.ephemeral): each for each in reversed(look.found)}
    if known.baseline is None:
        still = [key for key in standing if key.removeprefix("socket ") in names]
        facts = [_dropped(key, standing[key], "listens at the first look, known from now on") for key in still]
        return Known(frozenset(names)), [*facts, *_unseen(look, standing, still), *_bounds(look, sieve)]
    new: list[Fact] = []
    dropped: list[Fact] = []
    for name, each in sorted(names.items(), key=lambda item: (f"socket {item[0]}" not in standing, item[0])):
        owner, key = look.owners.get(each.inode, UNKNOWN), f"socket {name}"
        if name in known.baseline:
            continue
        if not sieve.covers(each, owner):
            new.append(_fact(key, each, owner, look.id_base))
        elif key in standing:
            dropped.append(_dropped(key, standing[key], "no longer watched"))
    unseen = _unseen(look, standing, [fact.key for fact in (*new, *dropped)])
    return known, [*_first(new, unseen), *dropped, *_bounds(look, sieve)]


def _first(new: list[Fact], unseen: list[Fact]) -> list[Fact]:
    """What is told one by one, and of how many more; a socket that is open still, unseen, has its place among them."""
    facts = []
    for key, is_udp, what in _FURTHER:
        part, held = ([fact for fact in each if _is_udp(fact.key) is is_udp] for each in (new, unseen))
        room = max(0, _TOLD - len(held))
        facts += part[:room]
        if len(part) > room:
            facts.append(Fact(key, True, f"{len(part) - room} further new {what} sockets"))
    keys = {fact.key for fact in facts}
    return [*facts, *(fact for fact in unseen if fact.key not in keys)]


def _is_udp(key: str) -> bool | None:
    """Whether it is the alert of a UDP socket or of a listener; None: of neither, but of how many more there are."""
    return key.startswith("socket udp") if key.startswith("socket ") else None


def _unseen(look: Look, standing: Mapping[str, Alert], seen: list[str]) -> list[Fact]:
    """Of the open alerts, those of which this look knows nothing."""
    if not look.cut and not look.blind:
        return []
    further = [key for key, _, _ in _FURTHER]
    keys = [key for key in standing if key in further or key.startswith("socket ")]
    return [Fact(key, None, standing[key].text) for key in keys if key not in seen]


def _bounds(look: Look, sieve: Sieve) -> list[Fact]:
    """What was not looked at is told: a guest's root can make more of anything."""
    told = (
        ("sockets-many", look.cut, f"more than {MOST} listening sockets of one kind: the rest is not looked at"),
        (
            "sockets-owners",
            look.blind,
            "more cgroups, processes or open files than are looked at: not all sockets have a known owner",
        ),
        ("sockets-filter", sieve.late, "SOCKETS_FILTER takes too long: what it was not matched with in time is told"),
    )
    return [Fact(key, True, text) for key, holds, text in told if holds]


def _dropped(key: str, alert: Alert, why: str) -> Fact:
    return Fact(key, False, f"{alert.text}: {why}")


def _fact(key: str, found: Socket, owner: Owner, id_base: int) -> Fact:
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
    return Fact(key, True, text, details)

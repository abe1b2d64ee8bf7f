"""What a guest's filter refuses: counted since its rules were loaded, or each packet while somebody looks."""

import select
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from vstools.alive import is_running
from vstools.config.firewall import Policy
from vstools.errors import BadFiles, VsError
from vstools.firewall import drops, model
from vstools.firewall.nflog import Listener
from vstools.firewall.nftables import LOG_GROUP
from vstools.lifecycle import filtering, net
from vstools.paths import NAMESPACES, Paths

MOMENT = 1.0  # seconds: what is the same within one is told once
_SHARE = 10  # the files are read again after this many times what reading them took


@dataclass(frozen=True)
class Count:
    """How many packets a rule refused since it was loaded; ``place`` or ``reason`` is empty."""

    direction: str
    packets: int
    bytes: int
    place: str
    reason: str


@dataclass(frozen=True)
class Moment:
    """What was refused within a second; ``more`` were of too many kinds, ``lost`` or more came too fast to be read."""

    refusals: tuple[drops.Refusal, ...]
    more: int
    lost: int


def counts(paths: Paths, name: str) -> tuple[Count, ...]:
    """The rules that refused anything, with their counters; none where the guest does not run."""
    policy = Policy()
    with suppress(BadFiles):  # places that were cut stay so
        policy = filtering.policy(paths, name)
    refused = (rule for rule in net.rules(paths, name) if rule.verdict == model.DROP and rule.packets)
    return tuple(
        Count(drops.direction_of(rule.chain), rule.packets, rule.bytes, *drops.decider(rule.place, policy))
        for rule in refused
    )


def follow(paths: Paths, name: str, wake: int) -> Iterator[Moment]:
    """What is refused from now on, until the guest stops or the descriptor ``wake`` can be read.

    Raises Refused where the guest does not run or somebody else listens, BadFiles when firewall.conf has faults.
    """
    netns = net.needed_namespace(paths, name)
    there = (NAMESPACES / netns).stat()
    files, tally = _Files(paths, name, netns), drops.Tally()
    with Listener(netns, LOG_GROUP) as listener:
        going, end = True, time.monotonic() + MOMENT
        while going:
            ready, _, _ = select.select([listener, wake], [], [], max(end - time.monotonic(), 0))
            going = wake not in ready
            for dropped in listener.read() if listener in ready else ():
                tally.add(dropped)
            if going and time.monotonic() < end:
                continue
            going = going and _is_there(paths, name, netns, there.st_ino)
            lost = listener.lost()
            if tally or lost:
                refusals, more = tally.take(files.now(), listener.links)
                yield Moment(refusals, more, lost)
            end = time.monotonic() + MOMENT


def _is_there(paths: Paths, name: str, netns: str, inode: int) -> bool:
    """Whether the guest still has the namespace: one that stopped and started again has another."""
    try:
        return is_running(paths, name) and (NAMESPACES / netns).stat().st_ino == inode
    except FileNotFoundError:
        return False


class _Files:
    """What the files and the kernel say; what they said before where they cannot be read for a moment."""

    def __init__(self, paths: Paths, name: str, netns: str) -> None:
        self._paths, self._name, self._netns = paths, name, netns
        self._found = self._read()
        self._fresh_until = 0.0

    def _read(self) -> drops.Files:
        from vstools.network import devices, namespace

        hosts = tuple(interface.ip for interface in devices.host_addresses())
        return drops.Files(filtering.policy(self._paths, self._name), namespace.addresses(self._netns), hosts)

    def now(self) -> drops.Files:
        """The files as they are now; large ones are not read all the time."""
        from vstools.network.netlink import NetlinkError

        begun = time.monotonic()
        if begun >= self._fresh_until:
            with suppress(VsError, OSError, NetlinkError):
                self._found = self._read()
            ended = time.monotonic()
            self._fresh_until = ended + _SHARE * (ended - begun)
        return self._found

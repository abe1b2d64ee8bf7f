"""What the kernel holds of a guest's filter, in words that are the same for every back end."""

from collections.abc import Iterator
from dataclasses import dataclass

from vstools.firewall.model import ACCEPT, DROP, HOOKS


@dataclass(frozen=True)
class LiveRule:
    """One rule of the kernel's with its counter; ``place`` is the line of the file that it comes from."""

    chain: str
    packets: int
    bytes: int
    verdict: str
    match: str
    place: str

    @property
    def decides(self) -> bool:
        """Whether it ends a packet's way, and does not only lead to another chain."""
        return self.verdict in (ACCEPT, DROP)


@dataclass(frozen=True)
class Live:
    """Base chain -> its policy, and all rules in the kernel's order.

    Where each family of addresses has a table of its own, ``parts`` are what each of them holds.
    """

    hooks: dict[str, str]
    rules: tuple[LiveRule, ...]
    parts: tuple["Live", ...] = ()


NOTHING = Live({}, ())


def is_up(live: Live) -> dict[str, bool]:
    """Base chain -> whether the kernel filters there by a file's rules: it drops, and leads to them.

    A family that the guest has no address of is not led there, but its table holds the rest of the way.
    """
    return {
        hook: live.hooks.get(hook) == DROP
        and (hook, f"{word}_known") in _leads(live)
        and all(
            (f"{word}_known", f"{word}_all") in _leads(part) and any(rule.chain == f"{word}_all" for rule in part.rules)
            for part in live.parts or (live,)
        )
        for hook, word in HOOKS.items()
    }


def _leads(live: Live) -> set[tuple[str, str]]:
    return {(rule.chain, rule.verdict) for rule in live.rules}


def differences(wanted: Live, live: Live) -> Iterator[str]:
    """A sentence for each thing that the kernel has otherwise than it should."""
    for hook, policy in wanted.hooks.items():
        if live.hooks.get(hook) != policy:
            has = f"has the policy {live.hooks[hook]}" if hook in live.hooks else "is missing"
            yield f"the firewall's chain {hook} {has}"
    should, has_now = _chains(wanted), _chains(live)
    for chain in dict.fromkeys((*should, *has_now)):
        missing, extra = should.get(chain, []), has_now.get(chain, [])
        if missing == extra:
            continue
        lost = [rule for rule in missing if rule not in extra]
        more = [rule for rule in extra if rule not in missing]
        yield from (f"the rule {_told(rule)} is missing" for rule in lost)
        yield from (f"the rule {_told(rule)} is too much" for rule in more)
        if not lost and not more:
            yield f"the rules of the firewall's chain {chain} are repeated or in another order"


def _chains(live: Live) -> dict[str, list[LiveRule]]:
    found: dict[str, list[LiveRule]] = {}
    for rule in live.rules:
        plain = LiveRule(rule.chain, 0, 0, rule.verdict, rule.match, rule.place)
        found.setdefault(rule.chain, []).append(plain)
    return found


def _told(rule: LiveRule) -> str:
    return f"{rule.chain}: {rule.match} {rule.verdict}" + (f" ({rule.place})" if rule.place else "")

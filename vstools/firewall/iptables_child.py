"""What a short-lived child of the system's own Python runs: it changes and reads the legacy tables by python-iptables.

Rules are lines as iptables-save and iptables-restore have them (``man 8 iptables-restore``), the tables of the two
families one after the other. ``load`` reads them from stdin, ``save`` prints them, ``count`` does so with their
counters, ``clear`` takes away what ``load`` left. One commit exchanges all of a table. A failure is one line on stderr
and exit status 1.

Debian has python-iptables for its own Python alone, so nothing of vstools is imported here.
"""

import ctypes
import ctypes.util
import os
import re
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

FAMILIES = ("IPv4", "IPv6")
OURS = "from_known"
"""A chain that is there wherever ``load`` was."""
BASE = ("INPUT", "FORWARD", "OUTPUT")
_PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58}
_NAMES = {number: name for name, number in _PROTOCOLS.items()}
_ADDRESSES = {"-s": ("src", "smsk", 8), "-d": ("dst", "dmsk", 16)}
_LINKS = {"-i": ("iniface", 1), "-o": ("outiface", 2)}
"""Word -> fields, and the bit of invflags that turns it round (linux/netfilter_ipv4/ip_tables.h; IPv6 has the same)."""
_STRINGS = ("comment", "nflog-prefix", "u32")
_WORD = re.compile(r'"([^"]*)"|(\S+)')
_SCRATCH = (ctypes.c_ubyte * 4096)()

Option = tuple[str, list[str]]
"""A word like ``-s`` or ``--dport``, and its values."""


def import_iptc() -> Any:
    """python-iptables, without the programs it runs to find its libraries (ldconfig, and gcc and ld where they are)."""
    search = ctypes.util.find_library
    known = {"c": "libc.so.6", "xtables": "libxtables.so.12", "ip4tc": "libip4tc.so.2", "ip6tc": "libip6tc.so.2"}

    def find(name: str) -> str | None:
        if name not in known:
            return None  # its own libxtwrapper lies on the import path, where it looks next
        try:
            ctypes.CDLL(known[name])
        except OSError:
            return search(name)
        return known[name]

    folder = f"/usr/lib/{getattr(sys.implementation, '_multiarch', '')}/xtables"
    if Path(folder).is_dir():
        os.environ["XTABLES_LIBDIR"] = folder
    ctypes.util.find_library = find
    import iptc

    # Targets are looked up in all tables of this list, which makes them in the kernel and hooks them.
    iptc.Table.ALL = iptc.Table6.ALL = [iptc.Table.FILTER]
    return iptc


class Family:
    """The table ``filter`` of a family: nothing changes in the kernel before ``commit``."""

    def __init__(self, iptc: Any, word: str) -> None:
        table, self._rule, self._header, self._family = {
            "IPv4": (iptc.Table, iptc.Rule, "ip", socket.AF_INET),
            "IPv6": (iptc.Table6, iptc.Rule6, "ipv6", socket.AF_INET6),
        }[word]
        try:
            self.table = table(iptc.Table.FILTER, autocommit=False)
        except iptc.IPTCError as error:
            raise OSError(f"the kernel has no legacy packet filter for {word}") from error

    @property
    def is_ours(self) -> bool:
        """Whether ``load`` was here."""
        return bool(self.table.is_chain(OURS))

    def commit(self) -> None:
        """Exchange all of the table in the kernel, in one act."""
        self.table.commit()
        self.table.refresh()

    def fill(self, lines: Iterable[str]) -> None:
        """Let the table hold these lines and nothing else."""
        self.table.flush()
        rules = []
        for line in lines:
            if not line.startswith(":"):
                rules.append(list(_options(line)))
                continue
            chain, policy, _ = line[1:].split(" ")
            if policy == "-":
                self.table.create_chain(chain)
            else:
                self.table.set_policy(chain, policy)
        known: dict[tuple[tuple[str, ...], ...], bytes] = {}  # most of many rules differ in their addresses alone
        for (_, (chain,)), *options in rules:
            rest = tuple((word, *values) for word, values in options if word not in _ADDRESSES)
            if rest not in known:
                known[rest] = bytes(self._encoded((word, list(values)) for word, *values in rest))
            ends = [(word, values[0]) for word, values in options if word in _ADDRESSES]
            self.table.append_entry(chain, self._addressed(known[rest], ends))

    def _addressed(self, encoded: bytes, ends: Iterable[tuple[str, str]]) -> Any:
        """A rule with addresses, which stand first in it."""
        rule = self._rule()
        for word, value in ends:
            setattr(rule, _ADDRESSES[word][0], value)
        buffer = (ctypes.c_ubyte * len(encoded)).from_buffer_copy(encoded)
        made, header = getattr(type(rule.entry).from_buffer(buffer), self._header), getattr(rule.entry, self._header)
        ctypes.memmove(ctypes.byref(made), ctypes.byref(header), type(header).iniface.offset)
        made.invflags |= header.invflags
        return buffer

    def _encoded(self, options: Iterable[Option]) -> Any:
        """A rule without its addresses, as the kernel has it."""
        rule, part = self._rule(), None
        header = getattr(rule.entry, self._header)
        for word, values in options:
            value = values[0] if values else ""
            if word in _LINKS:  # python-iptables itself compares but one bit of each byte for IPv6
                (field, inverted), name = _LINKS[word], value.removeprefix("!").encode()
                setattr(header, field, name)
                setattr(header, f"{field}_mask", b"\xff" * (len(name) + 1))
                header.invflags |= inverted if value.startswith("!") else 0
            elif word == "-p":
                rule.protocol = str(_PROTOCOLS.get(value, value))
            elif word == "-m":
                part = _lasting(rule.create_match(value))
            elif word in ("-j", "-g"):
                part = _lasting(rule.create_target(value, goto=word == "-g"))
            elif part is not None:
                part.set_parameter(word.removeprefix("--"), value if len(values) < 2 else values)
        return rule.rule

    def lines(self, *, counted: bool) -> Iterator[str]:
        """What the table holds, each rule with its counters or without."""
        chains = self.table.chains
        for chain in chains:
            policy, _ = self.table.get_policy(chain.name)
            yield f":{chain.name} {policy.name if policy else '-'} [0:0]"
        known: dict[tuple[Any, ...], str] = {}
        for chain in chains:
            entry = self.table.first_rule(chain.name)
            while entry:
                header = getattr(entry, self._header)
                begin = type(header).iniface.offset
                jump = self.table.get_target(entry)
                flags = bytes(header)[begin:]
                key = (
                    jump,
                    flags,
                    ctypes.string_at(ctypes.byref(entry.elems), entry.next_offset - ctypes.sizeof(entry)),
                )
                if key not in known:
                    known[key] = " ".join(self._told(self.table.create_rule(entry, chain))).rstrip()
                counters = f"[{entry.counters.pcnt}:{entry.counters.bcnt}] " if counted else ""
                yield f"{counters}-A {chain.name} {''.join(self._ends(header))}{known[key]}"
                entry = self.table.next_rule(entry)

    def _ends(self, header: Any) -> Iterator[str]:
        """The addresses of a rule."""
        for word, (field, mask, inverted) in _ADDRESSES.items():
            if prefix := sum(byte.bit_count() for byte in bytes(getattr(header, mask))):
                address = socket.inet_ntop(self._family, bytes(getattr(header, field)))
                yield f"{word} {'!' if header.invflags & inverted else ''}{address}/{prefix} "

    def _told(self, rule: Any) -> Iterator[str]:
        """The options of a rule but for its addresses, in iptables-save's order."""
        header = getattr(rule.entry, self._header)
        for word, (field, inverted) in _LINKS.items():
            if name := getattr(header, field).decode():
                yield f"{word} {'!' if header.invflags & inverted else ''}{name}"
        if header.proto:
            sign = "!" if rule.protocol.startswith("!") else ""
            yield f"-p {sign}{_NAMES.get(header.proto, header.proto)}"
        for match in rule.matches:
            yield f"-m {match.name} {_parameters(match)}"
        target = rule.target
        yield f"{'-g' if target.goto else '-j'} {target.standard_target or target.name} {_parameters(target)}"


def _lasting(part: Any) -> Any:
    """Give a match or a target memory for what it writes beside the rule: python-iptables has freed its own by then."""
    ctypes.memset(_SCRATCH, 0, len(_SCRATCH))
    part._module.udata = ctypes.cast(_SCRATCH, ctypes.c_void_p)
    return part


def _options(line: str) -> Iterator[Option]:
    """The options of a line; what follows a word with a dash and is not quoted itself belongs to it."""
    found: Option | None = None
    for match in _WORD.finditer(line):
        quoted, plain = match.groups()
        if plain is not None and plain.startswith("-"):
            if found:
                yield found
            found = (plain, [])
        elif found:
            found[1].append(quoted if plain is None else plain)
    if found:
        yield found


def _parameters(part: Any) -> str:
    """The options of a match or a target; a ``!`` before one is put before its value."""
    words = []
    for key, (*values,) in part.get_all_parameters().items():
        if values[:1] == ["!"]:
            values[:2] = ["".join(values[:2])]
        words += [f"--{key}", *(f'"{value}"' if key in _STRINGS else value for value in values)]
    return " ".join(words)


def load(families: dict[str, Family], text: str) -> None:
    """Put a text in force. Where the second family's commit fails, the first one gets its earlier rules back."""
    blocks: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("# "):
            blocks[line[2:]] = block = []
        elif line.startswith((":", "-A ")):
            block.append(line)
    if tuple(blocks) != FAMILIES:
        raise ValueError("rules are loaded for both families, IPv4 and IPv6, or not at all")
    first, second = (families[word] for word in FAMILIES)
    earlier = list(first.lines(counted=False))
    for word, family in families.items():
        family.fill(blocks[word])
    first.commit()
    try:
        second.commit()
    except BaseException:
        first.fill(earlier)
        first.commit()
        raise


def save(families: dict[str, Family], _: str, *, counted: bool = False) -> None:
    """Print both tables, when there is something of ours in one."""
    if any(family.is_ours for family in families.values()):
        for word, family in families.items():
            print("\n".join((f"# {word}", "*filter", *family.lines(counted=counted), "COMMIT")))


def clear(families: dict[str, Family], _: str) -> None:
    """Take our rules away; empty tables that accept are left, as the kernel made them."""
    for family in families.values():
        if family.is_ours:
            family.fill(f":{chain} ACCEPT [0:0]" for chain in BASE)
            family.commit()


ACTS: dict[str, Callable[[dict[str, Family], str], None]] = {
    "load": load,
    "save": save,
    "clear": clear,
    "count": partial(save, counted=True),
}


def main() -> None:
    """Do what the one argument says."""
    try:
        iptc = import_iptc()
    except ImportError:
        sys.exit("the package python3-iptables is not installed")
    try:
        ACTS[sys.argv[1]]({word: Family(iptc, word) for word in FAMILIES}, sys.stdin.read())
    except Exception as error:  # libiptc's and libxtables' errors have no common class
        sys.exit(f"the legacy packet filter: {error}")


if __name__ == "__main__":
    main()

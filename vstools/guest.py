"""The data: a guest, its addresses, its limits. Frozen, checked where they are made, and nothing else."""

import ipaddress
import re
from dataclasses import dataclass, field

from vstools.errors import Refused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
"""An address with its network."""

IDS = 65536
CONTEXT_MIN, CONTEXT_MAX = 2, 65534
MIB_MAX = (1 << 43) - 1
RLIMIT_MAX = (1 << 63) - 1
BURST_MAX = 10**9
NET_RATE_MAX = 34_359  # Mbit/s: a token bucket of the kernel counts bytes a second in 32 bits
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_RESERVED = ("TEMPLATES",)


def check_name(name: str, *, imported: bool = False) -> str:
    """Return ``name`` when it can name a guest; raises Refused. Capitals are for imported guests only."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise Refused(
            f"{name!r} cannot name a guest",
            "1-63 of a-z 0-9 . _ -, a letter or digit first, and no two dots in a row",
        )
    if name in _RESERVED:
        raise Refused(f"{name!r} cannot name a guest", "the name is reserved")
    if not imported and name != name.lower():
        raise Refused(f"{name!r} cannot name a guest", f"capitals are not allowed, {name.lower()!r} would do")
    return name


def check_context(value: int) -> int:
    """Return a context (2..65534) or raise Refused: 0 would be the host's own root."""
    if not CONTEXT_MIN <= value <= CONTEXT_MAX:
        raise Refused(f"{value} cannot be a context", f"it lies between {CONTEXT_MIN} and {CONTEXT_MAX}")
    return value


@dataclass(frozen=True)
class Nic:
    """One directory ``interfaces/N``: one address of a guest.

    ``prefix`` and ``device`` are None unless they were given for this guest: networks.conf decides at each start.
    ``accept_ra``: the link takes its IPv6 default route from routers' advertisements.
    """

    key: str
    address: Address
    prefix: int | None = None
    device: str | None = None
    mac: str | None = None
    name: str | None = None
    disabled: bool = False
    accept_ra: bool = False


@dataclass(frozen=True)
class Cpu:
    """A token bucket: ``rate`` tokens fall in every ``interval`` ticks; the share is of the whole host."""

    rate: int
    interval: int

    def __str__(self) -> str:
        return f"{self.rate}/{self.interval}"


RLIMITS = {
    "as": "bytes", "core": "bytes", "cpu": "seconds", "data": "bytes", "fsize": "bytes", "locks": "count",
    "memlock": "bytes", "msgqueue": "bytes", "nice": "20 - nice", "nofile": "count", "rtprio": "priority",
    "rttime": "microseconds", "sigpending": "count", "stack": "bytes",
}  # fmt: skip
"""The kernel's limits of single processes (``man 2 getrlimit``) and what they count; nproc and rss are the guest's."""


@dataclass(frozen=True)
class Rlimit:
    """What a process may raise itself to (``soft``) and what it cannot pass (``hard``). None: no limit."""

    soft: int | None
    hard: int | None

    @property
    def is_possible(self) -> bool:
        """Whether the soft limit is not above the hard one."""
        return self.hard is None or (self.soft is not None and self.soft <= self.hard)

    @property
    def soft_text(self) -> str:
        return "inf" if self.soft is None else str(self.soft)

    @property
    def hard_text(self) -> str:
        return "inf" if self.hard is None else str(self.hard)

    def __str__(self) -> str:
        return f"{self.soft_text}:{self.hard_text}"


@dataclass(frozen=True)
class NetRate:
    """Mbit/s (10^6 bits) that each link of a guest may send and receive. None: no limit."""

    sent: int | None
    received: int | None

    def __str__(self) -> str:
        return _pair(self.sent, self.received)


@dataclass(frozen=True)
class IoRate:
    """MiB/s that a guest may read from its disk and write to it. None: no limit."""

    read: int | None
    written: int | None

    def __str__(self) -> str:
        return _pair(self.read, self.written)


def _pair(one: int | None, other: int | None) -> str:
    return "/".join("inf" if value is None else str(value) for value in (one, other))


@dataclass(frozen=True)
class Limits:
    """What a guest may use: MiB (rss, disk, tmpfs), a count (proc), a share (cpu). None: no limit.

    ``burst``: milliseconds of CPU time that it may save up beyond its share. ``swap``: MiB beside rss, 0 by itself.
    ``rlimits``: limits of each of its processes, in the kernel's units, sorted by name. A rate with no limit in either
    direction is None.
    """

    rss: int | None = None
    disk: int | None = None
    tmpfs: int | None = None
    proc: int | None = None
    cpu: Cpu | None = None
    burst: int | None = None
    swap: int | None = 0
    rlimits: tuple[tuple[str, Rlimit], ...] = ()
    net_rate: NetRate | None = None
    io_rate: IoRate | None = None


@dataclass(frozen=True)
class OwnVolume:
    """The logical volume that a guest's tree has for itself: ``lvm:GROUP/NAME``."""

    group: str
    name: str

    @property
    def full_name(self) -> str:
        """The name that LVM's programs take and say."""
        return f"{self.group}/{self.name}"

    def __str__(self) -> str:
        return f"lvm:{self.full_name}"


@dataclass(frozen=True)
class Place:
    """Where a new guest's tree is made: a volume of its own in a group (in a thin pool of it), or among the others."""

    group: str = ""
    pool: str = ""

    def __str__(self) -> str:
        return f"lvm:{self.group}{'/' if self.pool else ''}{self.pool}" if self.group else "auto"


@dataclass(frozen=True)
class Guest:
    """A guest as its directory in /etc/vservers tells it."""

    name: str
    context: int
    nodename: str
    nics: tuple[Nic, ...] = ()
    limits: Limits = field(default_factory=Limits)
    enabled: bool = False
    depends: tuple[str, ...] = ()
    domain: str | None = None
    nameservers: tuple[Address, ...] = ()
    volume: OwnVolume | None = None

    @property
    def id_base(self) -> int:
        """The host's uid and gid of the guest's root; its ids are the 65536 from here."""
        return self.context * IDS


@dataclass(frozen=True)
class Names:
    """What a guest is told about names: for its resolv.conf and hosts."""

    domain: str | None
    nameservers: tuple[Address, ...]


def parse_volume(text: str) -> OwnVolume:
    """``lvm:GROUP/NAME``; raises ValueError with a sentence."""
    kind, _, names = text.partition(":")
    group, _, name = names.partition("/")
    if kind != "lvm" or not _is_of_lvm(group) or not _is_of_lvm(name):
        raise ValueError(f"{text!r} is not a volume like lvm:GROUP/NAME")
    return OwnVolume(group, name)


def parse_place(text: str) -> Place:
    """``auto``, ``lvm:GROUP`` or ``lvm:GROUP/POOL``; raises ValueError with a sentence."""
    if text == "auto":
        return Place()
    kind, _, names = text.partition(":")
    group, slash, pool = names.partition("/")
    if kind != "lvm" or not _is_of_lvm(group) or (slash and not _is_of_lvm(pool)):
        raise ValueError(f"{text!r} is neither auto, nor lvm:GROUP, nor lvm:GROUP/POOL")
    return Place(group, pool)


def _is_of_lvm(name: str) -> bool:
    """Whether LVM takes it as a name (``man 8 lvm``, valid names)."""
    return bool(re.fullmatch(r"[A-Za-z0-9_.+][A-Za-z0-9_.+-]{0,126}", name)) and name not in (".", "..")


def parse_cpu(text: str) -> Cpu:
    """``R/T`` with whole numbers, 0 < R <= T; raises ValueError with a sentence."""
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if not match:
        raise ValueError(f"{text!r} is not a share like 9/10")
    rate, interval = int(match[1]), int(match[2])
    if not 0 < rate <= interval:
        raise ValueError(f"{text!r} is not a share of the host: the first number is 1 to {interval}")
    return Cpu(rate, interval)


def parse_limit(text: str) -> int | None:
    """A whole number of at least 1, or ``inf`` (None); raises ValueError with a sentence."""
    if text == "inf":
        return None
    if not re.fullmatch(r"[0-9]{1,15}", text) or int(text) == 0:
        raise ValueError(f"{text!r} is not a whole number of at least 1, nor inf")
    if int(text) > MIB_MAX:
        raise ValueError(f"{text!r} MiB is past what a kernel counts (2^63 bytes)")
    return int(text)


def parse_swap(text: str) -> int | None:
    """MiB of swap: as ``parse_limit``, and 0 for none at all; raises ValueError with a sentence."""
    return 0 if text == "0" else parse_limit(text)


def parse_burst(text: str) -> int | None:
    """Milliseconds, or ``inf`` or 0 (None): no burst; raises ValueError with a sentence."""
    number = None if text == "0" else parse_limit(text)
    if number is not None and number > BURST_MAX:
        raise ValueError(f"{text!r} milliseconds are past what can be saved up ({BURST_MAX})")
    return number


def parse_net_rate(text: str) -> NetRate | None:
    """``OUT[/IN]`` in Mbit/s, one number for both, ``inf`` for none; raises ValueError with a sentence."""
    sent, received = _parse_pair(text, NET_RATE_MAX, "Mbit/s")
    return None if sent is received is None else NetRate(sent, received)


def parse_io_rate(text: str) -> IoRate | None:
    """``READ[/WRITE]`` in MiB/s, one number for both, ``inf`` for none; raises ValueError with a sentence."""
    read, written = _parse_pair(text, MIB_MAX, "MiB/s")
    return None if read is written is None else IoRate(read, written)


def _parse_pair(text: str, most: int, unit: str) -> tuple[int | None, int | None]:
    one, slash, other = text.partition("/")
    values = [parse_limit(one), parse_limit(other if slash else one)]
    for value in values:
        if value is not None and value > most:
            raise ValueError(f"{value} {unit} is past what a kernel counts ({most})")
    return values[0], values[1]


def parse_rlimit(text: str) -> tuple[str, Rlimit]:
    """``NAME=SOFT[:HARD]``, numbers in the kernel's units or ``inf``; raises ValueError with a sentence.

    Sizes that are kept in pages of 4 KiB (as, memlock) are rounded up to whole ones.
    """
    name, sign, values = text.partition("=")
    if (other := {"nproc": "--proc", "rss": "--rss"}.get(name)) is not None:
        raise ValueError(f"{name} is a limit of the guest as a whole here: {other}")
    if not sign or name not in RLIMITS:
        raise ValueError(f"{text!r} is not NAME=SOFT[:HARD]; names: {' '.join(RLIMITS)}")
    soft, colon, hard = values.partition(":")
    limit = Rlimit(_rlimit_value(name, soft), _rlimit_value(name, hard if colon else soft))
    if not limit.is_possible:
        raise ValueError(f"{text!r}: the soft limit is above the hard one")
    return name, limit


def _rlimit_value(name: str, text: str) -> int | None:
    if text == "inf":
        return None
    unit = 4096 if name in ("as", "memlock") else 1
    if not re.fullmatch(r"[0-9]{1,19}", text) or (value := -(-int(text) // unit) * unit) > RLIMIT_MAX:
        raise ValueError(f"{text!r} is not a number below 2^63 for {name}, nor inf")
    return value


def parse_address(text: str) -> Address:
    """An IPv4 or IPv6 address, without prefix or zone; raises ValueError with a sentence."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an IPv4 or IPv6 address") from None
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id:
        raise ValueError(f"{text!r} has a zone, which means nothing to another host")
    return address


def parse_domain(text: str) -> str:
    """A DNS domain name; raises ValueError with a sentence."""
    label = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    if len(text) > 253 or not re.fullmatch(rf"{label}(\.{label})*", text):
        raise ValueError(f"{text!r} is not a domain name")
    return text


def parse_nodename(text: str) -> str:
    """A host name as wide as guest names are, and domain names; raises ValueError with a sentence."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", text):
        raise ValueError(f"{text!r} is not a host name")
    return text


def parse_device(text: str) -> str:
    """The name of a network device (at most 15 characters, ``man 8 ip-link``); raises ValueError."""
    if not re.fullmatch(r"[^\s/:%]{1,15}", text) or text in (".", ".."):
        raise ValueError(f"{text!r} is not the name of a network device")
    return text


def parse_mac(text: str) -> str:
    """A unicast MAC address; raises ValueError with a sentence."""
    if not re.fullmatch(r"([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}", text) or int(text[:2], 16) & 1:
        raise ValueError(f"{text!r} is not the MAC address of one device")
    return text.lower()


def bracketed(address: Address) -> str:
    """An address as it stands in lines whose fields are joined by colons."""
    return f"[{address}]" if address.version == 6 else str(address)

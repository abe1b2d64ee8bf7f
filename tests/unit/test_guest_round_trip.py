"""Any guest comes back from its directory as it was, and saving what is there writes nothing."""

import os
import shutil

from hypothesis import given
from hypothesis import strategies as st

from vstools.config import guests
from vstools.config.text import Faults
from vstools.guest import CONTEXT_MAX, CONTEXT_MIN, RLIMITS, Cpu, Guest, IoRate, Limits, NetRate, Nic, OwnVolume, Rlimit
from vstools.paths import Paths

from .made import saved, written

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
DOMAINS = st.lists(LABELS, min_size=1, max_size=3).map(".".join)
MACS = st.binary(min_size=5, max_size=5).map(lambda tail: ":".join(f"{byte:02x}" for byte in b"\x02" + tail))
LVM_NAMES = st.from_regex(r"[A-Za-z0-9_+][A-Za-z0-9_.+-]{0,20}", fullmatch=True)
MIB = st.one_of(st.none(), st.integers(1, 1 << 20), st.integers(1, (1 << 43) - 1))
SHARES = st.integers(1, 10**9 - 1).flatmap(lambda t: st.integers(1, t).map(lambda r: Cpu(r, t)))
MBIT = st.one_of(st.none(), st.integers(1, 34_359))
SIZES = st.one_of(st.none(), st.integers(0, 1 << 50).map(lambda pages: pages * 4096))
RLIMIT = st.tuples(SIZES, SIZES).map(lambda pair: Rlimit(*pair)).filter(lambda limit: limit.is_possible)
LIMITS = st.builds(
    Limits,
    rss=MIB,
    disk=MIB,
    tmpfs=MIB,
    proc=MIB,
    cpu=st.one_of(st.none(), SHARES),
    burst=st.one_of(st.none(), st.integers(1, 10**9)),
    net_rate=st.one_of(st.none(), st.builds(NetRate, MBIT, MBIT).filter(lambda rate: rate != NetRate(None, None))),
    io_rate=st.one_of(st.none(), st.builds(IoRate, MIB, MIB).filter(lambda rate: rate != IoRate(None, None))),
    swap=st.one_of(st.just(0), MIB),
    rlimits=st.dictionaries(st.sampled_from(list(RLIMITS)), RLIMIT, max_size=4).map(lambda d: tuple(sorted(d.items()))),
)


@st.composite
def nics(draw: st.DrawFn) -> tuple[Nic, ...]:
    found = []
    for key in sorted(draw(st.sets(st.integers(0, 12), max_size=4))):
        address = draw(st.ip_addresses())
        found.append(
            Nic(
                key=str(key),
                address=address,
                prefix=draw(st.one_of(st.none(), st.integers(1, address.max_prefixlen))),
                device=draw(st.one_of(st.none(), st.from_regex(r"[a-z][a-z0-9.-]{0,14}", fullmatch=True))),
                mac=draw(st.one_of(st.none(), MACS)),
                name=draw(st.one_of(st.none(), LABELS)),
                disabled=draw(st.booleans()),
            )
        )
    return tuple(found)


GUESTS = st.builds(
    Guest,
    name=st.just("web"),
    context=st.integers(CONTEXT_MIN, CONTEXT_MAX),
    nodename=DOMAINS,
    nics=nics(),
    limits=LIMITS,
    enabled=st.booleans(),
    depends=st.lists(LABELS, max_size=3).map(tuple),
    domain=st.one_of(st.none(), DOMAINS),
    nameservers=st.lists(st.ip_addresses(), max_size=3).map(tuple),
    volume=st.one_of(st.none(), st.builds(OwnVolume, LVM_NAMES, LVM_NAMES)),
)


@given(first=GUESTS, second=GUESTS)
def test_what_is_saved_is_what_is_loaded_whatever_was_there_before(paths: Paths, first: Guest, second: Guest) -> None:
    shutil.rmtree(paths.guests, ignore_errors=True)
    for made in (first, second):
        saved(paths, made)
        assert guests.load(paths, "web") == made


@given(made=GUESTS)
def test_saving_what_is_there_writes_nothing(paths: Paths, made: Guest) -> None:
    shutil.rmtree(paths.guests, ignore_errors=True)
    saved(paths, made)
    assert written(paths.config_of("web"), made) == set()


VALUES = ("context", "uts/nodename", "interfaces/0/ip", "interfaces/0/prefix", "interfaces/0/mac", "rlimits/rss",
          "rlimits/nproc", "sched/fill-rate", "sched/interval", "sched/tokens-max", "rlimits/swap",
          "rlimits/as", "rlimits/nofile", "rlimits/nofile.soft", "rlimits/nofile.hard", "dlimits/0/space_total",
          "fstab", "domain", "nameservers", "apps/init/mark", "apps/init/depends", "storage")  # fmt: skip


@given(values=st.dictionaries(st.sampled_from(VALUES), st.one_of(st.binary(), st.text().map(os.fsencode))))
def test_whatever_the_files_hold_reading_them_collects_faults_and_raises_nothing(
    paths: Paths, values: dict[str, bytes]
) -> None:
    shutil.rmtree(paths.guests, ignore_errors=True)
    config = paths.config_of("web")
    for name, content in values.items():
        (config / name).parent.mkdir(parents=True, exist_ok=True)
        (config / name).write_bytes(content)
    found = guests.read(config, "web", Faults())
    assert CONTEXT_MIN <= found.context <= CONTEXT_MAX

"""A running guest's limits: what is written in which order, what is refused, and that all of it is done or nothing."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from vstools import limits
from vstools.errors import VsError
from vstools.guest import Cpu, Limits
from vstools.limits import Controllers, live, victims
from vstools.limits.live import Usage, numbers
from vstools.limits.plan import Setting

ALL = frozenset({"memory", "pids", "cpu"})
NONE = frozenset[str]()
V2, V1 = Controllers(ALL, NONE), Controllers(NONE, ALL, v1_swap=True)
INF = float("inf")
MIB = 1 << 20
CANNOT = "are in use that the kernel cannot reclaim"


def settings(wanted: Limits, have: Controllers) -> tuple[Setting, ...]:
    return limits.plan(wanted, have, cpus=2).settings


def content(wanted: Limits, have: Controllers) -> live.Content:
    return {setting.key: numbers(setting.value) for setting in settings(wanted, have)}


SAMPLES = [
    Limits(rss=rss, swap=swap, proc=proc, cpu=cpu, burst=burst)
    for rss, swap, proc, (cpu, burst) in itertools.product(
        (None, 64, 128), (0, 64, None), (None, 10), ((None, None), (Cpu(1, 2), 90), (Cpu(1, 10), 20), (Cpu(9, 10), 1))
    )
]


def possible(state: live.Content) -> bool:
    """What every kernel insists on, whichever file is written."""
    both = state.get("memory.memsw.limit_in_bytes", (INF,))
    memory = state.get("memory.limit_in_bytes", (0,))
    quota = state.get("cpu.max") or state["cpu.cfs_quota_us"]
    burst = state.get("cpu.max.burst") or state["cpu.cfs_burst_us"]
    return memory[0] <= both[0] and burst[0] <= quota[0]


@pytest.mark.parametrize("have", [V1, V2], ids=["v1", "v2"])
def test_no_step_between_any_two_limits_is_one_that_a_kernel_refuses(have: Controllers) -> None:
    for before, after in itertools.product(SAMPLES, repeat=2):
        state = content(before, have)
        for setting in live.write_order(state, settings(after, have)):
            state = {**state, setting.key: numbers(setting.value)}
            assert possible(state), (before, after, setting)
        assert state == content(after, have)


def test_memory_is_reclaimed_before_the_limit_falls() -> None:
    for before, after, order in (
        (64, 32, ["memory.high", "memory.max"]),
        (32, 64, ["memory.max", "memory.high"]),
    ):
        steps = live.write_order(content(Limits(rss=before), V2), settings(Limits(rss=after), V2))
        assert [step.key for step in steps] == order


def test_what_is_there_already_is_not_written() -> None:
    assert live.write_order(content(SAMPLES[-1], V2), settings(SAMPLES[-1], V2)) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [("max", (INF,)), ("-1", (INF,)), ("9223372036854771712", (INF,)), ("50000 100000", (50000, 100000)), ("0", (0,)),
     ("max 100000", (INF, 100000))],
)  # fmt: skip
def test_no_limit_has_many_names(text: str, found: tuple[float, ...]) -> None:
    assert numbers(text) == found


@pytest.mark.parametrize(
    ("have", "before", "after", "usage", "swap", "words"),
    [
        (V2, 128, 32, Usage(40 * MIB, 3), 0, "rss 32: 40 MiB are in use that the kernel cannot reclaim, it would kill"),
        (
            V1,
            128,
            32,
            Usage(40 * MIB, 3),
            0,
            "rss 32: 40 MiB are in use that the kernel cannot reclaim, it would refuse",
        ),
        (V2, 128, 32, Usage(40 * MIB, 3), 8 * MIB, ""),
        (V2, 128, 48, Usage(40 * MIB, 3), 0, ""),
        (V2, 32, 36, Usage(40 * MIB, 3), 0, ""),
        (V2, 32, 32, Usage(40 * MIB, 3), 0, ""),
        (V2, None, 32, Usage(40 * MIB, 3), 0, "rss 32"),
        (V2, 128, 32, Usage(None, None), 0, ""),
    ],
)
def test_memory_in_use_is_an_objection_only_where_the_limit_falls(
    have: Controllers, before: int | None, after: int, usage: Usage, swap: int, words: str
) -> None:
    found = live.objections(content(Limits(rss=before), have), settings(Limits(rss=after), have), usage, swap)
    assert [sentence[: len(words)] for sentence in found] == ([words] if words else [])


def test_processes_that_run_are_an_objection() -> None:
    before, after = content(Limits(proc=100), V2), settings(Limits(proc=10), V2)
    (sentence,) = live.objections(before, after, Usage(None, 12))
    assert sentence.startswith("proc 10: 12 run")
    assert live.objections(before, after, Usage(None, 10)) == []


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def group(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[live.Group, Controllers, Path]:
    """A cgroup of plain files, as a guest without limits has them."""
    root = tmp_path / "cgroup"
    (tmp_path / "proc/self").mkdir(parents=True)
    kind = "cgroup cgroup rw,memory,pids,cpu" if request.param == 1 else "cgroup2 cgroup2 rw"
    (tmp_path / "proc/self/mountinfo").write_text(f"30 22 0:26 / {root} rw - {kind}\n")
    (tmp_path / "proc/meminfo").write_text("SwapFree: 0 kB\n")
    folder = root / "vs-tools/web/payload"
    folder.mkdir(parents=True)
    (folder / "memory.current").write_text("0\n")
    have = V1 if request.param == 1 else V2
    for setting in settings(Limits(), have):
        (folder / setting.key).write_text(setting.value + "\n")
    return live.Group("vs-tools/web/payload", tmp_path / "proc"), have, folder


Fake = tuple[live.Group, Controllers, Path]


def test_limits_are_written_and_read_back(group: Fake) -> None:
    made, have, folder = group
    wanted = settings(Limits(rss=64, proc=10, cpu=Cpu(1, 2), burst=20), have)
    for path in folder.iterdir():
        path.write_text("")  # a real file is replaced as a whole, these would keep the end of the longer value
    for setting in wanted:
        (folder / setting.key).write_text(setting.value)
    assert made.read(wanted) == {setting.key: numbers(setting.value) for setting in wanted}
    assert made.put(wanted) == tuple(replace(setting, explicit=True) for setting in wanted)


def test_one_that_is_refused_leaves_all_as_it_was(group: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    made, have, folder = group
    before = {path.name: path.read_text().strip() for path in folder.iterdir()}
    done: dict[str, str] = {}

    def write(_: live.Group, setting: Setting) -> None:
        if setting.controller == "memory" and setting.value == str(64 * MIB):
            raise VsError("the kernel refuses it")
        done[setting.key] = setting.value
        (folder / setting.key).write_text(setting.value)

    monkeypatch.setattr(live.Group, "_write", write)
    with pytest.raises(VsError, match="refuses"):
        made.put(settings(Limits(rss=64, proc=10, cpu=Cpu(1, 2)), have))
    assert done
    assert {path.name: path.read_text().strip() for path in folder.iterdir()} == before


def test_a_file_that_this_kernel_lacks_is_missed_only_where_it_is_needed(group: Fake) -> None:
    made, have, folder = group
    burst = folder / ("cpu.max.burst" if have == V2 else "cpu.cfs_burst_us")
    burst.unlink()
    made.put(settings(Limits(), have))
    with pytest.raises(VsError, match="is not there: the controller cpu is off"):
        made.put(settings(Limits(cpu=Cpu(1, 2), burst=5), have))


IO_MAX = "8:0 rbps=1048576 wbps=max riops=max wiops=max\n253:1 rbps=max wbps=2097152 riops=max wiops=max\n"


@pytest.mark.parametrize(
    ("disk", "value", "found"),
    [("8:0", "1048576 max", (MIB, INF)), ("253:1", "max 2097152", (INF, 2 * MIB)), ("8:16", "max max", (INF, INF))],
)
def test_a_disks_rates_are_a_line_among_those_of_other_disks(disk: str, value: str, found: tuple[float, ...]) -> None:
    read, written = value.split()
    setting = Setting(2, "io", "io.max", f"rbps={read} wbps={written}", device=disk)
    assert live.held(setting, IO_MAX) == live.wanted_of(setting) == found
    other = replace(setting, value="rbps=4096 wbps=4096")
    assert live.write_order({"io.max": live.held(setting, IO_MAX)}, (setting,)) == []
    assert live.write_order({"io.max": live.held(other, IO_MAX)}, (other,)) == [other]
    assert live.with_values(other, found) == setting


@pytest.mark.parametrize(("text", "found"), [("8:0 4096\n253:1 1\n", 4096), ("253:1 1\n", INF), ("", INF)])
def test_on_v1_a_rate_of_0_is_none(text: str, found: float) -> None:
    setting = Setting(1, "blkio", "blkio.throttle.read_bps_device", "0", device="8:0")
    assert live.held(setting, text) == (found,)
    assert live.wanted_of(setting) == (INF,)
    assert live.with_values(setting, (found,)).text == ("8:0 0" if found == INF else "8:0 4096")


def test_memory_in_use_is_what_cannot_be_reclaimed(group: Fake) -> None:
    made, have, folder = group
    lines = {"anon": 1, "file": 1000, "shmem": 2, "slab_unreclaimable": 4, "slab_reclaimable": 1000, "pagetables": 8}
    if have == V1:
        lines = {"rss": 1000, "total_rss": 10, "total_cache": 1000, "total_shmem": 5}
    (folder / "memory.stat").write_text("".join(f"{key} {value}\n" for key, value in lines.items()))
    (folder / "pids.current").write_text("7\n")
    assert made.usage() == Usage(15, 7)


def test_memory_that_is_being_given_back_is_waited_for(group: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    made, have, _ = group
    looks = iter([Usage(80 * MIB, 3), Usage(70 * MIB, 3), Usage(60 * MIB, 3)])
    monkeypatch.setattr(live.Group, "usage", lambda _: next(looks))
    assert made.objections(settings(Limits(rss=64), have), 0) == []
    assert next(looks, None) is None


def test_memory_that_stays_in_use_is_an_objection(group: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    made, have, _ = group
    monkeypatch.setattr(live, "_COUNTED", 0.05)
    monkeypatch.setattr(live.Group, "usage", lambda _: Usage(80 * MIB, 3))
    (sentence,) = made.objections(settings(Limits(rss=64), have), 0)
    assert f"80 MiB {CANNOT}" in sentence


def test_swap_that_is_left_is_that_of_the_host_up_to_what_is_allowed(group: Fake, tmp_path: Path) -> None:
    (tmp_path / "proc/meminfo").write_text("MemTotal: 1 kB\nSwapFree:        2048 kB\n")
    assert [group[0].swap_left(allowed) for allowed in (0, 1, 5, None)] == [0, MIB, 2 * MIB, 2 * MIB]


def lowered(group: Fake, used: list[int], monkeypatch: pytest.MonkeyPatch) -> tuple[Path, tuple[Setting, ...]]:
    """A guest with 128 MiB that is to have 64, and what is in use at each look: bytes."""
    made, have, folder = group
    monkeypatch.setattr(live, "_COUNTED", 0)
    monkeypatch.setattr(live, "_GIVEN_BACK", 0)
    now = settings(Limits(rss=128), have)
    for setting in now:
        (folder / setting.key).write_text(setting.value)

    def write(_: live.Group, setting: Setting) -> None:
        (folder / setting.key).write_text(setting.value)
        if setting.key == "memory.high":
            (folder / "memory.current").write_text(str(used.pop(0) if len(used) > 1 else used[0]))
        elif setting.key == "memory.max" and setting.value == str(64 * MIB):
            assert int((folder / "memory.current").read_text()) <= 64 * MIB, "the kernel would kill"

    monkeypatch.setattr(live.Group, "_write", write)
    assert made.read(now) == {setting.key: numbers(setting.value) for setting in now}
    return folder, settings(Limits(rss=64), have)


@pytest.mark.parametrize("group", [2], indirect=True)
def test_processes_end_one_by_one_until_memory_max_takes_nothing_away(
    group: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, wanted = lowered(group, [120 * MIB, 120 * MIB, 90 * MIB, 64 * MIB], monkeypatch)
    asked: list[int] = []
    group[0].put(wanted, lambda limit: not asked.append(limit))  # type: ignore[func-returns-value]
    assert asked == [64 * MIB] * 2
    assert (folder / "memory.max").read_text() == str(64 * MIB)


@pytest.mark.parametrize("group", [2], indirect=True)
@pytest.mark.parametrize(("end_one", "hint"), [(None, "--force kills"), (lambda _: False, "is not enough")])
def test_what_does_not_fit_is_refused_and_all_is_as_it_was(
    group: Fake, end_one: live.EndOne | None, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, wanted = lowered(group, [100 * MIB], monkeypatch)
    before = {path.name: path.read_text() for path in folder.iterdir()}
    with pytest.raises(VsError, match=f"rss 64: 100 MiB {CANNOT}: .*{hint}"):
        group[0].put(wanted, end_one)
    assert (folder / "memory.current").read_text() == str(100 * MIB)
    (folder / "memory.current").write_text("0\n")
    assert {path.name: path.read_text() for path in folder.iterdir()} == before


STATUS = "Name:\tVmRSS: 9\\n\nState:\tS\nVmRSS:\t    2048 kB\nVmSwap:\t 1024 kB\nVmPTE:\t  4 kB\n"


@pytest.mark.parametrize(
    ("status", "adjustment", "bytes_"),
    [
        (STATUS, 0, 3076 << 10),
        (STATUS, 500, (3076 << 10) + 50 * MIB),
        (STATUS, -10, (3076 << 10) - MIB),
        (STATUS, -1000, None),
        ("Name:\tgone\nState:\tZ (zombie)\n", 0, 0),
    ],
)
def test_processes_are_weighed_as_the_kernel_does(status: str, adjustment: int, bytes_: int | None) -> None:
    assert victims.weight(status, adjustment, 100 * MIB) == bytes_

"""Limits become the kernel's words: cgroup v2, v1, and what is said where there is neither."""

import os
from pathlib import Path

import pytest

from vstools import limits
from vstools.guest import Cpu, IoRate, Limits, Rlimit
from vstools.limits import Controllers, cgroups, live

ALL = frozenset({"memory", "pids", "cpu"})
NONE = frozenset[str]()
SLIDE = Limits(rss=128, disk=1024, tmpfs=16, proc=150, cpu=Cpu(9, 10))
WHY = "a plain directory has no quota"
NO_QUOTA = f"disk is not enforced: {WHY}"


Said = tuple[tuple[tuple[str, str], ...], tuple[str, ...]]


def said(plan: limits.Plan) -> Said:
    """What LXC is told, and what the admin is told."""
    return plan.items, plan.unenforced


def test_the_slides_limits_on_cgroup_v2() -> None:
    assert said(limits.plan(SLIDE, Controllers(ALL, NONE), cpus=4, no_disk=WHY)) == (
        (
            ("lxc.cgroup2.memory.max", "134217728"),
            ("lxc.cgroup2.memory.high", "130023424"),
            ("lxc.cgroup2.memory.swap.max", "0"),
            ("lxc.cgroup2.pids.max", "150"),
            ("lxc.cgroup2.cpu.max", "360000 100000"),
        ),
        (NO_QUOTA,),
    )


def test_the_slides_limits_on_cgroup_v1() -> None:
    assert said(limits.plan(SLIDE, Controllers(NONE, ALL), cpus=4, no_disk=WHY)) == (
        (
            ("lxc.cgroup.memory.limit_in_bytes", "134217728"),
            ("lxc.cgroup.pids.max", "150"),
            ("lxc.cgroup.cpu.cfs_period_us", "100000"),
            ("lxc.cgroup.cpu.cfs_quota_us", "360000"),
        ),
        ("swap is not enforced: this kernel does not count it", NO_QUOTA),
    )


def test_a_hybrid_host_takes_each_controller_where_it_is() -> None:
    found = limits.plan(SLIDE, Controllers(frozenset({"memory"}), frozenset({"pids", "cpu"})), cpus=1)
    assert [key for key, _ in found.items] == [
        "lxc.cgroup2.memory.max",
        "lxc.cgroup2.memory.high",
        "lxc.cgroup2.memory.swap.max",
        "lxc.cgroup.pids.max",
        "lxc.cgroup.cpu.cfs_period_us",
        "lxc.cgroup.cpu.cfs_quota_us",
    ]


def test_what_a_kernel_cannot_limit_is_said_and_not_written() -> None:
    assert said(limits.plan(SLIDE, Controllers(NONE, NONE), cpus=4, no_disk=WHY)) == (
        (),
        (
            "rss is not enforced: this kernel has no memory controller",
            "proc is not enforced: this kernel has no pids controller",
            "cpu is not enforced: this kernel has no cpu controller",
            NO_QUOTA,
        ),
    )


def test_a_guest_without_limits_gets_none_and_hears_nothing() -> None:
    assert said(limits.plan(Limits(), Controllers(ALL, NONE))) == ((), ())


IO = Controllers(frozenset({"io"}), NONE)


@pytest.mark.parametrize(
    ("rate", "have", "disk", "items", "sentence"),
    [
        (IoRate(1, 20), IO, "8:0", ("8:0 rbps=1048576 wbps=20971520",), None),
        (IoRate(None, 20), IO, "8:0", ("8:0 rbps=max wbps=20971520",), None),
        (None, IO, "8:0", (), None),
        (IoRate(1, 1), IO, None, (), "io-rate is not enforced: the guest's tree does not lie on one disk"),
        (IoRate(1, 1), Controllers(NONE, NONE), "8:0", (), "io-rate is not enforced: this kernel has no io controller"),
    ],
)
def test_a_rate_is_bytes_a_second_of_the_disk_below_the_tree(
    rate: IoRate | None, have: Controllers, disk: str | None, items: tuple[str, ...], sentence: str | None
) -> None:
    plan = limits.plan(Limits(io_rate=rate), have, device=disk)
    assert plan.items == tuple(("lxc.cgroup2.io.max", text) for text in items)
    assert plan.unenforced == (() if sentence is None else (sentence,))


@pytest.mark.parametrize(("rss", "high"), [(1, 1), (8, 8), (9, 8), (32, 31), (1024, 992)])
def test_reclaim_begins_just_below_the_memory_limit(rss: int, high: int) -> None:
    items = dict(limits.plan(Limits(rss=rss), Controllers(ALL, NONE)).items)
    assert items["lxc.cgroup2.memory.max"] == str(rss << 20)
    assert items["lxc.cgroup2.memory.high"] == str(high << 20)


@pytest.mark.parametrize(
    ("share", "cpus", "quota"),
    [(Cpu(9, 10), 1, 90000), (Cpu(1, 2), 8, 400000), (Cpu(1, 1), 2, 200000), (Cpu(1, 10**6), 1, 1000)],
)
def test_a_share_is_of_all_cpus_and_never_less_than_the_kernel_takes(share: Cpu, cpus: int, quota: int) -> None:
    items = dict(limits.plan(Limits(cpu=share), Controllers(ALL, NONE), cpus).items)
    assert items == {"lxc.cgroup2.cpu.max": f"{quota} 100000"}


@pytest.mark.parametrize(("proc", "text"), [(1, "1"), (4194304, "4194304"), (4194305, "max"), ((1 << 43) - 1, "max")])
def test_more_processes_than_a_kernel_has_numbers_for_is_no_limit(proc: int, text: str) -> None:
    for have, key in (
        (Controllers(ALL, NONE), "lxc.cgroup2.pids.max"),
        (Controllers(NONE, ALL), "lxc.cgroup.pids.max"),
    ):
        assert limits.plan(Limits(proc=proc), have).items == ((key, text),)


@pytest.mark.parametrize(
    ("rss", "swap", "v2", "v1"),
    [
        (128, 0, ("134217728", "0"), ("134217728", "134217728")),
        (128, 64, ("134217728", "67108864"), ("134217728", "201326592")),
        (128, None, ("134217728", "max"), ("134217728", None)),
        (None, 64, (None, None), (None, None)),
    ],
)
def test_swap_goes_beside_memory_on_v2_and_is_counted_with_it_on_v1(
    rss: int | None, swap: int | None, v2: tuple[str | None, str | None], v1: tuple[str | None, str | None]
) -> None:
    wanted = Limits(rss=rss, swap=swap)
    items = dict(limits.plan(wanted, Controllers(ALL, NONE)).items)
    assert (items.get("lxc.cgroup2.memory.max"), items.get("lxc.cgroup2.memory.swap.max")) == v2
    plan = limits.plan(wanted, Controllers(NONE, ALL, v1_swap=True))
    items = dict(plan.items)
    found = (items.get("lxc.cgroup.memory.limit_in_bytes"), items.get("lxc.cgroup.memory.memsw.limit_in_bytes"))
    assert found == v1
    assert plan.unenforced == (() if rss else ("swap is not enforced: it goes with a limit of memory (--rss)",))


def test_swap_that_the_kernel_does_not_count_is_said() -> None:
    plan = limits.plan(Limits(rss=1, swap=1), Controllers(NONE, ALL))
    assert plan.unenforced == ("swap is not enforced: this kernel does not count it",)


@pytest.mark.parametrize(
    ("cpu", "burst", "v2", "sentence"),
    [
        (Cpu(1, 2), None, None, ""),
        (Cpu(1, 2), 50, "50000", ""),
        (Cpu(1, 2), 100, "100000", ""),
        (Cpu(1, 2), 101, "100000", "burst is enforced in part: the kernel takes at most 100 ms for 1/2 of 2 CPUs"),
        (None, 50, None, "burst is not enforced: it goes with a share of the CPUs (--cpu)"),
    ],
)
def test_a_burst_is_milliseconds_and_never_above_the_quota(
    cpu: Cpu | None, burst: int | None, v2: str | None, sentence: str
) -> None:
    wanted = Limits(cpu=cpu, burst=burst)
    plan = limits.plan(wanted, Controllers(ALL, NONE), cpus=2)
    assert dict(plan.items).get("lxc.cgroup2.cpu.max.burst") == v2
    assert plan.unenforced == ((sentence,) if sentence else ())
    items = dict(limits.plan(wanted, Controllers(NONE, ALL), cpus=2).items)
    assert items.get("lxc.cgroup.cpu.cfs_burst_us") == v2


def test_limits_of_processes_are_items_of_their_own() -> None:
    wanted = Limits(rlimits=(("core", Rlimit(0, None)), ("nofile", Rlimit(1024, None))))
    plan = limits.plan(wanted, Controllers(NONE, NONE), most_files=1048576)
    assert said(plan) == ((("lxc.prlimit.core", "0:unlimited"), ("lxc.prlimit.nofile", "1024:1048576")), ())


def mountinfo(proc: Path, *lines: str) -> Path:
    """A /proc whose self/mountinfo holds these lines."""
    (proc / "self").mkdir(parents=True)
    (proc / "self/mountinfo").write_text("".join(line + "\n" for line in lines))
    return proc


def test_controllers_of_a_v2_host_are_those_that_its_root_has(tmp_path: Path) -> None:
    unified = tmp_path / "cgroup"
    unified.mkdir()
    (unified / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids rdma\n")
    proc = mountinfo(
        tmp_path / "proc",
        "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw",
        f"30 22 0:26 / {unified} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate",
    )
    assert limits.controllers(proc) == Controllers(ALL | {"io"}, NONE)


def test_controllers_of_a_hybrid_host_are_those_of_both_kinds(tmp_path: Path) -> None:
    unified = tmp_path / "unified"
    unified.mkdir()
    (unified / "cgroup.controllers").write_text("memory\n")
    proc = mountinfo(
        tmp_path / "proc",
        f"30 22 0:26 / {unified} rw - cgroup2 cgroup2 rw",
        "31 22 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
        "32 22 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd",
        "33 22 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids",
    )
    assert limits.controllers(proc) == Controllers(frozenset({"memory"}), frozenset({"cpu", "pids"}))


def test_controllers_of_a_host_without_cgroups_are_none(tmp_path: Path) -> None:
    proc = mountinfo(tmp_path / "proc", "22 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw")
    assert limits.controllers(proc) == Controllers(NONE, NONE)


def test_the_empty_cgroups_of_a_stopped_guest_go_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    for name in ("vs-tools/web/payload/guest", "vs-tools/web/monitor", "vs-tools/db", "other"):
        (root / name).mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (root / "vs-tools/web/link").symlink_to(tmp_path / "elsewhere")
    proc = mountinfo(tmp_path / "proc", f"30 22 0:26 / {root} rw - cgroup2 cgroup2 rw")
    limits.remove_cgroups("vs-tools/web", proc)
    assert sorted(path.name for path in (root / "vs-tools/web").iterdir()) == ["link"]
    (root / "vs-tools/web/link").unlink()
    limits.remove_cgroups("vs-tools/web", proc)
    assert not (root / "vs-tools/web").exists()
    limits.remove_cgroups("vs-tools/web", proc)
    assert (root / "vs-tools/db").is_dir()
    assert (root / "other").is_dir()
    assert (tmp_path / "elsewhere").is_dir()


def nested(top: Path, depth: int) -> int:
    """A descriptor of the last of ``depth`` directories in each other, which no path can name."""
    here = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("x" * 250, dir_fd=here)
        below = os.open("x" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    return here


def test_cgroups_in_each_other_without_end_hide_nothing_and_go(tmp_path: Path) -> None:
    proc = mountinfo(tmp_path / "proc", f"30 22 0:26 / {tmp_path}/cgroup rw - cgroup2 cgroup2 rw")
    (tmp_path / "cgroup/web/wide").mkdir(parents=True)
    last = nested(tmp_path / "cgroup/web", 1500)
    handle = os.open("cgroup.procs", os.O_WRONLY | os.O_CREAT, dir_fd=last)
    os.write(handle, b"4711\n")
    os.close(handle)
    assert cgroups.members("web", proc) == {4711}
    os.unlink("cgroup.procs", dir_fd=last)
    os.close(last)
    limits.remove_cgroups("web", proc)
    assert not (tmp_path / "cgroup/web").exists()


@pytest.mark.parametrize("cpu", [Cpu(1, 1000000), Cpu(1, 10)])
def test_a_share_that_is_too_small_for_the_kernel_is_said(cpu: Cpu) -> None:
    plan = limits.plan(Limits(cpu=cpu), Controllers(ALL, NONE), cpus=2)
    assert dict(plan.missing).get("cpu", "").endswith("no less than 1 ms in 100 ms of one CPU") == (cpu.interval > 10)


def test_on_cgroup_v1_a_rate_is_written_on_the_guests_own_cgroup_by_a_hook(tmp_path: Path) -> None:
    blkio = tmp_path / "blkio"
    blkio.mkdir()
    (blkio / "blkio.throttle.read_bps_device").write_text("")
    proc = mountinfo(tmp_path / "proc", f"30 22 0:26 / {blkio} rw - cgroup cgroup rw,blkio")
    have = limits.controllers(proc)
    assert have == Controllers(NONE, frozenset({"blkio"}))
    plan = limits.plan(Limits(io_rate=IoRate(None, 2)), have, device="8:0")
    assert (plan.items, plan.unenforced) == ((), ())
    own = f"{blkio}/vs-tools/web/payload/guest"
    assert live.Group("vs-tools/web/payload", proc).hooks(plan.settings) == (
        (
            "lxc.hook.start-host",
            f"/bin/sh -c 'chown 0:0 {own} && echo 8:0 2097152 > {own}/blkio.throttle.write_bps_device'",
        ),
    )
    (blkio / "blkio.throttle.read_bps_device").unlink()
    assert limits.controllers(proc) == Controllers(NONE, NONE)

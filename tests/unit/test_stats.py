"""What the kernel's files say becomes numbers, whatever stands in them; and numbers become lines, JSON and metrics."""

import json
import os
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from vstools.cli import app, prometheus, ps, statlines
from vstools.lifecycle import records
from vstools.lifecycle import stats as reading
from vstools.paths import Paths
from vstools.stats import around, cgroups, files, host, parse, processes
from vstools.stats.cgroups import Trees
from vstools.stats.sample import FIELDS, HOST_FIELDS, Sample, average, between

from .made import DATA, REPO, guest, saved
from .test_commands import said

MIB = 1 << 20
V1 = {name: str(DATA / "cgroup-v1" / name) for name in ("memory", "pids", "cpu", "cpuacct", "blkio")}
PARSERS = (
    parse.number, parse.limit, parse.flat, parse.quota, parse.pressure, parse.decimal, parse.io_stat, parse.blkio,
    parse.started, host.memory, host.load, host.busy, cgroups.trees,
)  # fmt: skip


def test_a_cgroup_of_version_2() -> None:
    found = cgroups.usage(Trees({}, str(DATA)), "cgroup-v2", cpus=2)
    assert found == {
        "memory_bytes": 155189248,
        "memory_unreclaimable_bytes": 155189248 - 62914560 - 33554432 - 5242880,
        "memory_limit_bytes": 256 * MIB,
        "swap_bytes": 0,
        "memory_limit_hits": 2,  # of its own limit, not of one further down
        "memory_high_hits": 11,
        "oom_kills": 2,  # those further down as well
        "processes": 14,
        "processes_limit": inf,
        "processes_limit_hits": 4,
        "cpu_seconds": 10.25,
        "cpu_user_seconds": 7.25,
        "cpu_system_seconds": 3.0,
        "cpu_throttled_seconds": 0.85,
        "cpu_limit_percent": 25.0,
        "read_bytes": 1459300,  # the loop device lies on another
        "written_bytes": 314773704,
        "cpu_some_percent": 1.25,
        "cpu_some_seconds": 2.5,
        "cpu_full_percent": 0.25,
        "cpu_full_seconds": 0.5,
        "memory_some_percent": 0.0,
        "memory_some_seconds": 0.0,
        "memory_full_percent": 0.0,
        "memory_full_seconds": 0.0,
        "io_some_percent": 12.5,
        "io_some_seconds": 7.25,
        "io_full_percent": 10.0,
        "io_full_seconds": 6.0,
    }


def test_a_cgroup_of_version_1_with_the_pressure_of_a_hybrid_host() -> None:
    found = cgroups.usage(Trees(V1, str(DATA / "cgroup-v1/unified")), ".", cpus=2)
    expected = {
        "memory_bytes": 1212416,
        "memory_unreclaimable_bytes": 176128,
        "memory_limit_bytes": 64 * MIB,
        "swap_bytes": 0,
        "memory_limit_hits": 0,
        "memory_high_hits": None,
        "oom_kills": 0,
        "processes": 3,
        "processes_limit": 40,
        "processes_limit_hits": 0,
        "cpu_seconds": 0.402968572,
        "cpu_throttled_seconds": 0.0,
        "cpu_limit_percent": 50.0,
        "read_bytes": None,  # this kernel counts no device
        "written_bytes": None,
        "cpu_some_seconds": 0.085628,
        "io_full_percent": 0.0,
    }
    assert {key: found[key] for key in expected} == expected


def test_both_versions_tell_the_same_things() -> None:
    nothing = cgroups.usage(Trees({}, None), "none", cpus=2)
    assert set(nothing.values()) == {None}
    assert cgroups.usage(Trees(V1, None), "gone", cpus=2) == nothing
    assert cgroups.usage(Trees({}, str(DATA)), "gone", cpus=2) == nothing
    assert nothing.keys() <= {field.key for field in FIELDS}


def test_without_its_controller_cpu_time_is_that_of_the_unified_tree() -> None:
    found = cgroups.usage(Trees({"pids": V1["pids"]}, str(DATA / "cgroup-v1/unified")), ".", cpus=2)
    assert (found["cpu_seconds"], found["cpu_throttled_seconds"], found["memory_bytes"]) == (0.418013, None, None)


def test_the_hierarchies_are_found_where_they_are_mounted() -> None:
    text = (
        "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
        "40 22 0:26 /part /mnt/part rw - cgroup2 cgroup2 rw\n"
        "30 22 0:26 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
        "31 22 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        "32 22 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
    )
    found = cgroups.trees(text)
    assert found.v2 == "/sys/fs/cgroup/unified"
    assert found.v1["cpu"] == found.v1["cpuacct"] == "/sys/fs/cgroup/cpu,cpuacct"
    assert cgroups.trees("") == Trees({}, None)


def test_counters_of_cgroups_that_a_guest_made_are_added_up_within_bounds(tmp_path: Path) -> None:
    for number, name in enumerate(("", "guest", "guest/a", "guest/b")):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "memory.oom_control").write_text(f"oom_kill_disable 0\nunder_oom 0\noom_kill {number}\n")
    (tmp_path / "guest/link").symlink_to(tmp_path)
    assert cgroups._added(str(tmp_path), "memory.oom_control", "oom_kill") == 6
    for number in range(30):
        (tmp_path / f"guest/c{number}").mkdir()
    assert len(files.below(str(tmp_path), 10)) == 10
    assert cgroups._added(str(tmp_path / "gone"), "memory.oom_control", "oom_kill") is None


def test_a_file_that_is_no_file_is_empty(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    for name in ("gone", "link", "."):
        assert files.read(str(tmp_path / name)) == ""


@pytest.mark.parametrize("function", PARSERS, ids=lambda function: function.__name__)
@given(text=st.one_of(st.text(), st.text("01 9=:./-+maxsomefulavgrtow\n\t(")))
def test_no_text_is_an_error(function, text: str) -> None:
    function(text)


@given(text=st.text(), binary=st.binary(max_size=300))
def test_whatever_a_process_claims_it_is_parsed_and_escaped(text: str, binary: bytes) -> None:
    assert processes.owner(text, {"a/b/payload": "web"}) == ""
    safe = ps.escaped(binary)
    assert safe.isprintable()
    safe.encode()  # no half of a pair is left
    process = processes._process("web", 7, b"7 (" + binary + b") " + b"S" + b" 1" * 40, b"Uid:\t655360 1 1 1\n", binary)
    assert process is not None
    assert (process.name, process.state, process.uid) == (binary, "S", 0)
    processes._process("", 7, binary, binary, None)


@pytest.mark.parametrize(
    ("claim", "shown"),
    [
        (b"sh", "sh"),
        (b"\x1b[2J", r"\x1b[2J"),
        (b"a\nb\\c", r"a\nb\\c"),
        ("é\u202e".encode(), "é\\u202e"),
        (b"\xff", r"\xff"),
    ],
)
def test_names_cannot_play_with_a_terminal(claim: bytes, shown: str) -> None:
    assert ps.escaped(claim) == shown


def test_a_process_belongs_to_the_guest_whose_payload_it_is_in() -> None:
    owners = {"vs-tools/web/payload": "web", "vsguests.slice/vs-guest@db.service/payload": "db"}
    for text, name in (
        ("4:memory:/vs-tools/web/payload/guest\n0::/\n", "web"),
        ("0::/vsguests.slice/vs-guest@db.service/payload/guest/a:b/vs-tools/web/payload\n", "db"),
        ("0::/vs-tools/web/payload", "web"),
        ("0::/vs-tools/web/monitor\n", ""),
        ("0::/vs-tools/web/payloads/guest\n", ""),
        ("0::/user.slice/vs-tools/web/payload\n", ""),
        ("0::/../vs-tools/web/payload\n", ""),
        ("", ""),
    ):
        assert processes.owner(text, owners) == name, text


def test_this_process_is_the_hosts_own() -> None:
    found = processes.look(os.getpid(), {}, command=True)
    assert found is not None
    assert (found.guest, found.guest_pid, found.pid) == ("", None, os.getpid())
    assert found.memory_bytes > MIB
    assert found.words
    assert 0 <= found.uptime_seconds < 86400
    assert processes.look(2**22 + 1, {}) is None


def test_the_hosts_memory_load_and_cpu_time() -> None:
    text = "MemTotal: 1000 kB\nMemAvailable: 400 kB\nSwapTotal: 50 kB\nSwapFree: 20 kB\nHugePages_Total: 0\n"
    assert host.memory(text) == {
        "memory_bytes": 600 * 1024,
        "memory_total_bytes": 1000 * 1024,
        "swap_bytes": 30 * 1024,
        "swap_total_bytes": 50 * 1024,
    }
    assert host.load("0.10 0.20 3.00 2/300 77\n") == {"load_1": 0.1, "load_5": 0.2, "load_15": 3.0}
    assert set(host.load("").values()) == {None}
    ticks = os.sysconf("SC_CLK_TCK")
    assert host.busy(f"cpu  {ticks} 0 {ticks} 900 900 0 0 0 0 0\ncpu0 1\n") == 2.0
    assert host.busy("") is None
    assert set(host.space("/none").values()) == {None}


def test_a_directory_without_a_mount_is_no_tmpfs(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    for where in (tmp_path / "tmp", tmp_path / "gone"):
        assert set(around.tmpfs(str(where)).values()) == {None}


def test_traffic_is_that_of_the_links_in_the_record(tmp_path: Path) -> None:
    for link, (received, sent) in {"eth0": (10, 20), "eth1": (1, 2), "lo": (500, 500)}.items():
        folder = tmp_path / f"class/net/{link}/statistics"
        folder.mkdir(parents=True)
        (folder / "rx_bytes").write_text(f"{received}\n")
        (folder / "tx_bytes").write_text(f"{sent}\n")
    assert around.traffic(str(tmp_path), ["eth0", "eth1", "gone"]) == {"received_bytes": 11, "sent_bytes": 22}
    assert set(around.traffic(str(tmp_path), []).values()) == {None}


def sample(name: str = "web", at: float = 100.0, *, running: bool = True, **values: float | None) -> Sample:
    """A sample with some values."""
    fields = FIELDS if name else HOST_FIELDS
    return Sample(name, running, at, {**{field.key: None for field in fields}, **values})


def test_one_sample_tells_the_average_and_two_the_share_between_them() -> None:
    first = sample(uptime_seconds=100.0, cpu_seconds=50.0, sent_bytes=1000, received_bytes=5)
    assert average(first, 2).get("cpu_percent") == 25
    later = sample(at=102.0, uptime_seconds=102.0, cpu_seconds=52.0, sent_bytes=5000, received_bytes=4)
    both = between(first, later, 2)
    assert (both.get("cpu_percent"), both.get("sent_bytes_per_second")) == (50, 2000)
    assert both.get("received_bytes_per_second") is None, "a link that was made anew counts from nothing"
    assert between(first, sample(at=100.5, uptime_seconds=100.5, cpu_seconds=52.0), 2).get("cpu_percent") == 100
    again = sample(at=102.0, uptime_seconds=1.0, cpu_seconds=60.0)
    assert between(first, again, 2).get("cpu_percent") is None, "another life of the guest"
    assert between(None, later, 2).get("cpu_percent") is None
    assert average(sample(uptime_seconds=0.0, cpu_seconds=1.0), 2).get("cpu_percent") is None


def test_lines_have_as_many_fields_for_every_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "host_name", lambda: "vsh")
    stopped = statlines.line(sample(running=False))
    assert stopped == "vsh:web:stopped" + ":-" * 24
    full = sample(memory_bytes=5, memory_limit_bytes=inf, cpu_seconds=1.256, cpu_some_percent=0.0, oom_kills=2)
    words = statlines.line(full).split(":")
    assert len(words) == 27
    assert (words[4], words[6], words[10], words[14], words[24]) == ("5", "inf", "1.26", "0.00", "2")
    assert statlines.line(sample("", load_1=0.5)).startswith("vsh:-:-:-:-:0.50:")
    row = statlines.row(full)
    assert (row["memory_limit_bytes"], row["memory_bytes"], row["running"]) == (None, 5, True)
    json.loads(json.dumps(row))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (inf, "inf"), (0, "0"), (999, "999"), (1000, "1.0K"), (1536, "1.5K"), (64 * MIB, "64M"),
     (1023 * MIB, "1.0G"), (10 * MIB, "10M"), (5 << 60, "5.0E"), (5000 << 60, "5000E")],
)  # fmt: skip
def test_sizes_for_people_have_three_digits(value: float | None, shown: str) -> None:
    assert statlines.size(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "-"), (4.21, "4.2s"), (187, "3m07s"), (5 * 3600 + 720, "5h12m"), (12 * 86400 + 3 * 3600, "12d03h")],
)
def test_durations_for_people(seconds: float | None, shown: str) -> None:
    assert statlines.duration(seconds) == shown


def test_prometheus_format_is_what_its_own_parser_reads() -> None:
    values = {field.key: 1.5 for field in FIELDS} | {"memory_limit_bytes": inf, "processes": 3}
    odd = sample('we"b\\\n', **values)
    text = prometheus.exposition(
        sample("", **{field.key: 2 for field in HOST_FIELDS}), [odd, sample("db", running=False)]
    )
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert len(families) == text.count("# TYPE") == text.count("# HELP")
    for name, family in families.items():
        assert family.documentation
        assert (family.type == "counter") == any(each.name.endswith("_total") for each in family.samples), name
    memory = families["vs_guest_memory_limit_bytes"].samples
    assert [(each.labels, each.value) for each in memory] == [({"guest": 'we"b\\\n'}, inf)]
    assert {each.value for each in families["vs_guest_running"].samples} == {0, 1}
    waited = families["vs_guest_pressure_seconds"].samples
    assert {(each.labels["resource"], each.labels["kind"]) for each in waited} == {
        (resource, kind) for resource in cgroups.RESOURCES for kind in ("some", "full")
    }
    assert families["vs_guest_cpu_limit_ratio"].samples[0].value == 0.015
    assert families["vs_host_promised_cpu_ratio"].samples[0].labels == {}


@given(st.text())
def test_any_name_survives_as_a_label(name: str) -> None:
    text = prometheus.exposition(sample(""), [sample(name or "x", processes=1)])
    (found,) = [each for each in text_string_to_metric_families(text) if each.name == "vs_guest_processes"]
    assert found.samples[0].labels == {"guest": name or "x"}


def test_every_key_is_there_once_and_metrics_that_share_a_name_differ_in_their_labels() -> None:
    for fields in (FIELDS, HOST_FIELDS):
        assert len({field.key for field in fields}) == len(fields)
        exported = [(field.metric, field.labels) for field in fields if field.metric]
        assert len(set(exported)) == len(exported)


def test_the_record_is_read_as_a_start_writes_it(paths: Paths) -> None:
    paths.runtime_of("web").mkdir(parents=True)
    assert reading.record(paths, "web") == {}
    started = records.Record("token", "vs10000", "vs-tools/web", ("vs10000.0",), ("eth0",), ())
    records.write(paths, "web", started)
    found = reading.record(paths, "web")
    assert (found["cgroup"], found["names"]) == (started.cgroup, ["eth0"])
    assert reading._owners(paths, set()) == {"vs-tools/web/payload": "web"}
    assert reading._owners(paths, {"db"}) == {}
    for broken in ("", "{", "[]", '{"cgroup": 5}'):
        (paths.runtime_of("web") / "record").write_text(broken)
        assert reading._owners(paths, set()) == {}


def test_the_commands_on_a_host_whose_guests_are_stopped(as_root: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    saved(as_root, guest("web", 10000))
    saved(as_root, guest("db", 10001))
    name = app.host_name()
    assert said(capsys, "vs-stats", "--all")[:2] == (
        0,
        [f"{name}:{each}:stopped" + ":-" * 24 for each in ("db", "web")],
    )
    status, out, _ = said(capsys, "vs-stats", "--json")
    assert (status, json.loads("\n".join(out))[0]["guests_without_memory_limit"]) == (0, 2)
    assert said(capsys, "vs-ps", "--json") == (0, ["[]"], [])
    assert said(capsys, "vs-ps", "--pid", "4194305")[0] == 2
    status, out, err = said(capsys, "vs-ps", "--pid", str(os.getpid()), "4194305", "--json")
    assert (status, err) == (1, ["vs-ps: there is no process 4194305"])
    assert json.loads("\n".join(out))[0]["guest"] is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--json", "--table"), "contradict"),
        (("--name", "web", "--all"), "contradict"),
        (("--watch", "--json"), "contradict"),
        (("--watch",), "--watch needs a terminal"),
        (("--output", "x.prom"), "--output goes with --prometheus"),
        (("--disk",), "--disk is about guests"),
        (("--prometheus", "--interval", "1"), "counters only"),
        (("--interval", "0"), "0.1"),
        (("--name", "nobody"), "there is no guest"),
    ],
)
def test_what_vs_stats_refuses(as_root: Paths, capsys: pytest.CaptureFixture[str], words, sentence: str) -> None:
    status, out, err = said(capsys, "vs-stats", *words)
    assert (status, out, len(err)) == (2, [], 1)
    assert sentence in err[0]


def test_the_manual_has_the_fields_of_the_lines_in_their_order_and_every_key() -> None:
    text = (REPO / "docs/manual.md").read_text()
    section = text[text.index("## Statistics") : text.index("## Limits")]
    for fields, head in ((FIELDS, "<host>:<guest>:<running|stopped>:"), (HOST_FIELDS, "<host>:")):
        line = head + ":".join(f"<{field.key}>" for field in fields if field.line)
        assert line in "".join(section.split())
    assert len([field for field in FIELDS if field.line]) == 24

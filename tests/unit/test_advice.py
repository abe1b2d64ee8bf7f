"""vs-limit --advise: which limits should change after what was measured."""

from dataclasses import replace

import pytest

from vstools.guest import Cpu, Limits
from vstools.stats.advice import DAY, Advice, advise

MIB = 1 << 20
LIMITS = Limits(rss=512, proc=200, tmpfs=64, cpu=Cpu(1, 2))
QUIET: dict[str, float | None] = {
    "uptime_seconds": 2 * DAY,
    "memory_peak_bytes": 300 * MIB,
    "memory_unreclaimable_bytes": 200 * MIB,
    "processes_peak": 90,
    "oom_kills": 0,
    "memory_limit_hits": 0,
    "processes_limit_hits": 0,
    "cpu_throttled_seconds": 60,
    "tmpfs_bytes": 10 * MIB,
}


def test_limits_that_fit_are_left_as_they_are() -> None:
    assert advise(LIMITS, QUIET) == []


@pytest.mark.parametrize(
    ("seen", "advice"),
    [
        ({"oom_kills": 3}, Advice("rss", "512", "768", "processes killed for want of memory: 3")),
        ({"memory_unreclaimable_bytes": 500 * MIB}, Advice("rss", "512", "768", "500 MiB cannot be reclaimed")),
        ({"memory_peak_bytes": 100 * MIB}, Advice("rss", "512", "160", "the peak was 100 MiB, file cache included")),
        ({"processes_limit_hits": 7}, Advice("proc", "200", "304", "forks refused: 7")),
        ({"processes_peak": 20}, Advice("proc", "200", "64", "the peak was 20")),
        ({"cpu_throttled_seconds": DAY}, Advice("cpu", "1/2", "3/4", "held for 86400 s of CPU time in 172800 s")),
        ({"tmpfs_bytes": 60 * MIB}, Advice("tmpfs", "64", "96", "60 MiB in use")),
    ],
)
def test_what_was_refused_or_never_used_is_a_reason(seen: dict[str, float], advice: Advice) -> None:
    assert advise(LIMITS, QUIET | seen) == [advice]


def test_less_is_advised_after_a_day_only() -> None:
    young = QUIET | {
        "uptime_seconds": DAY - 1,
        "memory_peak_bytes": MIB,
        "processes_peak": 1,
        "cpu_throttled_seconds": 0,
    }
    assert advise(LIMITS, young) == []


def test_file_cache_at_the_limit_is_no_reason() -> None:
    assert advise(LIMITS, QUIET | {"memory_peak_bytes": 512 * MIB, "memory_limit_hits": 900}) == []


def test_a_guest_without_limits_is_advised_to_have_those_of_memory_and_processes() -> None:
    assert [(each.limit, each.now, each.advised) for each in advise(Limits(), QUIET)] == [
        ("rss", None, "464"),
        ("proc", None, "272"),
    ]


def test_what_is_not_known_is_no_reason() -> None:
    assert advise(LIMITS, dict.fromkeys(QUIET)) == []
    assert advise(LIMITS, {}) == []
    assert advise(Limits(), {}) == []


def test_a_share_is_never_more_than_the_host() -> None:
    held = QUIET | {"cpu_throttled_seconds": DAY}
    (advice,) = advise(replace(LIMITS, cpu=Cpu(9, 10)), held)
    assert advice.advised == "1/1"
    assert advise(replace(LIMITS, cpu=Cpu(1, 1)), held) == []

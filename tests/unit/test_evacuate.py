"""Where the guests of a host go that is emptied."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstools.config.slaves import Slave
from vstools.errors import VsError
from vstools.pool import evacuate
from vstools.pool.evacuate import Guest, Room, Step, plan
from vstools.pool.scan import Pool, Seen

GIB = 1 << 30
ROOMS = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.builds(Room, st.integers(0, 1 << 20), st.integers(0, 1 << 20), st.none() | st.integers(0, 1000)),
)
GUESTS = st.lists(
    st.builds(
        Guest, st.text("xyz", min_size=1, max_size=4), st.integers(0, 1 << 20), st.integers(0, 1 << 20),
        st.dictionaries(st.sampled_from(["a", "b", "c"]), st.just("no")), st.integers(0, 1000),
    ),
    unique_by=lambda guest: guest.name,
)  # fmt: skip


def test_the_largest_guest_goes_first_and_to_the_host_with_most_memory_left() -> None:
    rooms = {"one": Room(8 * GIB, 100 * GIB), "two": Room(6 * GIB, 100 * GIB)}
    guests = [Guest("small", GIB, GIB, {}), Guest("large", 4 * GIB, GIB, {}), Guest("middle", 3 * GIB, GIB, {})]
    assert plan(guests, rooms) == [Step("large", "one"), Step("middle", "two"), Step("small", "one")]


def test_what_a_host_objects_to_goes_elsewhere_or_stays() -> None:
    rooms = {"one": Room(8 * GIB, 100 * GIB), "two": Room(GIB, 2 * GIB)}
    assert plan([Guest("web", GIB, GIB, {"one": "no VLAN 5"})], rooms) == [Step("web", "two")]
    (step,) = plan([Guest("web", GIB, 3 * GIB, {"one": "no VLAN 5"})], rooms)
    assert (step.host, step.why) == ("", "one: no VLAN 5; two: no room")
    assert plan([Guest("web", GIB, GIB, {})], {})[0].why == "there is no other host"


def test_guests_of_many_small_files_do_not_all_go_where_one_of_them_fits() -> None:
    rooms = {"one": Room(8 * GIB, 100 * GIB, 150_000), "two": Room(GIB, 100 * GIB, 120_000)}
    guests = [Guest(name, 0, GIB, {}, 100_000) for name in ("a", "b", "c")]
    assert plan(guests, rooms) == [Step("a", "one"), Step("b", "two"), Step("c", "", "one: no room; two: no room")]
    assert [step.host for step in plan(guests, {"one": Room(GIB, 100 * GIB)})] == ["one"] * 3


def test_a_volume_of_its_own_takes_what_the_limit_says() -> None:
    guests = [Guest(name, 0, GIB, {}, 1000, limit=4 * GIB) for name in ("a", "b")]
    rooms = {"one": Room(GIB, 5 * GIB, volumes=True), "two": Room(0, GIB, 10)}
    assert plan(guests, rooms) == [Step("a", "one"), Step("b", "", "one: no room; two: no room")]


@pytest.mark.parametrize(
    "lie",
    [
        5, [], None, {"memory": 1}, {"memory": 1, "disk": -1}, {"memory": 1, "disk": 1, "inodes": -1},
        {"memory": 1, "disk": 1, "inodes": "x"}, {"memory": True, "disk": 1},
    ],
)  # fmt: skip
def test_what_a_host_says_of_its_room_is_checked(lie: Any) -> None:
    class Agent:
        slave = Slave("vsh-66")

        def call(self, _: str) -> Any:
            return self.value

        def __init__(self, value: Any) -> None:
            self.value = value

    whole = {"memory": 1, "disk": 2, "inodes": 3, "volumes": True}
    assert evacuate._room(Agent(whole)) == Room(1, 2, 3, volumes=True)  # type: ignore[arg-type]
    assert evacuate._room(Agent({"memory": 1, "disk": 2})) == Room(1, 2)  # type: ignore[arg-type]
    with pytest.raises(VsError, match="vsh-66 says of its room what cannot be"):
        evacuate._room(Agent(lie))  # type: ignore[arg-type]


@given(GUESTS, ROOMS)
def test_no_host_gets_more_than_fits_or_what_it_objects_to(guests: list[Guest], rooms: dict[str, Room]) -> None:
    steps = plan(guests, rooms)
    assert sorted(step.guest for step in steps) == sorted(guest.name for guest in guests)
    by_name = {guest.name: guest for guest in guests}
    for host, room in rooms.items():
        here = [by_name[step.guest] for step in steps if step.host == host]
        assert sum(guest.disk for guest in here) <= room.disk
        assert room.inodes is None or sum(guest.inodes for guest in here) <= room.inodes
        assert all(host not in guest.objections for guest in here)
    assert all(step.host or step.why for step in steps)


def test_what_was_set_aside_or_is_anothers_stays() -> None:
    here = [
        Seen("one", "web", enabled=True, running=True),
        Seen("one", "web.suspect-20261122T031500Z", enabled=False, running=False, owner="-", epoch=1),
        Seen("one", "copy", enabled=False, running=False, owner="two", epoch=1),
        Seen("two", "copy", enabled=False, running=False),
        Seen("one", "going", enabled=False, running=False),
        Seen("one", "broken", enabled=True, running=True, owner="one", epoch=2, broken=True),
    ]
    assert evacuate.owned(Pool(tuple(here)), "one", ["going"]) == ("web", "broken")

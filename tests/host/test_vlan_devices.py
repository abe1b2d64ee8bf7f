"""Which VLAN devices are taken away: bridges stand for them here, tests/pool has real ones."""

import subprocess
from collections.abc import Iterator

import pytest

from vstools.errors import VsError
from vstools.network import devices, kernel
from vstools.network.plan import Link

NAME = "vsvlan0"


@pytest.fixture
def link() -> Iterator[str]:
    """A device of this test's."""
    ip("link", "add", NAME, "type", "bridge")
    ip("link", "set", NAME, "addrgenmode", "none", "up")
    yield NAME
    subprocess.run(["ip", "link", "delete", NAME], stderr=subprocess.DEVNULL, check=False)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def test_one_that_we_made_is_deleted_and_doing_it_twice_does_no_harm(link: str) -> None:
    ip("link", "set", link, "group", str(kernel.GROUP))
    kernel.drop_vlans((link, "vsmissing0"))
    assert not devices.has_device(link)
    kernel.drop_vlans((link,))


def test_one_that_somebody_else_made_stays(link: str) -> None:
    kernel.drop_vlans((link,))
    assert devices.has_device(link)


def test_one_of_ours_that_got_an_address_stays(link: str) -> None:
    ip("link", "set", link, "group", str(kernel.GROUP))
    ip("address", "add", "10.99.70.1/24", "dev", link)
    kernel.drop_vlans((link,))
    assert devices.has_device(link)


def test_one_of_ours_that_somebody_put_on_a_bridge_stays() -> None:
    ip("link", "add", NAME, "type", "veth", "peer", "name", f"{NAME}p")
    ip("link", "add", "vsbridge0", "type", "bridge")
    try:
        ip("link", "set", NAME, "group", str(kernel.GROUP), "master", "vsbridge0")
        kernel.drop_vlans((NAME,))
        assert devices.has_device(NAME)
    finally:
        ip("link", "delete", NAME)
        ip("link", "delete", "vsbridge0")


def test_a_device_with_the_name_of_a_vlan_that_is_another_one_carries_no_guest(link: str) -> None:
    ip("link", "add", f"{link}.7", "type", "bridge")
    try:
        wanted = Link("eth0", "vs60000.0", link, 7, "02:00:00:00:00:01", None, ())
        with pytest.raises(VsError, match=f"{link}.7 is not VLAN 7 of {link}"):
            kernel.make_vlans((wanted,))
    finally:
        ip("link", "delete", f"{link}.7")

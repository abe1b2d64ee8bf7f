"""The local network of a single machine: the bridge ``vsbr0``, its address on the host, and NAT outwards.

It exists where networks.conf and create.conf name it (``install.sh --demo`` writes both) and is made with the first
guest that needs it; so nothing has to be done at boot. The bridge's address is its network's gateway.
"""

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from vstools import files, log, run
from vstools.config.networks import Network, Networks
from vstools.errors import Refused, VsError
from vstools.network import devices
from vstools.network.devices import has_device
from vstools.network.plan import Link
from vstools.paths import Paths
from vstools.render import render

BRIDGE = "vsbr0"
TABLE = "vs_local"
_MADE = "local-network"
"""In /run/vs-tools: the index of the bridge that was made here; one that somebody else made has another."""
_WAS_OFF = "forwarding-was-off"
_TABLE_SIZE = Path("/proc/sys/net/netfilter/nf_conntrack_max")
_LEAST_CONNECTIONS, _MOST_CONNECTIONS = 256, 4096
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def check_devices(links: tuple[Link, ...]) -> None:
    """``devices.check_devices``; the local bridge need not be there: ``ensure`` makes it."""
    devices.check_devices(tuple(link for link in links if link.device != BRIDGE or has_device(BRIDGE)))


def ensure(paths: Paths, links: tuple[Link, ...], networks: Networks) -> None:
    """Make the local network when one of ``links`` is on it and it is not there yet. The caller holds a lock.

    One that is there gets the networks it lacks, unless somebody else made the bridge.
    """
    if not any(link.device == BRIDGE for link in links):
        return
    if not has_device(BRIDGE):
        make(paths, _networks(links, networks))
        return
    lines = _lines(links, networks)
    if any(not devices.has_address(line.gateway) for line in lines if line.gateway) and _is_ours(paths):
        _furnish_again(paths, lines, networks)


def mend(paths: Paths, links: tuple[Link, ...], networks: Networks) -> None:
    """Load the host's rules again where ``differences`` misses them. The caller holds a lock."""
    if any(differences(paths, links)):
        _furnish_again(paths, _lines(links, networks), networks)


def differences(paths: Paths, links: tuple[Link, ...]) -> Iterator[str]:
    """A sentence where the host's rules for the local network of ``links`` are gone: somebody emptied them all."""
    if any(link.device == BRIDGE for link in links) and _is_made(paths) and not _has_rules():
        yield f"the rules of the local network {BRIDGE} are missing on the host: its guests do not reach the world"


def _is_ours(paths: Paths) -> bool:
    return _is_made(paths) or _has_rules()  # what an earlier version made has rules alone


def _is_made(paths: Paths) -> bool:
    try:
        return int((paths.run / _MADE).read_text()) == socket.if_nametoindex(BRIDGE)
    except (OSError, ValueError):
        return False


def _has_rules() -> bool:
    return not run.run(["nft", "list", "table", "ip", TABLE], check=False).code


def _lines(links: tuple[Link, ...], networks: Networks) -> tuple[Network, ...]:
    """The untagged networks with a gateway that the addresses on the bridge are in."""
    addresses = [address for link in links if link.device == BRIDGE for address in link.addresses]
    found = (networks.of(address.ip) for address in addresses)
    return tuple(dict.fromkeys(line for line in found if line and line.gateway and not line.vlan))


def _networks(links: tuple[Link, ...], networks: Networks) -> tuple[Network, ...]:
    found = _lines(links, networks)
    if not found:
        raise Refused(
            f"the bridge {BRIDGE} does not exist and no line of networks.conf tells its address",
            "make the bridge, or add a line with VLAN 0 and the bridge's address as gateway",
        )
    return found


def make(paths: Paths, lines: tuple[Network, ...]) -> None:
    """The bridge with its addresses, and the rules; a host that forwarded nothing before forwards for it alone."""
    forwards = _FORWARD.read_text().strip() == "1"
    run.run(["ip", "link", "add", BRIDGE, "type", "bridge"])
    try:
        files.write(files.directory(paths.run) / _MADE, f"{socket.if_nametoindex(BRIDGE)}\n")
        _furnish(lines, only_for_guests=not forwards)
        run.run(["ip", "link", "set", BRIDGE, "up"])
        if not forwards:
            (paths.run / _WAS_OFF).touch()
            _FORWARD.write_text("1")
    except BaseException:
        run.run(["ip", "link", "delete", BRIDGE], check=False)
        raise


def _furnish_again(paths: Paths, lines: tuple[Network, ...], networks: Networks) -> None:
    """The same for a bridge that is there, which may have other networks already."""
    has = (line for line in networks.lines if not line.vlan and line.gateway and devices.has_address(line.gateway))
    _furnish(tuple(dict.fromkeys((*has, *lines))), only_for_guests=(paths.run / _WAS_OFF).exists())


def _furnish(lines: tuple[Network, ...], *, only_for_guests: bool) -> None:
    """The bridge's addresses, and the rules."""
    for line in lines:
        run.run(["ip", "address", "replace", f"{line.gateway}/{line.net.prefixlen}", "dev", BRIDGE])
    nets = tuple(str(line.net) for line in lines if line.net.version == 4)
    words = {"table": TABLE, "bridge": BRIDGE, "nets": nets, "only_for_guests": only_for_guests}
    done = run.run(["nft", "-f", "-"], stdin=render("local.nft", **words, most=most_connections()), check=False)
    if done.code:  # a kernel without nft_connlimit
        run.run(["nft", "-f", "-"], stdin=render("local.nft", **words, most=0))
        log.warn(f"{BRIDGE}: a guest may fill the host's connection table: {run.failure(done).hint}")


def most_connections() -> int:
    """How many connections one address may have in the host's table.

    A sixteenth of the table. The kernel walks through those of an address for a new one: with 4096 that costs
    nothing to speak of, with 16384 it is the flood's second victim.
    """
    if not _TABLE_SIZE.exists():
        with suppress(VsError):  # a kernel without modules needs no kmod
            run.run(["modprobe", "--quiet", "nf_conntrack"], check=False)  # the table gets its size when it is loaded
    try:
        whole = int(_TABLE_SIZE.read_text())
    except OSError:
        return _MOST_CONNECTIONS
    return max(_LEAST_CONNECTIONS, min(_MOST_CONNECTIONS, whole // 16))


def remove(paths: Paths) -> None:
    """Take the bridge and its rules away; forwarding ends where it was switched on for them."""
    if (paths.run / _WAS_OFF).exists():
        _FORWARD.write_text("0")
        (paths.run / _WAS_OFF).unlink()
    (paths.run / _MADE).unlink(missing_ok=True)
    run.run(["nft", "delete", "table", "ip", TABLE], check=False)
    if has_device(BRIDGE):
        run.run(["ip", "link", "delete", BRIDGE])

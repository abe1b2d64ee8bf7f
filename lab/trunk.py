"""The trunk between the hosts: a plain bridge in a network namespace of its own.

A bridge that does not filter VLANs passes tagged frames as they are, like a switch's trunk ports. In its
namespace it shares nothing with the machine's own network, whatever addresses and VLANs the hosts use.
"""

from __future__ import annotations

import json

from lab.command import run, succeeds
from lab.places import Places

BRIDGE = "trunk"


def exists(places: Places) -> bool:
    """Whether the lab's namespace is there, whatever is in it."""
    known = json.loads(run(["ip", "-j", "netns", "list"]) or "[]")
    return any(entry["name"] == places.namespace for entry in known)


def make(places: Places) -> None:
    """Make the namespace and its bridge, as far as they are not there."""
    if not exists(places):
        run(["ip", "netns", "add", places.namespace])
    inside = ["ip", "-n", places.namespace]
    if not succeeds([*inside, "link", "show", "dev", BRIDGE]):
        run([*inside, "link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "mcast_snooping", "0"])
    run([*inside, "link", "set", BRIDGE, "addrgenmode", "none", "up"])


def remove(places: Places) -> None:
    """Remove the namespace; the bridge goes with it, and the taps went with their QEMU."""
    if exists(places):
        run(["ip", "netns", "delete", places.namespace])


def plug(places: Places, tap: str) -> None:
    """Move a tap that QEMU just made onto the bridge in the namespace; QEMU keeps it by its open file."""
    run(["ip", "link", "set", tap, "netns", places.namespace])
    run(["ip", "-n", places.namespace, "link", "set", tap, "addrgenmode", "none", "master", BRIDGE, "up"])

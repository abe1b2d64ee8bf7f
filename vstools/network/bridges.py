"""VLANs of bridges that filter them (vlan_filtering=1, ``man 8 bridge``): a port is a member of its own VLAN alone.

What comes in untagged is that VLAN's (the PVID), what goes out has no tag; a frame with another VLAN's tag is dropped.
"""

from typing import Any

_PVID, _UNTAGGED = 2, 4  # BRIDGE_VLAN_INFO_*, linux/if_bridge.h


def filters(ipr: Any, bridge: int) -> bool:
    """Whether a bridge tells VLANs apart; one that does not passes every tag to every port."""
    for link in ipr.get_links(bridge):
        info = link.get_attr("IFLA_LINKINFO")
        data = info.get_attr("IFLA_INFO_DATA") if info else None
        return bool(data and data.get_attr("IFLA_BR_VLAN_FILTERING"))
    return False


def confine(ipr: Any, port: int, vlan: int) -> None:
    """Make a port an untagged member of one VLAN and of no other; it must not be up yet, so that nothing passes."""
    ipr.vlan_filter("add", index=port, vlan_info={"vid": vlan, "flags": _PVID | _UNTAGGED})
    for other in members(ipr, port):
        if other != vlan:
            ipr.vlan_filter("del", index=port, vlan_info={"vid": other})


def is_confined(ipr: Any, port: int, vlan: int) -> bool:
    """Whether that is what the kernel has."""
    return members(ipr, port) == {vlan: _PVID | _UNTAGGED}


def members(ipr: Any, port: int) -> dict[int, int]:
    """The VLANs that a port is a member of, each with its flags."""
    found: dict[int, int] = {}
    for message in ipr.get_vlans(index=port):
        spec = message.get_attr("IFLA_AF_SPEC")
        for info in spec.get_attrs("IFLA_BRIDGE_VLAN_INFO") if spec else ():
            found[int(info["vid"])] = int(info["flags"]) & (_PVID | _UNTAGGED)
    return found

"""Rates of a guest's links: what passes in a second goes through token buckets (tbf, ``man 8 tc-tbf``).

Each link has a bucket for either direction. What the guest sends waits at its own link; the namespace belongs to the
host, so that the guest's root cannot change what is there. What it receives waits at the other end of the pair, the
port on the bridge. A macvlan or ipvlan has no other end: what arrives is redirected to an ifb beside it (``man 8
ip-link``) and waits there. Everything here can be done twice.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from vstools.errors import VsError
from vstools.guest import NetRate
from vstools.libc import network_namespace, scratch_network
from vstools.network import devices, kernel
from vstools.network.namespace import inside, sysctl
from vstools.network.netlink import IPRoute, NetlinkError
from vstools.network.plan import Link

_HANDLE = 0x76730000  # "vs": marks a bucket as ours, ``tc qdisc`` shows it as 7673:
_ROOT, _INGRESS = 0xFFFFFFFF, 0xFFFF0000  # linux/pkt_sched.h
_ALL = 3  # ETH_P_ALL
_NONE = NetRate(None, None)
_BURST, _QUEUE = 32 << 10, 64 << 10
_BURST_SECONDS, _QUEUE_SECONDS = 0.01, 0.05


def bucket(mbit: int, mtu: int | None = None) -> dict[str, int]:
    """A token bucket's parameters: bytes a second, bytes that pass at once, bytes that pass or wait. Pure.

    10 ms pass at once and 50 ms wait, so that TCP finds its rate without long queues; a slow link holds some packets.
    """
    rate = mbit * 125_000
    burst = max(_BURST, 2 * (mtu or 0), int(rate * _BURST_SECONDS))
    return {"rate": rate, "burst": burst, "limit": burst + max(_QUEUE, int(rate * _QUEUE_SECONDS))}


def collector(name: str) -> str:
    """The ifb in the guest's namespace where what arrives at the link ``name`` waits."""
    return f"in-{name}"


def put(netns: str, link: Link) -> None:
    """Give a link that is there its rate, or take it away. What this kernel lacks is left out: see ``missing``."""
    wanted = possible(link)
    port = devices.is_bridge(link.device)
    with inside(netns), IPRoute() as ipr:
        index = kernel.index_of(ipr, link.name)
        if index is not None:
            _hold(ipr, index, wanted.sent, link.mtu)
            _collect(ipr, index, collector(link.name), None if port else wanted.received, link.mtu)
    if port:
        with IPRoute() as ipr:
            index = kernel.index_of(ipr, link.host_name)
            if index is not None:
                _hold(ipr, index, wanted.received, link.mtu)


def apply(netns: str, links: tuple[Link, ...]) -> None:
    """Give links that are there their rates; raises VsError."""
    try:
        for link in links:
            put(netns, link)
    except NetlinkError as error:
        raise VsError("the rates of the guest's links could not be set", str(error)) from error


def possible(link: Link) -> NetRate:
    """The rate of a link as this kernel can hold it."""
    if link.rate is None or "tbf" in lacking():
        return _NONE
    if "ifb" in lacking() and not devices.is_bridge(link.device):
        return NetRate(link.rate.sent, None)
    return link.rate


def _hold(ipr: Any, index: int, mbit: int | None, mtu: int | None) -> None:
    """Give a device a bucket or take ours away; one that is right already stays, and with it what waits there."""
    has = _root(ipr, index)
    if mbit is not None:
        wanted = bucket(mbit, mtu)
        if has is None or _parameters(has) != (wanted["rate"], wanted["limit"]):
            ipr.tc("replace", "tbf", index, _HANDLE, parent=_ROOT, **wanted)
    elif has is not None:
        ipr.tc("del", index=index, parent=_ROOT)


def _root(ipr: Any, index: int) -> Any:
    """The bucket of ours on a device, None where it has none."""
    for message in ipr.get_qdiscs(index):
        ours = (message["parent"], message["handle"]) == (_ROOT, _HANDLE)
        if ours and message.get_attr("TCA_KIND") == "tbf":
            return message
    return None


def _parameters(message: Any) -> tuple[int, int]:
    """Bytes a second, and bytes that pass or wait."""
    found = message.get_attr("TCA_OPTIONS").get_attr("TCA_TBF_PARMS")
    return int(found["rate"]), int(found["limit"])


def _collect(ipr: Any, index: int, name: str, mbit: int | None, mtu: int | None) -> None:
    """Let what arrives at a device wait in the ifb ``name`` beside it, or take that away."""
    ifb = kernel.index_of(ipr, name)
    led = ifb is not None and _leads(ipr, index, ifb)
    if mbit is None or not led:
        if ifb is not None:
            _let_in(ipr, index)
            kernel.remove_links((name,), ipr)
        if mbit is None:
            return
        ipr.link("add", ifname=name, kind="ifb")
        sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "1", needed=False)  # it has no address of any kind
        ifb = kernel.index_of(ipr, name)
    _hold(ipr, int(ifb or 0), mbit, mtu)
    ipr.link("set", index=ifb, state="up")
    if not led:
        _let_in(ipr, index)
        ipr.tc("add", "ingress", index)
        redirect = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": ifb}
        ipr.tc("add-filter", "u32", index, parent=_INGRESS, prio=1, protocol=_ALL, target=0, keys=["0x0/0x0+0"],
               action=redirect)  # fmt: skip


def _let_in(ipr: Any, index: int) -> None:
    """Nothing is done any more to what arrives at a device."""
    if any(message.get_attr("TCA_KIND") == "ingress" for message in ipr.get_qdiscs(index)):
        ipr.tc("del", "ingress", index)


def _leads(ipr: Any, index: int, ifb: int) -> bool:
    """Whether what arrives at a device is redirected to the ifb."""
    for message in ipr.get_filters(index=index, parent=_INGRESS):
        options = message.get_attr("TCA_OPTIONS")
        actions = options.get_attr("TCA_U32_ACT") if message.get_attr("TCA_KIND") == "u32" and options else None
        first = actions.get_attr("TCA_ACT_PRIO_1") if actions else None
        if first and first.get_attr("TCA_ACT_KIND") == "mirred":
            return bool(first.get_attr("TCA_ACT_OPTIONS").get_attr("TCA_MIRRED_PARMS")["ifindex"] == ifb)
    return False


def read(netns: str, link: Link) -> NetRate:
    """What the kernel holds a link to, in Mbit/s; None where nothing of ours does."""
    with inside(netns), IPRoute() as ipr:
        index, ifb = kernel.index_of(ipr, link.name), kernel.index_of(ipr, collector(link.name))
        sent = _mbit(ipr, index)
        received = _mbit(ipr, ifb) if index and ifb and _leads(ipr, index, ifb) else None
    if devices.is_bridge(link.device):
        with IPRoute() as ipr:
            received = _mbit(ipr, kernel.index_of(ipr, link.host_name))
    return NetRate(sent, received)


def _mbit(ipr: Any, index: int | None) -> int | None:
    has = None if index is None else _root(ipr, index)
    return None if has is None else _parameters(has)[0] // 125_000


def differences(netns: str, link: Link) -> Iterator[str]:
    """A sentence for each direction in which a link is not held to its rate, as far as this kernel can."""
    wanted, found = possible(link), read(netns, link)
    for what, has, rate in (("sends", found.sent, wanted.sent), ("receives", found.received, wanted.received)):
        if has != rate:
            said, meant = ("without limit" if mbit is None else f"at most {mbit} Mbit/s" for mbit in (has, rate))
            yield f"{link.name} {what} {said} and not {meant}"


@cache
def lacking() -> frozenset[str]:
    """What this kernel lacks: tbf, and ifb with what leads there. It is tried in a namespace of its own."""
    found = set()
    with scratch_network() as path, network_namespace(path), IPRoute() as ipr:
        loopback = kernel.index_of(ipr, "lo") or 1
        try:
            _hold(ipr, loopback, 1, None)
        except NetlinkError:
            found.add("tbf")
        try:
            _collect(ipr, loopback, "in-lo", 1, None)
        except NetlinkError:
            found.add("ifb")
    return frozenset(found)


def missing(rate: NetRate) -> str | None:
    """What this kernel cannot enforce of a rate, as a sentence."""
    if "tbf" in lacking():
        return "net-rate is not enforced: this kernel has no tbf"
    if "ifb" in lacking() and rate.received is not None:
        return "net-rate is enforced in part: this kernel has no ifb, only ports of a bridge receive no more than that"
    return None

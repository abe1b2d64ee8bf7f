"""vs-fonctions: call one function of the library by hand, as in 2008."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from typing import Annotated

import typer

from vstools import paths as installation
from vstools.cli import app
from vstools.errors import Refused
from vstools.paths import Paths

_READS = frozenset({
    "guest_names", "guest_read", "guest_state", "guest_decide_start", "guest_init_pid", "guest_lxc_state",
    "guest_network_differences", "guest_stats", "host_settings", "host_contexts", "host_addresses_of_guests",
    "demo_address", "demo_reach",
})  # fmt: skip
"""Functions that change nothing, and so leave no line in syslog."""


def _table() -> dict[str, tuple[str, Callable[..., object]]]:
    """Name -> (arguments, function of Paths and those arguments); imported only when this command runs."""
    from vstools import lxc
    from vstools.config import guests
    from vstools.lifecycle import control, demo, host, phases, snapshot, stats, sweep, upkeep
    from vstools.network import local
    from vstools.storage import plain

    return {
        "guest_names": ("", guests.names),
        "guest_read": ("NAME", guests.load),
        "guest_state": ("NAME", control.state),
        "guest_start": ("NAME", control.start),
        "guest_stop": ("NAME", control.stop),
        "guest_decide_start": ("NAME", phases.decide),
        "guest_announce": ("NAME", phases.announce),
        "guest_undo": ("NAME", phases.cleanup),
        "guest_network_differences": ("NAME", upkeep.differences),
        "guest_network_repair": ("NAME", upkeep.repair),
        "guest_init_pid": ("NAME", lxc.init_pid),
        "guest_lxcfs": ("NAME", control.show_lxcfs),
        "guest_lxc_state": ("NAME", lxc.state),
        "guest_snapshot": ("NAME COMMAND...", snapshot.call),
        "guest_stats": ("NAME", stats.one),
        "host_settings": ("", host.settings),
        "host_contexts": ("", guests.contexts_in_use),
        "host_addresses_of_guests": ("", guests.addresses_in_use),
        "host_barrier": ("", plain.barrier),
        "host_sweep": ("", sweep.sweep),
        "firewall_configure": ("", demo.firewall),
        "demo_configure": ("TEMPLATE", demo.configure),
        "demo_address": ("", demo.address),
        "demo_reach": ("NAME", demo.reach),
        "local_network_remove": ("", local.remove),
    }


def _listing() -> str:
    lines = []
    for name, (arguments, function) in _table().items():
        first = (function.__doc__ or "").strip().splitlines()[0]
        lines.append(f"  {name} {arguments}\n      {first}")
    return "\n".join(lines)


def fonctions(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="function")] = None,
    arguments: Annotated[list[str] | None, typer.Argument(metavar="ARGS...", help="its arguments")] = None,
) -> None:
    """Call one function of the library; without a NAME, list them. What it returns is printed as JSON."""
    if name is None:
        print(_listing())
        return
    table = _table()
    if name not in table:
        raise Refused(f"there is no function {name!r}", "vs-fonctions lists them")
    wanted, function = table[name]
    given = arguments or []
    count = len(wanted.split())
    if len(given) < count or (len(given) > count and not wanted.endswith("...")):
        raise Refused(f"{name} takes {wanted or 'no argument'}", f"{len(given)} given")
    result = _call(name, wanted, function, installation.from_environment(), given)
    if result is not None:
        print(json.dumps(_plain(result), indent=1))


def _call(wanted_name: str, wanted: str, function: Callable[..., object], paths: Paths, given: list[str]) -> object:
    from vstools import log
    from vstools.config import registry

    if given and wanted.startswith("NAME"):
        registry.require(paths, given[0])
    if wanted_name in _READS:
        return function(paths, *given)
    with log.change(f"function {wanted_name}", given[0] if given else "-"):
        return function(paths, *given)


def _plain(value: object) -> object:
    """What JSON can hold."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def main() -> None:
    """The command."""
    if {"-h", "--help"} & set(sys.argv[1:2]):
        print(f"Usage: vs-fonctions [NAME [ARGS...]]\n\n  {fonctions.__doc__}\n\nFunctions:\n{_listing()}")
        return
    app.execute(fonctions, trailing=True)

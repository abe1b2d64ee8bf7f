"""pyroute2's IPRoute, without the rest of pyroute2.

``import pyroute2`` brings its database, its shell and a web server along (and forks ``file``): 40 of 105 ms at each
start of a guest. Here the package is entered by its module, which needs none of them; the version is pinned.
"""

import sys
from importlib.machinery import PathFinder
from types import ModuleType


def _enter_package(name: str) -> None:
    """Let submodules of ``name`` be imported without running its ``__init__``."""
    spec = PathFinder.find_spec(name)
    if name in sys.modules or spec is None or spec.submodule_search_locations is None:
        return
    package = ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sys.modules[name] = package


_enter_package("pyroute2")

from pyroute2.iproute.linux import IPRoute  # noqa: E402
from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402
from pyroute2.netns import setns  # noqa: E402

__all__ = ["IPRoute", "NetlinkError", "setns"]

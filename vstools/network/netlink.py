"""pyroute2's IPRoute, without the rest of pyroute2.

``import pyroute2`` brings its database, its shell, a web server, asyncio and unittest.mock along and runs two programs:
80 of 105 ms at each start of a guest. Here the package is entered by its module, which needs none of them; the
version is pinned.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


def _leave_out_lab() -> None:
    """``pyroute2.lab`` wraps IPRoute for pyroute2's own tests; its base class does nothing outside of them."""
    lab = ModuleType("pyroute2.lab")
    lab.__dict__["LAB_API"] = type("LAB_API", (), {})
    sys.modules.setdefault(lab.__name__, lab)


@contextmanager
def _no_programs() -> Iterator[None]:
    """``pyroute2.config`` asks ``uname`` and ``file`` about the processor, and takes no answer as well."""
    path = os.environ.pop("PATH", None)
    os.environ["PATH"] = "/nonexistent"
    try:
        yield
    finally:
        del os.environ["PATH"]
        if path is not None:
            os.environ["PATH"] = path


_enter_package("pyroute2")
_leave_out_lab()

with _no_programs():
    from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402

__all__ = ["IPRoute", "NetlinkError"]

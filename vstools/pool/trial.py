"""A copy is tried out on the master itself (lifecycle/drill.py), and what came of it is noted beside the copy."""

import os

from vstools.errors import Refused
from vstools.lifecycle import drill as work
from vstools.paths import Paths
from vstools.pool import get, store
from vstools.pool.store import Generation

_DEADLINE = 600.0


def drill(paths: Paths, generation: Generation) -> str:
    """``up``, or why the copy did not come up. Raises VsError where this node cannot tell."""
    told = get.about(generation)
    if told.arch != os.uname().machine:
        raise Refused(f"its programs are for {told.arch}, this node is {os.uname().machine}")
    result = work.drill(paths, generation.guest, generation.config, generation.tree, told.size, _DEADLINE)
    store.note(generation, "drilled", "up" if result == "up" else "failed")
    return result

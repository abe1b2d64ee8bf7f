"""What the copies in the store have installed, by the package databases in their trees: nothing is started for that."""

from vstools.errors import Refused
from vstools.inside import Inside
from vstools.lifecycle import packages
from vstools.packages.databases import Installed
from vstools.pool.store import Generation


def of(generation: Generation) -> tuple[str, Installed]:
    """The manager of a copy's system, and what it has installed. Raises Refused where that cannot be known."""
    with Inside(generation.tree) as tree:
        manager, found = packages.recorded(tree, generation.guest)
    if found is None:
        raise Refused("only a running guest's own rpm can read its database")
    return manager.name, found

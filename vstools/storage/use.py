"""What a guest's tree takes and may take, asked of the kernel: of its own volume, or by who counts trees."""

from vstools.config import registry
from vstools.paths import Paths
from vstools.storage import counted
from vstools.storage.quota import Use


def of(paths: Paths, name: str, context: int) -> Use | None:
    """What a guest takes on the disk and may take; None where that is not counted, and of a volume not mounted."""
    if not registry.storage(paths, name):
        return counted.use(paths.tree_of(name), context)
    from vstools.errors import VsError
    from vstools.storage import choose

    try:
        own = choose.own(paths, name)
        return None if own is None else own.use()
    except (VsError, OSError):
        return None

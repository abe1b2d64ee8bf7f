"""vs-guest-phase PHASE NAME [TOKEN]: one phase of a guest's life, for systemd's units and the guest's runner.

Not on the PATH: people use vs-control.
"""

import sys
from collections.abc import Callable

from vstools import paths as installation
from vstools.errors import VsError


def main() -> None:
    """The program."""
    from vstools.lifecycle import confirm, control, phases

    paths = installation.from_environment()
    acts: dict[str, Callable[..., object]] = {
        "prepare": phases.prepare,
        "settle": phases.settle,
        "reboot": phases.reboot,
        "stop": phases.stop,
        "cleanup": phases.cleanup,
        "expire": confirm.expire,
    }
    phase, name, *rest = sys.argv[1:]
    if phase == "volumes":  # of all guests, at the host's boot
        from vstools.lifecycle import trees

        sys.exit(0 if trees.open_all(paths) else 1)
    try:
        acts[phase](paths, name, *rest)
    except (VsError, OSError) as error:
        print(f"vs-guest-phase: {phase} {name}: {error}", file=sys.stderr)
        if phase in ("prepare", "settle"):
            control.record_failure(paths, name, str(error))
        sys.exit(1)

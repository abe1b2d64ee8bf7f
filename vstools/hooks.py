"""The admin's hook scripts, util-vserver's way: ``scripts/<phase>`` and ``scripts/<phase>.d/*`` of the guest.

Where a guest has neither, those of /etc/vservers/.defaults/scripts are run. Arguments: ``<phase> <name>``. Hooks run
as root on the host, so a script that others can write is refused.
"""

import os
from pathlib import Path

from vstools import log, run
from vstools.errors import Refused, VsError
from vstools.paths import Paths

PHASES = (
    "post-create", "prepre-start", "pre-start", "post-start", "pre-stop", "post-stop", "postpost-stop",
    "pre-snapshot", "post-snapshot",
)  # fmt: skip
_DEADLINE = 600.0


def scripts(paths: Paths, name: str, phase: str) -> tuple[Path, ...]:
    """The scripts of a phase in the order they run: the guest's own, else the defaults."""
    for folder in (paths.config_of(name) / "scripts", paths.defaults / "scripts"):
        single, many = folder / phase, folder / f"{phase}.d"
        found = [single] if os.access(single, os.X_OK) and single.is_file() else []
        if many.is_dir():
            found += [path for path in sorted(many.iterdir()) if path.is_file() and os.access(path, os.X_OK)]
        if found:
            return tuple(found)
    return ()


def check(paths: Paths, name: str) -> None:
    """Raise Refused when a hook of any phase could have been written by another user than root."""
    for phase in PHASES:
        for script in scripts(paths, name, phase):
            _check_owner(script)


def _check_owner(script: Path) -> None:
    state = script.stat()
    if state.st_uid or state.st_mode & 0o022:
        hint = f"chown root {script}; chmod go-w {script}"
        raise Refused(f"the hook {script} can be written by others than root", hint)


def run_all(paths: Paths, name: str, phase: str, *, must: bool) -> None:
    """Run the scripts of a phase. With ``must`` the first that fails raises VsError; else failures are warnings."""
    for script in scripts(paths, name, phase):
        try:
            _check_owner(script)
        except Refused as error:
            if must:
                raise
            log.warn(f"not run: {error}")
            continue
        result = run.run([str(script), phase, name], timeout=_DEADLINE, check=False)
        words = (result.out + result.err).splitlines()
        for line in words:
            log.note(f"{phase}: {line}")
        if result.code and must:
            raise VsError(
                f"the hook {script} failed with status {result.code}", words[-1] if words else "it said nothing"
            )
        if result.code:
            log.warn(f"the hook {script} failed with status {result.code}")

"""The errors of the library: what is wrong, then what to try.

The library raises these, the command line prints them and exits (cli/app.py). An error's class decides the
exit status: 2 when nothing was changed yet, 1 when something was begun and failed.
"""


class VsError(Exception):
    """Something was begun and failed: exit status 1."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message


class Refused(VsError):
    """Refused before the first change: exit status 2."""

    exit_code = 2


class Busy(Refused):
    """Another command holds the lock that this one needs."""


class BadFiles(Refused):
    """Every fault found in the configuration, as ``PATH:LINE:COLUMN: sentence`` lines, all of them at once."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def said(error: OSError) -> str:
    """What the system refused, and about which file."""
    return f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")

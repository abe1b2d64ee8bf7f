"""/etc/vservers/NAME/owner <-> Owner: which host may start the guest. The format is ours: one line ``HOST EPOCH``.

HOST is a host's name up to its first dot, or ``-`` for nobody: a guest that was set aside. EPOCH is a whole number of
at least 1 that grows with each change of owner: of two copies the later can be told. Where there is no file, the guest
belongs to the host it is on.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from vstools import files
from vstools.config.text import Faults
from vstools.errors import VsError

FILE = "owner"
NOBODY = "-"
"""In place of a host: no host may start the guest."""
EPOCH_MAX = (1 << 53) - 1
"""What JSON's readers hold exactly."""
_LIMIT = 256
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}[A-Za-z0-9_])?")


@dataclass(frozen=True)
class Owner:
    """The host that may start a guest, and since which change of owner."""

    host: str
    epoch: int

    def __str__(self) -> str:
        return f"{self.host} {self.epoch}"


def check_host(text: str) -> str:
    """Return the name of a host up to its first dot, or NOBODY; raises ValueError with a sentence for anything else."""
    if text != NOBODY and not _HOST.fullmatch(text):
        raise ValueError(f"{text!r} is not the name of a host up to its first dot")
    return text


def check_epoch(number: int) -> int:
    """Return an epoch; raises ValueError with a sentence where it is none."""
    if not 1 <= number <= EPOCH_MAX:
        raise ValueError(f"{number} is not a whole number from 1 to {EPOCH_MAX}")
    return number


def read(config: Path, faults: Faults) -> Owner | None:
    """The owner by a guest's directory; None where there is no file, or a broken one, which is added to ``faults``."""
    path = config / FILE
    try:
        text = files.read_bounded(path, _LIMIT)
    except FileNotFoundError:
        return None
    except OSError as error:
        faults.add(path, 1, 1, f"the file cannot be read: {error.strerror}")
        return None
    except VsError as error:
        faults.add(path, 1, 1, error.message)
        return None
    return _parsed(path, text, faults)


def _parsed(path: Path, text: str, faults: Faults) -> Owner | None:
    line, _, rest = text.partition("\n")
    if rest:
        faults.add(path, 2, 1, "the file has one line: HOST EPOCH")
        return None
    host, space, number = line.partition(" ")
    if not space:
        faults.add(path, 1, len(line) + 1, "the epoch is missing: the line is HOST EPOCH")
        return None
    name = faults.attempt(path, 1, 1, check_host, host)
    epoch = faults.attempt(path, 1, len(host) + 2, _epoch, number)
    return None if name is None or epoch is None else Owner(name, epoch)


def _epoch(text: str) -> int:
    if not re.fullmatch("[0-9]{1,16}", text):
        raise ValueError(f"{text!r} is not a whole number from 1 to {EPOCH_MAX}")
    return check_epoch(int(text))


def write(config: Path, owner: Owner) -> None:
    """Write down durably whom the guest belongs to; raises ValueError where that could not be read again."""
    check_host(owner.host)
    check_epoch(owner.epoch)
    files.write(config / FILE, f"{owner}\n")

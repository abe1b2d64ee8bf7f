"""stand-in"""

from dataclasses import dataclass
from pathlib import Path

from vstools.config.text import Faults


@dataclass(frozen=True)
class Owner:
    host: str
    epoch: int


def read(config: Path, faults: Faults) -> Owner | None:
    try:
        words = (config / "owner").read_text().split()
    except FileNotFoundError:
        return None
    return Owner(words[0], int(words[1]))

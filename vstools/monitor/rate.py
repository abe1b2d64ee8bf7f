"""How many mails one guest and one host may cause: token buckets. What has to wait is gathered, not lost. Pure."""

from dataclasses import dataclass, replace

from vstools.monitor.alerts import Event

HOLD = 50
"""Events that wait for a guest's next mail; of more than these the number is told."""


@dataclass(frozen=True)
class Rate:
    """``burst`` mails at once, then one every ``seconds``."""

    burst: int
    seconds: float


GUEST = Rate(5, 720.0)
HOST = Rate(60, 60.0)


@dataclass(frozen=True)
class Bucket:
    """Mails that may be sent now, as it was at a time (seconds of a clock that goes on)."""

    tokens: float
    at: float

    def filled(self, rate: Rate, now: float) -> "Bucket":
        """The same bucket at a later time; a clock that went back (a reboot) adds nothing."""
        return Bucket(min(float(rate.burst), self.tokens + max(0.0, now - self.at) / rate.seconds), now)

    def taken(self) -> "Bucket":
        """With one mail less."""
        return replace(self, tokens=self.tokens - 1)


@dataclass(frozen=True)
class Waiting:
    """What was not told yet of one guest."""

    events: tuple[Event, ...] = ()
    dropped: int = 0

    def __bool__(self) -> bool:
        return bool(self.events)

    def including(self, events: list[Event]) -> "Waiting":
        """With further events. The first ones are kept: they tell how it began."""
        together = (*self.events, *events)
        return Waiting(together[:HOLD], self.dropped + max(0, len(together) - HOLD))


def full(rate: Rate, now: float) -> Bucket:
    """A bucket at the beginning."""
    return Bucket(float(rate.burst), now)

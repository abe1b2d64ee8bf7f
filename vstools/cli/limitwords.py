"""Limits as the options of vs-create and vs-limit say them."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from vstools.errors import Refused
from vstools.guest import parse_burst, parse_cpu, parse_io_rate, parse_limit, parse_net_rate, parse_swap

T = TypeVar("T")
_PARSERS: dict[str, Callable[[str], object]] = {
    "cpu": lambda text: None if text == "inf" else parse_cpu(text),
    "burst": parse_burst,
    "swap": parse_swap,
    "net_rate": parse_net_rate,
    "io_rate": parse_io_rate,
}
"""Those that are no plain number."""


def parsed(option: str, parse: Callable[[str], T], text: str) -> T:
    """The value of an option; raises Refused, which names it, for what ``parse`` does not take (ValueError)."""
    try:
        return parse(text)
    except ValueError as error:
        raise Refused(f"{option}: {error}") from None


def values(texts: Mapping[str, str | None]) -> dict[str, object]:
    """Fields of Limits by what was given for them; raises Refused."""
    return {
        key: parsed(f"--{key.replace('_', '-')}", _PARSERS.get(key, parse_limit), text)
        for key, text in texts.items()
        if text is not None
    }

"""Which of two versions of a package is the later one."""

import re
from collections.abc import Callable

_PARTS = re.compile(r"[0-9]+|[^0-9]+")
_BEFORE = re.compile(r"_(alpha|beta|pre|rc)")


def compare(manager: str, one: str, other: str) -> int:
    """Below 0 where ``one`` is the earlier one, 0 where they are equal, else above 0; by the rules of the manager."""
    if manager == "apt":
        return _epochs(one, other, _debian)
    if manager == "apk":  # what comes before a release is said by words there
        one, other = (_BEFORE.sub(r"~\1", version) for version in (one, other))
    return _epochs(one, other, _rpm)


def _epochs(one: str, other: str, rest: Callable[[str, str], int]) -> int:
    """By the number before the colon first, 0 where there is none, then by what is before and behind the last dash."""
    left, right = _divided(one), _divided(other)
    return left[0] - right[0] or rest(left[1], right[1]) or rest(left[2], right[2])


def _divided(version: str) -> tuple[int, str, str]:
    epoch, sign, plain = version.partition(":")
    upstream, _, revision = (plain if sign else version).rpartition("-")
    number = int(epoch) if sign and epoch.isdecimal() else 0
    return (number, upstream, revision) if upstream else (number, revision, "")


def _debian(one: str, other: str) -> int:
    """Digits and other characters by turns (``man 7 deb-version``): ``~`` before the end, letters before signs."""
    left, right = _turns(one), _turns(other)
    for index in range(max(len(left), len(right))):
        mine, theirs = (parts[index] if index < len(parts) else "" for parts in (left, right))
        found = int(mine or 0) - int(theirs or 0) if index % 2 else _words(mine, theirs)
        if found:
            return found
    return 0


def _turns(version: str) -> list[str]:
    """The parts of a version, of which the first, third, and so on are no digits."""
    parts = _PARTS.findall(version)
    return ["", *parts] if parts and parts[0][0].isdigit() else parts


def _words(one: str, other: str) -> int:
    left, right = ([_order(char) for char in (*word, "")] for word in (one, other))
    length = max(len(left), len(right))
    left, right = (keys + [_order("")] * (length - len(keys)) for keys in (left, right))
    return (left > right) - (left < right)


def _order(char: str) -> int:
    if char == "~":
        return -1
    if not char:
        return 0
    return ord(char) if char.isalpha() else ord(char) + 256


_SEGMENTS = re.compile(r"[0-9]+|[A-Za-z]+|~|\^")


def _rpm(one: str, other: str) -> int:
    """Numbers and words in a row, other signs between them only part them; ``~`` before the end, ``^`` behind it."""
    left, right = (_SEGMENTS.findall(version) for version in (one, other))
    for index in range(max(len(left), len(right))):
        mine, theirs = (parts[index] if index < len(parts) else "" for parts in (left, right))
        if mine == theirs:
            continue
        found = _rank(mine) - _rank(theirs)
        if found:
            return found
        if mine.isdigit() and (found := int(mine) - int(theirs)):
            return found
        if not mine.isdigit():
            return 1 if mine > theirs else -1
    return 0


def _rank(segment: str) -> int:
    """``~``, the end, ``^``, a word, a number: each is before the next one."""
    if segment in ("~", "", "^"):
        return ("~", "", "^").index(segment)
    return 4 if segment.isdigit() else 3

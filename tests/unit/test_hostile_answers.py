"""What a host says is data: whatever it is, it is believed after a check, or is an error that names the host."""

import contextlib
from typing import Any

import pytest

from vstools.errors import Refused, VsError
from vstools.pool import parcel, scan, wire

ROW = {
    "guest": "web", "enabled": True, "running": False, "broken": False, "addresses": ["10.0.0.1", "[fd00::1]"],
    "owner": "vsh-00", "epoch": 3,
}  # fmt: skip
TOLD = {
    "owner": ["vsh-00", 3], "size": 1000, "inodes": 20, "arch": "x86_64", "version": "0.1.0", "enabled": True,
    "running": False,
}  # fmt: skip
ANSWER = {"objections": ["no room"], "notes": [], "context": 10000}
PASSED = {"files": 1, "size": 5, "transferred": 1, "sent": 100, "received": 20, "seconds": 0.5}
LIES: list[Any] = [
    None, True, 0, -1, 1 << 60, 10**400, 1.5, "", "x", "../x", "/etc/passwd", "a\nb", "\0", "\x1b[2J", "\ud800",
    "x" * 10**6, ".new-web", [], [1], [None], ["x", "y"], ["../x", 1], ["vsh-00", -1], ["vsh-00", True],
    ["fe80::1%\x1b[2J"], [["x"]], {}, {"x": 1}, "1", "true",
]  # fmt: skip
FILES: list[Any] = [
    5, "x", {"x": 1}, [5], [["a", 1]], [["../x", 420, ""]], [["/etc/passwd", 420, ""]], [["a\nb", 420, ""]],
    [["x", -1, ""]], [["x", "420", ""]], [["x", 420, "*"]], [["x", 420, None]], [["owner", 420, ""]],
    [["storage", 420, ""]], [[".new", 420, ""]], [["x", 420, ""], ["x/y", 420, ""]], [["\ud800", 420, ""]],
    [["x" * 5000, 420, ""]], [["a/../b", 420, ""]], [["x\0", 420, ""]], [[["x"], 420, ""]],
]  # fmt: skip


def harmless(error: VsError) -> None:
    """It names the host, and is a line."""
    words = str(error)
    assert "vsh-66" in words
    assert len(words) < 5000
    assert words.isprintable()


@pytest.mark.parametrize(
    ("check", "good"),
    [
        (lambda host, value: scan.checked(host, [value]), ROW),
        (parcel.told, TOLD),
        (parcel.answer, ANSWER),
        (parcel.passed, PASSED),
    ],
)
def test_every_field_may_be_a_lie(check: Any, good: dict[str, Any]) -> None:
    check("vsh-66", good)
    for key in good:
        for lie in LIES:
            with contextlib.suppress(VsError):
                try:
                    assert str(check("vsh-66", {**good, key: lie})).isprintable()
                except VsError as error:
                    harmless(error)
                    raise
        with pytest.raises(VsError):
            check("vsh-66", {other: value for other, value in good.items() if other != key})
    for lie in LIES:
        with pytest.raises(VsError):
            check("vsh-66", lie)


@pytest.mark.parametrize(("key", "kinds"), [("start", (int, float)), ("stop", (int, float)), ("snapshots", (bool,))])
def test_what_an_older_host_does_not_say_may_be_a_lie(key: str, kinds: tuple[type, ...]) -> None:
    assert getattr(parcel.told("vsh-66", TOLD), key) is None
    for lie in [*LIES, -0.5, 1e300, [True], "snapshots"]:
        try:
            found = getattr(parcel.told("vsh-66", {**TOLD, key: lie}), key)
        except VsError as error:
            harmless(error)
        else:
            assert found is None or type(found) in kinds
            assert not isinstance(found, float) or 0 <= found < 1e7


@pytest.mark.parametrize("lie", FILES)
def test_files_that_cannot_be_a_guests(lie: Any) -> None:
    with pytest.raises(Refused) as error:
        parcel.files_of("vsh-66", lie)
    harmless(error.value)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"\n", b"x\n", b"5\n", b"[]\n", b"null\n", b'{"a":1e999}\n', b'{"a":NaN}\n', b'{"a":-Infinity}\n',
        b"\xff\n", b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}\n", b'{"a":' + b"9" * 5000 + b"}\n", b'{"a":1}',
    ],
)  # fmt: skip
def test_a_line_that_is_no_message(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        wire.message(text)


def test_what_a_host_said_is_shown_harmlessly() -> None:
    assert wire.clean("a\x1b[2Jb\nc\ud800\u202ed\u00e9") == "a?[2Jb?c??d\u00e9"
    assert len(wire.clean("x" * 10_000)) == 500

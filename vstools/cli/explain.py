"""vs-net --explain: which line decides about a connection, as rows and as lines."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from vstools.cli import app
from vstools.paths import Paths

if TYPE_CHECKING:
    from vstools.lifecycle.explain import Answer


def reader(words: tuple[str, str, str]) -> Callable[[Paths, str], Iterator[Mapping[str, object]]]:
    """What gives a guest's rows for the three words of the option; raises Refused when they are no question."""
    from vstools.lifecycle import explain

    asked = explain.question(*words)

    def rows(paths: Paths, guest: str) -> Iterator[Mapping[str, object]]:
        for answer in explain.answers(paths, guest, asked):
            yield _row(guest, words, answer)

    return rows


def _row(guest: str, words: tuple[str, str, str], answer: "Answer") -> Mapping[str, object]:
    return {
        "host": app.host_name(),
        "guest": guest,
        "verdict": "allow" if answer.allowed else "deny",
        "direction": words[0],
        "address": words[1],
        "service": answer.service,
        "place": answer.place,
        "text": answer.text,
        "reason": answer.reason,
        "to allow": answer.rule,
        "fw": answer.filtered,
        "in force": answer.in_force,
    }


def line(row: Mapping[str, Any]) -> str:
    """``<host>:<guest>: allow from ADDR to tcp:80 (PATH:LINE: text)``, and the line that would allow a refusal."""
    why = row["reason"] or f"{row['place']}: {row['text']}"
    said = f"{row['verdict']} {row['direction']} {row['address']} to {row['service']} ({why})"
    if row["to allow"]:
        said += f"; to allow{', before that line' if row['place'] else ''}: {row['to allow']}"
    if row["in force"] is False:
        said += f"; not in force: in the kernel the firewall is {'up' if row['fw'] else 'down'}"
    return f"{row['host']}:{row['guest']}: {said}"

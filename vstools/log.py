"""syslog and stderr. Every change is one audit line: who, what, which guest, with what result."""

import os
import sys
import syslog
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

listener: Callable[[str], None] | None = None
"""Who hears warnings and notes in place of stderr: the master, where this process is its agent."""
_verbose = bool(os.environ.get("VS_TOOLS_DEBUG"))


def debug(message: str) -> None:
    """Say what is being done, on stderr, where VS_TOOLS_DEBUG is set."""
    if _verbose:
        print(f"debug: {message}", file=sys.stderr)


def warn(message: str) -> None:
    """Say on stderr, and in syslog, what the admin should know although the command goes on."""
    if not _in_journal():
        _tell(f"warning: {message}")
    _syslog(syslog.LOG_WARNING, f"warning: {message}")


def _in_journal() -> bool:
    """Whether stderr is the journal, which has what syslog gets (``man 5 systemd.exec``, JOURNAL_STREAM)."""
    stream = os.environ.get("JOURNAL_STREAM")
    if not stream or listener is not None:
        return False
    try:
        state = os.fstat(2)
    except OSError:
        return False
    return stream == f"{state.st_dev}:{state.st_ino}"


def note(message: str) -> None:
    """Say on stderr what was done beside what was asked for."""
    _tell(message)


def _tell(words: str) -> None:
    if listener is None:
        print(f"{program()}: {words}", file=sys.stderr)
    else:
        listener(words)


def program() -> str:
    """The command's own name, as messages begin."""
    return Path(sys.argv[0]).name or "vs-tools"


def who() -> str:
    """The person behind this process: root's login name, or who used sudo or su to become root."""
    name = os.environ.get("SUDO_USER")
    if name:
        return f"{name}(sudo)"
    try:
        import pwd

        uid = int(Path("/proc/self/loginuid").read_text())
        return pwd.getpwuid(uid).pw_name if uid != 2**32 - 1 else "root"
    except (OSError, ValueError, KeyError):
        return "root"


@contextmanager
def change(what: str, guest: str) -> Iterator[list[str]]:
    """Log one change of one guest with its result, whichever way it ends.

    A failure that the block goes on after is put into the list.
    """
    failures: list[str] = []
    try:
        yield failures
    except BaseException as error:
        audit(what, guest, f"failed: {str(error) or type(error).__name__}")
        raise
    audit(what, guest, f"failed: {failures[0]}" if failures else "ok")


def audit(what: str, guest: str, result: str) -> None:
    """Write one audit line to syslog; the fields are on one line whatever they hold."""
    fields = {"who": who(), "what": what, "guest": guest, "result": result}
    _syslog(syslog.LOG_NOTICE, " ".join(f"{key}={_quoted(value)}" for key, value in fields.items()))


def _quoted(value: str) -> str:
    clean = value.encode("unicode_escape").decode()
    return '"' + clean.replace('"', "'") + '"' if " " in clean else clean


def _syslog(level: int, text: str) -> None:
    syslog.openlog(program(), syslog.LOG_PID, syslog.LOG_AUTHPRIV)
    syslog.syslog(level, text)

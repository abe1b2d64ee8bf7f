"""What all commands share: how they are run, what they print, and how an error becomes a sentence and a status."""

import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand
from typer.exceptions import Abort, Exit, TyperException

from vstools import paths as installation
from vstools.errors import BadFiles, Refused, VsError, said
from vstools.paths import Paths
from vstools.paths import host_name as host_name


def complete_guest(incomplete: str) -> list[str]:
    """Guest names for the shell's completion."""
    from vstools.config.registry import names

    return [name for name in names(installation.from_environment()) if name.startswith(incomplete)]


NAME_HELP = "guest (repeatable)"
Name = Annotated[list[str], typer.Option("--name", help="guest", metavar="GUEST", autocompletion=complete_guest)]
Names = Annotated[
    list[str] | None, typer.Option("--name", help=NAME_HELP, metavar="GUEST", autocompletion=complete_guest)
]
All = Annotated[bool, typer.Option("--all", help="all guests of this host")]
Json = Annotated[bool, typer.Option("--json", help="an array of objects, one a line")]
Table = Annotated[bool, typer.Option("--table", help="columns, for people")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would be done, and do nothing")]


def command_of(function: Callable[..., Any], *, trailing: bool = False) -> TyperCommand:
    """The command line of a function: its parameters are the options, its docstring is the help.

    ``trailing``: the first word that is no option ends the options, what follows is another program's.
    """

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if os.geteuid() != 0:
            raise Refused("this command is for root", "try it with sudo")
        return function(*args, **kwargs)

    application = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    settings = {
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda token: token.replace("_", "-"),
        "max_content_width": 100,
        "allow_interspersed_args": not trailing,
    }
    application.command(context_settings=settings)(guarded)
    found = typer.main.get_command(application)
    assert isinstance(found, TyperCommand)  # noqa: S101 - one function is one command
    return found


def execute(function: Callable[..., Any], *, trailing: bool = False) -> NoReturn:
    """Run a command with this process's arguments and exit."""
    name = os.path.basename(sys.argv[0])  # noqa: PTH119 - cheap
    if f"_{name}_COMPLETE".replace("-", "_").upper() in os.environ:
        from typer._completion_classes import completion_init

        completion_init()
    sys.exit(
        status_of(name, lambda: command_of(function, trailing=trailing).main(prog_name=name, standalone_mode=False))
    )


def status_of(name: str, act: Callable[[], Any]) -> int:
    """Call ``act`` and return the exit status; every error is said in one sentence, never as a traceback."""
    try:
        result = act()
        sys.stdout.flush()
    except Exit as request:
        return request.exit_code
    except TyperException as error:
        return _say(name, f"{error.format_message().rstrip('.')} ({name} --help)", 2)
    except (Abort, KeyboardInterrupt):
        return _say(name, "interrupted", 130)
    except BadFiles as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    except VsError as error:
        return _say(name, str(error), error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        _debug()
        return _say(name, said(error), 1)
    except Exception as error:
        _debug()
        return _say(name, f"internal error: {type(error).__name__}: {error} (VS_TOOLS_DEBUG=1 shows where)", 1)
    return result if isinstance(result, int) else 0


def _debug() -> None:
    if os.environ.get("VS_TOOLS_DEBUG"):
        raise


def _say(name: str, sentence: str, status: int) -> int:
    print(f"{name}: {sentence}", file=sys.stderr)
    return status


def selected(paths: Paths, names: list[str] | None, everyone: bool) -> tuple[str, ...]:
    """The guests that --name and --all ask for; raises when neither or both are given, or one is unknown."""
    from vstools.config import registry

    if bool(names) == everyone:
        raise Refused("give either --name GUEST (repeatable) or --all")
    if everyone:
        return registry.names(paths)
    for name in names or ():
        registry.require(paths, name)
    return tuple(dict.fromkeys(names or ()))


def single(names: list[str]) -> str:
    """The one guest that a command is about; raises Refused when several are given."""
    if len(names) != 1:
        raise Refused("give one --name: this command is about one guest")
    return names[0]


def exclusive(**options: bool) -> None:
    """Raise a usage error when more than one of these options is given."""
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value]
    if len(given) > 1:
        raise Refused(f"{' and '.join(given)} contradict each other")


def package(word: str) -> str:
    """The name of a Debian package, from an option; raises Refused for anything else."""
    import re

    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]+(:[a-z0-9]+)?", word):
        raise Refused(f"--include: {word!r} is not the name of a package")
    return word


def show(
    rows: Iterable[Mapping[str, object]], line: Callable[[Mapping[str, Any]], str], *, as_json: bool, table: bool
) -> None:
    """Print rows as 2008's lines, as JSON or as a table. The keys are the words of the line."""
    rows = list(rows)
    exclusive(json=as_json, table=table)
    if as_json:
        print("[" + ",".join("\n" + json.dumps(row) for row in rows) + ("\n]" if rows else "]"))
    elif table:
        _table(rows)
    else:
        for row in rows:
            print(line(row))


def control_row(paths: Paths, name: str) -> dict[str, object]:
    """A guest's row of vs-control."""
    from vstools.alive import is_running
    from vstools.config.registry import is_enabled

    return {
        "host": host_name(),
        "guest": name,
        "enabled": is_enabled(paths.config_of(name)),
        "running": is_running(paths, name),
    }


def control_line(row: Mapping[str, Any]) -> str:
    """2008's line: ``<host>:<guest>:<enabled|disabled>:<running|stopped>``."""
    enabled = "enabled" if row["enabled"] else "disabled"
    return f"{row['host']}:{row['guest']}:{enabled}:{'running' if row['running'] else 'stopped'}"


def _table(rows: list[Mapping[str, object]]) -> None:
    if not rows:
        return
    cells = [[key.upper() for key in rows[0]], *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)


def confirm(question: str, yes: bool) -> None:
    """Ask before something is lost; without a terminal only --yes is an answer. Raises Refused."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Refused(f"{question} Nobody is there to answer", "give --yes")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused("not done", "it was not confirmed")

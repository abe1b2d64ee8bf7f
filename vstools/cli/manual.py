"""python3 -m vstools.cli.manual MANDIR COMPLETIONDIR: man pages and bash completion, from the commands themselves.

What --help says and what the manual says come from the same place, so neither can be behind the other.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

from vstools import __version__
from vstools.cli.app import command_of
from vstools.files import write
from vstools.render import render

COMMANDS = {
    "vs-adopt": ("adopt", "adopt"),
    "vs-backup": ("backup", "backup"),
    "vs-create": ("create", "create"),
    "vs-control": ("control", "control"),
    "vs-diff": ("diff", "diff"),
    "vs-enter": ("enter", "enter"),
    "vs-log": ("logs", "log"),
    "vs-get": ("get", "get"),
    "vs-hosts": ("hosts", "hosts"),
    "vs-import": ("importing", "importing"),
    "vs-limit": ("limit", "limit"),
    "vs-monitor": ("monitor", "monitor"),
    "vs-move": ("move", "move"),
    "vs-net": ("net", "net"),
    "vs-pkg": ("pkg", "pkg"),
    "vs-ps": ("ps", "ps"),
    "vs-put": ("put", "put"),
    "vs-remove": ("remove", "remove"),
    "vs-restore": ("restore", "restore"),
    "vs-scan": ("scan", "scan"),
    "vs-stats": ("stats", "stats"),
    "vs-template": ("template", "template"),
    "vs-unify": ("unify", "unify"),
    "vs-update": ("update", "update"),
    "vs-fonctions": ("fonctions", "fonctions"),
}
"""Command -> (module of vstools.cli, its function)."""


def command(name: str) -> Any:
    """The command line object of a command."""
    module, function = COMMANDS[name]
    return command_of(getattr(importlib.import_module(f"vstools.cli.{module}"), function))


def page(name: str) -> str:
    """The man page of a command, in roff."""
    found = command(name)
    options = [record for parameter in found.params if (record := _option(parameter))]
    paragraphs = [" ".join(part.split()) for part in (found.help or "").strip().split("\n\n")]
    others = ", ".join(rf"\fB{_roff(other)}\fR(8)" for other in COMMANDS if other != name)
    return render(
        "man.8",
        name=name,
        version=__version__,
        summary=_roff(paragraphs[0].split(". ")[0].rstrip(".")),
        synopsis=_roff(" ".join(_usage(parameter) for parameter in found.params)),
        paragraphs=[_roff(text) for text in paragraphs],
        options=options,
        others=others,
    )


def _roff(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")


def _option(parameter: Any) -> dict[str, str] | None:
    if parameter.param_type_name != "option":
        return {"names": _roff(parameter.make_metavar(None)), "help": _roff(parameter.help or "")}
    metavar = "" if parameter.is_flag else f" {parameter.metavar or parameter.type.name.upper()}"
    return {"names": _roff(", ".join(parameter.opts) + metavar), "help": _roff(parameter.help or "")}


def _usage(parameter: Any) -> str:
    if parameter.param_type_name != "option":
        return str(parameter.make_metavar(None))
    text = parameter.opts[0] + ("" if parameter.is_flag else f" {parameter.metavar or parameter.type.name.upper()}")
    return text if parameter.required else f"[{text}]"


def main() -> None:
    """Write all pages and completions into the two directories named on the command line."""
    manual, completion = Path(sys.argv[1]), Path(sys.argv[2])
    for name in COMMANDS:
        write(manual / f"{name}.8", page(name))
        variable = f"_{name}_COMPLETE".replace("-", "_").upper()
        write(
            completion / name, render("completion.bash", name=name, variable=variable, function=name.replace("-", "_"))
        )


if __name__ == "__main__":
    main()

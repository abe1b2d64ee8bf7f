"""Modules that are loaded beside other work: while a program runs, or the disk is waited for, that costs no time."""

import importlib
import threading


def load(*modules: str) -> None:
    """Begin to load modules by their names; whoever imports one of them meanwhile waits for it."""

    def work() -> None:
        for module in modules:
            importlib.import_module(module)

    threading.Thread(target=work, daemon=True).start()

"""The same for several guests: at once, in the order of their dependencies, and one failure stops no other."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vstools import log
from vstools.config import guests
from vstools.config.text import Faults
from vstools.errors import VsError
from vstools.lifecycle import leftovers
from vstools.paths import Paths

if TYPE_CHECKING:
    import graphlib
    from concurrent.futures import Future

Act = str | Callable[[Paths, str], object]
"""One of vs-control's verbs, or a function of the same shape (that pickle can name)."""


def act(paths: Paths, names: tuple[str, ...], verbs: Sequence[Act]) -> int:
    """Do ``verbs`` to each guest; returns the exit status. Failures are said as they come, one line each."""
    leftovers.sweep(paths)
    if len(names) == 1:
        for verb in verbs:
            _act(paths, names[0], verb)
        return 0
    if "restart" in verbs:  # all of them stop before the first one starts
        first = [verb for verb in verbs if verb != "restart"]
        return max(_at_once(paths, names, [*first, "stop"]), _at_once(paths, names, ["start"]))
    return _at_once(paths, names, verbs)


def _at_once(paths: Paths, names: tuple[str, ...], verbs: Sequence[Act]) -> int:
    import multiprocessing
    from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait

    backwards = "stop" in verbs
    order = _order(paths, names, backwards=backwards)
    codes: list[int] = []
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(max_workers=2 * (os.cpu_count() or 1), mp_context=context) as pool:
        running: dict[Future[int], str] = {}
        while order.is_active():
            for name in order.get_ready():
                running[pool.submit(_guarded, paths, name, verbs)] = name
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                codes.append(future.result())
                order.done(running.pop(future))
    return 1 if any(codes) else 0


def _order(paths: Paths, names: tuple[str, ...], *, backwards: bool) -> "graphlib.TopologicalSorter[str]":
    """Those a guest depends on come before it (``backwards``: after).

    Guests that depend on each other in a circle are done in any order, with a warning: no boot fails for that.
    """
    import graphlib

    depends = {name: guests.read(paths.config_of(name), name, Faults()).depends for name in names}
    while True:
        order: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter(dict.fromkeys(names, ()))
        for name in names:
            for other in depends[name]:
                if other in depends:
                    order.add(other, name) if backwards else order.add(name, other)
        try:
            order.prepare()
        except graphlib.CycleError as error:
            circle = error.args[1]
            log.warn(f"guests depend on each other in a circle, their order is not kept: {' -> '.join(circle)}")
            depends.update(dict.fromkeys(circle, ()))
        else:
            return order


def _act(paths: Paths, name: str, verb: Act) -> None:
    if isinstance(verb, str):
        from vstools.lifecycle import control

        control.do(paths, name, verb)
    else:
        verb(paths, name)


def _guarded(paths: Paths, name: str, verbs: Sequence[Act]) -> int:
    try:
        for verb in verbs:
            _act(paths, name, verb)
    except VsError as error:
        print(f"{log.program()}: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        print(f"{log.program()}: guest {name}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0

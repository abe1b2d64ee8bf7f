"""The packages of several guests, some at a time: one failure stops no other, and all is told at the end."""

import os
from collections.abc import Iterator

from vstools import libc, signals
from vstools.errors import VsError
from vstools.lifecycle import leftovers, packages
from vstools.lifecycle.packages import Report
from vstools.packages.managers import Wishes
from vstools.paths import Paths

_AT_ONCE = 4


def work(paths: Paths, names: tuple[str, ...], wishes: Wishes, seconds: int) -> Iterator[Report]:
    """A report of each guest, as they end. For one guest that could not even be begun the error is raised."""
    leftovers.sweep(paths)
    with signals.ending():
        if len(names) == 1:
            yield packages.work(paths, names[0], wishes, seconds, lambda words: _say(names[0], words))
            return
        yield from _at_once(paths, names, wishes, seconds)


def _at_once(paths: Paths, names: tuple[str, ...], wishes: Wishes, seconds: int) -> Iterator[Report]:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(min(_AT_ONCE, len(names)), mp_context=context, initializer=libc.end_with_parent) as pool:
        for future in as_completed([pool.submit(_guarded, paths, name, wishes, seconds) for name in names]):
            yield future.result()


def _guarded(paths: Paths, name: str, wishes: Wishes, seconds: int) -> Report:
    try:
        with signals.ending():
            return packages.work(paths, name, wishes, seconds, lambda words: _say(name, words))
    except VsError as error:
        return Report(name, failed=str(error), status=error.exit_code)
    except Exception as error:
        return Report(name, failed=f"guest {name}: {type(error).__name__}: {error}", status=1)


def _say(name: str, words: str) -> None:
    """One line of progress; written in one piece, for several guests share the terminal."""
    os.write(2, f"{name}: {words}\n".encode())

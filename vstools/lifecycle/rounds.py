"""The packages of several guests, some at a time: one failure stops no other, and all is told at the end."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import NoReturn

from vstools import libc, signals
from vstools.errors import VsError, said
from vstools.lifecycle import leftovers, packages
from vstools.lifecycle.packages import Report
from vstools.packages.managers import Wishes
from vstools.paths import Paths

_AT_ONCE = 4
Told = Callable[[Report], None]


def work(paths: Paths, names: tuple[str, ...], wishes: Wishes, seconds: int, told: Told) -> None:
    """Tell the report of each guest, as they end. For one guest that could not even be begun the error is raised.

    Where a signal ends this process, what is under way is ended the orderly way and told, and nothing more is begun.
    """
    leftovers.sweep(paths)
    with signals.ending():
        if len(names) == 1:
            told(packages.work(paths, names[0], wishes, seconds, lambda words: _say(names[0], words)))
            return
        _at_once(names, lambda name: _guarded(paths, name, wishes, seconds), told)
    if leftovers.names(paths):  # of a child that was killed
        leftovers.sweep(paths)


def _at_once(names: tuple[str, ...], act: Callable[[str], Report], told: Told) -> None:
    waiting, running = list(names), dict[Connection, tuple[str, BaseProcess]]()
    try:
        while waiting or running:
            while waiting and len(running) < _AT_ONCE:
                _begin(waiting.pop(0), act, running)
            for end in wait(list(running)):
                assert isinstance(end, Connection)  # noqa: S101 - all of them are
                _tell(end, running, told)
    except BaseException:
        for _, child in running.values():
            child.terminate()
        for end in list(running):
            _tell(end, running, told)
        raise


def _begin(name: str, act: Callable[[str], Report], running: dict[Connection, tuple[str, BaseProcess]]) -> None:
    """Start a child for a guest. Signals that end this process wait until the child is known, and can get them."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_child, args=(theirs, name, act))
    signal.pthread_sigmask(signal.SIG_BLOCK, signals.ENDING)
    try:
        child.start()
        running[ours] = name, child
    finally:
        theirs.close()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.ENDING)


def _child(end: Connection, name: str, act: Callable[[str], Report]) -> None:
    """A session of its own: of a Ctrl-C at the terminal it hears from its parent, once."""
    os.setsid()
    libc.end_with_parent()
    for number in signals.ENDING:
        signal.signal(number, _ended)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.ENDING)
    end.send(act(name))


def _ended(number: int, _: FrameType | None) -> NoReturn:
    for each in signals.ENDING:
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _tell(end: Connection, running: dict[Connection, tuple[str, BaseProcess]], told: Told) -> None:
    """Wait for a child's report; one that was killed leaves none."""
    name, child = running[end]
    try:
        report = end.recv()
    except (EOFError, OSError):
        child.join()
        report = Report(name, failed=f"guest {name}: what worked at it was killed (status {child.exitcode})", status=1)
    del running[end]
    end.close()
    child.join()
    told(report)


def _guarded(paths: Paths, name: str, wishes: Wishes, seconds: int) -> Report:
    try:
        return packages.work(paths, name, wishes, seconds, lambda words: _say(name, words))
    except VsError as error:
        return Report(name, failed=str(error), status=error.exit_code)
    except (KeyboardInterrupt, SystemExit):
        return Report(name, failed=f"guest {name}: interrupted", status=1)
    except OSError as error:
        return Report(name, failed=f"guest {name}: {said(error)}", status=1)
    except Exception as error:
        return Report(name, failed=f"guest {name}: {type(error).__name__}: {error}", status=1)


def _say(name: str, words: str) -> None:
    """One line of progress; written in one piece, for several guests share the terminal. Nobody has to read it."""
    with suppress(OSError):
        os.write(2, f"{name}: {words}\n".encode())

"""Two installations as two hosts, each with a name of its own; and the acts of a move, each in a process of its own.

Run as a program, this is such a process: what to do comes pickled to its stdin, what came of it goes to its stdout.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from vstools.config.carried import File
from vstools.config.owner import Owner
from vstools.errors import VsError
from vstools.lifecycle import arrival, departure
from vstools.lifecycle.arrival import Arrival
from vstools.paths import from_environment

if __name__ != "__main__":
    from conftest import BIN, Host, installation

    class Named(Host):
        """An installation whose commands believe that the host has another name."""

        node: ClassVar[str]

        def start(self, *argv: str, **env: str) -> "subprocess.Popen[str]":
            """Start a command of ours and return it running."""
            return subprocess.Popen(
                [*named(self.node), BIN / argv[0], *argv[1:]],
                env={**os.environ, "VS_TOOLS_ROOT": str(self.root), **env},
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
            )  # fmt: skip

        def act(self, what: str, *words: object, **env: str) -> Any:
            """Do one of the acts; raises what it raises, and Killed where a fault was asked for."""
            done = subprocess.run(
                [*named(self.node), BIN / "python", __file__],
                env={**os.environ, "VS_TOOLS_ROOT": str(self.root), **env},
                input=pickle.dumps((what, words)), stdout=subprocess.PIPE, check=False, timeout=120,
            )  # fmt: skip
            if done.returncode == -9:
                raise Killed(what)
            assert done.returncode == 0, done
            result, error = pickle.loads(done.stdout)  # noqa: S301 - of our own child
            if error is not None:
                raise error
            return result

    class Here(Named):
        """Where the guest is."""

        node = "vsh-a"

    class There(Named):
        """Where it goes."""

        node = "vsh-b"


class Killed(Exception):
    """The process was killed where it was to be."""


def named(node: str) -> list[str]:
    """The words before a program whose host has another name."""
    return ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', node]


@contextmanager
def two() -> "Iterator[tuple[Here, There]]":
    """Both hosts; the second draws other contexts, for there is one kernel."""
    with installation(Here) as here, installation(There) as there:
        (there.guests / ".defaults/context.next").write_text("61000\n")
        yield here, there


def described(here: "Named", transfer: str = "t1", **more: Any) -> Arrival:
    """The guest web of a host, as it says itself."""
    told = here.act("describe", "web")
    values: dict[str, Any] = {
        "transfer": transfer, "name": "web", "files": tuple(here.act("files", "web")), "owner": Owner(here.node, 1),
        "size": told["size"], "inodes": told["inodes"], "arch": told["arch"], "version": told["version"],
    }  # fmt: skip
    return Arrival(**{**values, **more})


def fill(here: "Named", tree: Path) -> None:
    """Copy the tree of web."""
    argv = ["rsync", "-aHAX", "--numeric-ids", "--delete", f"{here.trees}/web/", f"{tree}/"]
    subprocess.run(argv, check=True)


def file(path: str, content: str) -> File:
    return File(path, 0o644, content.encode())


def _release(name: str, owner: Owner) -> None:
    paths = from_environment()
    with departure.held(paths, name, stop=True):
        departure.release(paths, name, owner)


def main() -> None:
    """The process."""
    paths = from_environment()
    what, words = pickle.load(sys.stdin.buffer)  # noqa: S301 - of our own parent
    acts = {
        "describe": departure.describe, "files": departure.files, "forget": departure.forget,
        "check": arrival.check, "stage": arrival.stage, "register": arrival.register, "own": arrival.own,
        "abandon": arrival.abandon,
    }  # fmt: skip
    result, error = None, None
    try:
        result = _release(*words) if what == "release" else acts[what](paths, *words)
    except VsError as raised:
        error = type(raised)(*raised.args)
    sys.stdout.buffer.write(pickle.dumps((result, error)))


if __name__ == "__main__":
    main()

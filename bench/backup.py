"""The next copy of a guest of which little has changed, with vs-get, beside raw rsync over the same ssh."""

import argparse
import random
import shlex
import time
from pathlib import Path
from typing import Any

from bench import numbers, ours, place, software
from bench.inside import disk
from bench.nodes import Node, Pool
from bench.programs import Timed, run
from bench.report import Expectation, Report
from bench.software import say

OURS, RAW, SYNCED = "vs-get", "rsync", "rsync, then sync -f"
TIME, WIRE = "time", "on the wire, both ways"
_RSYNC = ("rsync", "-aHAX", "--numeric-ids", "--sparse", "--delete", "--stats")
_GUEST = f"{place.NAME}-backup"
_LARGE, _LARGE_SIZE = 4, 16 << 20
_IN_A_FOLDER = 100
_SEED = 1


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--files", type=numbers.whole(1000, 500_000), default=50_000, metavar="N", help="how many the tree has (50000)"
    )


def measure(options: argparse.Namespace) -> Report:
    """Everything happens in namespaces of our own, on one file system."""
    software.ensure_packages()
    question = {"rounds": options.rounds, "files": options.files, "scripts": str(ours.command("vs-get").parent)}
    with place.workplace() as work:
        answer = place.inside(work, "backup", question)
    facts = {"rounds": str(options.rounds), "files": str(options.files), "changed": "1 %"}
    expected = (Expectation(TIME, OURS, RAW, 1.1), Expectation(WIRE, OURS, RAW, 1.1))
    return Report("backup", OURS, facts, answer["samples"], expected, {WIRE: "MB"})


class _Tree:
    """Many small files and a few large ones, of which a hundredth changes each time."""

    def __init__(self, path: Path, count: int) -> None:
        self._path, self._random, self._count = path, random.Random(_SEED), count  # noqa: S311
        for number in range(count):
            self._write(number)
        for number in range(_LARGE):
            (path / f"large-{number}").write_bytes(self._random.randbytes(_LARGE_SIZE))

    def _write(self, number: int) -> None:
        folder = self._path / f"srv/{number // _IN_A_FOLDER}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).write_bytes(self._random.randbytes(self._random.randint(100, 8000)))

    def change(self) -> None:
        """Small files are written anew, one large one at its beginning; others go, and others come."""
        for number in self._random.sample(range(self._count), self._count // 100):
            self._write(number)
        with (self._path / "large-0").open("r+b") as handle:
            handle.write(self._random.randbytes(1 << 16))
        for name in ("gone", "come"):
            folder = self._path / "srv" / name
            for entry in tuple(folder.iterdir()) if folder.exists() else ():
                entry.unlink()
            folder.mkdir(exist_ok=True)
            for _ in range(self._count // 1000):
                (folder / f"{self._random.getrandbits(64):x}").write_bytes(self._random.randbytes(4000))


def rounds(work: Path, question: dict[str, Any]) -> dict[str, Any]:
    """Both copy the same state, one after the other, taking turns to be first; the whole copies do not count."""
    pool = Pool(work, 1, Path(question["scripts"]))
    host = pool.hosts[0]
    run(host.command("vs-create", "--name", _GUEST, "--interface", "198.18.77.5", "--skeleton"), env=host.environment)
    say(f"making {question['files']} files")
    tree = _Tree(host.root / "var/lib/vservers" / _GUEST, question["files"])
    raw = _Raw(pool, host, pool.master.root / f"var/lib/vs-tools/other/{_GUEST}")
    samples: dict[str, dict[str, list[float]]] = {TIME: {OURS: [], RAW: [], SYNCED: []}, WIRE: {OURS: [], RAW: []}}
    for number in range(-1, question["rounds"] + 1):
        say(f"round {number}" if number > 0 else "copies that do not count")
        if number >= 0:
            tree.change()
        for name in (OURS, RAW) if number % 2 else (RAW, OURS):
            run(["sync", "-f", disk(work)])
            before = pool.master.wire_bytes()
            times = raw.copy() if name == RAW else {OURS: _got(pool)}
            sent = (pool.master.wire_bytes() - before) / 1e6
            if number > 0:
                samples[WIRE][name].append(sent)
                for contestant, took in times.items():
                    samples[TIME][contestant].append(took)
    return {"samples": samples}


def _got(pool: Pool) -> float:
    time.sleep(1)  # copies are named by their second
    return Timed(pool.master.command("vs-get", "--name", _GUEST), pool.master.environment).finish()


class _Raw:
    """Copies of the same tree by rsync alone, each of them linked with the one before.

    They lie as deep as ours: rsync looks for each file by the whole path.
    """

    def __init__(self, pool: Pool, host: Node, folder: Path) -> None:
        self._pool, self._host, self._folder, self._number = pool, host, folder, 0
        folder.mkdir(parents=True)

    def copy(self) -> dict[str, float]:
        """The seconds of the next one, and with what brings it to the disk, as vs-get does."""
        before = self._folder / str(self._number) / "tree"
        self._number += 1
        into = self._folder / str(self._number) / "tree"
        into.mkdir(parents=True)
        words = [*_RSYNC, f"--rsh={shlex.join(self._pool.ssh(self._host))}", f"--link-dest={before}"]
        source = f"{self._host.address}:{self._host.root}/var/lib/vservers/{_GUEST}/"
        took = Timed(self._pool.master.words(*words, source, f"{into}/")).finish()
        return {RAW: took, SYNCED: took + Timed(["sync", "-f", into]).finish()}

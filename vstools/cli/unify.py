"""vs-unify: identical files of guests share their blocks on the disk."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from vstools import paths as installation
from vstools.cli import app


def unify(
    name: app.Names = None,
    everyone: app.All = False,
    dry_run: app.DryRun = False,
    as_json: app.Json = False,
    table: app.Table = False,
) -> int:
    """Let identical files of these guests share their blocks on the disk, as far as btrfs and XFS can.

    Prints <host>:<guest>:<files>:<bytes>: how many files of the guest have blocks of another file now that did not
    before, and how many bytes on the disk that saved; --table and --json add the total. Guests may run: the kernel
    compares and shares in one act, and whoever writes to a file later gets blocks of its own again.

    With --dry-run files are read and compared as well, and nothing is shared.
    """
    from vstools.lifecycle import unify as work

    app.exclusive(json=as_json, table=table)
    paths = installation.from_environment()
    names = app.selected(paths, name, everyone)
    trees = work.able(paths, names)
    with _progress() as progress:
        saved, status = work.unify(paths, trees, progress.step, dry_run=dry_run)
    host = app.host_name()
    rows: list[dict[str, object]] = [
        {"host": host, "guest": each.guest, "files": each.files, "bytes": each.bytes} for each in saved
    ]
    if as_json or table:
        files, size = (sum(column) for column in zip(*(each[1:] for each in saved), strict=True)) if saved else (0, 0)
        rows.append({"host": host, "guest": None, "files": files, "bytes": size})
    app.show(rows, _would if dry_run else _line, as_json=as_json, table=table)
    return status


def _line(row: Mapping[str, Any]) -> str:
    return f"{row['host']}:{row['guest']}:{row['files']}:{row['bytes']}"


def _would(row: Mapping[str, Any]) -> str:
    return f"{row['guest']}: would share {row['files']} files and save {row['bytes']} bytes"


class _progress:  # noqa: N801 - reads as a function
    """One line on stderr that says what is being done, where stderr is a terminal."""

    def __init__(self) -> None:
        self.is_shown = sys.stderr.isatty()
        self.sums: dict[str, int] = {}
        self.next = 0.0

    def __enter__(self) -> "_progress":
        return self

    def step(self, what: str, size: int) -> None:
        """So many bytes more of something; none of it: that is what is being done now."""
        self.sums[what] = self.sums.get(what, 0) + size
        if self.is_shown and time.monotonic() >= self.next:
            self.next = time.monotonic() + 0.2
            text = f"{what} {self.sums[what] >> 20} MiB" if self.sums[what] else what
            print(f"\r{text[:70]:70}", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if self.is_shown:
            print("\r" + " " * 70 + "\r", end="", file=sys.stderr, flush=True)


def main() -> None:
    """The command."""
    app.execute(unify)

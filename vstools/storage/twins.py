"""Which files may be twins: of the same size first, then of the same content; no file is read that cannot have one.

Files whose blocks are the same already are one *layout*: one of them is read for all, and nothing is to be done among
them. The catalogue is a private SQLite database: two caches of 32 MiB each, and what is more in a file of SQLite's
directory for such files (/var/tmp) that has no name from the beginning, so that nothing is left of a process that was
killed.
"""

import sqlite3
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple

_TABLES = """
PRAGMA cache_size = -32768;
PRAGMA temp_store = FILE;
PRAGMA journal_mode = OFF;
CREATE TABLE files (
    id INTEGER PRIMARY KEY, guest INTEGER, filesystem INTEGER, size INTEGER, layout BLOB, handle BLOB,
    shared INTEGER, pieces INTEGER, place INTEGER, UNIQUE (filesystem, handle)
);
CREATE TABLE layouts (
    id INTEGER PRIMARY KEY, filesystem INTEGER, size INTEGER, layout BLOB, files INTEGER, guests INTEGER,
    shared INTEGER, pieces INTEGER, place INTEGER
);
CREATE TABLE contents (layout INTEGER PRIMARY KEY, digest BLOB);
BEGIN
"""
_GATHER = """
INSERT INTO layouts (filesystem, size, layout, files, guests, shared, pieces, place)
SELECT filesystem, size, layout, count(*), count(DISTINCT guest), max(shared), min(pieces), min(place)
FROM files GROUP BY filesystem, size, layout;
CREATE INDEX files_of_a_layout ON files (layout, filesystem, size);
CREATE INDEX layouts_of_a_size ON layouts (filesystem, size)
"""
_UNREAD = """
SELECT id, files, size, layout FROM layouts WHERE (filesystem, size) IN (
    SELECT filesystem, size FROM layouts GROUP BY filesystem, size HAVING count(*) > 1
) ORDER BY filesystem, place
"""
_FILES = """
SELECT files.guest, files.handle FROM layouts JOIN files USING (layout, filesystem, size)
WHERE layouts.id = ? ORDER BY files.id
"""
_TWINS = """
SELECT layouts.id, layouts.files, layouts.size, layouts.filesystem, contents.digest, layouts.layout
FROM contents JOIN layouts ON layouts.id = contents.layout
ORDER BY layouts.size DESC, layouts.filesystem, contents.digest, layouts.guests DESC, layouts.shared DESC,
         layouts.pieces, layouts.files DESC, layouts.place
"""
MOST_SHARERS = 4096
"""Files that share the same blocks, at most: btrfs looks up all who refer to an extent one by one."""


class File(NamedTuple):
    """A file of a guest that may have twins."""

    guest: int
    """The guest's number in the list of those that are looked at."""
    filesystem: int
    size: int
    layout: bytes
    handle: bytes
    """What opens it again; a file with several names has one."""
    shared: bool
    """Whether all its blocks are some other file's, too, of whomever: they would not become free."""
    pieces: int
    place: int
    """Where on the disk it begins."""


class Layout(NamedTuple):
    """Files that have the same blocks."""

    id: int
    files: int
    size: int
    layout: bytes


class Catalogue:
    """All files of all guests, from ``add`` to ``pairs``."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(_TABLES)

    def __enter__(self) -> "Catalogue":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def add(self, file: File) -> None:
        """Note a file; one that was noted already (under another name) stays as it is."""
        self._database.execute(
            "INSERT OR IGNORE INTO files (guest, filesystem, size, layout, handle, shared, pieces, place)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            file,
        )

    def gather(self) -> None:
        """All files are noted: see which of them have the same blocks."""
        self._database.executescript(_GATHER)

    def unread(self) -> Iterator[Layout]:
        """What has to be read: one file each of the layouts of a size that has several, as they lie on the disk."""
        for row in self._database.execute(_UNREAD):
            yield Layout(*row)

    def files(self, layout: Layout) -> Iterator[tuple[int, bytes]]:
        """(guest, handle) of each file of a layout."""
        yield from self._database.execute(_FILES, (layout.id,))

    def note(self, layout: Layout, digest: bytes) -> None:
        """What was read: a hash of the content."""
        self._database.execute("INSERT INTO contents VALUES (?, ?)", (layout.id, digest))

    def pairs(self, most: int = MOST_SHARERS) -> Iterator[tuple[Layout, Layout]]:
        """(which stays, which takes the blocks of that one) wherever contents seem to be the same; large files first.

        What most guests have already stays: a single guest cannot make its own copy that one. Then what has blocks that
        would not become free, and what is in fewer pieces. When ``most`` files share, the next begins anew.
        """
        stays, room = Layout(0, 0, 0, b""), 0
        content: tuple[object, ...] = ()
        for number, files, size, filesystem, digest, layout in self._database.execute(_TWINS):
            now = Layout(number, files, size, layout)
            if (size, filesystem, digest) != content or files > room:
                stays, content, room = now, (size, filesystem, digest), most - files
            else:
                room -= files
                yield stays, now

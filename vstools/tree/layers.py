"""The layers of an OCI image become one tree, each over the ones below it, all of them checked as one template is.

Source: the OCI image format specification, 1.1, layer. A member called ``.wh.NAME`` takes away what the layers below
have called NAME, ``.wh..wh..opq`` all that they have in that directory. One checker knows the links of all layers: no
layer writes through a link of one below.
"""

import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from vstools import run
from vstools.errors import Refused
from vstools.tree import oci, unpack
from vstools.tree.checker import Checker, Member
from vstools.tree.stream import Progress

_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_MOST = 4 << 20


class _LayerChecker(Checker):
    """Whiteouts are no files of the tree."""

    def accept(self, member: Member) -> bool:
        """As for a template; False for a whiteout as well."""
        wanted = super().accept(member)
        return wanted and not PurePosixPath(member.name).name.startswith(_WHITEOUT)

    def forget(self, parts: tuple[str, ...]) -> None:
        """What was there is gone, with all below it."""
        self.links = {link for link in self.links if link[: len(parts)] != parts}


def apply(layout: Path, tree: Path, progress: Progress = lambda _: None) -> int:
    """Write the image of a layout directory into the empty directory ``tree``; returns how many device nodes it had.

    Raises Refused when the image is hostile, damaged or for other machines, VsError when the disk is full.
    """
    checker = _LayerChecker()
    for layer in oci.image(layout).layers:
        layer.check()
        _make_room(layer.file, tree, checker)
        with unpack.extractor(tree) as sink, unpack.stream_of(layer.file, sink, progress) as stream:
            try:
                unpack.copy_members(stream, checker)
            except (tarfile.TarError, EOFError, UnicodeError, ValueError, OverflowError, RecursionError) as error:
                raise Refused(f"the image's layer {layer.digest[:12]} is damaged", str(error)) from error
            stream.write(bytes(2 * tarfile.BLOCKSIZE))
    if not checker.members:
        raise Refused(f"{layout} is empty", "an image holds a whole system")
    return checker.devices


def _make_room(layer: Path, tree: Path, checker: _LayerChecker) -> None:
    """Take away what this layer takes away, and what it puts something of another kind in the place of."""
    for count, member in enumerate(_members(layer)):
        if count > _MOST:
            raise Refused("a layer of the image has too many members", "it is hostile")
        parts = tuple(part for part in member.name.split("/") if part not in ("", "."))
        if ".." in parts or not parts or not _is_real(tree, parts[:-1]):
            continue  # what is no path of the tree is refused when it is unpacked
        name = parts[-1]
        if name == _OPAQUE:
            above = tree.joinpath(*parts[:-1])
            for entry in os.listdir(above) if above.is_dir() else ():
                _take_away(tree, (*parts[:-1], entry), checker)
        elif name.startswith(_WHITEOUT):
            if (gone := name.removeprefix(_WHITEOUT)) not in ("", ".", ".."):
                _take_away(tree, (*parts[:-1], gone), checker)
        else:
            there = tree.joinpath(*parts)
            if there.is_symlink() or (there.is_dir() and not member.isdir()):
                _take_away(tree, parts, checker)


def _members(layer: Path) -> Iterator[tarfile.TarInfo]:
    """The members of a layer; of one that is damaged there are no more, and it is refused when it is unpacked."""
    program = unpack.decompressor(layer)
    with layer.open("rb") as raw:
        if not program:
            yield from _read(raw)
            return
        with run.piped(program, stdin=raw, stdout=run.PIPE) as process:
            yield from _read(process.stdout)


def _read(source: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    try:
        with tarfile.open(fileobj=source, mode="r|") as archive:
            for member in archive:
                yield member
                cast("Any", archive).members.clear()  # tarfile would remember them all
    except (tarfile.TarError, EOFError, UnicodeError, ValueError, OverflowError, RecursionError):
        return


def _is_real(tree: Path, parts: tuple[str, ...]) -> bool:
    """Whether no link is on the way: then the path is one of the tree, which nobody else changes."""
    way = tree
    for part in parts:
        way = way / part
        if way.is_symlink():
            return False
    return True


def _take_away(tree: Path, parts: tuple[str, ...], checker: _LayerChecker) -> None:
    path = tree.joinpath(*parts)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()
    checker.forget(parts)

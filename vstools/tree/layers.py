"""The layers of an OCI image become one tree, each over the ones below it, all of them checked as one template is.

Source: the OCI image format specification, 1.1, layer. A member called ``.wh.NAME`` takes away what the layers below
have called NAME, ``.wh..wh..opq`` all that they have in that directory. One checker knows the links of all layers: no
layer writes through a link of one below.
"""

import os
import tarfile
from pathlib import Path, PurePosixPath

from vstools import files
from vstools.errors import Refused
from vstools.tree import oci, unpack
from vstools.tree.checker import Checker, Member
from vstools.tree.stream import Progress

_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_MOST, _LONGEST_NAME = 4 << 20, 255
_DAMAGE = (tarfile.TarError, EOFError, UnicodeError, ValueError, OverflowError, RecursionError)


class _LayerChecker(Checker):
    """Whiteouts are no files of the tree."""

    def accept(self, member: Member) -> bool:
        """As for a template; False for a whiteout as well."""
        wanted = super().accept(member)
        return wanted and not PurePosixPath(member.name).name.startswith(_WHITEOUT)

    def forget_below(self, parts: tuple[str, ...]) -> None:
        """A directory that was there is gone, with all below it."""
        self.links = {link for link in self.links if link[: len(parts)] != parts}


def apply(layout: Path, tree: Path, progress: Progress = lambda _: None) -> int:
    """Write the image of a layout directory into the empty directory ``tree``; returns how many device nodes it had.

    Raises Refused when the image is hostile, damaged or for other machines, VsError when the disk is full, and what
    ``progress`` raises.
    """
    checker = _LayerChecker()
    for layer in oci.image(layout).layers:
        layer.check()
        try:
            _make_room(layer.file, tree, checker, progress)
            with unpack.extractor(tree) as sink, unpack.stream_of(layer.file, sink, progress) as stream:
                unpack.copy_members(stream, checker)
                stream.write(bytes(2 * tarfile.BLOCKSIZE))
        except _DAMAGE as error:
            raise Refused(f"the image's layer {layer.digest[:12]} is damaged", str(error)) from error
    if not checker.members:
        raise Refused(f"{layout} is empty", "an image holds a whole system")
    return checker.devices


def _make_room(layer: Path, tree: Path, checker: _LayerChecker, progress: Progress) -> None:
    """Take away what this layer takes away, and what it puts something of another kind in the place of."""
    with open(os.devnull, "wb") as nowhere, unpack.stream_of(layer, nowhere, progress) as stream:  # noqa: PTH123
        for count, member in enumerate(unpack.members(stream)):
            if count > _MOST:
                raise Refused("a layer of the image has too many members", "it is hostile")
            parts = tuple(part for part in member.name.split("/") if part not in ("", "."))
            if not parts or any(_is_impossible(part) for part in parts) or not _is_real(tree, parts[:-1]):
                continue  # what is no path of the tree is refused when it is unpacked
            _make_room_for(parts, member, tree, checker)


def _make_room_for(parts: tuple[str, ...], member: Member, tree: Path, checker: _LayerChecker) -> None:
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
        if there.is_symlink() or (there.is_dir() and member.type != tarfile.DIRTYPE):
            _take_away(tree, parts, checker)


def _is_impossible(part: str) -> bool:
    return part == ".." or "\0" in part or len(os.fsencode(part)) > _LONGEST_NAME


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
        files.remove_tree(path)
        checker.forget_below(parts)
    elif os.path.lexists(path):
        path.unlink()
        checker.links.discard(parts)

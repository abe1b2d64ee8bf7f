"""Decides for each member of an archive whether it may be written into a tree."""

import tarfile
from dataclasses import dataclass, field
from typing import NamedTuple

from vstools.errors import Refused
from vstools.guest import IDS

_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE)
_DEVICES = (tarfile.CHRTYPE, tarfile.BLKTYPE)
_KNOWN = (*_REGULAR, *_DEVICES, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE)


class Member(NamedTuple):
    """What of a member decides whether it is harmless; ``type`` is tar's type flag (``man 5 tar``)."""

    name: str
    type: bytes
    linkname: str
    uid: int
    gid: int

    @classmethod
    def of(cls, info: tarfile.TarInfo) -> "Member":
        """The same of a member that tarfile read."""
        return cls(info.name, info.type, info.linkname, info.uid, info.gid)


@dataclass
class Checker:
    """Checks members in their order. Names are kept as parts without ``.``."""

    links: set[tuple[str, ...]] = field(default_factory=set)
    devices: int = 0
    members: int = 0
    _linkless: set[tuple[str, ...]] = field(default_factory=set, init=False, repr=False)
    """Directories that no link is on the way to, with all above them: most members share theirs with the last one."""

    def accept(self, member: Member) -> bool:
        """Whether to write this member; False for device nodes. Raises Refused for what no honest archive holds."""
        self.members += 1
        kind = member.type
        parts = self._parts(member.name, "a member")
        self._through_link(parts, member.name)
        if kind not in _KNOWN:
            raise Refused(f"the template holds {member.name!r} of the unknown type {kind!r}", "pack it anew")
        if kind in _DEVICES:
            self.devices += 1
            return False
        if kind == tarfile.LNKTYPE:
            target = self._parts(member.linkname, "a hard link")
            self._through_link(target, member.linkname)
            if target in self.links:
                self._add_link(parts)
                return True
        if not parts and kind != tarfile.DIRTYPE:
            raise Refused("the template's root is no directory", "it is hostile")
        if parts in self.links and kind != tarfile.SYMTYPE:
            raise Refused(f"the template would write {member.name!r} through a link of its own", "it is hostile")
        if not (0 <= member.uid < IDS and 0 <= member.gid < IDS):
            raise Refused(
                f"the template's {member.name!r} belongs to {member.uid}:{member.gid}",
                f"ids in a guest are 0 to {IDS - 1}: was it packed with shifted ids?",
            )
        if kind == tarfile.SYMTYPE:
            self._add_link(parts)
        return True

    def _parts(self, name: str, what: str) -> tuple[str, ...]:
        parts = tuple([part for part in name.split("/") if part not in ("", ".")])
        if "\0" in name:  # tar would read another name than this one
            raise Refused(f"the template holds {what} with the impossible name {name!r}", "it is hostile")
        if name.startswith("/"):
            raise Refused(f"the template holds {what} with the absolute name {name!r}", "it is hostile or badly packed")
        if ".." in parts:
            raise Refused(f"the template holds {what} that leads outside: {name!r}", "it is hostile or badly packed")
        return parts

    def _through_link(self, parts: tuple[str, ...], name: str) -> None:
        if parts[:-1] in self._linkless:
            return
        above = [parts[:length] for length in range(1, len(parts))]
        if not self.links.isdisjoint(above):
            raise Refused(f"the template would write {name!r} through a link of its own", "it is hostile")
        self._linkless.update(above)

    def _add_link(self, parts: tuple[str, ...]) -> None:
        self.links.add(parts)
        if parts in self._linkless:  # it was a directory until now
            self._linkless.clear()

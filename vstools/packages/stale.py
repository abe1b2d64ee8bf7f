"""Whether a process still uses files that an upgrade has replaced, and whose service it is."""

import re

_DELETED = re.compile(r"^\S+ ..x. \S+ \S+ \S+ +/(?:usr|lib\w*|bin|sbin|opt)/.* \(deleted\)$", re.MULTILINE)
_UNIT = re.compile(r"/([A-Za-z0-9:_.@\\-]{1,200})\.service(?=/|$)")
_PLAIN = re.compile(r"[^A-Za-z0-9:_.@+-]")


def uses_deleted(maps: str) -> bool:
    """Whether a process runs code of a file that is there no more, by its ``/proc/PID/maps`` (``man 5 proc``)."""
    return bool(_DELETED.search(maps))


def service(cgroup: str, program: str) -> str:
    """The systemd service of a process by its ``/proc/PID/cgroup`` as the host sees it, else its program's name.

    The guest's own unit on the host, ``vs-guest@NAME``, is none of the guest's services.
    """
    units = [unit for unit in _UNIT.findall(cgroup) if not unit.startswith("vs-guest@")]
    return _PLAIN.sub("?", units[0] if units else program.strip())

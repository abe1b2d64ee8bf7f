"""The lower bound: tar (on btrfs: a snapshot of what tar made once), sync and lxc-start, and no suite around.

LXC's configuration is written by hand.
"""

from pathlib import Path

from bench import watch
from bench.contestant import folder
from bench.programs import run

ID_BASE = 45000 * 65536
_UNPACK = ("--numeric-owner", "--xattrs", "--xattrs-include=*", "--exclude=./dev/*")
_MAKE = {
    "ext4": f'mkdir -m 755 "$2" && tar -x -f "$1" -C "$2" {" ".join(_UNPACK)}',
    "btrfs": 'btrfs -q subvolume snapshot "$1" "$2"',
}
_START = ' && sync -f "$2" && exec lxc-start -n "$3" -P "$4"'
_CONFIG = """\
lxc.uts.name = {guest}
lxc.rootfs.path = dir:{tree}
lxc.rootfs.options = idmap=container
lxc.idmap = u 0 {base} 65536
lxc.idmap = g 0 {base} 65536
lxc.net.0.type = empty
lxc.mount.auto = proc:mixed sys:mixed
lxc.mount.entry = cgroup2 sys/fs/cgroup cgroup2 rw,nosuid,nodev,noexec,create=dir 0 0
lxc.seccomp.profile = /usr/share/lxc/config/common.seccomp
lxc.apparmor.profile = unconfined
lxc.cap.drop = mac_admin mac_override sys_time sys_module sys_rawio
lxc.tty.max = 0
lxc.pty.max = 1024
"""


class Bound:
    """One directory a guest below ``place``: LXC's configuration beside the tree."""

    name = "bound"

    def __init__(self, place: Path, template: Path, storage: str) -> None:
        self._path = folder(place, "bound")
        self._script = _MAKE[storage] + _START
        self._source = template
        if storage == "btrfs":
            self._source = self._path / "kept"
            run(["btrfs", "-q", "subvolume", "create", self._source])
            run(["tar", "-x", "-f", template, "-C", self._source, *_UNPACK])

    def start(self, guest: str) -> watch.Started:
        home = folder(self._path, guest)
        tree = home / "tree"
        (home / "config").write_text(_CONFIG.format(guest=guest, tree=tree, base=ID_BASE))
        return watch.time_start(["sh", "-c", self._script, "sh", self._source, tree, guest, self._path])

    def stop(self, guest: str, pid: int) -> float:
        return watch.time_stop(["lxc-stop", "-n", guest, "-P", self._path], pid)

    def remove(self, guest: str) -> None:
        run(["rm", "--recursive", self._path / guest])

    def facts(self) -> dict[str, str]:
        return {"LXC": run(["lxc-start", "--version"]).strip()}

    def close(self) -> None:
        """Nothing of it runs beside guests."""

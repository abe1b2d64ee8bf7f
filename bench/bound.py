"""The lower bound: tar, sync and lxc-start with a configuration written by hand, and no suite around."""

from pathlib import Path

from bench import watch
from bench.contestant import folder
from bench.programs import run

ID_BASE = 45000 * 65536
_SCRIPT = (
    'tar -x -f "$1" -C "$2" --numeric-owner --xattrs --xattrs-include="*" --exclude="./dev/*" '
    '&& sync -f "$2" && exec lxc-start -n "$3" -P "$4"'
)
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

    def __init__(self, place: Path, template: Path) -> None:
        self._path = folder(place, "bound")
        self._template = template

    def start(self, guest: str) -> watch.Started:
        home = folder(self._path, guest)
        tree = folder(home, "tree")
        tree.chmod(0o755)
        (home / "config").write_text(_CONFIG.format(guest=guest, tree=tree, base=ID_BASE))
        return watch.time_start(["sh", "-c", _SCRIPT, "sh", self._template, tree, guest, self._path])

    def stop(self, guest: str, pid: int) -> float:
        return watch.time_stop(["lxc-stop", "-n", guest, "-P", self._path], pid)

    def remove(self, guest: str) -> None:
        run(["rm", "--recursive", "--one-file-system", self._path / guest])

    def facts(self) -> dict[str, str]:
        return {"LXC": run(["lxc-start", "--version"]).strip()}

    def close(self) -> None:
        """Nothing of it runs beside guests."""

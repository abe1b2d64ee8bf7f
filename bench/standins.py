"""What vs-stats finds of a running guest, without the guest: directory, record, cgroups, a process, mounts, a socket.

Two hundred real guests would measure the same reading, and take minutes to start.
"""

import json
import os
import selectors
import socket
import subprocess
import threading
from pathlib import Path

from bench.place import NAME, cgroup_roots
from bench.programs import run
from vstools.paths import Paths

_MOUNTS = (
    'for each; do mount -t sysfs sysfs "$each/sys" && mount -t tmpfs -o size=16m tmpfs "$each/tmp" || exit 1; done'
)


class StandIns:
    """Stand-ins for so many running guests of an installation below ``root``, as long as the context lasts.

    Mounts end with the bench's namespace, and cgroups are removed by it.
    """

    def __init__(self, root: Path, count: int) -> None:
        self._paths = Paths(root)
        self.names = tuple(f"{NAME}-{number}" for number in range(count))
        self._selector = selectors.DefaultSelector()
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "StandIns":
        roots = cgroup_roots()
        for name in self.names:
            config, runtime = self._paths.config_of(name), self._paths.runtime_of(name)
            config.mkdir()
            for folder in ("sys", "tmp"):
                (runtime / folder).mkdir(parents=True)
            group = f"{self._paths.cgroup}/{name}"
            record = {"token": "", "netns": "", "cgroup": group, "names": ["lo"]}
            (runtime / "record").write_text(json.dumps(record))
            self._processes.append(subprocess.Popen(["sleep", "infinity"]))
            self._place(roots, group, self._processes[-1].pid)
            self._listen(f"\0{runtime}/command")
        run(["sh", "-c", _MOUNTS, "sh", *(self._paths.runtime_of(name) for name in self.names)])
        threading.Thread(target=self._answer, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    @staticmethod
    def _place(roots: tuple[Path, ...], group: str, pid: int) -> None:
        """The process in the guest's cgroup of every hierarchy (cpuset takes none before it is told its CPUs)."""
        for root in roots:
            if (root / "cpuset.cpus").exists():
                continue
            folder = root / group / "payload/guest"
            folder.mkdir(parents=True, exist_ok=True)  # a hierarchy may be mounted twice
            (folder / "cgroup.procs").write_text(str(pid))

    def _listen(self, name: str) -> None:
        """LXC's command socket."""
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(name)
        server.listen(16)
        self._selector.register(server, selectors.EVENT_READ, server)

    def _answer(self) -> None:
        while True:
            for key, _ in self._selector.select():
                connection, _ = key.data.accept()
                os.close(connection.detach())

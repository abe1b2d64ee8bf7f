"""The Munin plugin in the hands of Munin's own programs: it is suggested, linked and fetched over the network."""

import os
import socket
import subprocess
from pathlib import Path

from conftest import Host, create, wait

from tests.packages import unpacked
from tests.templates import BIN, REPO
from vstools.cli import munin

PORT = 4949


class Node:
    """munin-node with its directory elsewhere than /etc/munin, as processes of the test's."""

    def __init__(self, host: Host, folder: Path) -> None:
        files = unpacked("munin-node", "munin-common", "libnet-server-perl")
        self.folder = folder
        self._programs, self._modules = files / "usr/sbin", (folder / "perl", files / "usr/share/perl5")
        own = self._modules[0] / "Munin/Common/Defaults.pm"
        own.parent.mkdir(parents=True)
        defaults = (self._modules[1] / "Munin/Common/Defaults.pm").read_text()
        elsewhere = {
            "/etc/munin": folder,
            "/var/lib/munin-node/plugin-state": folder / "state",
            "q{munin}": "q{nogroup}",
        }
        for word, other in elsewhere.items():
            defaults = defaults.replace(word, str(other))
        own.write_text(defaults)
        for name in ("plugins", "plugin-conf.d", "library", "state"):
            (folder / name).mkdir()
        plugin = folder / "library/vs_"
        plugin.write_text((REPO / "share/munin/vs_").read_text().replace("@BIN@", str(BIN)))
        plugin.chmod(0o755)
        conf = (REPO / "share/munin/vs_.conf").read_text()
        (folder / "plugin-conf.d/vs_").write_text(f"{conf}env.VS_TOOLS_ROOT {host.root}\n")
        (folder / "munin-node.conf").write_text(
            f"log_file {folder}/log\npid_file {folder}/pid\nbackground 0\nsetsid 0\nuser root\ngroup root\n"
            f"host_name vsh\nallow ^127\\.0\\.0\\.1$\nhost 127.0.0.1\nport {PORT}\n"
        )

    def argv(self, program: str, *words: str) -> list[str]:
        """A program of Munin's as its first line has it started, with modules from where they are."""
        path = self._programs / program
        perl = path.read_text().partition("\n")[0].removeprefix("#!").split()
        return [*perl, *(f"-I{folder}" for folder in self._modules), str(path), *words]

    def configure(self, *words: str) -> str:
        """What munin-node-configure says."""
        places = ["--config", f"{self.folder}/munin-node.conf", "--libdir", f"{self.folder}/library"]
        places += ["--servicedir", f"{self.folder}/plugins", "--sconfdir", f"{self.folder}/plugin-conf.d"]
        done = subprocess.run(
            self.argv("munin-node-configure", *places, *words),
            env=self.environment(), capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        return done.stdout + done.stderr

    def environment(self) -> dict[str, str]:
        """Who starts it gives it no more than a host's boot does."""
        return {"PATH": os.environ["PATH"], "PERL5LIB": ":".join(map(str, self._modules))}

    def ask(self, *lines: str) -> str:
        """Send lines to the node and close; all that it says, but its greeting."""
        with socket.create_connection(("127.0.0.1", PORT), timeout=60) as connection:
            connection.sendall("".join(f"{line}\n" for line in (*lines, "quit")).encode())
            said = b""
            while part := connection.recv(65536):
                said += part
        return said.decode().partition("\n")[2]


def test_a_real_node_suggests_links_and_fetches_the_plugin(host: Host, small: Path, tmp_path: Path) -> None:
    node = Node(host, tmp_path)
    assert create(host, "web", 10, small, "--rss", "96", "--start").code == 0
    assert create(host, "idle-1", 11, small).code == 0
    suggested = next(line for line in node.configure("--suggest").splitlines() if line.startswith("vs_"))
    assert "yes" in suggested
    assert all(f"+{graph}" in suggested for graph in munin.GRAPHS)
    subprocess.run(["sh", "-e"], input=node.configure("--shell"), text=True, check=True)
    links = {path.name: os.readlink(path) for path in (node.folder / "plugins").iterdir()}
    assert links == {f"vs_{graph}": f"{node.folder}/library/vs_" for graph in munin.GRAPHS}

    serving = subprocess.Popen(
        node.argv("munin-node", "--config", f"{node.folder}/munin-node.conf"),
        env=node.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait(lambda: not socket.socket().connect_ex(("127.0.0.1", PORT)))
        assert sorted(node.ask("list").split()) == sorted(links)
        for graph in munin.GRAPHS:
            described, fetched = node.ask(f"config vs_{graph}"), node.ask(f"fetch vs_{graph}")
            assert described.startswith("graph_title ")
            assert described.endswith("\n.\n")
            fields = {line.partition(".label")[0] for line in described.splitlines() if ".label" in line}
            values = dict(line.split(".value ") for line in fetched.splitlines() if line != ".")
            assert values.keys() == fields
            assert values["g_idle_2d1"] == "U"
        assert int(dict(line.split(".value ") for line in node.ask("fetch vs_network").split("\n")[:-2])["g_web"]) >= 0
        assert "Error output" not in "\n".join(
            line for line in (node.folder / "log").read_text().splitlines() if "Service.pm" not in line
        )
    finally:
        serving.terminate()
        serving.wait(timeout=30)

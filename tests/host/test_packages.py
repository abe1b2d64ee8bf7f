"""vs-pkg with a real Debian guest whose firewall denies everything, and a repository that the test serves itself."""

import gzip
import hashlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import NET, Done, Host, create, installation, wait
from filtered import sh

from vstools.libc import network_namespace

GUEST, WORLD, OTHER = f"{NET}.10", f"{NET}.200", f"{NET}.201"
NAME = "packages.test.internal"
SCRIPT = "#!/bin/bash\nset -e\n"
STUCK = f"""[ ! -e /root/once-$DPKG_MAINTSCRIPT_PACKAGE ] || exit 0
touch /root/once-$DPKG_MAINTSCRIPT_PACKAGE
setsid bash -c 'exec 3<>/dev/tcp/{WORLD}/80; while printf x >&3; do sleep 0.2; done' < /dev/null > /dev/null 2>&1 &
sleep 4242
"""
"""A package's script that is not done before somebody ends its sleep, beside a connection that it leaves open."""


class Repository:
    """A repository of apt's, served over HTTP in a network namespace of its own beside the guest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def put(self, package: str, version: str, *, postinst: str = "true", size: int = 0) -> None:
        """One more package; ``postinst`` is what it runs when it is installed, ``size`` bytes of it are noise."""
        tree = self.folder.parent / f"{package}-{version}"
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "usr/share").mkdir(parents=True)
        (tree / "usr/share" / package).write_bytes(os.urandom(size) + f"{version}\n".encode())
        (tree / "DEBIAN/control").write_text(
            f"Package: {package}\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <n@example.org>\n"
            f"Description: for a test\n"
        )
        (tree / "DEBIAN/postinst").write_text(f"{SCRIPT}{postinst}\n")
        (tree / "DEBIAN/postinst").chmod(0o755)
        file = self.folder / f"{package}_{version}_all.deb"
        sh(f"dpkg-deb --root-owner-group -Znone --build {tree} {file} > /dev/null")
        self._index()

    def _index(self) -> None:
        entries = []
        for file in sorted(self.folder.glob("*.deb")):
            control = sh(f"dpkg-deb --field {file}")
            content = file.read_bytes()
            checksum = hashlib.sha256(content).hexdigest()
            entries.append(f"{control}Filename: ./{file.name}\nSize: {len(content)}\nSHA256: {checksum}\n")
        text = "\n".join(entries)
        (self.folder / "Packages").write_text(text)
        (self.folder / "Packages.gz").write_bytes(gzip.compress(text.encode()))


class Watcher:
    """Counts what the guest sends to ``end`` and to anybody else: the frames that come from its link to the bridge."""

    def __init__(self, end: tuple[str, int]) -> None:
        self.strays: list[str] = []
        self.right = 0
        self._right, self._done = (*end, 6), threading.Event()
        self._wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
        self._wire.settimeout(0.1)
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.is_set():
            try:
                frame, (link, _, kind, _, _) = self._wire.recvfrom(2048)
            except TimeoutError:
                continue
            if not link.startswith("vs60000") or kind == 4:  # PACKET_OUTGOING: to the guest
                continue
            if frame[12:14] == b"\x08\x00":
                source, target = (socket.inet_ntoa(frame[start : start + 4]) for start in (26, 30))
                port = int.from_bytes(frame[36:38], "big") if frame[23] in (6, 17) else 0
                if (target, port, frame[23]) == self._right:
                    self.right += 1
                elif source == GUEST:
                    self.strays.append(f"{target} {frame[23]} {port}")

    def flows(self) -> bool:
        """Whether anything comes now: a connection that lives sends something five times a second."""
        before = self.right
        time.sleep(1.5)
        return self.right > before

    def end(self) -> None:
        """Look no more."""
        self._done.set()
        self._thread.join()
        self._wire.close()


class Place:
    """A guest, its repository, and the rules it has."""

    def __init__(self, host: Host, repository: Repository, tool: str) -> None:
        self.host, self.repository, self.tool = host, repository, tool

    def pkg(self, *words: str, **env: str) -> Done:
        """vs-pkg about the guest."""
        return self.host.vs("vs-pkg", "--name", "web", *words, **env)

    def end(self, *marks: str) -> None:
        """End the guest's processes of STUCK that have one of these words in their command line."""
        for mark in marks:
            find = f"tr '\\0' ' ' < $each/cmdline | grep -q '^[bs][al][a-z]* .*{mark}'"
            self.host.inside("web", f"for each in /proc/[1-9]*; do if {find}; then kill ${{each#/proc/}}; fi; done")

    def rules(self) -> list[tuple[str, str, str]]:
        """The rules in force, without their counters."""
        found = json.loads(self.host.ok("vs-net", "--name", "web", "--rules", "--json"))
        return [(rule["chain"], rule["match"], rule["verdict"]) for rule in found]

    @contextmanager
    def watched(self, end: tuple[str, int] = (WORLD, 80)) -> Iterator[Watcher]:
        """Somebody watches the guest's link."""
        watcher = Watcher(end)
        try:
            yield watcher
        finally:
            watcher.end()


@pytest.fixture(scope="module", params=["nftables", "iptables"])
def place(debian: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A Debian guest that may reach nobody, and a repository beside it."""
    folder = tmp_path_factory.mktemp("repository")
    repository = Repository(folder / "files")
    repository.put("vs-first", "1.0")
    (folder / "hosts").write_text(f"127.0.0.1 localhost\n{WORLD} {NAME}\n")
    with installation() as host:
        host.configure(FIREWALL_BACKEND=request.param, PKG_HOSTS=NAME)
        assert create(host, "web", 10, debian, "--start").code == 0
        (host.guests / "web/firewall.conf").write_text("enable\n")
        host.ok("vs-net", "--name", "web", "--fw", "up")
        for name in host.trees.glob("web/etc/apt/sources.list*/*"):
            name.unlink()
        (host.trees / "web/etc/apt/sources.list").write_text(f"deb [trusted=yes] http://{NAME}/ ./\n")
        sh(f"""
        mount --bind {folder}/hosts /etc/hosts
        ip netns add world; ip link add world0 type veth peer name eth0 netns world
        ip link set world0 master vsbr0 up
        ip -n world address add {WORLD}/24 dev eth0; ip -n world address add {OTHER}/24 dev eth0
        ip -n world link set eth0 up; ip -n world link set lo up
        """)
        try:
            with served(repository.folder, WORLD, 80):
                yield Place(host, repository, request.param)
        finally:
            sh("umount /etc/hosts; ip link delete world0; ip netns delete world")


@contextmanager
def served(folder: Path, address: str, port: int) -> Iterator[None]:
    """The files of a directory can be had beside the guest, by HTTP."""
    words = ["python3", "-m", "http.server", str(port), "--directory", str(folder)]
    with network_namespace(Path("/run/netns/world")):
        server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait(lambda: _answers(address, port))
        yield
    finally:
        server.kill()
        server.wait()


def _answers(address: str, port: int) -> bool:
    with network_namespace(Path("/run/netns/world")), socket.socket() as client:
        return client.connect_ex((address, port)) == 0


def test_packages_come_through_a_window_that_leads_nowhere_else(place: Place) -> None:
    before = place.rules()
    with place.watched() as watcher:
        done = place.pkg("--update_sources", "--install", "vs-first")
    assert done.code == 0, done
    assert done.out == f"{os.uname().nodename.partition('.')[0]}:web:installed:vs-first:1.0\n"
    assert watcher.right > 4
    assert watcher.strays == []
    assert place.rules() == before
    assert place.host.vs("vs-net", "--name", "web", "--check").code == 0
    assert place.host.inside("web", f"grep -c {NAME} /etc/hosts").out == "0\n"
    place.repository.put("vs-first", "2.0")
    assert place.pkg("--update-sources").code == 0
    assert place.pkg("--list-upgrades").out.endswith(":web:upgradable:vs-first:1.0 -> 2.0\n")
    (row,) = json.loads(place.pkg("--upgrade_all", "--json").out)
    assert (row["what"], row["package"], row["old"], row["new"]) == ("upgraded", "vs-first", "1.0", "2.0")
    assert place.pkg("--inventory", "vs-first<2.0").out == ""
    assert place.pkg("--inventory", "vs-first<2.1").out.endswith(":web:vs-first:2.0\n")
    odd = "printf '\\377' > /proc/self/comm; rm /usr/lib/vs-old; while :; do sleep 4000; done"
    (place.host.trees / "web/usr/lib/vs-odd").write_text(odd)  # a name that is no text is a name all the same
    run = "systemd-run --quiet --unit=vs-old --property=Type=exec /usr/lib/vs-old /usr/lib/vs-odd"
    assert place.host.inside("web", f"cp /bin/bash /usr/lib/vs-old && {run}").code == 0
    wait(lambda: not (place.host.trees / "web/usr/lib/vs-old").exists())
    words = [line.partition(":web:")[2] for line in place.pkg("--remove", "vs-first").out.splitlines()]
    assert words == ["removed:vs-first:2.0", "restart:vs-old"]


def test_the_kernel_closes_the_window_of_a_command_that_was_killed(place: Place) -> None:
    before = place.rules()
    place.repository.put("vs-killed", "1.0", postinst=STUCK)
    with place.watched() as watcher:
        process = place.host.start(
            "vs-pkg", "--name", "web", "--update-sources", "--install", "vs-killed", "--window", "40"
        )
        wait(lambda: (place.host.trees / "web/root/once-vs-killed").exists())
        until = json.loads((place.host.run / "packages/web").read_text())["until"]
        assert watcher.flows()
        process.kill()
        process.communicate()
        assert watcher.flows()
        assert time.time() < until, "this machine is too slow to see the window open"
        wait(lambda: not watcher.flows(), patience=120)
        assert time.time() >= until
        assert place.rules() != before
        done = place.host.inside("web", f"timeout 3 bash -c 'exec 3<>/dev/tcp/{WORLD}/80'")
        assert done.code != 0
        assert watcher.strays == []
        place.end("4242", "printf")
        done = place.pkg("--install", "vs-killed")
        assert done.code == 0, done
        assert ":web:mended:vs-killed" in done.out
        assert watcher.strays == []
    assert place.rules() == before
    assert place.host.inside("web", "dpkg --audit").out == ""


def test_rules_that_were_loaded_after_a_kill_stay(place: Place) -> None:
    file = place.host.guests / "web/firewall.conf"
    try:
        assert place.pkg("--update-sources", VS_TOOLS_FAULT="packages:opened").code == -9
        file.write_text(f"enable\nallow to {OTHER} to tcp:81\n")
        place.host.ok("vs-net", "--name", "web", "--fw", "up")
        assert place.host.vs("vs-net", "--name", "web", "--check").code == 0
        place.host.ok("vs-control", "--name", "web", "--start")  # it removes what dead commands left
        assert place.host.vs("vs-net", "--name", "web", "--check").code == 0
        assert not any((place.host.run / "packages").iterdir())
    finally:
        file.write_text("enable\n")
        place.host.ok("vs-net", "--name", "web", "--fw", "up")


def test_an_interrupt_closes_the_window_and_tells_what_was_changed(place: Place) -> None:
    before = place.rules()
    place.repository.put("vs-whole", "1.0")
    place.repository.put("vs-cut", "1.0", postinst=STUCK)
    place.host.inside("web", "rm /etc/hosts")
    process = place.host.start("vs-pkg", "--name", "web", "--update-sources", "--install", "vs-cut", "vs-whole")
    wait(lambda: (place.host.trees / "web/root/once-vs-cut").exists())
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT
    assert ":web:installed:vs-whole:1.0\n" in out
    assert "half installed, and mended by the next vs-pkg: vs-cut" in err
    assert place.rules() == before
    place.end("4242", "printf")
    assert ":web:mended:vs-cut\n" in place.pkg("--install", "vs-cut").out


def test_a_reload_widens_nothing_and_the_end_closes_what_is_open(place: Place) -> None:
    place.repository.put("vs-stuck", "1.0", postinst=STUCK)
    file = place.host.guests / "web/firewall.conf"
    with place.watched() as watcher:
        process = place.host.start("vs-pkg", "--name", "web", "--update-sources", "--install", "vs-stuck")
        wait(lambda: (place.host.trees / "web/root/once-vs-stuck").exists())
        opened = {rule for rule in place.rules() if "meta time" in rule[1]}
        file.write_text(f"enable\nallow from {OTHER} to tcp:81\n")
        place.host.ok("vs-net", "--name", "web", "--fw", "up")
        assert {rule for rule in place.rules() if "meta time" in rule[1]} == opened
        assert watcher.flows()
        assert place.pkg("--list-upgrades").err.startswith("vs-pkg: the packages of web is in use")
        place.end("4242")
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "vs-stuck" in err
        wait(lambda: not watcher.flows(), patience=20)
        assert place.host.vs("vs-net", "--name", "web", "--check").code == 0
        assert watcher.strays == []
    place.end("4242", "printf")
    file.write_text("enable\n")
    place.host.ok("vs-net", "--name", "web", "--fw", "up")
    assert place.pkg("--remove", "vs-stuck").code == 0


def test_a_stopped_guest_runs_nothing_of_its_own_meanwhile(place: Place) -> None:
    place.repository.put(
        "vs-quiet", "1.0", postinst="tr '\\0' ' ' < /proc/1/cmdline > /root/init; ls /run/systemd > /root/run || true"
    )
    place.host.ok("vs-control", "--name", "web", "--stop")
    with place.watched() as watcher:
        done = place.pkg("--update-sources", "--install", "vs-quiet")
    assert done.code == 0, done
    assert ":web:installed:vs-quiet:1.0\n" in done.out
    assert watcher.right > 0
    assert watcher.strays == []
    assert (place.host.trees / "web/root/init").read_text() == "/bin/sh /dev/.vs-idle "
    assert place.host.leftovers() == []
    assert place.pkg("--inventory", "vs-quiet").out.endswith(":web:vs-quiet:1.0\n")
    place.repository.put("vs-ended", "1.0", postinst=STUCK)
    process = place.host.start("vs-pkg", "--name", "web", "--update-sources", "--install", "vs-ended")
    wait(lambda: (place.host.trees / "web/root/once-vs-ended").exists())
    process.terminate()
    process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert place.host.leftovers() == []
    killed = place.pkg("--remove", "vs-quiet", "--update-sources", VS_TOOLS_FAULT="packages:opened")
    assert killed.code == -9
    assert place.host.ok("vs-control", "--name", "web").endswith(":running\n")
    assert place.host.ok("vs-control", "--name", "web", "--stop").endswith(":stopped\n")
    assert place.host.leftovers() == []
    assert not any((place.host.run / "packages").iterdir())
    place.host.ok("vs-control", "--name", "web", "--start")
    assert place.host.inside("web", "cat /proc/1/comm").out == "systemd\n"


def test_a_proxy_stands_for_the_repositories(place: Place) -> None:
    folder = place.repository.folder / "http:"  # a server of files is a proxy to who asks for what lies there
    folder.mkdir()
    (folder / NAME).symlink_to("..")
    place.repository.put("vs-proxied", "1.0")
    place.host.configure(FIREWALL_BACKEND=place.tool, PKG_PROXY=f"{OTHER}:3128")
    with served(place.repository.folder, OTHER, 3128), place.watched((OTHER, 3128)) as watcher:
        done = place.pkg("--update-sources", "--install", "vs-proxied")
    place.host.configure(FIREWALL_BACKEND=place.tool, PKG_HOSTS=NAME)
    assert done.code == 0, done
    assert watcher.right > 4
    assert watcher.strays == []


def test_what_the_guest_names_is_not_opened_by_that(place: Place) -> None:
    place.host.configure(FIREWALL_BACKEND=place.tool)
    try:
        done = place.pkg("--update-sources")
        assert done.code == 2
        assert "guest web has no repository that may be opened: " in done.err
        assert "is not public" in done.err
        place.host.configure(FIREWALL_BACKEND=place.tool, PKG_HOSTS=f"{NAME}:81")
        assert "is not among PKG_HOSTS" in place.pkg("--update-sources").err
    finally:
        place.host.configure(FIREWALL_BACKEND=place.tool, PKG_HOSTS=NAME)


def test_one_that_fails_stops_no_other(place: Place, small: Path) -> None:
    assert create(place.host, "plain", 11, small, "--start").code == 0
    done = place.host.vs("vs-pkg", "--all", "--update_sources", "--list_upgrades", "--json")
    assert done.code == 1
    assert "guest plain has no package manager that is known" in done.err
    assert "vs-pkg: 2 guests; no package was changed; failed: plain" in done.err
    assert "guest web" not in done.err
    json.loads(done.out)
    place.host.ok("vs-control", "--name", "plain", "--stop")
    place.host.ok("vs-remove", "--name", "plain", "--yes")

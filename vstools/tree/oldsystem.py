"""A system that ran elsewhere: whether its init can run here, and what has to be put right before it does.

The tree may be hostile: every path is resolved inside it (inside.py). Sources: ``man 5 inittab``, ``man 5 elf``;
systemd runs on the unified cgroup hierarchy, the only one that guests have here, since version 226 (its NEWS).
"""

import os
import re
from dataclasses import dataclass

from vstools.errors import Refused
from vstools.inside import Inside
from vstools.tree import identity

_OLDEST_SYSTEMD = 226
_PROGRAM = 32 << 20
_SYSTEMD = re.compile(rb"systemd ([0-9]{2,3})[^\0\n]{0,64} running in|libsystemd-(?:shared|core)-([0-9]{3})")
_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64", 21: "ppc64le", 22: "s390x"}
_RUNS_ALSO = {"x86_64": ("i386",), "aarch64": ()}
_HARDWARE = """
    acpi-support acpid alsa alsa-utils apmd bootlogd checkfs.sh checkroot-bootclean.sh checkroot.sh chrony chronyd
    console-screen.sh console-setup cpufrequtils cpuspeed cryptdisks cryptdisks-early discover fsck gpm hal haldaemon
    hdparm hotplug hwclock.sh hwclockfirst.sh ifplugd ifupdown ifupdown-clean iptables irqbalance iscsi iscsid kbd
    keyboard-setup keymap.sh klogd kmod kudzu lm-sensors loadcpufreq lvm2 lvm2-monitor mcelog mdadm mdadm-raid mdmonitor
    messagebus-hal microcode_ctl microcode.ctl module-init-tools modutils mountnfs.sh multipath-tools multipathd network
    NetworkManager network-manager networking ntp ntpd ntpdate ntpsec open-iscsi open-vm-tools openntpd pcmcia
    pcmciautils qemu-guest-agent quota quotarpc raid2 rdisc readahead-early setserial smartd smartmontools
    systemd-timesyncd thermald udev udev-mtab udev-post udevd vboxadd vboxadd-service vmware-tools watchdog
    wd_keepalive wpa_supplicant wpa-ifupdown xe-linux-distribution
"""
HARDWARE = frozenset(_HARDWARE.split())
"""Services of a whole machine: disks, devices, modules, clocks, links. The host has them."""
_INITTAB = """id:2:initdefault:
si::sysinit:/etc/init.d/rcS
l0:0:wait:/etc/init.d/rc 0
l1:1:wait:/etc/init.d/rc 1
l2:2:wait:/etc/init.d/rc 2
l3:3:wait:/etc/init.d/rc 3
l4:4:wait:/etc/init.d/rc 4
l5:5:wait:/etc/init.d/rc 5
l6:6:wait:/etc/init.d/rc 6
"""
_HALT = """#!/bin/sh
### BEGIN INIT INFO
# Provides: {name}
# Required-Start:
# Required-Stop:
# Default-Start:
# Default-Stop: {level}
# Short-Description: the end of this guest
### END INIT INFO
[ "$1" != start ] && [ "$1" != stop ] || exec /sbin/{name} -d -f{more}
"""
_RUNLEVELS = tuple(f"etc/rc{level}.d" for level in "S12345") + tuple(f"etc/rc.d/rc{level}.d" for level in "12345")
_KEPT = "before-import"


@dataclass(frozen=True)
class System:
    """What a tree runs: its init (``systemd``, ``sysvinit``, ``upstart``, ``busybox``, ``other``), and on what."""

    init: str
    version: int | None
    machine: str | None


def examine(tree: Inside) -> System:
    """Look at the programs of a tree."""
    content = _program(tree, "sbin/init")
    if content is None:
        return System("", None, None)
    machine = _machine(content) or _machine(_program(tree, "bin/sh") or b"")
    versions = [int(one or other) for one, other in _SYSTEMD.findall(content)]
    if versions or b"systemd.unit" in content:
        return System("systemd", max(versions, default=None), machine)
    words = ((b"BusyBox", "busybox"), (b"com.ubuntu.Upstart", "upstart"), (b"/etc/inittab", "sysvinit"))
    return System(next((name for word, name in words if word in content), "other"), None, machine)


def _program(tree: Inside, name: str) -> bytes | None:
    text = tree.read(name, _PROGRAM)
    return None if text is None else text.encode("utf-8", "surrogateescape")


def _machine(content: bytes) -> str | None:
    """What an ELF program is for, None where it is none."""
    if content[:4] != b"\x7fELF" or len(content) < 20:
        return None
    number = int.from_bytes(content[18:20], "big" if content[5:6] == b"\2" else "little")
    return _MACHINES.get(number, f"machine {number}")


def check(system: System, what: str) -> None:
    """Raise Refused where this init cannot run on this host, with what to do."""
    here = os.uname().machine
    if not system.init:
        raise Refused(f"{what} has no /sbin/init", "install one in it (Debian: sysvinit-core), then import it again")
    if system.machine not in (None, here, *_RUNS_ALSO.get(here, ())):
        raise Refused(f"{what} has programs for {system.machine}, this host is {here}", "choose another host")
    if system.init == "systemd" and system.version is not None and system.version < _OLDEST_SYSTEMD:
        raise Refused(
            f"{what} has systemd {system.version}, which knows no cgroup v2 (systemd {_OLDEST_SYSTEMD} is the first)",
            "upgrade it where it is now (Debian 9 has 232), or install sysvinit-core in it; then import it again",
        )


def put_right(tree: Inside, system: System, runlevel: str | None = None) -> list[str]:
    """Make a tree fit for a guest; returns what was changed, a sentence each. Done again, it finds nothing to do."""
    said: list[str] = []
    identity.harmless_network(tree)
    if system.init == "systemd":
        said += _mask(tree)
    if system.init == "sysvinit":
        said += _inittab(tree, runlevel)
        said += _unlink_services(tree)
        said += _halt(tree, "halt", "0", " -p")
        said += _halt(tree, "reboot", "6", "")
        if not tree.exists("sbin/poweroff") and tree.exists("sbin/halt"):
            tree.link("sbin/poweroff", "halt")
            said.append("/sbin/poweroff was missing: it is a link to halt now")
    if system.init in ("upstart", "other"):
        said.append(f"its init ({system.init}) is none that was tried here: see how it starts and stops")
    return said


def _mask(tree: Inside) -> list[str]:
    """systemd does not start what belongs to the host."""
    identity.no_kernel_units(tree)
    masked = []
    folders = ("lib/systemd/system", "usr/lib/systemd/system", "etc/systemd/system", "etc/init.d")
    for name in sorted(HARDWARE):
        unit = f"{name.removesuffix('.sh')}.service"
        there = any(tree.exists(f"{folder}/{name if folder == 'etc/init.d' else unit}") for folder in folders)
        if there and unit not in identity.MASKED_UNITS:
            tree.link(f"etc/systemd/system/{unit}", "/dev/null")
            masked.append(unit)
    return [f"masked, for they are the host's: {' '.join(masked)}"] if masked else []


def _inittab(tree: Inside, runlevel: str | None) -> list[str]:
    said = []
    before = tree.read("etc/inittab")
    if before is None:
        said.append("/etc/inittab was missing: it is written anew")
    text = before if before is not None else _INITTAB
    if runlevel is not None:
        text, found = re.subn(r"(?m)^id:[^:]*:initdefault:.*$", f"id:{runlevel}:initdefault:", text)
        if not found:
            text = f"id:{runlevel}:initdefault:\n{text}"
    if text != before:
        tree.write("etc/inittab", text)
        said += [f"/etc/inittab: runlevel {runlevel}"] if runlevel is not None else []
    identity.console_of_sysvinit(tree)
    return said


def _unlink_services(tree: Inside) -> list[str]:
    """The runlevels do not start what belongs to the host; the scripts stay."""
    gone = set()
    for folder in _RUNLEVELS:
        for entry in tree.names(folder):
            match = re.fullmatch(r"S[0-9]{2}(.+)", entry)
            if match and match[1] in HARDWARE:
                tree.remove(f"{folder}/{entry}")
                gone.add(match[1])
    return [f"not started any more, for they are the host's: {' '.join(sorted(gone))}"] if gone else []


def _halt(tree: Inside, name: str, level: str, more: str) -> list[str]:
    """Runlevels 0 and 6 end the guest: vserver guests had these scripts emptied, or no links to them."""
    script, folder = f"etc/init.d/{name}", f"etc/rc{level}.d"
    if not tree.leads_to_directory("etc/init.d") or not tree.leads_to_directory(folder):
        return []
    said = []
    text = tree.read(script)
    if text is None or not re.search(rf"(?m)^[^#\n]*\b{name}\b[^#\n]* -\w*[dfi]", text):
        if text is not None and not tree.exists(f"{script}.{_KEPT}"):
            tree.move(script, f"{script}.{_KEPT}")
        tree.write(script, _HALT.format(name=name, level=level, more=more), 0o755)
        said.append(f"/{script} ends the guest now")
    entries = [entry for entry in tree.names(folder) if re.fullmatch(rf"S[0-9]{{2}}{name}", entry)]
    for entry in entries or [f"S90{name}"]:  # Red Hat's S01reboot is called so and leads to halt
        if tree.read(f"{folder}/{entry}") != tree.read(script):
            tree.link(f"{folder}/{entry}", f"../init.d/{name}")
            said.append(f"runlevel {level} ends with {name}")
    return said

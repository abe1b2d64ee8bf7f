"""Start and end the QEMU process of a host."""

from __future__ import annotations

import os
import signal
import socket

from lab import trunk
from lab.command import LabError, run, succeeds, wait_until
from lab.host import MANAGEMENT, TRUNK, Host, HostFiles, running_pid
from lab.image import Image
from lab.places import Places
from lab.qmp import Qmp

DATA_SIZE = "12G"
# Emulated: a model old enough that the kernel uses nothing that is costly to emulate (5-level paging, SMAP), and
# new enough for wheels from PyPI (x86-64-v2).
CPU = {"kvm": "host", "tcg": "Nehalem"}
ACCELERATOR = {"kvm": "kvm", "tcg": "tcg,thread=multi,tb-size=256"}


def choose_accelerator(image: Image) -> str:
    """`kvm` where a kernel really boots with it within ten seconds, else `tcg` (software emulation).

    /dev/kvm may be there and fail, or be a nested one that is slower than emulation. The kernel finds no root
    disk, panics, resets; -no-reboot turns the reset into exit 0.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    argv = [
        "qemu-system-x86_64",
        "-accel",
        "kvm",
        "-cpu",
        "host",
        "-m",
        "256",
        "-nodefaults",
        "-display",
        "none",
    ]
    argv += ["-no-reboot", "-kernel", str(image.kernel), "-append", "panic=-1"]
    return "kvm" if succeeds(argv, timeout=10) else "tcg"


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def make_disks(files: HostFiles, image: Image) -> None:
    """Make the host's disks as they are before its first boot."""
    backing = ["-b", str(image.root), "-F", "raw"]
    run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(files.root)])
    run(["qemu-img", "create", "-q", "-f", "qcow2", str(files.data), DATA_SIZE])


def kernel_line(host: Host) -> str:
    """The kernel's command line: what a boot loader would say, and to lab-first-boot who this host is.

    Names of links are eth0 and eth1 (net.ifnames). Mitigations against a processor's faults are left out:
    an emulated one has none of the faults, and a test machine no neighbours.
    """
    words = ["root=/dev/vda", "rw", "console=ttyS0", "net.ifnames=0", "panic=10", "mitigations=off", "quiet"]
    words += [
        f"lab.host={host.name}",
        f"lab.number={host.number}",
        f"lab.mgmt={MANAGEMENT}",
        f"lab.trunk={TRUNK}",
    ]
    return " ".join(words)


def command_line(places: Places, host: Host, files: HostFiles) -> list[str]:
    """The whole QEMU command line of a host.

    cache=unsafe leaves out only the sync to the machine's own disk: what a host flushed has reached the
    machine's kernel, so cutting the host's power loses what it had not flushed and nothing else.
    """
    image = Image(places.cache / "images" / host.image)
    argv = ["qemu-system-x86_64", "-name", f"{host.name},process={host.name}", "-machine", "pc"]
    argv += ["-accel", ACCELERATOR[host.accelerator], "-cpu", CPU[host.accelerator]]
    argv += ["-smp", "1", "-m", str(host.memory), "-nodefaults", "-display", "none", "-rtc", "base=utc"]
    argv += ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", kernel_line(host)]
    for name, path, slot in (("root", files.root, 5), ("data", files.data, 6)):
        argv += ["-drive", f"id={name},file={path},if=none,format=qcow2,cache=unsafe,discard=unmap"]
        argv += ["-device", f"virtio-blk-pci,drive={name},addr={slot:#x}"]
    user = f"user,id=mgmt,ipv6=off,net={MANAGEMENT}.0/24,host={MANAGEMENT}.2,dns={MANAGEMENT}.3"
    argv += ["-netdev", f"{user},hostfwd=tcp:127.0.0.1:{host.port}-{MANAGEMENT}.15:22"]
    argv += [
        "-device",
        f"virtio-net-pci,id=nic-mgmt,netdev=mgmt,addr=0x3,mac=52:54:00:99:00:{host.number:02x}",
    ]
    argv += ["-netdev", f"tap,id=trunk,ifname={places.tap(host.number)},script=no,downscript=no,vhost=off"]
    argv += [
        "-device",
        f"virtio-net-pci,id=nic-trunk,netdev=trunk,addr=0x4,mac=52:54:00:99:01:{host.number:02x}",
    ]
    argv += ["-device", "virtio-rng-pci,addr=0x7"]
    argv += ["-chardev", f"file,id=console,path={files.console},append=on", "-serial", "chardev:console"]
    argv += ["-qmp", f"unix:{files.qmp},server=on,wait=off", "-pidfile", str(files.pid), "-daemonize"]
    return argv


def start(places: Places, host: Host) -> None:
    """Switch a host on, unless it is; it boots on its own from here."""
    files = HostFiles.of(places, host.name)
    if running_pid(files) is not None:
        return
    files.qmp.unlink(missing_ok=True)
    run(command_line(places, host, files), timeout=60)
    trunk.plug(places, places.tap(host.number))


def cut(files: HostFiles) -> None:
    """End a host's QEMU as a power failure would, and wait until it is gone."""
    pid = running_pid(files)
    if pid is None:
        return
    handle = os.pidfd_open(pid)
    try:
        if running_pid(files) == pid:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        if not wait_until(lambda: running_pid(files) is None, timeout=20, every=0.05):
            raise LabError(f"QEMU process {pid} does not end")
    finally:
        os.close(handle)
    files.pid.unlink(missing_ok=True)


def shut_down(files: HostFiles, *, timeout: float) -> None:
    """Press a host's power button and wait until it has switched itself off."""
    if running_pid(files) is None:
        return
    with Qmp(files.qmp) as qmp:
        qmp.execute("system_powerdown")
    if not wait_until(lambda: running_pid(files) is None, timeout=timeout):
        raise LabError(f"still on {timeout:.0f} s after the power button", files.console_tail())


def set_link(files: HostFiles, nic: str, *, up: bool) -> None:
    """Pull or plug the cable of a NIC (`mgmt` or `trunk`): the host sees its carrier go or come."""
    with Qmp(files.qmp) as qmp:
        qmp.execute("set_link", name=f"nic-{nic}", up=up)
